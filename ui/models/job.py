"""The job that is looked at: what it is, what it made, and what may be done to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from host_plugins.link import messages
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import (
    Approve,
    Edit,
    Event,
    JobInfo,
    Keyframe,
    Made,
    OfJob,
    Op,
    Preview,
    Progress,
    StateChanged,
)
from ui import words
from ui.line import Line
from ui.models.jobs import moved
from ui.models.keyframes import KeyframesModel
from ui.models.versions import PAINTED, Changes, changes_at
from ui.starter import tail

#: Instead of the server's words, which are about numbers that nobody sees here.
_FASTER = BridgeError(
    Code.CONFLICT, "somebody else has changed this job meanwhile",
    "look at what it is like now, and change it again",
)  # fmt: skip


class JobModel(QObject):
    """One job, kept up to date by the events that it is handed.

    changed: anything of it is otherwise
    other: another job is looked at
    stale: what is known of the job of this id must be asked for
    failed: a `BridgeError`, of something that was asked for
    """

    changed = Signal()
    other = Signal()
    stale = Signal(str)
    failed = Signal(object)

    def __init__(self, line: Line, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._line = line
        self.id = ""
        self.info: JobInfo | None = None
        self.made: Made | None = None
        self.why = ""  # of a change that nobody asked for
        self.keyframes = KeyframesModel(self)
        self._on: dict[str, Callable[[Any, Event], None]] = {
            "progress": self._on_progress,
            "keyframe": self._on_keyframe,
            "preview": self._on_preview,
            "state": self._on_state,
        }

    def show(self, job: str) -> None:
        """Look at another job."""
        if job == self.id:
            return
        self.id, self.info, self.made, self.why = job, None, None, ""
        self.keyframes.clear_previews()
        self.keyframes.replace((), {})
        self.other.emit()
        self.changed.emit()
        if job:
            self.stale.emit(job)

    @property
    def allowed(self) -> frozenset[str]:
        """What may be done now, by the names of operations."""
        return words.allowed(self.info.state) if self.info else frozenset()

    @property
    def failure(self) -> BridgeError | None:
        """Why the job failed."""
        return (
            BridgeError.from_table(self.info.failure) if self.info and self.info.failure else None
        )

    def log(self) -> str:
        """Return the end of what was written down about the job."""
        files = self.made.files if self.made else ()
        return "\n".join(tail(Path(own.path)) for own in files if own.role == "log")

    # ------------------------------------------------------------------------------ what comes in

    def take(self, info: JobInfo) -> None:
        """Show the job as the server says that it is, with `request` and `keyframes`."""
        if info.job != self.id:
            return
        rested = self.info is None or self.info.state != info.state
        self.info = info
        self.made = None if rested else self.made
        self.keyframes.replace(_pictured(info), info.request)
        if info.state != "running":
            self.keyframes.clear_previews()
        if rested and info.state not in ("queued", "running"):
            self._line.ask(messages.RESULT, OfJob(job=self.id), self._on_made, self.failed.emit)
        self.changed.emit()

    def on_event(self, event: Event) -> None:
        """Show what happens to the job; of another one nothing."""
        take = self._on.get(event.event)
        if event.job == self.id and self.info is not None and take is not None:
            take(messages.EVENTS[event.event].from_table(event.data), event)

    def _on_made(self, made: Made) -> None:
        if made.job == self.id:
            self.made = made
            self.changed.emit()

    def _on_progress(self, far: Progress, _event: Event) -> None:
        if self.info is not None:
            self.info = moved(self.info, far)
            self.changed.emit()

    def _on_keyframe(self, keyframe: Keyframe, event: Event) -> None:
        if self.info is None:
            return
        picture = bytes(event.payloads[0]) if event.payloads else b""
        info = replace(self.info, keyframes=(keyframe,))
        self.keyframes.add(_pictured(info)[0], picture)

    def _on_preview(self, preview: Preview, event: Event) -> None:
        self.keyframes.preview(preview, [bytes(own) for own in event.payloads])

    def _on_state(self, told: StateChanged, _event: Event) -> None:
        self.why = told.why

    # ----------------------------------------------------------------------------- what may be done

    def do(self, op: Op[JobInfo]) -> None:
        """Cancel, pause, resume or retry."""
        self._line.ask(op, OfJob(job=self.id), self._on_reply, self.failed.emit)

    def approve(self) -> None:
        """Let the job go on, behind the gate that it waits at, to its end."""
        if self.info is not None:
            asked = Approve(job=self.id, gate=self.info.gate)
            self._line.ask(messages.APPROVE, asked, self._on_reply, self.failed.emit)

    def changes_at(self, frame: int) -> dict[str, str]:
        """Return what is changed of a keyframe now."""
        return changes_at(self.info.request, frame) if self.info else {}

    def edit(self, frame: int, changes: Changes) -> None:
        """Change a keyframe; one after the other, each on what the one before made of it."""
        if self.info is None:
            return
        left = list(changes.items())
        job, failed = self.id, self._on_refused(self.id)

        def next_one(info: JobInfo) -> None:
            if not left:
                return self._on_reply(info)
            what, value = left.pop(0)
            asked = Edit(job=job, base=info.revision, frame=frame, what=what, value=value)
            return self._line.ask(messages.EDIT, asked, next_one, failed)

        next_one(self.info)

    def _on_refused(self, job: str) -> Callable[[BridgeError], None]:
        """Say what is wrong, and look at the job again: somebody else may have changed it."""

        def refused(error: BridgeError) -> None:
            self.failed.emit(_FASTER if error.code is Code.CONFLICT else error)
            self.stale.emit(job)

        return refused

    def _on_reply(self, info: JobInfo) -> None:
        self.stale.emit(info.job)


def _pictured(info: JobInfo) -> list[Keyframe]:
    """The keyframes; the picture of a painted one is what its painter made."""
    painted: dict[int, str] = {
        own["frame"]: own["value"]
        for own in info.request.get("changes", ())
        if own["what"] == PAINTED
    }
    return [replace(own, path=painted.get(own.frame, own.path)) for own in info.keyframes]
