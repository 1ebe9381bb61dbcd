"""Windows without a screen. Where Qt cannot be loaded, one test says why, and how to mend it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bridge_server.reels import reel
from tests.ui import qt

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
#: Without Qt only the others are collected.
collect_ignore = qt.modules(Path(__file__).parent) if qt.missing() else []


@pytest.fixture(scope="session")
def app() -> QApplication:
    from PySide6.QtWidgets import QApplication

    from ui.__main__ import forget_others

    forget_others(os.environ)  # other tests have imported cv2
    return QApplication.instance() or QApplication([])  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("clips") / "one shot ü.mp4", (9,))
