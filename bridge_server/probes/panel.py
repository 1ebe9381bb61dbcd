"""Whether the panel's windows can be opened."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from bridge_server.probes import libraries, versions
from bridge_server.probes.finding import Finding, State

AREA = "panel"
EXTRA = "panel"


def qt(
    installed: Callable[[str], Any] = find_spec,
    load: Callable[[str], Any] = import_module,
) -> Iterator[Finding]:
    """Whether Qt is there, and loads."""
    unfit = next(versions.extra(EXTRA), None)
    if installed("PySide6") is None:
        text = "PySide6 is not installed; only the panel needs it"
        hint = unfit.hint if unfit else "pip install PySide6-Essentials"
        yield Finding(AREA, "qt", State.NOTE, text, hint)
        return
    if unfit:
        yield Finding(AREA, unfit.subject, State.PROBLEM, unfit.text, unfit.hint)
        return
    try:
        load("PySide6.QtWidgets")
        version = load("PySide6").__version__
    except ImportError as error:
        missing = libraries.named_in(str(error))
        hint = "pip install --force-reinstall PySide6"
        if missing:
            hint = libraries.command([missing], libraries.tool())
        yield Finding(AREA, "qt", State.PROBLEM, f"PySide6 does not load: {error}", hint)
        return
    yield Finding(AREA, "qt", State.OK, f"PySide6 {version}")
    yield from windows(
        platform.system(),
        bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")),
        libraries.opens,
        libraries.tool(),
    )


def windows(
    system: str, display: bool, opens: Callable[[str], bool], tool: str
) -> Iterator[Finding]:
    """Whether the system libraries are there that Qt opens windows with.

    display: whether there is a screen to open them on
    opens: whether a library is found
    tool: what installs system packages
    """
    if system != "Linux":
        return
    missing = [name for name in libraries.WINDOWS if not opens(name)]
    if missing:
        state = State.PROBLEM if display else State.NOTE
        text = f"no windows without {', '.join(missing)}"
        yield Finding(AREA, "windows", state, text, libraries.command(missing, tool))
    else:
        yield Finding(AREA, "windows", State.OK, "Qt has the system libraries that it needs")
