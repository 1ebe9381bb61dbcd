"""Results by content key: a folder for each, complete or not there at all.

A key says everything that a result depends on, so what is found under it need not be made again,
whoever made it and when. A result is written beside its place, brought to the disk, and renamed.

What stands there may be damaged later, by a disk, a crash or a cleaner: files that are missing or
cut short are noticed whenever a result is looked for, changed bytes when a process first uses it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bridge_server.media.parts import to_disk
from fresco.errors import InvalidInput

_UNFINISHED = "unfinished"
#: In each result: its files, with their sizes and checksums.
_INVENTORY = "inventory.json"
#: Bytes of a file that are held while it is checked.
_PIECE = 1 << 20
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
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: set[str] = set()
        (folder / _UNFINISHED).mkdir(parents=True, exist_ok=True)
        self._sweep()

    def find(self, key: str) -> Path | None:
        """The folder of the result, if it is there, with all its files at their full length."""
        place = self._place(key)
        return place if _whole(place) else None

    def sound(self, key: str) -> Path | None:
        """As `find`, for what is to be used: also with all its bytes as they were written.

        A result is read for this once; what changes in it later is not noticed.
        """
        place = self.find(key)
        if place is not None and key not in self._checked:
            if not _unchanged(place):
                return None
            self._checked.add(key)
        return place

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
            (desk / _INVENTORY).write_text(json.dumps(_inventory(desk)), encoding="utf-8")
            _to_disk(desk)
            self._put(desk, self._place(key))
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
            if not (_whole(place) and _unchanged(place)):
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


def _inventory(folder: Path) -> dict[str, list[int]]:
    """Each file of a result by its path in there: its size and its checksum."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, _checksum(path)]
        for path in files
    }


def _whole(place: Path) -> bool:
    """Whether all files of a result are there and as long as when they were written."""
    try:
        said = json.loads((place / _INVENTORY).read_text(encoding="utf-8"))
        return all((place / name).stat().st_size == size for name, (size, _) in said.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _unchanged(place: Path) -> bool:
    """Whether the files of a whole result can be read and hold what was written."""
    try:
        said = json.loads((place / _INVENTORY).read_text(encoding="utf-8"))
        return all(_checksum(place / name) == checksum for name, (_, checksum) in said.items())
    except (OSError, ValueError):
        return False


def _checksum(file: Path) -> int:
    """CRC-32: 2 GB/s with the reading, and nobody has to be kept from forging it."""
    checksum = 0
    with file.open("rb") as data:
        while piece := data.read(_PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _to_disk(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        to_disk(path)
    to_disk(folder)
