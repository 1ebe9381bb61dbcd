"""Where the program writes and listens; whatever is made for a try is removed again."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import stat
import tempfile
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from bridge_server.config import APPLICATION
from bridge_server.probes.finding import Finding, State

CONNECTIONS, DISK = "connections", "disk"
#: Bytes that a job wants at least, and that it should have.
_LEAST, _ENOUGH = 10**9, 20 * 10**9
#: What a socket's path may have, in bytes: the system's structure holds one more, a zero.
_LONGEST = {"Darwin": 103, "Linux": 107}
#: As long as the names of sockets get.
_SOCKET = "bridge-0000000000.sock"


def nearest(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def free_space(folder: Path) -> int:
    """Return the bytes that may still be written to the disk that `folder` is on."""
    return shutil.disk_usage(folder).free


def work(folder: Path) -> Iterator[Finding]:
    """Whether `folder`, or where it would be made, can be written to and has room."""
    there = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        text = f"{folder} cannot be written to: {error}"
        hint = f"make {there} writable for you, or free space on its disk"
        yield Finding(DISK, "work", State.PROBLEM, text, hint)
        return
    yield judge_room(folder, free_space(there))


def judge_room(folder: Path, free: int) -> Finding:
    """Judge the bytes that are `free` for `folder`."""
    text, hint = f"{folder}, {free / 1e9:.1f} GB free", "make room on this disk"
    if free < _LEAST:
        return Finding(DISK, "work", State.PROBLEM, f"{text}: too little for any job", hint)
    if free < _ENOUGH:
        return Finding(DISK, "work", State.NOTE, f"{text}: little for long clips", hint)
    return Finding(DISK, "work", State.OK, text)


def port(host: str = "127.0.0.1") -> Iterator[Finding]:
    """Whether programs on this machine can reach each other by TCP."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
            listening.bind((host, 0))
            listening.listen()
    except OSError as error:
        text = f"cannot listen at {host}: {error}"
        hint = "let this Python listen there: a firewall or a sandbox forbids it"
        yield Finding(CONNECTIONS, "tcp", State.PROBLEM, text, hint)
        return
    yield Finding(CONNECTIONS, "tcp", State.OK, f"a port at {host} can be had")


def runtime_folder() -> Path:
    """Return the folder that sockets belong into; it need not be there."""
    with warnings.catch_warnings():  # where there is none, another is taken: no matter
        warnings.simplefilter("ignore")
        return platformdirs.user_runtime_path(APPLICATION, appauthor=False)


def sockets(folder: Path | None = None, system: str | None = None) -> Iterator[Finding]:
    """Whether a folder for sockets can be made that only this user may enter.

    folder: to try; the system's own for it where None
    """
    system = platform.system() if system is None else system
    if system == "Windows":
        yield Finding(CONNECTIONS, "sockets", State.OK, "not used on Windows")
        return
    folder = folder or runtime_folder()
    length, longest = len(os.fsencode(folder / _SOCKET)), _LONGEST.get(system, 103)
    hint = "set XDG_RUNTIME_DIR to a folder of yours, of a short path and mode 0700"
    if length > longest:
        text = f"{folder} makes paths of {length} bytes; {system} allows {longest}"
        yield Finding(CONNECTIONS, "sockets", State.PROBLEM, text, hint)
        return
    try:
        trouble = _tried(folder)
    except OSError as error:
        trouble = str(error)
    if trouble:
        text = f"no socket can be made in {folder}: {trouble}"
        yield Finding(CONNECTIONS, "sockets", State.PROBLEM, text, hint)
    else:
        yield Finding(CONNECTIONS, "sockets", State.OK, f"{folder} can be made private")


def _tried(folder: Path) -> str:
    """Make the folder and a socket in it; return what is wrong with them, if anything."""
    # Our folder may be in use: only what was made here is removed.
    with _made(folder), tempfile.TemporaryDirectory(dir=folder, prefix="d") as own:
        mode = stat.S_IMODE(os.stat(own).st_mode)
        if mode & 0o077:
            return f"its mode is {mode:04o} instead of 0700: the disk keeps no permissions"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(os.path.join(own, "s"))
    return ""


@contextmanager
def _made(folder: Path) -> Generator[None]:
    """Have `folder` inside the ``with`` block, with the levels above it, all private."""
    missing = [level for level in (folder, *folder.parents) if not level.exists()]
    made: list[Path] = []
    try:
        for level in reversed(missing):
            level.mkdir(mode=0o700)
            made.append(level)
        yield
    finally:
        for level in reversed(made):
            with suppress(OSError):  # somebody else is in it now
                level.rmdir()
