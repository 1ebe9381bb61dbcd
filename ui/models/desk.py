"""The desk: the server, all jobs, the one that is looked at, and what is asked for."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from host_plugins.link import messages
from host_plugins.link.errors import BridgeError
from host_plugins.link.messages import (
    Description,
    Event,
    JobInfo,
    JobList,
    Listing,
    OfJob,
    Progress,
    Rows,
    Submit,
)
from ui.effect import Effect
from ui.line import Line
from ui.models.job import JobModel
from ui.models.jobs import JobsModel
from ui.models.versions import Changes, another
from ui.standing import Server, Standing

#: Jobs that are asked for at once.
_AT_ONCE = 100
_TITLE = 200
#: After these events the job is asked for as a whole.
_ASK_AFTER = ("state", "edited", "note")
CLIENT = "the panel"


class Desk(QObject):
    """Everything that the window shows.

    server_changed: `server` is another
    described: `looks` and `models` are others
    failed: a `BridgeError`, of something that was asked for
    """

    server_changed = Signal()
    described = Signal()
    failed = Signal(object)

    def __init__(self, line: Line, effect: Effect, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._line, self.effect = line, effect
        self.server = Server(Standing.UNKNOWN)
        self.looks: tuple[Mapping[str, Any], ...] = ()
        self.models: tuple[Mapping[str, Any], ...] = ()
        self.jobs = JobsModel(self)
        self.job = JobModel(line, self)
        self.here = False  # a server that can be asked
        self._asked: dict[str, bool] = {}  # jobs that are asked for; True: once more after that
        self._when_met: list[tuple[Callable[[], None], Callable[[BridgeError], None]]] = []
        self._listen()

    def _listen(self) -> None:
        self._line.changed.connect(self._on_server)
        self._line.met.connect(self._on_met)
        self._line.happened.connect(self._on_event)
        self.jobs.wanted.connect(self._ask_older)
        self.job.stale.connect(self.refresh)
        self.job.failed.connect(self.failed)

    def close(self) -> None:
        """End what goes on in the background. The server and its jobs go on."""
        self._line.close()
        self.job.keyframes.close()

    # ----------------------------------------------------------------------------------- the server

    def log(self) -> str:
        """Return the end of what the server printed."""
        return self._line.log()

    def start_server(self) -> None:
        """Start the server, if there is none."""
        self._line.start_server()

    def _on_server(self, server: Server) -> None:
        self.server = server
        self.here = self.here and server.standing not in (Standing.ABSENT, Standing.STARTING)
        if server.problem is not None:
            for _wish, failed in self._taken():
                failed(server.problem)
        self.server_changed.emit()

    def _on_met(self) -> None:
        self.here = True
        self._asked.clear()
        self.server_changed.emit()
        asked = Listing(limit=_AT_ONCE)
        self._line.ask(messages.JOBS, asked, self._on_jobs, self.failed.emit)
        self._line.ask(messages.DESCRIBE, None, self._on_description, self.failed.emit)
        self._line.ask(messages.MODELS, None, self._on_models, self.failed.emit)
        for wish, _failed in self._taken():
            wish()

    def _taken(self) -> list[tuple[Callable[[], None], Callable[[BridgeError], None]]]:
        """What waits for a server, which now waits no more."""
        waiting, self._when_met = self._when_met, []
        return waiting

    def _on_description(self, told: Description) -> None:
        self.looks = told.looks
        self.described.emit()

    def _on_models(self, told: Rows) -> None:
        self.models = told.rows
        self.described.emit()

    # ------------------------------------------------------------------------------------- the jobs

    def choose(self, word: str) -> None:
        """Look at a job; the beginning of its id is enough for one that is listed."""
        self.job.show(self.jobs.find(word) if word else "")

    def refresh(self, job: str) -> None:
        """Ask for a job, as it is now; not twice at a time, and not where nobody is to be asked."""
        if job in self._asked:
            self._asked[job] = True
        elif self.here:
            self._asked[job] = False
            self._line.ask(messages.JOB, OfJob(job=job), self._on_job, self._on_no_job(job))

    def _on_jobs(self, told: JobList) -> None:
        self.jobs.replace(told)
        if not self.job.id and told.jobs:
            self.choose(told.jobs[0].job)
        elif self.job.id:
            full = self.jobs.find(self.job.id)
            self.refresh(full) if full == self.job.id else self.choose(full)

    def _ask_older(self, than: str) -> None:
        asked = Listing(limit=_AT_ONCE, before=than)
        self._line.ask(messages.JOBS, asked, self.jobs.extend, self.failed.emit)

    def _on_job(self, info: JobInfo) -> None:
        self.jobs.update(info)
        self.job.take(info)
        if self._asked.pop(info.job, False):
            self.refresh(info.job)

    def _on_no_job(self, job: str) -> Callable[[BridgeError], None]:
        def refused(error: BridgeError) -> None:
            self._asked.pop(job, None)
            if not error.retryable:  # else it is asked for when the server is met again
                self.failed.emit(error)

        return refused

    def _on_event(self, event: Event) -> None:
        if not event.job:
            return
        if event.event == "progress":
            self.jobs.move(event.job, Progress.from_table(event.data))
        self.job.on_event(event)
        if event.event in _ASK_AFTER:
            self.refresh(event.job)

    # ------------------------------------------------------------------------------------- new jobs

    def submit(
        self,
        values: Mapping[str, Any],
        title: str,
        then: Callable[[], None],
        failed: Callable[[BridgeError], None],
    ) -> None:
        """Ask for a clip restyled; the server is started for it, if there is none.

        values: of the effect's parameters and clips; then: the server has it, and it is looked at
        """
        asked = Submit(
            job=uuid.uuid4().hex, effect=self.effect.id, values=self.effect.set_values(values),
            title=title[:_TITLE], client=CLIENT,
        )  # fmt: skip

        def taken(info: JobInfo) -> None:
            self._on_submitted(info)
            then()

        self._when_here(lambda: self._line.ask(messages.SUBMIT, asked, taken, failed), failed)

    def another(self, frame: int, changes: Changes) -> None:
        """Make another version of the job that is looked at, with a keyframe changed."""
        info = self.job.info
        if info is not None:
            asked = Submit(
                job=uuid.uuid4().hex, request=another(info, frame, changes, Path.exists),
                title=info.title, client=CLIENT, parent=info.job,
            )  # fmt: skip
            self._line.ask(messages.SUBMIT, asked, self._on_submitted, self.failed.emit)

    def _on_submitted(self, info: JobInfo) -> None:
        self.jobs.update(info)
        self.choose(info.job)

    def _when_here(self, wish: Callable[[], None], failed: Callable[[BridgeError], None]) -> None:
        if self.here:
            return wish()
        self._when_met.append((wish, failed))
        return self.start_server()
