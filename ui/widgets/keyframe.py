"""One keyframe: its picture, and what may be changed of it alone."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QCheckBox, QGridLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from ui.effect import Effect
from ui.models.keyframes import Row
from ui.models.pictures import Pictures
from ui.models.versions import PAINTED, Changes
from ui.widgets.fields import Editor, FilePath, editor
from ui.widgets.picture import PictureView

#: Pixels, of the longer side of the large picture; large pictures that are kept.
_SIDE, _KEPT = 2048, 4
_PICTURES = "Pictures (*.png *.jpg *.jpeg *.tif *.tiff *.webp)"
_PAINTED_HINT = "A picture of yours instead, painted over this one in another program."
_OWN_HINT = "Ticked: this keyframe has a value of its own. Otherwise it has the clip's."


class KeyframeView(QWidget):
    """A keyframe that is looked at.

    wanted: the user wants it otherwise; a frame, and its `Changes`
    """

    wanted = Signal(int, object)

    def __init__(self, effect: Effect, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._row: Row | None = None
        self._before: dict[str, str] = {}
        self._filled = ""  # with which values, so that the user's words are not written over
        self._pictures = Pictures(_SIDE, _KEPT, self)
        self.picture = PictureView("Choose a keyframe, to see it large and to change it.")
        self.title = QLabel()
        self.own: dict[str, QCheckBox] = {}
        self.editors: dict[str, Editor] = {}
        self.fields = QWidget()
        self.apply = QPushButton("C&hange this keyframe")
        self._arrange(effect)
        self._pictures.read.connect(self._on_read)
        self.apply.clicked.connect(self._on_apply)
        self.show_row(None, {}, {}, True)

    def close_pictures(self) -> None:
        """Read no more pictures."""
        self._pictures.close()

    def _arrange(self, effect: Effect) -> None:
        grid = QGridLayout(self.fields)
        grid.setContentsMargins(0, 0, 0, 0)
        for parameter in effect.animated:
            self._add(grid, parameter.name, parameter.label, parameter.hint, editor(parameter))
        painted = FilePath("Painted picture", kinds=_PICTURES)
        painted.describe("Painted picture", _PAINTED_HINT)
        self._add(grid, PAINTED, "Painted picture", _PAINTED_HINT, painted)
        grid.addWidget(self.apply, grid.rowCount(), 1)
        layout = QVBoxLayout(self)
        for widget in (self.title, self.picture, self.fields):
            layout.addWidget(widget, int(widget is self.picture))

    def _add(self, grid: QGridLayout, what: str, label: str, hint: str, own: Editor) -> None:
        box = QCheckBox(label)
        box.setToolTip(f"{hint}\n{_OWN_HINT}")
        box.setAccessibleDescription(_OWN_HINT)
        self.own[what], self.editors[what] = box, own
        row = grid.rowCount()
        grid.addWidget(box, row, 0)
        grid.addWidget(own, row, 1)
        own.setEnabled(False)
        box.toggled.connect(own.setEnabled)
        box.toggled.connect(self._follow)
        own.changed.connect(self._follow)

    # ------------------------------------------------------------------------------------- content

    def show_row(
        self, row: Row | None, changes: dict[str, str], usual: dict[str, object], done: bool
    ) -> None:
        """Show a keyframe, or none.

        changes: of it alone; usual: of the whole clip; done: a change makes another version
        """
        self._row = row
        self.title.setText(f"Keyframe at frame {row.frame}" if row else "")
        self.title.setVisible(row is not None)
        self.fields.setVisible(row is not None)
        self.apply.setText("Make another &version" if done else "C&hange this keyframe")
        self._show_picture()
        if row is not None and self._filled != (filled := f"{row.frame} {changes} {usual}"):
            self._filled, self._before = filled, changes
            self._fill(changes, usual)
        self._follow()

    def _fill(self, changes: dict[str, str], usual: dict[str, object]) -> None:
        for what, own in self.editors.items():
            own.set_value(changes.get(what, usual.get(what, "")))
            self.own[what].setChecked(what in changes)

    def _show_picture(self) -> None:
        row = self._row
        image = QImage() if row is None else row.preview
        if image is None and row is not None:
            image = self._pictures.get(row.path)
        if image is not None:  # else what is shown stays, until this one is read
            self.picture.show_image(image)

    def _on_read(self, path: str) -> None:
        if self._row is not None and self._row.path == path:
            self._show_picture()

    # ------------------------------------------------------------------------------------- changes

    def changes(self) -> Changes:
        """Return what is otherwise than before; None: no longer this keyframe's own."""
        now = {
            what: _text(own.value())
            for what, own in self.editors.items()
            if self.own[what].isChecked()
        }
        gone = {what: None for what in self._before if what in self.editors and what not in now}
        new = {what: value for what, value in now.items() if value != self._before.get(what)}
        return {**gone, **new}

    def _follow(self) -> None:
        changes = self.changes()
        self.apply.setEnabled(bool(changes) and "" not in changes.values())

    def _on_apply(self) -> None:
        if self._row is not None:
            self.wanted.emit(self._row.frame, self.changes())


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
