from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bridge_server.store import Store, key
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
