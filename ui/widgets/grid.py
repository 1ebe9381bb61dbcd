"""The keyframes as small pictures, with the numbers of their frames."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QImage, QPainter, QPalette
from PySide6.QtWidgets import (
    QApplication,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from ui.models.keyframes import KeyframesModel

Index = QModelIndex | QPersistentModelIndex
#: Pixels: of a picture, and around it.
_PICTURE, _MARGIN = QSize(160, 100), 6


class KeyframeGrid(QListView):
    """Keyframes, one of them current."""

    def __init__(self, keyframes: KeyframesModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setModel(keyframes)
        self.setItemDelegate(_Thumbnail(self))
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setMovement(QListView.Movement.Static)
        self.setUniformItemSizes(True)
        self.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.setAccessibleName("Keyframes")


class _Thumbnail(QStyledItemDelegate):
    """Draws a picture in its own proportions; what is chosen has a frame around it, not over it."""

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:  # noqa: N802, ARG002
        lines = 2 * option.fontMetrics.height()
        return _PICTURE + QSize(2 * _MARGIN, 2 * _MARGIN + lines)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        element = QStyle.PrimitiveElement.PE_PanelItemViewItem
        QApplication.style().drawPrimitive(element, option, painter, option.widget)
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        role = QPalette.ColorRole.HighlightedText if chosen else QPalette.ColorRole.Text
        room: QRect = option.rect.adjusted(_MARGIN, _MARGIN, -_MARGIN, 0)
        picture = QRect(room.topLeft(), _PICTURE)
        painter.save()
        image: QImage | None = index.data(Qt.ItemDataRole.DecorationRole)
        if image is not None and not image.isNull():
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawImage(_fitted(image.size(), picture), image)
        painter.setPen(option.palette.color(role))
        said = QRect(
            room.left(), picture.bottom() + 2, room.width(), room.bottom() - picture.bottom()
        )
        align = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop
        painter.drawText(said, int(align), index.data(Qt.ItemDataRole.DisplayRole))
        painter.restore()


def _fitted(size: QSize, room: QRect) -> QRect:
    """Where something of `size` fits into `room`, in the middle."""
    fitting = QRect(room.topLeft(), size.scaled(room.size(), Qt.AspectRatioMode.KeepAspectRatio))
    fitting.moveCenter(room.center())
    return fitting
