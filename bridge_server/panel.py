"""Starting the panel: a process of its own, in which nothing of the work is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from bridge_server import config, remote
from bridge_server.config import Config
from bridge_server.probes import panel
from bridge_server.probes.finding import Finding, State
from fresco.errors import FrescoError, MissingExtra

#: What says where windows are to be; Qt looks at it in this order.
_SCREENS = ("QT_QPA_PLATFORM", "WAYLAND_DISPLAY", "DISPLAY")


def show(job: str, settings: Config) -> int:
    """Show the panel until its window is closed; returns its exit code.

    job: the beginning of the id of a job to look at; empty: the newest

    Raises:
        MissingExtra: PySide6, or a library of the system, is not there; says how to get it.
        FrescoError: there is no screen, or another package stands before ours.
    """
    check(panel.qt(), os.environ, sys.platform)
    _check_ours()
    folder = config.state_folder(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    program = json.dumps([sys.executable, "-m", "bridge_server"])
    words = [sys.executable, "-m", "ui", "--program", program]
    words += ["--printed", str(folder / remote.PRINTED), *(["--job", job] if job else [])]
    # In a folder of our own: Python looks for packages where it is started, too.
    return subprocess.call(words, cwd=folder, env=remote.environ())


def check(findings: Iterable[Finding], environ: Mapping[str, str], platform: str) -> None:
    """Refuse what Qt would end with a trace for. Raises: see `show`."""
    for finding in findings:
        absent = finding.subject == "qt" and finding.state is not State.OK
        # Wayland needs none of the libraries that windows of X need.
        windows = finding.state is State.PROBLEM and not environ.get("WAYLAND_DISPLAY")
        if absent or windows:
            raise MissingExtra(f"the panel cannot be opened: {finding.text}; {finding.hint}")
    if platform == "linux" and not any(environ.get(name) for name in _SCREENS):
        raise FrescoError(
            "the panel cannot be opened: there is no screen here (DISPLAY and WAYLAND_DISPLAY are "
            "not set); `fresco-bridge jobs`, `watch` and `edit` do the same in a terminal."
        )


def _check_ours() -> None:
    found, ours = find_spec("ui"), Path(__file__).resolve().parents[1] / "ui"
    at = Path(found.origin).resolve().parent if found and found.origin else None
    if at != ours:
        raise FrescoError(
            f"Python finds {at or 'no package'} as ui, instead of {ours}; install fresco-bridge "
            "into an environment of its own (python -m venv)."
        )
