"""Whether the tests of windows can run here."""

from __future__ import annotations

import pytest

from tests.ui import qt


def test_qt_can_be_loaded() -> None:
    if said := qt.missing():
        pytest.skip(f"no test of a window runs: {said}")
    import PySide6.QtWidgets

    assert PySide6.QtWidgets.QApplication
