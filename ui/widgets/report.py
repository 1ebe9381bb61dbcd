"""How the written file compares with its source."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QProcess, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

_COLUMNS = {"name": "", "state": "State", "source": "Source", "result": "Result", "why": "Why"}
#: Pixels: a column is no wider, but shows all of its text when it is pointed at.
_WIDEST = 220


class ReportView(QWidget):
    """The file that a job wrote, and what was kept of the source.

    failed: in words, what could not be shown
    """

    failed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._output = Path()
        self.file = QLabel(wordWrap=True)
        self.show_file = QPushButton("Show &file")
        self.table = self._table()
        self._arrange()
        self.show_file.clicked.connect(self._on_show)

    def _table(self) -> QTableWidget:
        table = QTableWidget(0, len(_COLUMNS))
        table.setHorizontalHeaderLabels(list(_COLUMNS.values()))
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setTabKeyNavigation(False)
        table.setAccessibleName("What was kept of the source")
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 8)
        across = table.horizontalHeader()
        across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        across.setMaximumSectionSize(_WIDEST)
        across.setStretchLastSection(True)
        return table

    def _arrange(self) -> None:
        top = QHBoxLayout()
        top.addWidget(self.file, 1)
        top.addWidget(self.show_file)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.table)

    def show_report(self, output: str, report: Sequence[Mapping[str, Any]]) -> None:
        """Show a file and its report."""
        self._output = Path(output)
        self.file.setText(f"Written: {output}")
        self.table.setRowCount(len(report))
        for at, told in enumerate(report):
            for column, key in enumerate(_COLUMNS):
                item = QTableWidgetItem(str(told.get(key, "")))
                item.setToolTip(item.text())
                self.table.setItem(at, column, item)

    def _on_show(self) -> None:
        if not self._output.exists():
            self.failed.emit(f"{self._output} is not there any more.")
        elif not reveal(self._output):
            self.failed.emit(f"The folder {self._output.parent} could not be shown.")


def reveal(file: Path, system: str = sys.platform) -> bool:
    """Show a file in the system's file manager; whether that could be done."""
    words = reveal_words(file, system)
    if words:
        return QProcess.startDetached(words[0], words[1:])[0]
    return QDesktopServices.openUrl(QUrl.fromLocalFile(str(file.parent)))


def reveal_words(file: Path, system: str) -> list[str]:
    """Return the command that shows a file; none where the folder is opened instead."""
    commands = {"darwin": ["open", "-R", str(file)], "win32": ["explorer", f"/select,{file}"]}
    return commands.get(system, [])
