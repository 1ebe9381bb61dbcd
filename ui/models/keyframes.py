"""The keyframes of a job: their pictures, as far as they are made, and previews of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QBuffer,
    QByteArray,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
)
from PySide6.QtGui import QImage, QImageReader

from host_plugins.link.messages import Keyframe, Preview
from ui.models.pictures import Pictures, smaller

#: Pixels, of the longer side.
THUMBNAIL = 320
_ROOT = QModelIndex()
Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True, slots=True)
class Row:
    """A keyframe. preview: while it is made; path: of its picture, once there is one."""

    frame: int
    path: str = ""
    final: bool = False
    changed: tuple[str, ...] = ()
    preview: QImage | None = None
    step: str = ""


class KeyframesModel(QAbstractListModel):
    """Keyframes in the order of their frames; only pictures that are looked at are read."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: list[Row] = []
        self._pictures = Pictures(THUMBNAIL, parent=self)
        self._pictures.read.connect(self._on_read)

    def close(self) -> None:
        """Read no more pictures."""
        self._pictures.close()

    # ------------------------------------------------------------------------------------ content

    def replace(self, keyframes: Sequence[Keyframe], request: Mapping[str, Any]) -> None:
        """Show these; previews that are newer than they are stay."""
        changed = _changes(request)
        shown = {row.frame: row for row in self._rows if row.preview is not None}
        rows = [
            replace(shown.get(own.frame, Row(own.frame)), path=own.path, final=own.final,
                    changed=changed.get(own.frame, ()))
            for own in keyframes
        ]  # fmt: skip
        known = {row.frame for row in rows}
        self._show(rows + [row for row in shown.values() if row.frame not in known])

    def clear_previews(self) -> None:
        """Forget what was only half made."""
        rows = [replace(row, preview=None, step="") for row in self._rows]
        self._show([row for row in rows if row.path])

    def add(self, keyframe: Keyframe, picture: bytes) -> None:
        """Show a keyframe that is made now."""
        if picture:
            self._pictures.keep(keyframe.path, _image(picture))
        before = self.row_of(keyframe.frame) or Row(keyframe.frame)
        self._put(replace(before, path=keyframe.path, final=keyframe.final, preview=None, step=""))

    def preview(self, told: Preview, pictures: Sequence[bytes]) -> None:
        """Show what keyframes look like after a step."""
        step = f"step {told.step + 1} of {told.last + 1}"
        for frame, picture in zip(told.frames, pictures, strict=False):
            before = self.row_of(frame) or Row(frame)
            self._put(replace(before, preview=_image(picture), step=step))

    def row_of(self, frame: int) -> Row | None:
        """Return the row of a frame; None if there is none."""
        return next((row for row in self._rows if row.frame == frame), None)

    def index_of(self, frame: int) -> QModelIndex:
        """Return where a frame is in the list."""
        places = [place for place, row in enumerate(self._rows) if row.frame == frame]
        return self.index(places[0]) if places else QModelIndex()

    def _show(self, rows: list[Row]) -> None:
        rows.sort(key=lambda row: row.frame)
        if [row.frame for row in rows] == [row.frame for row in self._rows]:
            self._rows = rows
            if rows:
                self.dataChanged.emit(self.index(0), self.index(len(rows) - 1))
            return
        self.beginResetModel()
        self._rows = rows
        self.endResetModel()

    def _put(self, row: Row) -> None:
        """Replace a row, or put in a new one, so that what is selected stays so."""
        at = sum(own.frame < row.frame for own in self._rows)
        if at < len(self._rows) and self._rows[at].frame == row.frame:
            self._rows[at] = row
            self.dataChanged.emit(self.index(at), self.index(at))
            return
        self.beginInsertRows(_ROOT, at, at)
        self._rows.insert(at, row)
        self.endInsertRows()

    def _on_read(self, path: str) -> None:
        for place, row in enumerate(self._rows):
            if row.path == path:
                self.dataChanged.emit(self.index(place), self.index(place))

    # ----------------------------------------------------------------------------------- the model

    def rowCount(self, parent: Index = _ROOT) -> int:  # noqa: N802
        """See QAbstractItemModel."""
        return 0 if parent.isValid() else len(self._rows)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """See QAbstractItemModel; the row itself is the UserRole."""
        if not index.isValid():
            return None
        row = self._rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{row.frame}{' *' if row.changed else ''}" + (
                f"\n{row.step}" if row.step else ""
            )
        if role == Qt.ItemDataRole.DecorationRole:
            return row.preview or self._picture(row)
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
            return _told(row)
        return row if role == Qt.ItemDataRole.UserRole else None

    def _picture(self, row: Row) -> QImage | None:
        return self._pictures.get(row.path) if row.path else None


def _told(row: Row) -> str:
    said = [f"keyframe at frame {row.frame}"]
    if row.step:
        said.append(f"being made, {row.step}")
    if row.changed:
        said.append(f"changed: {', '.join(row.changed)}")
    return ", ".join(said)


def _changes(request: Mapping[str, Any]) -> dict[int, tuple[str, ...]]:
    """What is changed of each frame in a request."""
    found: dict[int, tuple[str, ...]] = {}
    for change in request.get("changes", ()):
        frame = int(change["frame"])
        found[frame] = (*found.get(frame, ()), str(change["what"]))
    return found


def _image(picture: bytes) -> QImage:
    buffer = QBuffer()
    buffer.setData(QByteArray(bytes(picture)))
    return smaller(QImageReader(buffer), THUMBNAIL)
