"""Files and folders that are not finished: hidden beside their target until they may have its name.

Their names say who writes them, so that the next one to write there can remove what a process that
was killed left behind, and nothing else.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import time
import zlib
from contextlib import suppress
from pathlib import Path

import psutil

#: A folder on the network is written to by several machines, which do not see each other's numbers.
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_NAME = re.compile(rf"\.fresco-{_MACHINE}-(\d+)-[0-9a-f]{{8}}(\.\w+)?")
WINDOWS = os.name == "nt"
#: Seconds between tries where a virus scanner or a player holds a file for a moment.
_WAITS = (0.05, 0.1, 0.2, 0.5, 1.0)


def name(folder: Path, suffix: str = "") -> Path:
    """Return a name in `folder` that nobody else uses."""
    return folder / f".fresco-{_MACHINE}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"


def sweep(folder: Path) -> None:
    """Remove the parts in `folder` of processes of this machine that are gone."""
    with suppress(OSError):
        for path in folder.iterdir():
            found = _NAME.fullmatch(path.name)
            if found and not psutil.pid_exists(int(found[1])):
                remove(path)


def remove(path: Path) -> None:
    """Remove a part, file or folder; what cannot be removed now is swept later."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def to_disk(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    folder = path.is_dir()
    if folder and WINDOWS:  # it has no such thing for folders
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move(part: Path, target: Path) -> None:
    """Give a part its final name, in one step; on Windows as soon as nobody holds the target."""
    for wait in _WAITS if WINDOWS else ():
        with suppress(PermissionError):
            part.replace(target)
            return
        time.sleep(wait)
    part.replace(target)
