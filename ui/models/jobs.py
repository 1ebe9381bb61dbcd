"""The list of jobs, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
    Signal,
)

from host_plugins.link.messages import JobInfo, JobList, Progress
from ui import words

_ROOT = QModelIndex()
Index = QModelIndex | QPersistentModelIndex


class JobsModel(QAbstractListModel):
    """Jobs as the server told of them last.

    wanted: older ones than the job of this id are to be asked for
    """

    wanted = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._jobs: list[JobInfo] = []
        self._more = False

    def __iter__(self) -> Iterator[JobInfo]:
        return iter(self._jobs)

    def replace(self, told: JobList) -> None:
        """Show the newest jobs; what was shown before is old."""
        self._more = told.more
        if [job.job for job in told.jobs] == [job.job for job in self._jobs]:
            self._jobs = list(told.jobs)
            if self._jobs:
                self.dataChanged.emit(self.index(0), self.index(len(self._jobs) - 1))
            return
        self.beginResetModel()
        self._jobs = list(told.jobs)
        self.endResetModel()

    def extend(self, told: JobList) -> None:
        """Show older jobs below the others."""
        known = {job.job for job in self._jobs}
        older = [job for job in told.jobs if job.job not in known]
        self._more = told.more and bool(older)
        if older:
            at = len(self._jobs)
            self.beginInsertRows(_ROOT, at, at + len(older) - 1)
            self._jobs += older
            self.endInsertRows()

    def update(self, job: JobInfo) -> None:
        """Show a job as it is now; a new one is put where its time says."""
        at = self.place(job.job)
        if at is not None:
            self._jobs[at] = job
            self.dataChanged.emit(self.index(at), self.index(at))
            return
        at = sum(own.created > job.created for own in self._jobs)
        self.beginInsertRows(_ROOT, at, at)
        self._jobs.insert(at, job)
        self.endInsertRows()

    def move(self, job: str, far: Progress) -> None:
        """Show how far a job is."""
        at = self.place(job)
        if at is not None:
            self.update(moved(self._jobs[at], far))

    def place(self, job: str) -> int | None:
        """Return where a job is in the list; None if it is not there."""
        return next((at for at, own in enumerate(self._jobs) if own.job == job), None)

    def find(self, beginning: str) -> str:
        """Return the id of the newest job whose id begins so; the words themselves if none does."""
        found = (own.job for own in self._jobs if own.job.startswith(beginning))
        return next(found, beginning)

    # ----------------------------------------------------------------------------------- the model

    def rowCount(self, parent: Index = _ROOT) -> int:  # noqa: N802
        """See QAbstractItemModel."""
        return 0 if parent.isValid() else len(self._jobs)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """See QAbstractItemModel; the `JobInfo` itself is the UserRole."""
        if not index.isValid():
            return None
        job = self._jobs[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return title(job)
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
            return f"{title(job)}: {words.how_far(job)}"
        return job if role == Qt.ItemDataRole.UserRole else None

    def canFetchMore(self, parent: Index) -> bool:  # noqa: N802
        """See QAbstractItemModel."""
        return self._more and not parent.isValid()

    def fetchMore(self, parent: Index) -> None:  # noqa: N802, ARG002
        """See QAbstractItemModel."""
        if self._more and self._jobs:
            self._more = False  # until the answer says so
            self.wanted.emit(self._jobs[-1].job)


def title(job: JobInfo) -> str:
    """What a job is called."""
    return job.title or PurePath(job.output).name or job.job[:8]


def moved(job: JobInfo, far: Progress) -> JobInfo:
    """Return the job, as far as an event says that it is."""
    return replace(job, stage=far.stage, done=far.done, total=far.total, eta_s=far.eta_s)
