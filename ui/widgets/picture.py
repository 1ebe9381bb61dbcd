"""One picture, as large as there is room."""

from __future__ import annotations

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QImage, QPainter, QPaintEvent, QPixmap
from PySide6.QtWidgets import QSizePolicy, QWidget


class PictureView(QWidget):
    """Shows an image in its own proportions, sharp on every screen; a text where there is none."""

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text, self._image = text, QImage()
        self._scaled = QPixmap()
        self.setMinimumSize(160, 120)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    @property
    def image(self) -> QImage:
        """What is shown; null if nothing is."""
        return self._image

    def sizeHint(self) -> QSize:  # noqa: N802
        """See QWidget."""
        return QSize(420, 300)

    def show_image(self, image: QImage) -> None:
        """Show an image; a null one is nothing."""
        self._image, self._scaled = image, QPixmap()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802, ARG002
        """See QWidget."""
        painter = QPainter(self)
        if self._image.isNull():
            painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignCenter), self._text)
            return
        pixmap = self._fitting()
        size = pixmap.deviceIndependentSize().toSize()
        at = QRect((self.width() - size.width()) // 2, (self.height() - size.height()) // 2,
                   size.width(), size.height())  # fmt: skip
        painter.drawPixmap(at, pixmap)

    def _fitting(self) -> QPixmap:
        """The image in this widget's size, in the screen's own pixels."""
        ratio = self.devicePixelRatioF()
        room = self._image.size().scaled(
            self.size() * ratio, Qt.AspectRatioMode.KeepAspectRatio
        )  # fmt: skip
        if self._scaled.size() != room:
            smooth = Qt.TransformationMode.SmoothTransformation
            keep = Qt.AspectRatioMode.IgnoreAspectRatio
            self._scaled = QPixmap.fromImage(self._image.scaled(room, keep, smooth))
            self._scaled.setDevicePixelRatio(ratio)
        return self._scaled
