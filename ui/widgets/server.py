"""How it stands with the server, in words, with a button that starts it."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from ui import words
from ui.models.desk import Desk
from ui.standing import Server, Standing


class ServerBar(QWidget):
    """A line above the jobs."""

    def __init__(self, desk: Desk, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._desk = desk
        self.text = QLabel()
        self.start = QPushButton("&Start")
        self.start.setToolTip("Start the server, which does the work in the background.")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        layout.addWidget(self.start)
        layout.addStretch()
        self.start.clicked.connect(desk.start_server)
        desk.server_changed.connect(self._show)
        self._show()

    def _show(self) -> None:
        self.text.setText(f"Server: {in_words(self._desk.server)}")
        self.start.setVisible(self._desk.server.standing is Standing.ABSENT)


def in_words(server: Server) -> str:
    """Say how it stands."""
    here = server.standing is Standing.HERE
    return words.doing(server.doing) if here else server.standing.value
