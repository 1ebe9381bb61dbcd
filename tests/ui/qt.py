"""Waiting while a window works, and whether there can be one."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from bridge_server.probes import panel
from bridge_server.probes.finding import State


@cache
def missing() -> str:
    """Why Qt cannot be loaded, and what to do; nothing if it can."""
    found = next(panel.qt())
    return "" if found.state is State.OK else f"{found.text}: {found.hint}"


def modules(folder: Path) -> list[str]:
    """The modules of tests that import Qt."""
    return [own.name for own in folder.glob("test_*.py") if "\nfrom PySide6" in own.read_text()]


def until(holds: Callable[[], Any], seconds: float = 600.0) -> None:
    """Let windows work until something holds."""
    from PySide6.QtCore import QCoreApplication, QEventLoop

    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)
        time.sleep(0.005)
