"""Pictures from the disk, read by threads of their own, and a few of them kept."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress

from PySide6.QtCore import QObject, QRunnable, QSize, Qt, QThreadPool, Signal
from PySide6.QtGui import QImage, QImageReader

#: Pictures that are kept: more than a window shows, however long the clip is.
_KEPT = 200


class Pictures(QObject):
    """Reads pictures, no larger than `side` pixels, and keeps those that were asked for last.

    read: the path of a picture that can be had now
    """

    read = Signal(str)
    _came = Signal(str, QImage)

    def __init__(self, side: int, kept: int = _KEPT, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._side, self._most = side, kept
        self._kept: OrderedDict[str, QImage] = OrderedDict()
        self._asked: set[str] = set()
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(2)
        self._came.connect(self._on_came)

    def get(self, path: str) -> QImage | None:
        """Return a picture; None if it must be read first, and a null one if that cannot be."""
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        if path not in self._asked:
            self._asked.add(path)
            self._pool.start(_Reading(self, path, self._side))
        return None

    def keep(self, path: str, image: QImage) -> None:
        """Take over a picture that need not be read."""
        self._kept[path] = image
        self._kept.move_to_end(path)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def close(self) -> None:
        """Wait for what is being read."""
        self._pool.clear()
        self._pool.waitForDone()

    def _on_came(self, path: str, image: QImage) -> None:
        self._asked.discard(path)
        self.keep(path, image)
        self.read.emit(path)


class _Reading(QRunnable):
    def __init__(self, pictures: Pictures, path: str, side: int) -> None:
        super().__init__()
        self._pictures, self._path, self._side = pictures, path, side

    def run(self) -> None:
        image = smaller(QImageReader(self._path), self._side)
        with suppress(RuntimeError):  # the window was closed meanwhile
            self._pictures._came.emit(self._path, image)  # pyright: ignore[reportPrivateUsage]


def smaller(reader: QImageReader, side: int) -> QImage:
    """Read a picture, at most `side` pixels wide and high; a null one if it cannot be read."""
    reader.setAutoTransform(True)
    size = reader.size()
    if max(size.width(), size.height()) > side:
        keep = Qt.AspectRatioMode.KeepAspectRatio
        reader.setScaledSize(size.scaled(QSize(side, side), keep))
    return reader.read()
