"""The program on this machine that runs the server: where it is, and how it is started.

For plugins and the panel; with `link`, whose errors it has, it is copied into them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .link.errors import BridgeError, Code

NAME = "program.json"
#: Names the folder of the program's data, instead of the usual one.
HOME = "FRESCO_BRIDGE_HOME"
_APPLICATION = "fresco-bridge"
#: Seconds without work after which a server that was not started by the user ends.
IDLE_END = 600
#: Of Windows: without a terminal of its own, and without its Ctrl-C.
_APART: int = getattr(subprocess, "DETACHED_PROCESS", 0) | getattr(
    subprocess, "CREATE_NEW_PROCESS_GROUP", 0
)


def folder(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Return the folder of the program's data."""
    environ = os.environ if environ is None else environ
    if home := environ.get(HOME):
        return Path(home).expanduser()
    if platform == "win32":
        local = environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        return Path(local) / _APPLICATION
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / _APPLICATION
    shared = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(shared) / _APPLICATION


def command(chosen: str = "") -> list[str]:
    """Return the words that call the program: `chosen`, where it was when it last ran, or on PATH.

    chosen: its file, as the user has set it

    Raises:
        BridgeError: it is in none of these places (host).
    """
    if chosen:
        if not os.path.isfile(chosen):
            raise BridgeError(Code.HOST, f"{chosen} is not there", "choose the program again")
        return [chosen]
    found = _remembered() or [shutil.which(_APPLICATION) or ""]
    if not found[0]:
        raise BridgeError(
            Code.HOST,
            "the program fresco-bridge was not found on this computer",
            "install it, and run `fresco-bridge doctor` once; or choose its file in the settings",
        )
    return found


def _remembered() -> list[str]:
    """What the program wrote down about itself; empty if it is gone from there."""
    with suppress(OSError, ValueError, AttributeError):
        told: Any = json.loads((folder() / NAME).read_text(encoding="utf-8"))
        words = told.get("command")
        if isinstance(words, list) and words and all(isinstance(word, str) for word in words):  # pyright: ignore
            return words if os.path.isfile(words[0]) else []  # pyright: ignore
    return []


def start_server(
    words: Sequence[str],
    printed: Path,
    options: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server that outlives this program, and ends by itself once it has no work.

    words: as of `command`
    printed: the file that what it prints is added to
    options: of the server
    environ: of one that works in the folder of `printed` rather than in this program's

    Raises:
        BridgeError: it cannot be started (host).
    """
    return start([*words, "serve", "--idle-end", str(IDLE_END), *options], printed, environ)


def start(
    words: Sequence[str], printed: Path, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program apart from this one. See `start_server`."""
    folder = None if environ is None else printed.parent
    # An editor's own Python must not be taken for the program's.
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    try:
        printed.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with printed.open("ab") as out:
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder,
                env=environ or ours, start_new_session=os.name != "nt", creationflags=_APART,
            )  # fmt: skip
    except OSError as error:
        what = f"{words[0]} cannot be started: {error}"
        raise BridgeError(Code.HOST, what, "choose the program again in the settings") from error
