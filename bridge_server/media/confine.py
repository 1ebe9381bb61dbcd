"""Files opened only where they may be, whoever changes names meanwhile.

A path is looked at, and opened later: who can write in one of its folders could put a link there in
between. So for an owner who is bound to folders every step of a path is opened by itself, and no
link is followed. Libraries, which want names, get one that leads to what was opened
(/proc/self/fd). Where the system has no such names, the path is looked at again afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from bridge_server.errors import OutsideFolders

#: Whether a path can be opened step by step: not on Windows.
_STEPS = os.open in os.supports_dir_fd
#: Names of what this process has opened: of Linux.
_OPENED = Path("/proc/self/fd")
NAMES = _STEPS and _OPENED.is_dir()
_FILE = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # of a pipe, which is refused
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_FOLDER = (
    getattr(os, "O_PATH", os.O_RDONLY)
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)
#: A folder whose names are to be read.
_LISTED = _FOLDER & ~getattr(os, "O_PATH", 0)
#: A tick of the clocks of file systems, with much to spare.
_TICK_NS = 50_000_000
#: What opening says of a link, or of a file in place of a folder.
_LINK = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """roots: the owner's folders; ours: those that only this program writes in."""

    roots: tuple[Path, ...]
    ours: tuple[Path, ...]


_bounds: ContextVar[_Bounds | None] = ContextVar("bounds", default=None)


@contextmanager
def within(roots: tuple[Path, ...], ours: tuple[Path, ...]) -> Generator[None]:
    """Open files only in `roots`, without following links, and in `ours`; in this thread.

    roots: resolved; ours: folders of the program itself, where names do not change
    """
    before = _bounds.set(_Bounds(roots, ours))
    try:
        yield
    finally:
        _bounds.reset(before)


def descriptor(path: Path) -> int:
    """Open a file for reading; returns its descriptor.

    Raises:
        OutsideFolders: it is not in the folders that may be used, or a link leads there.
        OSError: it cannot be opened.
    """
    bounds = _bounds.get()
    if bounds is None or _inside(path, bounds.ours):
        return os.open(path, _FILE)
    with _parent(path, bounds) as (folder, name):
        handle = _step(name, _FILE, folder, path)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OutsideFolders(f"{path} is no file any more; put the file back, and try again.")
    return handle


@contextmanager
def file(path: Path) -> Generator[Path]:
    """Yield a name by which the file that is at `path` now can be opened and looked at.

    Raises:
        OutsideFolders, OSError: see `descriptor`.
    """
    bounds = _bounds.get()
    if bounds is None or _inside(path, bounds.ours):
        yield path
        return
    handle = descriptor(path)
    try:
        yield _OPENED / str(handle) if NAMES else path
    finally:
        try:
            if not NAMES:  # also where what was read could not be used: it may be another's
                _check_same(handle, path)
        finally:
            os.close(handle)


@contextmanager
def folder(path: Path) -> Generator[Path]:
    """Yield a name of the folder that is at `path` now, for work in it.

    Raises:
        OutsideFolders, OSError: see `descriptor`.
    """
    bounds = _bounds.get()
    if bounds is None or _inside(path, bounds.ours):
        yield path
    elif not _STEPS:
        _check_whole(path, bounds)
        yield path
    else:
        with _opened_folder(path, bounds) as handle:
            yield _OPENED / str(handle) if NAMES else path


@contextmanager
def steady(paths: Iterable[Path]) -> Generator[None]:
    """Let libraries open files, or folders of files, by their names, and see that those stay.

    What is in none of the owner's folders is left alone.

    Raises:
        OutsideFolders: something on the way there, or in it, is a link, or was replaced, renamed,
            added or removed meanwhile.
    """
    bounds = _bounds.get()
    if bounds is None or not _STEPS:
        yield
        return
    watched = [path for path in paths if _inside(path, bounds.roots)]
    before = _marks(watched, bounds)
    # A change within one tick of the file system's clock would not show.
    while before and time.time_ns() - max(mark[-1] for mark in before) < _TICK_NS:
        time.sleep(_TICK_NS / 1e9)
        before = _marks(watched, bounds)
    yield
    if _marks(watched, bounds) != before:
        names = ", ".join(map(str, watched))
        raise OutsideFolders(
            f"something was changed in a folder of {names} while it was read; try again when "
            "nothing changes there."
        )


def _marks(paths: Iterable[Path], bounds: _Bounds) -> list[tuple[int, int, int]]:
    """What shows that a file or a folder was changed, of all that is on the way and in it."""
    found: list[tuple[int, int, int]] = []
    for path in paths:
        with _opened_folder(path.parent, bounds, found) as folder:
            found += _marks_in(folder, path.name, path)
    return found


def _marks_in(folder: int, name: str, path: Path) -> Iterator[tuple[int, int, int]]:
    known = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(known.st_mode):
        raise _outside(path)
    yield _mark(known)
    if stat.S_ISDIR(known.st_mode):
        inner = _step(name, _LISTED, folder, path)
        try:
            for each in sorted(os.listdir(inner)):
                yield from _marks_in(inner, each, path / each)
        finally:
            os.close(inner)


def _mark(known: os.stat_result) -> tuple[int, int, int]:
    return known.st_dev, known.st_ino, known.st_ctime_ns


@contextmanager
def _parent(path: Path, bounds: _Bounds) -> Generator[tuple[int | None, str]]:
    """Yield the opened folder that a file is in, and its name there."""
    if not _STEPS:
        _check_whole(path, bounds)
        yield None, str(path)
        return
    with _opened_folder(path.parent, bounds) as handle:
        yield handle, path.name


@contextmanager
def _opened_folder(
    path: Path, bounds: _Bounds, marks: list[tuple[int, int, int]] | None = None
) -> Generator[int]:
    """Yield a folder, opened step by step from the root that it is in.

    marks: takes the marks of the folders on the way
    """
    root = _root(path, bounds)
    handle = os.open(root, _FOLDER & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for name in path.relative_to(root).parts:
            inner = _step(name, _FOLDER, handle, path)
            os.close(handle)
            handle = inner
            if marks is not None:
                marks.append(_mark(os.fstat(handle)))
        yield handle
    finally:
        os.close(handle)


def _root(path: Path, bounds: _Bounds) -> Path:
    """Return the folder from which on the way is opened: the owner's, or an opened one."""
    if ".." not in path.parts:
        opened = Path(*path.parts[: len(_OPENED.parts) + 1])
        if opened.parent == _OPENED:
            return opened
        for root in bounds.roots:
            if path.is_relative_to(root):
                return root
    raise _outside(path)


def _step(name: str, flags: int, folder: int | None, path: Path) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in _LINK:
            raise _outside(path) from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def _check_same(handle: int, path: Path) -> None:
    """Check that a path, which a library has opened meanwhile, still leads to the opened file."""
    with suppress(OSError):
        again = descriptor(path)
        try:
            if os.path.samestat(os.fstat(again), os.fstat(handle)):
                return
        finally:
            os.close(again)
    raise _outside(path)


def _check_whole(path: Path, bounds: _Bounds) -> None:
    """Check a path as it is now: that it is in the owner's folders, and no link in it."""
    if not _inside(path, bounds.roots) or path.resolve() != path:
        raise _outside(path)


def _inside(path: Path, folders: tuple[Path, ...]) -> bool:
    return ".." not in path.parts and any(path.is_relative_to(each) for each in folders)


def _outside(path: Path) -> OutsideFolders:
    return OutsideFolders(
        f"{path} is not where it was: a link leads out of the folders that may be used; put the "
        "file itself there, and try again."
    )
