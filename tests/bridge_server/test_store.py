from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bridge_server.store import Evicted, Store, allowance, key
from fresco.errors import InvalidInput

A = key("test", {"n": 1})


def test_a_key_says_what_a_result_depends_on() -> None:
    assert key("batch", {"a": 1, "b": [0.5, None]}) == key("batch", {"b": [0.5, None], "a": 1})
    different = [
        key("batch", {"a": 1}),
        key("batch", {"a": 2}),
        key("batch", {"a": "1"}),
        key("batch", {"a": [1]}),
        key("interval", {"a": 1}),
        key("batch", {"b": 1}),
    ]
    assert len(set(different)) == len(different)
    # The form of keys is an interface between versions: results of earlier ones are found by it.
    assert A == "f78e804286c07a62711b52d1ea80ffbd9a25ca0af2ba4bb0e6e9a6ae6bc2d0dd"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, Path("x")])
def test_values_without_one_form_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="cannot be keyed"):
        key("batch", {"a": value})


def test_what_was_written_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "store ü")
    assert store.find(A) is None
    with store.writing(A) as desk:
        (desk / "parts").mkdir()
        (desk / "parts" / "a.txt").write_text("result")
        assert store.find(A) is None  # not before it is complete
    found = Store(tmp_path / "store ü").find(A)
    assert found is not None
    assert (found / "parts" / "a.txt").read_text() == "result"


def test_what_failed_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail() -> None:
        with store.writing(A) as desk:
            (desk / "half").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert store.find(A) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("damage", ["shorter", "missing", "no inventory", "emptied", "no JSON"])
def test_a_damaged_result_is_not_found_and_is_made_again(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)

    def make() -> None:
        with store.writing(A) as desk:
            (desk / "4").mkdir()
            (desk / "4" / "a.txt").write_text("result")

    make()
    place = store.find(A)
    assert place is not None
    file, inventory = place / "4" / "a.txt", place / "inventory.json"
    if damage == "shorter":
        file.write_text("res")
    if damage in ("missing", "emptied"):
        file.unlink()
    if damage in ("no inventory", "emptied"):
        inventory.unlink()
    if damage == "no JSON":
        inventory.write_text("{")
    assert store.find(A) is None
    make()
    assert store.find(A) == place
    assert file.read_text() == "result"
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_changed_bytes_are_noticed_at_the_first_use_and_made_again(tmp_path: Path) -> None:
    def make() -> None:
        with Store(tmp_path).writing(A) as desk:
            (desk / "a.bin").write_bytes(bytes(3_000_000))

    make()
    place = Store(tmp_path).find(A)
    assert place is not None
    assert Store(tmp_path).sound(A) == place
    file = place / "a.bin"
    file.write_bytes(bytes(2_999_999) + b"\1")

    assert Store(tmp_path).find(A) == place, "its length is right"
    assert Store(tmp_path).sound(A) is None
    make()
    store = Store(tmp_path)
    assert store.sound(A) == place
    assert file.read_bytes() == bytes(3_000_000)
    file.unlink()
    assert store.sound(A) is None


def test_a_result_is_read_through_once_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    with store.writing(A) as desk:
        (desk / "a").write_text("result")
    assert store.sound(A)
    monkeypatch.setattr("bridge_server.store._checksum", lambda _: pytest.fail("read again"))
    assert store.sound(A)


def test_the_first_of_two_writers_stands(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing(A) as slow:
        (slow / "who").write_text("slow")
        with store.writing(A) as fast:
            (fast / "who").write_text("fast")
    found = store.find(A)
    assert found is not None
    assert (found / "who").read_text() == "fast"
    assert len(list(tmp_path.rglob("who"))) == 1


def test_many_writers_at_once(tmp_path: Path) -> None:
    def write() -> None:
        with Store(tmp_path).writing(A) as desk:
            (desk / "x").write_bytes(b"same")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Store(tmp_path).find(A)
    assert found is not None
    assert (found / "x").read_bytes() == b"same"


_KILLED = """
import os, signal, sys
from pathlib import Path
from bridge_server.store import Store
with Store(Path(sys.argv[1])).writing(sys.argv[2]) as desk:
    (desk / "half").write_text("x" * 100000)
    print("ready", flush=True)
    signal.pause()
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is of POSIX")
def test_a_killed_writer_leaves_no_result_and_is_swept_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path), A]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert list(tmp_path.rglob("half"))
        assert Store(tmp_path).find(A) is None
        assert list(tmp_path.rglob("half"))  # its owner lives: it is left alone
        process.send_signal(signal.SIGKILL)
    assert Store(tmp_path).find(A) is None
    assert list(tmp_path.rglob("half")) == []


@pytest.mark.parametrize("name", ["", "../../x", "A" * 64, "0" * 63, "/" * 64])
def test_keys_are_keys(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="no content key"):
        Store(tmp_path).find(name)


# ----------------------------------------------------------------------------------------- eviction

HOURS = 3600.0


def put(store: Store, number: int, size: int = 1000, used: float | None = None) -> str:
    """Write a result of `size` bytes that was used `used` hours ago."""
    name = key("test", {"n": number})
    with store.writing(name) as desk:
        (desk / "4").mkdir()
        (desk / "4" / "half").write_bytes(b"x" * (size // 2))
        (desk / "rest").write_bytes(b"y" * (size - size // 2))
    if used is not None:
        age(store, name, used)
    return name


def age(store: Store, name: str, used: float) -> None:
    then = time.time() - used * HOURS
    os.utime(store.folder / name[:2] / name / "inventory.json", (then, then))


def there(store: Store) -> set[str]:
    return {result.key for result in store.results()}


def test_results_are_sized_by_their_inventories(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = {put(store, number, 100 * number): 100 * number for number in range(1, 5)}
    assert {result.key: result.size for result in store.results()} == names
    assert all(abs(result.used - time.time()) < 60 for result in store.results())


def test_the_oldest_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = [put(store, number, used=10 + number) for number in range(6)]
    done = store.evict(3500, (), spare=HOURS)
    assert done == Evicted((names[5], names[4], names[3]), 3000, 3000)
    assert there(store) == set(names[:3])
    assert list((tmp_path / "unfinished").iterdir()) == []
    assert store.evict(3500, (), spare=HOURS) == Evicted((), 0, 3000)


def test_what_is_kept_and_what_was_just_used_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, needed, recent, older = (put(store, n, used=n) for n in (50, 60, 2, 3))
    assert store.evict(0, [needed], spare=1.5 * HOURS).keys == (old, older)
    assert there(store) == {needed, recent}
    # A use is noted once an hour, so half an hour more or less must not matter.
    age(store, recent, 2.4)
    assert store.evict(0, [needed], spare=1.5 * HOURS).keys == ()
    assert store.evict(0, [needed], spare=1.3 * HOURS).keys == (recent,)


def test_finding_is_use_and_is_noted_once_an_hour(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = put(store, 1, used=30)
    inventory = store.folder / name[:2] / name / "inventory.json"
    assert store.find(name)
    noted = inventory.stat().st_mtime_ns
    assert abs(noted / 1e9 - time.time()) < 60
    assert store.find(name)
    assert inventory.stat().st_mtime_ns == noted
    age(store, name, 0.9)
    noted = inventory.stat().st_mtime_ns
    assert store.find(name)
    assert inventory.stat().st_mtime_ns == noted
    age(store, name, -5)  # a clock that went wrong would keep it for ever
    assert store.find(name)
    assert abs(inventory.stat().st_mtime - time.time()) < 60


def test_writing_what_is_there_is_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, 1, used=30)
    put(store, 1)
    assert store.evict(0, (), spare=0).keys == ()


def test_what_is_no_result_survives(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    gone, noted, linked = (put(store, number, used=100) for number in range(3))
    diary = store._place(noted) / "4" / "my notes.txt"
    diary.write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store._place(linked).rename(elsewhere / linked)
    store._place(linked).symlink_to(elsewhere / linked)
    mine = [
        store.folder / "photo.jpg",
        store.folder / "ab" / "b.txt",
        store.folder / "ab" / ("ab" * 32) / "file",  # named like a result, without an inventory
        store.folder / "cd" / ("ab" * 32) / "inventory.json",  # on a wrong shelf
        store.folder / "unfinished" / "thesis" / "1.txt",
        store.folder / "unfinished" / "1999-holiday" / "1.txt",
    ]
    for file in mine:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    assert Store(store.folder).evict(0, (), spare=0).keys == (gone,)
    assert all(file.read_text() == "{}" for file in mine)
    assert diary.read_text() == "mine"
    assert len(list((elsewhere / linked).rglob("*"))) == 4


def test_a_result_that_is_found_in_the_last_moment_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    name = put(store, 1, used=100)

    def late(place: Path) -> bool:
        monkeypatch.undo()
        assert Store(tmp_path).find(name) == place  # while the other one is about to remove it
        return True

    monkeypatch.setattr("bridge_server.store._only_its_own", late)
    assert store.evict(0, (), spare=0) == Evicted((), 0, 1000)
    assert store.find(name)
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_the_allowance() -> None:
    giga = 10**9
    assert allowance(7, 0, 0) == 7
    assert allowance(None, 0, 1000 * giga) == 20 * giga
    assert allowance(None, 10 * giga, 40 * giga) == 10 * giga
    assert allowance(None, 0, 0) == 0


def test_what_a_job_stands_on_counts_as_used_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge_server.store._LOOK", 0.02)
    store = Store(tmp_path)
    needed, other, to_come = (key("test", {"n": number}) for number in range(3))
    for name in (needed, other):
        with store.writing(name) as desk:
            (desk / "a").write_bytes(b"a result")
    with store.in_use([needed, to_come]):
        for name in (needed, other):
            os.utime(tmp_path / name[:2] / name / "inventory.json", (1e9, 1e9))
        end = time.monotonic() + 60
        while next(own for own in store.results() if own.key == needed).used < 2e9 / 1.5:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert Store(tmp_path).evict(0, (), spare=600.0).keys == (other,)
    assert store.find(needed) is not None
    assert "in use" not in [thread.name for thread in threading.enumerate()]


# Writes, finds, reads and evicts in one folder, until everyone has done enough of it; fails where a
# result is not whole, or if that never comes.
_BUSY = """
import os, random, sys, time
from pathlib import Path
from bridge_server import store as module
from bridge_server.store import Store, key
module.GRAIN = 0.3
module.to_disk = lambda _path: None  # no power is cut here, and a busy disk would take minutes
folder, seed, role = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rng, store, removed, seen = random.Random(seed), Store(folder), 0, 0
begun = time.monotonic()
names = [key("busy", {"n": n}) for n in range(16)]
def read(found):
    return all((found / str(part)).read_bytes() == name.encode() * 10 for part in range(5))
def all_have_enough():
    assert time.monotonic() - begun < 100, (role, removed, seen)
    if removed > 5 or seen > 20:
        (folder.parent / f"enough {seed}").touch()
    return len(list(folder.parent.glob("enough *"))) == 5
while not all_have_enough():
    if role == "evict":
        removed += len(store.evict(rng.choice([0, 4000]), names[:2], spare=0.5).keys)
        continue
    # What is used moves on, so that there is something to evict.
    name = rng.choice(names[int(time.time() * 1.5) % 4 * 4:][:4])
    found = store.find(name)
    if found is None:
        with store.writing(name) as desk:
            for part in range(5):
                (desk / str(part)).write_bytes(name.encode() * 10)
        continue
    try:
        assert read(found), name
    except FileNotFoundError:
        # Found in the moment in which it was taken: it must be put back.
        time.sleep(0.01)
        assert read(found), name
    seen += 1
    if role == "slow":
        time.sleep(0.06)
"""


def test_processes_that_write_read_and_evict_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _BUSY, str(folder), str(number), role],
            stderr=subprocess.PIPE, text=True,
        )
        for number, role in enumerate(["evict", "evict", "use", "use", "slow"])
    ]  # fmt: skip
    failures = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, failures
    assert list((folder / "unfinished").iterdir()) == []
    assert all(Store(folder).find(name) for name in there(Store(folder)))


_EVICTING = """
import os, shutil, signal, sys
from pathlib import Path
from bridge_server.store import Store
def stuck(*args, **how):
    print("ready", flush=True)
    signal.pause()
store = Store(Path(sys.argv[1]))
shutil.rmtree = stuck
store.evict(0, (), spare=0)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is of POSIX")
def test_an_evictor_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = put(store, 1, used=100)
    command = [sys.executable, "-c", _EVICTING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert store.find(name) is None
        process.send_signal(signal.SIGKILL)
    assert Store(tmp_path).find(name) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
