"""Where the server is: a small file that only its user can read (PROTOCOL.md, section 2)."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import BridgeError, Code

NAME = "endpoint.json"
#: Names the folder of the endpoint file, instead of the usual one.
FOLDER = "FRESCO_BRIDGE_RUNTIME"
_APPLICATION = "fresco-bridge"
_LARGEST = 1 << 16
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
    """Return the folders that the file may be in; a server takes the first that it can."""
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
        if _is_closed(folder):
            continue
        with suppress(FileNotFoundError, NotADirectoryError):
            found = parse(_read_private(folder / NAME, platform), folder / NAME)
            if alive(found.pid, platform):
                return found
    raise BridgeError(Code.UNAVAILABLE, "the FreSCo Bridge server is not running", _START)


def _is_closed(folder: Path) -> bool:
    """Whether this user cannot even see the folder: nor can a server of theirs write into it."""
    try:
        os.lstat(folder)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


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
                check_private(os.fstat(data.fileno()), file, stat.S_ISREG)
            return data.read(_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:  # also of a symbolic link
        raise BridgeError(Code.UNAUTHORISED, f"{file} cannot be trusted: {error}") from error


def check_private(found: os.stat_result, path: Path, is_kind: Callable[[int], bool]) -> None:
    """Check that a file or folder is this user's alone. Raises BridgeError: unauthorised."""
    if not hasattr(os, "getuid"):  # Windows: what is in the user's own folder is the user's
        return
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or not is_kind(found.st_mode):
        raise BridgeError(
            Code.UNAUTHORISED,
            f"{path} is not yours alone, so it cannot be trusted",
            "remove it, and start the server again",
        )


def parse(data: bytes, file: Path) -> Endpoint:
    """Read what is in the file. Raises BridgeError: nonsense (unavailable)."""
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
