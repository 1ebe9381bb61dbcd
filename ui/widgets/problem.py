"""What went wrong, in words, with the log for those who can read it."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QWidget


class ProblemBar(QFrame):
    """Hidden as long as there is nothing to say.

    log: what *Copy log* puts behind the words
    dismissible: whether the user may put it away
    """

    def __init__(
        self, log: Callable[[], str], dismissible: bool, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._log = log
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self.text.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.copy = QPushButton("Copy &log")
        self.dismiss = QPushButton("Dismiss")
        layout = QHBoxLayout(self)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.copy)
        layout.addWidget(self.dismiss)
        self.dismiss.setVisible(dismissible)
        self.copy.clicked.connect(self._on_copy)
        self.dismiss.clicked.connect(self.hide)
        self.hide()

    def say(self, text: str) -> None:
        """Show this; hide the bar if there is nothing to say."""
        self.text.setText(text)
        self.setVisible(bool(text))

    def _on_copy(self) -> None:
        said = "\n\n".join(filter(None, (self.text.text(), self._log())))
        QGuiApplication.clipboard().setText(said)
