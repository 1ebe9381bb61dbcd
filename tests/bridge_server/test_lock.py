from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bridge_server.lock import Accepted, Lock, Locked, Pinned
from fresco.errors import InvalidInput


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    return Lock(tmp_path / "deep" / "models.lock")


def test_what_is_written_is_read(lock: Lock) -> None:
    locked = Locked("a/b", "c" * 40, {"ü/x.safetensors": Pinned(3, "d" * 64)}, Accepted.now("mit"))
    assert lock.read() == {}
    lock.update("one", lambda _: locked)
    lock.update("two", lambda known: replace(known, accepted=Accepted("mit", "then")))
    assert Lock(lock.path).read() == {
        "one": locked,
        "two": Locked(accepted=Accepted("mit", "then")),
    }
    assert (lock.knows("d" * 64), lock.knows("e" * 64)) == (True, False)


def test_a_crash_while_writing_leaves_the_old_lock(
    lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.update("one", lambda _: Locked("a/b"))

    def crash(*_: object) -> None:
        raise OSError("power")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", crash)
        with pytest.raises(OSError, match="power"):
            lock.update("one", lambda _: Locked("c/d"))
    assert lock.get("one") == Locked("a/b")


def test_writers_do_not_lose_each_others_records(lock: Lock) -> None:
    def write(number: int) -> None:
        lock.update(f"model-{number}", lambda _: Locked(f"a/{number}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lock.read()) == 8


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"version": 2, "models": {}}', '{"version": 1, "models": {"a": {}}}']
)
def test_a_damaged_lock_is_said_and_not_overwritten(lock: Lock, text: str) -> None:
    lock.path.parent.mkdir()
    lock.path.write_text(text)
    with pytest.raises(InvalidInput, match=r"models\.lock is .*move it away"):
        lock.update("one", lambda known: known)
    assert lock.path.read_text() == text
