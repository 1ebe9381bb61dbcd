"""The file that leads clients here, and the private folder that it is in (PROTOCOL.md, section 2).

Clients read it with `host_plugins.link.endpoint`, which carries no more than that.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from host_plugins.link.endpoint import FOLDER, NAME, Endpoint, check_private, folders, parse
from host_plugins.link.errors import BridgeError, Code

#: Bytes of the path of a socket, its final zero included.
_SOCKET_PATH = {"darwin": 104, "linux": 108}


def place(where: Sequence[Path] | None = None) -> Path:
    """Return the first folder that the file can be written into; it is private then.

    where: folders that clients look into; the usual ones where None

    Raises:
        BridgeError: one belongs to somebody else (unauthorised): what stands there would be seen
            first; or none can be written into (forbidden).
    """
    refused: list[str] = []
    for folder in folders() if where is None else where:
        why = _refusal(folder)
        if not why:
            return folder
        refused.append(f"{folder} ({why})")
    raise BridgeError(
        Code.FORBIDDEN, f"nobody could find the server: it may not write into {', '.join(refused)}",
        f"let {FOLDER} name a folder that is yours, for the server and for all that use it",
    )  # fmt: skip


def _refusal(folder: Path) -> str:
    """Why nothing can be written into a folder, or it cannot be made; empty: it can."""
    try:
        private_folder(folder)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as tried:
            tried.write(b"\0")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def write(endpoint: Endpoint, folder: Path) -> Path:
    """Write the file, whole or not at all, for this user alone; returns it.

    Raises:
        BridgeError: the folder belongs to somebody else (unauthorised).
        OSError: it cannot be written.
    """
    folder = private_folder(folder)
    part = folder / f".{NAME}.{os.getpid()}"
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(endpoint), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _replace(part, folder / NAME)
    return folder / NAME


def remove(endpoint: Endpoint, folder: Path) -> None:
    """Remove the file, if it is still that of `endpoint`."""
    file = folder / NAME
    with suppress(OSError, BridgeError):
        if parse(file.read_bytes(), file) == endpoint:
            file.unlink()


def private_folder(folder: Path) -> Path:
    """Make a folder that only this user can enter, or check that it is one.

    Raises:
        BridgeError: it belongs to somebody else, or others may enter it (unauthorised).
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(os.lstat(folder), folder, stat.S_ISDIR)
    return folder


def socket_address(folder: Path, platform: str = sys.platform) -> str:
    """Return the address of a socket in `folder`, which must be a private one.

    Where the system allows no path of such length, the socket is in a folder of its own in /tmp.

    Raises:
        BridgeError: that folder belongs to somebody else (unauthorised).
    """
    path = folder / "bridge.sock"
    if len(os.fsencode(path)) >= _SOCKET_PATH.get(platform, min(_SOCKET_PATH.values())):
        short = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        path = private_folder(Path(f"/tmp/fb-{os.getuid()}-{short}")) / "bridge.sock"
    return f"ipc://{path}"


def _replace(part: Path, file: Path) -> None:
    """Rename; on Windows again and again while somebody else is reading the old file."""
    for wait in (0.01, 0.02, 0.04, 0.08, 0.16, 0.32):
        with suppress(PermissionError):
            os.replace(part, file)
            return
        time.sleep(wait)
    os.replace(part, file)
