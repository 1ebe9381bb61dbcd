"""The job that is looked at."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QItemSelectionModel, QModelIndex, Qt
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from host_plugins.link import messages
from host_plugins.link.messages import JobInfo
from ui import words
from ui.models.desk import Desk
from ui.models.jobs import title
from ui.models.keyframes import Row
from ui.models.versions import Changes
from ui.widgets.grid import KeyframeGrid
from ui.widgets.keyframe import KeyframeView
from ui.widgets.problem import ProblemBar
from ui.widgets.report import ReportView

#: Pixels of the report; per mille of the progress bar.
_REPORT, _FULL = 190, 1000


class JobView(QWidget):
    """Everything about one job, and what may be done to it."""

    def __init__(self, desk: Desk, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._desk, self._job = desk, desk.job
        self.title, self.far, self.notes = (QLabel(wordWrap=True) for _ in range(3))
        self._shown_frame: int | None = None
        self.bar = QProgressBar(maximum=_FULL, textVisible=False)
        self.buttons = {
            "approve": QPushButton("Looks &good, go on"),
            "pause": QPushButton("&Pause"),
            "resume": QPushButton("Res&ume"),
            "retry": QPushButton("&Try again"),
            "cancel": QPushButton("&Cancel"),
        }
        self.problem = ProblemBar(self._job.log, dismissible=False)
        self.grid = KeyframeGrid(self._job.keyframes)
        self.keyframe = KeyframeView(desk.effect)
        self.report = ReportView()
        self._arrange()
        self._listen()
        self._show()

    def _arrange(self) -> None:
        bold = self.title.font()
        bold.setBold(True)
        bold.setPointSizeF(1.2 * bold.pointSizeF())
        self.title.setFont(bold)
        for label in (self.title, self.far, self.notes):
            label.setTextFormat(Qt.TextFormat.PlainText)
        self.bar.setAccessibleName("How much of this stage is done")
        self.bar.setMaximumHeight(12)
        buttons = QHBoxLayout()
        for button in self.buttons.values():
            buttons.addWidget(button)
        buttons.addStretch()
        middle = QSplitter(Qt.Orientation.Horizontal)
        middle.addWidget(self.grid)
        middle.addWidget(self.keyframe)
        middle.setSizes([380, 420])
        middle.setChildrenCollapsible(False)
        self.report.setMaximumHeight(_REPORT)
        layout = QVBoxLayout(self)
        for widget in (self.title, self.far, self.bar):
            layout.addWidget(widget)
        layout.addLayout(buttons)
        layout.addWidget(self.problem)
        layout.addWidget(self.notes)
        layout.addWidget(middle, 1)
        layout.addWidget(self.report)

    def _listen(self) -> None:
        self._job.changed.connect(self._show)
        self._desk.server_changed.connect(self._show)
        self._job.other.connect(self._on_other)
        keyframes = self._job.keyframes
        keyframes.dataChanged.connect(self._show_keyframe)
        keyframes.modelReset.connect(self._on_reset)
        self.grid.selectionModel().currentChanged.connect(self._on_current)
        self.keyframe.wanted.connect(self._on_wanted)
        for name, button in self.buttons.items():
            button.clicked.connect(lambda _checked=False, name=name: self._do(name))

    def close_pictures(self) -> None:
        """Read no more pictures."""
        self.keyframe.close_pictures()

    # ------------------------------------------------------------------------------------- content

    def _show(self) -> None:
        info = self._job.info
        self.setEnabled(info is not None)
        self.title.setText(title(info) if info else "")
        self.far.setText(_far(info) if info else "")
        share = words.share(info) if info else None
        self.bar.setVisible(share is not None)
        self.bar.setValue(round(_FULL * (share or 0)))
        for name, button in self.buttons.items():
            button.setVisible(name in self._job.allowed)
            button.setEnabled(self._desk.here)
        failure = self._job.failure
        self.problem.say(words.sentence(failure) if failure else "")
        notes = [words.styled_by(info), *info.notes, self._job.why] if info else []
        self.notes.setText("\n".join(filter(None, notes)))
        self.notes.setVisible(any(notes))
        self._show_report(info)
        self._show_keyframe()

    def _show_report(self, info: JobInfo | None) -> None:
        made = self._job.made
        written = info is not None and info.state == "done" and made is not None
        self.report.setVisible(written)
        if written and info is not None and made is not None:
            self.report.show_report(info.output, made.report)

    def _show_keyframe(self) -> None:
        row: Row | None = self.grid.currentIndex().data(Qt.ItemDataRole.UserRole)
        info = self._job.info
        if row is None or info is None:
            return self.keyframe.show_row(None, {}, {}, False)
        self._shown_frame = row.frame
        usual = self._usual(info)
        changes = self._job.changes_at(row.frame)
        return self.keyframe.show_row(row, changes, usual, info.state == "done")

    def _usual(self, info: JobInfo) -> dict[str, object]:
        """What the whole clip has, of what a keyframe may have for itself."""
        found: dict[str, object] = {}
        for parameter in self._desk.effect.animated:
            value: Any = info.request.get(parameter.field)
            found[parameter.name] = parameter.default if value is None else value
        return found

    def _on_other(self) -> None:
        self._shown_frame = None

    def _on_current(self, current: QModelIndex, _before: QModelIndex) -> None:
        if current.isValid():
            self._show_keyframe()

    def _on_reset(self) -> None:
        """Look at the same keyframe as before, in the new list."""
        if self._shown_frame is not None:
            at = self._job.keyframes.index_of(self._shown_frame)
            flag = QItemSelectionModel.SelectionFlag.ClearAndSelect
            self.grid.selectionModel().setCurrentIndex(at, flag)
        self._show_keyframe()

    # --------------------------------------------------------------------------------------- wishes

    def _do(self, name: str) -> None:
        if name == "approve":
            self._job.approve()
        else:
            self._job.do(messages.OPS[name])

    def _on_wanted(self, frame: int, changes: Changes) -> None:
        if self._job.info is not None and self._job.info.state == "done":
            self._desk.another(frame, changes)
        else:
            self._job.edit(frame, changes)


def _far(info: JobInfo) -> str:
    """How far it is, and what the rest will take."""
    said = words.how_far(info)
    said = said[:1].upper() + said[1:]
    ahead = words.cost(info.forecast) if info.state == "waiting" else ""
    return f"{said}. The rest takes {ahead}." if ahead else f"{said}."
