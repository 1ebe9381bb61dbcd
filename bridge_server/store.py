"""Results by content key: a folder for each, complete or not there at all.

A key says everything that a result depends on, so what is found under it need not be made again,
whoever made it and when. A result is written beside its place, brought to the disk, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bridge_server.media.parts import to_disk
from fresco.errors import InvalidInput

_UNFINISHED = "unfinished"
#: In each result: its files and their sizes.
_INVENTORY = "inventory.json"
_HEX = frozenset("0123456789abcdef")


def key(kind: str, parts: Mapping[str, Any]) -> str:
    """The content key of what `parts` lead to: a SHA-256 in hex.

    parts: plain values (numbers, strings, None, lists and tables of them), keys of other results

    Raises:
        InvalidInput: a value that JSON has no one form for.
    """
    try:
        said = json.dumps([kind, parts], sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"a {kind} cannot be keyed by {dict(parts)}: {error}") from error
    return hashlib.sha256(said.encode()).hexdigest()


class Store:
    """The results in one folder, shared by any number of processes.

    folder: made if it is not there
    kept: is told of every result of this process, once it is on the disk
    """

    def __init__(self, folder: Path, kept: Callable[[str], None] = lambda _key: None) -> None:
        self.folder, self._kept = folder, kept
        (folder / _UNFINISHED).mkdir(parents=True, exist_ok=True)
        self._sweep()

    def find(self, key: str) -> Path | None:
        """The folder of the result, if it is there, with all its files at their full length."""
        place = self._place(key)
        return place if _whole(place) else None

    @contextmanager
    def writing(self, key: str) -> Generator[Path]:
        """Give an empty folder to write a result into; on leaving it becomes the result of `key`.

        If the ``with`` block fails, nothing is kept. If another process was faster, its result
        stands and this one is dropped: under one key they are the same.
        """
        desk = self.folder / _UNFINISHED / f"{os.getpid()}-{uuid.uuid4().hex}"
        desk.mkdir()
        try:
            yield desk
            (desk / _INVENTORY).write_text(json.dumps(_sizes(desk)), encoding="utf-8")
            _to_disk(desk)
            self._put(desk, self._place(key))
            self._kept(key)
        finally:
            shutil.rmtree(desk, ignore_errors=True)

    def _put(self, desk: Path, place: Path) -> None:
        if not place.parent.is_dir():
            place.parent.mkdir(exist_ok=True)
            to_disk(self.folder)
        try:
            desk.rename(place)
        except OSError:
            if not place.is_dir():
                raise
            if not _whole(place):
                self._exchange(desk, place)
        to_disk(place.parent)

    def _exchange(self, desk: Path, place: Path) -> None:
        """Put a result in the place of a damaged one."""
        damaged = desk.with_name(f"{desk.name}-damaged")
        place.rename(damaged)
        try:
            desk.rename(place)
        finally:
            shutil.rmtree(damaged, ignore_errors=True)

    def _place(self, key: str) -> Path:
        if len(key) != 64 or not _HEX.issuperset(key):
            raise InvalidInput(f"{key!r} is no content key.")
        return self.folder / key[:2] / key

    def _sweep(self) -> None:
        """Remove what processes that are gone left unfinished."""
        for desk in (self.folder / _UNFINISHED).iterdir():
            owner = desk.name.partition("-")[0]
            if not owner.isdigit() or not psutil.pid_exists(int(owner)):
                shutil.rmtree(desk, ignore_errors=True)


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _whole(place: Path) -> bool:
    """Whether all files of a result are there and as long as when they were written."""
    try:
        said = json.loads((place / _INVENTORY).read_text(encoding="utf-8"))
        return all((place / name).stat().st_size == size for name, size in said.items())
    except (OSError, ValueError, AttributeError):
        return False


def _to_disk(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        to_disk(path)
    to_disk(folder)
