"""What a new job is asked for with: a clip, a look, and the effect's pages."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from host_plugins.link.errors import BridgeError
from ui import words
from ui.models.desk import Desk
from ui.widgets.fields import Editor, FilePath
from ui.widgets.form import EffectForm, row, rows

_NO_LOOK = "None: as set below"
_FILES = "All files (*)"


class RestyleDialog(QDialog):
    """Stays as it was filled in, also for the next job; open until the server has taken it."""

    def __init__(self, desk: Desk, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Restyle a file")
        self._desk = desk
        self.look = QComboBox()
        self.form = EffectForm(desk.effect)
        self.clips = {each.name: FilePath(each.label, kinds=_FILES) for each in desk.effect.clips}
        self.said = QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self.said.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.go = QPushButton("Re&style")
        self.buttons.addButton(self.go, QDialogButtonBox.ButtonRole.AcceptRole)
        self._arrange()
        self._listen()
        self._on_described()
        self._follow()

    def _arrange(self) -> None:
        top = QWidget()
        form = rows(top)
        form.setContentsMargins(0, 0, 0, 0)
        for clip in self._desk.effect.clips:
            self.clips[clip.name].describe(clip.label, clip.hint)
            row(form, clip.label, clip.hint, self.clips[clip.name])
        row(form, "&Look", "Values for many fields at once; change what you like.", self.look)
        layout = QVBoxLayout(self)
        for widget in (top, self.form, self.said, self.buttons):
            layout.addWidget(widget, int(widget is self.form))
        self.said.hide()
        self.resize(640, 720)

    def _listen(self) -> None:
        self._desk.described.connect(self._on_described)
        self.look.activated.connect(self._on_look)
        for clip in self.clips.values():
            clip.changed.connect(self._follow)
        self.buttons.rejected.connect(self.reject)
        self.buttons.accepted.connect(self._submit)
        self.go.setDefault(True)

    def _on_described(self) -> None:
        """Offer what the server knows; what is chosen stays chosen."""
        chosen = self.look.currentText()
        self.look.clear()
        self.look.addItem(_NO_LOOK, {})
        for look in self._desk.looks:
            self.look.addItem(look["title"], look["values"])
        self.look.setCurrentIndex(max(0, self.look.findText(chosen)))
        self.form.offer(self._desk.models)

    def _on_look(self) -> None:
        self.form.set_values(self.look.currentData())

    def _required(self) -> list[Editor]:
        return [self.clips[each.name] for each in self._desk.effect.clips if not each.optional]

    def _follow(self) -> None:
        self.go.setEnabled(all(own.value() for own in self._required()))

    # ------------------------------------------------------------------------------------ the job

    def values(self) -> dict[str, Any]:
        """Return what is set, of every parameter and clip."""
        return self.form.values() | {name: own.value() for name, own in self.clips.items()}

    def _title(self) -> str:
        values = self.values()
        clip = PurePath(values[self._desk.effect.clips[0].name]).name
        said = next(own for own in self._desk.effect.parameters() if own.kind == "String")
        return f"{clip}: {values[said.name]}" if values[said.name] else clip

    def _submit(self) -> None:
        self._say("Handing it over ...")
        self.go.setEnabled(False)
        self._desk.submit(self.values(), self._title(), self._on_taken, self._on_refused)

    def _on_taken(self) -> None:
        self.said.hide()
        self._follow()
        self.accept()

    def _on_refused(self, error: BridgeError) -> None:
        self._say(words.sentence(error))
        self._follow()

    def _say(self, text: str) -> None:
        self.said.setText(text)
        self.said.show()
