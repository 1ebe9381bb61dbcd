"""The list of jobs: what each is called, how far it is, and a bar."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPalette
from PySide6.QtWidgets import (
    QApplication,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionProgressBar,
    QStyleOptionViewItem,
    QWidget,
)

from host_plugins.link.messages import JobInfo
from ui import words
from ui.models.jobs import JobsModel, title

Index = QModelIndex | QPersistentModelIndex
#: Pixels, beside what the font needs.
_MARGIN, _BAR = 6, 8


class JobList(QListView):
    """Jobs, one of them current.

    picked: the id of the job that the user wants to look at
    """

    picked = Signal(str)

    def __init__(self, jobs: JobsModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._jobs, self._shown = jobs, ""
        self.setModel(jobs)
        self.setItemDelegate(_Row(self))
        self.setUniformItemSizes(True)
        self.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.setAccessibleName("Jobs")
        jobs.modelReset.connect(self._restore)
        jobs.rowsInserted.connect(self._restore)

    def show_job(self, job: str) -> None:
        """Make a job the current one."""
        self._shown = job
        self._restore()

    def currentChanged(self, current: Index, previous: Index) -> None:  # noqa: N802
        """See QListView."""
        super().currentChanged(current, previous)
        job: JobInfo | None = current.data(Qt.ItemDataRole.UserRole)
        if job is not None and job.job != self._shown:
            self._shown = job.job
            self.picked.emit(job.job)

    def _restore(self) -> None:
        at = self._jobs.place(self._shown)
        if at is not None and at != self.currentIndex().row():
            self.setCurrentIndex(self._jobs.index(at))


class _Row(QStyledItemDelegate):
    """Draws a job in the system's own colours, light or dark."""

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:  # noqa: N802, ARG002
        return QSize(220, 2 * option.fontMetrics.height() + _BAR + 3 * _MARGIN)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        job: JobInfo = index.data(Qt.ItemDataRole.UserRole)
        style = QApplication.style()
        style.drawPrimitive(
            QStyle.PrimitiveElement.PE_PanelItemViewItem, option, painter, option.widget
        )
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        role = QPalette.ColorRole.HighlightedText if chosen else QPalette.ColorRole.Text
        rect: QRect = option.rect.adjusted(_MARGIN, _MARGIN, -_MARGIN, -_MARGIN)
        height = option.fontMetrics.height()
        painter.save()
        painter.setPen(option.palette.color(role))
        for line, text in enumerate((title(job), words.how_far(job))):
            at = QRect(rect.left(), rect.top() + line * height, rect.width(), height)
            mode = Qt.TextElideMode.ElideMiddle if line == 0 else Qt.TextElideMode.ElideRight
            painter.setOpacity(1.0 if line == 0 else 0.75)
            said = option.fontMetrics.elidedText(text, mode, rect.width())
            painter.drawText(at, Qt.AlignmentFlag.AlignVCenter, said)
        painter.restore()
        self._draw_bar(painter, option, rect, words.share(job))

    def _draw_bar(
        self, painter: QPainter, option: QStyleOptionViewItem, rect: QRect, share: float | None
    ) -> None:
        if share is None:
            return
        bar = QStyleOptionProgressBar()
        bar.rect = QRect(rect.left(), rect.bottom() - _BAR, rect.width(), _BAR)
        bar.palette, bar.state = option.palette, option.state | QStyle.StateFlag.State_Horizontal
        bar.minimum, bar.maximum, bar.progress = 0, 1000, round(1000 * share)
        bar.textVisible = False
        element = QStyle.ControlElement.CE_ProgressBar
        QApplication.style().drawControl(element, bar, painter, option.widget)
