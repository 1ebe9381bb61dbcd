"""Results by content key: a folder for each, complete or not there at all.

A key says everything that a result depends on, so what is found under it need not be made again,
whoever made it and when. A result is written beside its place, brought to the disk, and renamed.

When a result was last used is the time of its inventory's file. That is renewed once an hour, so
whoever evicts takes every result for used up to an hour later.

What stands there may be damaged later, by a disk, a crash or a cleaner: files that are missing or
cut short are noticed whenever a result is looked for, changed bytes when a process first uses it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

from bridge_server.errors import NotEnoughSpace, ResultsGone
from bridge_server.media.parts import to_disk
from bridge_server.pieces import pieces
from fresco.errors import InvalidInput

_UNFINISHED = "unfinished"
#: In each result: its files, with their sizes and checksums.
_INVENTORY = "inventory.json"
_KEY = re.compile(r"[0-9a-f]{64}")
#: In `unfinished`: what is being written, or removed, by the process of that number.
_DESK = re.compile(r"(\d+)-[0-9a-f]{32}(-\w+)?")
#: Seconds for which a use is not noted again: one change of a file's times per result and hour.
GRAIN = 3600.0
#: Seconds between looks at what a job stands on: less than any evictor spares.
_LOOK = 300.0
#: The most that results may take where nothing is set, bytes; and the share of the disk's room.
_MOST, _SHARE = 20 * 10**9, 0.2


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


@dataclass(frozen=True, slots=True)
class Result:
    """A result that is there. size: bytes; used: when last, seconds since 1970, to `GRAIN`."""

    key: str
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Evicted:
    """What `Store.evict` did. keys: removed; freed: their bytes; left: bytes of the others."""

    keys: tuple[str, ...]
    freed: int
    left: int


def allowance(budget: int | None, held: int, free: int) -> int:
    """The bytes that results may take; all counts are bytes.

    budget: as it was set; else 20 GB, or a fifth of the room that there is for them if that is less
    held: by the results there are; free: on their disk beside them
    """
    return min(_MOST, int(_SHARE * (held + free))) if budget is None else budget


class Store:
    """The results in one folder, shared by any number of processes.

    folder: made if it is not there
    kept: is told of every result of this process, once it is on the disk
    """

    def __init__(self, folder: Path, kept: Callable[[str], None] = lambda _key: None) -> None:
        self.folder, self._kept = folder, kept
        self._checked: set[str] = set()
        (folder / _UNFINISHED).mkdir(parents=True, exist_ok=True)
        self._sweep()

    def find(self, key: str) -> Path | None:
        """The folder of the result, if it is there, with all its files at their full length.

        It counts as used now: see `evict`.
        """
        place = self._place(key)
        # Marked before it is looked at: who evicts it in between sees the mark and puts it back.
        _mark(place)
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

    def results(self) -> Iterator[Result]:
        """Yield what is there, sized by the inventories: no file of a result is looked at."""
        for shelf in _folders(self.folder):
            for place in _folders(shelf):
                if _KEY.fullmatch(place.name) and place.name.startswith(shelf.name):
                    found = _result(place)
                    if found is not None:
                        yield found

    def evict(
        self, budget: int, keep: Collection[str], spare: float, now: float | None = None
    ) -> Evicted:
        """Remove results, those first that were not used for longest, until all fit into `budget`.

        Nothing but whole results of this store is removed: no folder that holds anything beside
        what its inventory names. Others may write, read and evict here at the same time.

        budget: bytes, of results; what is being written does not count yet
        keep: keys of results that stay
        spare: seconds; what any process used so recently stays
        now: seconds since 1970; the clock's where None
        """
        before = (time.time() if now is None else now) - spare - GRAIN
        found = sorted(self.results(), key=lambda result: (result.used, result.key))
        held = sum(result.size for result in found)
        kept, gone, freed = frozenset(keep), list[str](), 0
        for result in found:
            if held <= budget or result.used > before:
                break
            if result.key in kept:
                continue
            place = self._place(result.key)
            if self._remove(place, before):
                gone.append(result.key)
                freed += result.size
            if not place.exists():  # also if another process was faster
                held -= result.size
        return Evicted(tuple(gone), freed, held)

    def _remove(self, place: Path, before: float) -> bool:
        """Remove a result that was not used after `before`; whether it was done, and here."""
        aside = self._desk("-evicted")
        try:
            if _unused(place, before) and _only_its_own(place):
                place.rename(aside)
            else:
                return False
        except OSError:  # gone already; or, on Windows, somebody reads it
            return False
        if not _unused(aside, before):
            # Somebody found it in the last moment. Where it was made anew meanwhile, that stands.
            with suppress(OSError):
                aside.rename(place)
                return False
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def _desk(self, what: str = "") -> Path:
        return self.folder / _UNFINISHED / f"{os.getpid()}-{uuid.uuid4().hex}{what}"

    @contextmanager
    def in_use(self, keys: Collection[str]) -> Generator[None]:
        """Let results count as used for as long as the ``with`` block lasts.

        No server knows of a job that is done in a terminal: what it made hours ago, and needs at
        its end, would be what was not used for longest.

        keys: of what a job stands on; those that there are not yet too
        """
        ended, places = threading.Event(), [self._place(key) for key in keys]

        def mark() -> None:
            while not ended.wait(_LOOK):
                for place in places:
                    _mark(place)

        marking = threading.Thread(target=mark, name="in use", daemon=True)
        marking.start()
        try:
            yield
        finally:
            ended.set()
            marking.join()

    @contextmanager
    def writing(self, key: str) -> Generator[Path]:
        """Give an empty folder to write a result into; on leaving it becomes the result of `key`.

        If the ``with`` block fails, nothing is kept. If another process was faster, its result
        stands and this one is dropped: under one key they are the same.

        Raises:
            NotEnoughSpace: the disk is full.
            ResultsGone: the store was removed meanwhile.
        """
        desk = self._desk()
        try:
            desk.mkdir()
            yield desk
            (desk / _INVENTORY).write_text(json.dumps(_counted(desk)), encoding="utf-8")
            _to_disk(desk)
            self._put(desk, self._place(key))
            self._kept(key)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                full = f"the disk with the results, {self.folder}, is full."
                raise NotEnoughSpace(full) from error
            if isinstance(error, FileNotFoundError) and not desk.exists():
                raise ResultsGone(f"{self.folder} was removed during the work.") from error
            raise
        finally:
            shutil.rmtree(desk, ignore_errors=True)

    def _put(self, desk: Path, place: Path) -> None:
        """Make `desk` the result at `place`, unless a whole one is there."""
        if not place.parent.is_dir():
            place.parent.mkdir(exist_ok=True)
            to_disk(self.folder)
        while not _moved(desk, place):
            _mark(place)
            if _whole(place) and _unchanged(place):
                break
            _set_aside(place, self._desk("-damaged"))
        to_disk(place.parent)

    def _place(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise InvalidInput(f"{key!r} is no content key.")
        return self.folder / key[:2] / key

    def _sweep(self) -> None:
        """Remove what processes that are gone left unfinished."""
        for desk in (self.folder / _UNFINISHED).iterdir():
            found = _DESK.fullmatch(desk.name)
            if found and not psutil.pid_exists(int(found[1])):
                shutil.rmtree(desk, ignore_errors=True)


def _moved(desk: Path, place: Path) -> bool:
    """Rename `desk`, unless there is something at `place`."""
    try:
        desk.rename(place)
    except OSError:
        # Not there: it was evicted in between, or the disk refuses; then the next try says so.
        if not place.is_dir():
            desk.rename(place)
            return True
        return False
    return True


def _set_aside(place: Path, damaged: Path) -> None:
    """Remove a damaged result; another process may be faster."""
    with suppress(FileNotFoundError):
        place.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder; links are none."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _inventory(place: Path) -> dict[str, tuple[int, int]] | None:
    """The files of a result, as they were written: bytes and checksum; None if it is no result."""
    try:
        said: Any = json.loads((place / _INVENTORY).read_text(encoding="utf-8"))
        return {str(name): (int(size), int(checksum)) for name, (size, checksum) in said.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _used(place: Path) -> float | None:
    """When a result was last used, to `GRAIN`; None if it is not there."""
    with suppress(OSError):
        return (place / _INVENTORY).stat().st_mtime
    return None


def _unused(place: Path, since: float) -> bool:
    """Whether a result is there, and was not used after `since`."""
    used = _used(place)
    return used is not None and used <= since


def _mark(place: Path) -> None:
    """Note that a result is used now, if that was not noted within `GRAIN`."""
    used = _used(place)
    if used is not None and not -GRAIN < time.time() - used < GRAIN:
        with suppress(OSError):  # it was just removed; or the folder may only be read
            os.utime(place / _INVENTORY)


def _result(place: Path) -> Result | None:
    files, used = _inventory(place), _used(place)
    if files is None or used is None:
        return None
    return Result(place.name, sum(size for size, _ in files.values()), used)


def _only_its_own(place: Path) -> bool:
    """Whether a result's folder holds nothing beside what its inventory names."""
    files = {*(_inventory(place) or ()), _INVENTORY}
    folders = {str(part) for name in files for part in PurePosixPath(name).parents}
    there = {path.relative_to(place).as_posix() for path in place.rglob("*")}
    return there <= files | folders


def _counted(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file of a new result by its path in there: its bytes and its checksum."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, _checksum(path))
        for path in files
    }


def _whole(place: Path) -> bool:
    """Whether all files of a result are there and as long as when they were written."""
    files = _inventory(place)
    try:
        return files is not None and all(
            (place / name).stat().st_size == size for name, (size, _) in files.items()
        )
    except (OSError, ValueError):
        return False


def _unchanged(place: Path) -> bool:
    """Whether the files of a whole result can be read and hold what was written."""
    files = _inventory(place) or {}
    try:
        return all(_checksum(place / name) == checksum for name, (_, checksum) in files.items())
    except (OSError, ValueError):
        return False


def _checksum(file: Path) -> int:
    """CRC-32: 2 GB/s with the reading, and nobody has to be kept from forging it."""
    checksum = 0
    for piece in pieces(file):
        checksum = zlib.crc32(piece, checksum)
    return checksum


def _to_disk(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        to_disk(path)
    to_disk(folder)
