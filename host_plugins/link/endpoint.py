"""Where the server is: a small file that only its user can read (PROTOCOL.md, section 2)."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import BridgeError, Code

NAME = "endpoint.json"
#: Names the folder of the endpoint file, instead of the usual one.
FOLDER = "FRESCO_BRIDGE_RUNTIME"
_APPLICATION = "fresco-bridge"
_LARGEST = 1 << 16
#: Bytes of the path of a socket, its final zero included.
_SOCKET_PATH = {"darwin": 104, "linux": 108}
_START = "start it with `fresco-bridge serve`, or let the plugin start it"


@dataclass(frozen=True)
class Endpoint:
    """What a client needs to reach the server.

    address: "ipc://..." or "tcp://..."; the latter with CURVE and the keys below (Z85)
    loopback, token: an address without CURVE, for programs that have none, and what they show there
    pid, version: of the server's process and program; major, minor: of the protocol
    """

    address: str
    pid: int
    server_key: str = ""
    public_key: str = ""
    secret_key: str = field(default="", repr=False)
    loopback: str = ""
    token: str = field(default="", repr=False)
    version: str = ""
    major: int = 1
    minor: int = 0


def folders(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> list[Path]:
    """Return the folders that the file may be in; a server writes into the first."""
    environ = os.environ if environ is None else environ
    if chosen := environ.get(FOLDER):
        return [Path(chosen)]
    if platform == "win32":
        local = environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        return [Path(local) / _APPLICATION]
    user = os.getuid() if hasattr(os, "getuid") else 0
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    shared = Path(environ.get("TMPDIR") or "/tmp") / f"{_APPLICATION}-{user}"
    own = [Path(runtime) / _APPLICATION] if os.path.isdir(runtime) else []
    return [*own, shared]


def read(where: list[Path] | None = None, platform: str = sys.platform) -> Endpoint:
    """Read the file of the server that runs.

    where: folders, the first with a running server counts

    Raises:
        BridgeError: no server runs (unavailable); somebody else could have written the file, or
            read its keys (unauthorised).
    """
    for folder in folders() if where is None else where:
        with suppress(FileNotFoundError, NotADirectoryError):
            found = _parse(_read_private(folder / NAME, platform), folder / NAME)
            if alive(found.pid, platform):
                return found
    raise BridgeError(Code.UNAVAILABLE, "the FreSCo Bridge server is not running", _START)


def write(endpoint: Endpoint, folder: Path | None = None) -> Path:
    """Write the file, whole or not at all, for this user alone; returns it.

    Raises:
        BridgeError: the folder belongs to somebody else (unauthorised).
        OSError: it cannot be written.
    """
    folder = private_folder(folders()[0] if folder is None else folder)
    part = folder / f".{NAME}.{os.getpid()}"
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(endpoint), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _replace(part, folder / NAME)
    return folder / NAME


def remove(endpoint: Endpoint, folder: Path | None = None) -> None:
    """Remove the file, if it is still that of `endpoint`."""
    file = (folders()[0] if folder is None else folder) / NAME
    with suppress(OSError, BridgeError):
        if _parse(file.read_bytes(), file) == endpoint:
            file.unlink()


def private_folder(folder: Path) -> Path:
    """Make a folder that only this user can enter, or check that it is one.

    Raises:
        BridgeError: it belongs to somebody else, or others may enter it (unauthorised).
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(os.lstat(folder), folder, stat.S_ISDIR)
    return folder


def socket_address(folder: Path, platform: str = sys.platform) -> str:
    """Return the address of a socket in `folder`, which must be a private one.

    Where the system allows no path of such length, the socket is in a folder of its own in /tmp.

    Raises:
        BridgeError: that folder belongs to somebody else (unauthorised).
    """
    path = folder / "bridge.sock"
    if len(os.fsencode(path)) >= _SOCKET_PATH.get(platform, min(_SOCKET_PATH.values())):
        import hashlib

        short = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        path = private_folder(Path(f"/tmp/fb-{os.getuid()}-{short}")) / "bridge.sock"
    return f"ipc://{path}"


def alive(pid: int, platform: str = sys.platform) -> bool:
    """Whether a process of this user has the number `pid`."""
    if pid <= 0:
        return False
    if platform == "win32":
        return _alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):  # there is none, or somebody else's
        return False
    return True


def _alive_on_windows(pid: int, api: Any = None) -> bool:
    """As `alive`; a signal would end the process there."""
    import ctypes

    api = api or ctypes.windll.kernel32  # pyright: ignore
    synchronise, still_waiting = 0x00100000, 0x102
    handle = api.OpenProcess(synchronise, False, pid)
    if not handle:
        return False
    try:
        return api.WaitForSingleObject(handle, 0) == still_waiting
    finally:
        api.CloseHandle(handle)


def _read_private(file: Path, platform: str) -> bytes:
    try:
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(handle, "rb") as data:
            if platform != "win32":
                _check_private(os.fstat(data.fileno()), file, stat.S_ISREG)
            return data.read(_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:  # also of a symbolic link
        raise BridgeError(Code.UNAUTHORISED, f"{file} cannot be trusted: {error}") from error


def _check_private(found: os.stat_result, path: Path, is_kind: Any) -> None:
    if not hasattr(os, "getuid"):  # Windows: what is in the user's own folder is the user's
        return
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or not is_kind(found.st_mode):
        raise BridgeError(
            Code.UNAUTHORISED,
            f"{path} is not yours alone, so it cannot be trusted",
            "remove it, and start the server again",
        )


def _parse(data: bytes, file: Path) -> Endpoint:
    try:
        table: Any = json.loads(data)
        told = {each.name: table[each.name] for each in fields(Endpoint) if each.name in table}
        found = Endpoint(**told)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(file) from error
    if any(type(getattr(found, each.name)).__name__ != each.type for each in fields(Endpoint)):
        raise _unreadable(file)
    return found


def _unreadable(file: Path) -> BridgeError:
    hint = "remove it, and start the server again"
    return BridgeError(Code.UNAVAILABLE, f"{file} does not say where the server is", hint, False)


def _replace(part: Path, file: Path) -> None:
    """Rename; on Windows again and again while somebody else is reading the old file."""
    for wait in (0.01, 0.02, 0.04, 0.08, 0.16, 0.32):
        with suppress(PermissionError):
            os.replace(part, file)
            return
        time.sleep(wait)
    os.replace(part, file)
