"""The program: puts the parts together, and opens the window."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from ui import effect
from ui.line import Line
from ui.models.desk import Desk
from ui.starter import Starter
from ui.widgets.window import Window

#: Milliseconds after which Python looks for Ctrl-C.
_LOOK = 200


def build(program: Sequence[str], printed: Path | None, job: str) -> Window:
    """Return the window, with its line to the server open; see `run`."""
    line = Line(Starter(program, printed))
    desk = Desk(line, effect.shipped())
    desk.choose(job)
    window = Window(desk)
    line.setParent(window)
    desk.setParent(window)
    line.start()
    return window


def run(program: Sequence[str], printed: Path | None, job: str) -> int:
    """Show the window until it is closed; returns the exit code.

    program: the command that `serve` is put behind, to start a server
    printed: the file for what that prints; job: the beginning of an id
    """
    application = QApplication(sys.argv[:1])
    application.setApplicationName("FreSCo Bridge")
    application.setDesktopFileName("fresco-bridge")
    window = build(program, printed, job)
    application.aboutToQuit.connect(window.close)

    def end(_number: int, _frame: FrameType | None) -> None:
        window.close()

    signal.signal(signal.SIGINT, end)
    awake = QTimer(interval=_LOOK)
    awake.timeout.connect(lambda: None)  # Qt's loop lets no Python run by itself
    awake.start()
    window.show()
    return application.exec()
