# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs of this Blender, followed on the server: what is known of each, and what is to be done.

Nothing here knows Blender: `watch` brings both together. Everything runs on the main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..link import messages
from ..link.errors import BridgeError, Code
from ..link.messages import Edit, Event, JobInfo, Made, Message, OfJob, Submit
from .tickets import Ticket

#: States in which nothing more happens by itself.
REST = ("done", "failed", "cancelled", "waiting", "paused", "unknown")
#: States in which a job can be stopped.
STOPPABLE = ("queued", "running", "waiting", "paused")
EFFECT = "io.fresco.Stylise"


class Rendering(Protocol):
    """Something that renders frames for a job before it can be sent (`rendering.Rendering`)."""

    def poll(self) -> Any:
        """How far it is: `done`, `total`, `finished`, `error`."""
        ...

    def cancel(self) -> None:
        """Stop it."""
        ...


@dataclass(frozen=True)
class Order:
    """A job as it will be sent. values: of the effect; or request: of the protocol."""

    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    title: str = ""
    parent: str = ""


@dataclass
class Card:
    """What is known of a job.

    order: of one that the server does not have yet; renderings: what it waits for
    sent: it is on its way
    info: as the server told last; None until then
    pictures: the finished keyframes and those under way, as JPEG or a file: by source frame
    error: what went wrong with it here, or on the server
    asked: its files were asked for; made: they are known; arrived: they are to be placed
    here: its strip is in the file that is open
    """

    ticket: Ticket
    order: Order | None = None
    renderings: list[Rendering] = field(default_factory=list[Any])
    info: JobInfo | None = None
    pictures: dict[int, bytes | str] = field(default_factory=dict[int, Any])
    error: BridgeError | None = None
    asked: bool = False
    made: Made | None = None
    arrived: bool = False
    sent: bool = False
    here: bool = True
    rendered: tuple[int, int] = (0, 0)

    @property
    def state(self) -> str:
        """The job's state; "rendering" and "sending" before the server knows it.

        "unknown" of one that a file remembers, until a server tells of it.
        """
        if self.error is not None and self.info is None:
            return "cancelled" if self.error.code is Code.CANCELLED else "failed"
        if self.info is not None:
            return self.info.state
        if self.order is None:
            return "unknown"
        return "rendering" if self.renderings else "sending"

    @property
    def share(self) -> float:
        """How far the stage is that it is at, 0 to 1."""
        done, total = (self.info.done, self.info.total) if self.info else self.rendered
        return min(1.0, done / total) if total else 0.0

    @property
    def withdrawn(self) -> bool:
        """Whether it was stopped before the server had it."""
        return self.info is None and self.error is not None and self.error.code is Code.CANCELLED

    @property
    def to_be_sent(self) -> bool:
        """Whether it is lost unless somebody sends it."""
        return self.order is not None and (self.error is None or self.error.retryable)

    @property
    def active(self) -> bool:
        """Whether something will happen by itself."""
        return self.state not in REST


#: As `Connection.ask`.
Ask = Callable[[messages.Op[Any], Message | None, Callable[[Any], None]], None]


class Desk:
    """Follows jobs.

    ask: `Connection.ask`
    changed: called when there is something new to be seen
    """

    def __init__(self, ask: Ask, changed: Callable[[], None] = lambda: None) -> None:
        self._ask, self._changed = ask, changed
        self.cards: dict[str, Card] = {}
        self.description: messages.Description | None = None
        self.models: tuple[Mapping[str, Any], ...] = ()

    # ---------------------------------------------------------------------------- what is asked

    def begin(self, ticket: Ticket, order: Order, renderings: Iterable[Rendering] = ()) -> Card:
        """Take a new job; it is sent once what it needs is rendered."""
        card = Card(ticket, order, list(renderings))
        self.cards[ticket.job] = card
        self.advance()
        return card

    def adopt(self, tickets: Iterable[Ticket]) -> None:
        """Follow jobs that strips of an opened file remember."""
        for ticket in tickets:
            card = self.cards.get(ticket.job)
            if card is None:
                self.cards[ticket.job] = Card(ticket)
                self._refresh(ticket.job)
            else:
                # A copy of the strip may not know yet that the result was placed.
                card.here, card.ticket = True, ticket if ticket.placed else card.ticket

    def leave(self) -> None:
        """Another file is open: of the jobs until now only those yet to be sent are followed."""
        self.cards = {job: card for job, card in self.cards.items() if card.to_be_sent}
        for card in self.cards.values():
            card.here = False

    def advance(self) -> None:
        """Look after what is being rendered, and send what is ready."""
        for card in list(self.cards.values()):
            if card.order is not None and not card.sent and card.error is None:
                self._advance(card, card.order)

    def cancel(self, job: str) -> None:
        """Stop a job, whatever it is at."""
        card = self.cards[job]
        if card.info is not None:
            self._tell(messages.CANCEL, OfJob(job=job))
            return
        for rendering in card.renderings:
            rendering.cancel()
        card.renderings, card.order = [], None
        card.error = BridgeError(Code.CANCELLED, "stopped before it was sent")
        # It may just have been sent: then the server stops it. It knows it not: nothing is lost.
        self._ask(messages.CANCEL, OfJob(job=job), lambda _told: None)
        self._changed()

    def approve(self, job: str) -> None:
        """Let a job go on that waits to be looked at, to its end."""
        info = self._known(job)
        self._tell(messages.APPROVE, messages.Approve(job=job, gate=info.gate))

    def retry(self, job: str) -> None:
        """Let a job go on that failed or was stopped."""
        self._tell(messages.RETRY, OfJob(job=job))

    def resume(self, job: str) -> None:
        """Let a job go on that was paused."""
        self._tell(messages.RESUME, OfJob(job=job))

    def edit(self, job: str, frame: int, changes: Mapping[str, str]) -> None:
        """Change a keyframe of a job that is not done; one change after the other."""
        self._known(job)
        card, left = self.cards[job], dict(changes)

        def then(told: Any) -> None:
            self._told(card, told)
            if left and not isinstance(told, BridgeError):
                send()

        def send() -> None:
            what = next(iter(left))
            base = card.info.revision if card.info else 0
            edit = Edit(job=job, base=base, frame=frame, what=what, value=left.pop(what))
            self._ask(messages.EDIT, edit, then)

        send()

    def forget(self, job: str) -> None:
        """Show a job no longer. On the server it stays."""
        if not self.cards[job].active:
            del self.cards[job]

    # ----------------------------------------------------------------------------- what is told

    def on_up(self) -> None:
        """Another server answers: nothing is known of it, and it may know jobs that are ours."""
        self._ask(messages.DESCRIBE, None, self._described)
        self._ask(messages.MODELS, None, self._listed)
        for job, card in self.cards.items():
            if card.order is None and not card.withdrawn:
                self._refresh(job)
            elif card.order is not None and card.sent:
                self._send(card, card.order)

    def on_event(self, event: Event) -> None:
        """Take in what happened to a job."""
        card = self.cards.get(event.job)
        if card is None:
            return
        if event.event == "progress" and card.info is not None:
            told = {name: event.data[name] for name in ("stage", "done", "total")}
            card.info = replace(card.info, **told, eta_s=event.data.get("eta_s"))
        elif event.event == "keyframe" and event.payloads:
            card.pictures[event.data["frame"]] = bytes(event.payloads[0])
        elif event.event == "preview":
            for frame, picture in zip(event.data["frames"], event.payloads, strict=False):
                card.pictures[frame] = bytes(picture)
        if not event.transient:
            self._refresh(event.job)
        self._changed()

    def arrived(self) -> list[Card]:
        """The jobs whose files wait to be put on the timeline."""
        return [card for card in self.cards.values() if card.arrived and card.here]

    # ------------------------------------------------------------------------------------ inside

    def _known(self, job: str) -> JobInfo:
        info = self.cards[job].info
        if info is None:
            raise BridgeError(Code.WRONG_STATE, "the server does not know this job yet")
        return info

    def _advance(self, card: Card, order: Order) -> None:
        looks = [rendering.poll() for rendering in card.renderings]
        card.rendered = (sum(look.done for look in looks), sum(look.total for look in looks))
        failed = next((look.error for look in looks if look.error), "")
        if failed:
            for rendering in card.renderings:
                rendering.cancel()
            card.error = BridgeError(Code.HOST, f"the strip could not be rendered: {failed}")
        elif all(look.finished for look in looks):
            card.renderings = []
            self._send(card, order)
        self._changed()

    def _send(self, card: Card, order: Order) -> None:
        card.sent, card.error = True, None
        asked = Submit(
            job=card.ticket.job, request=dict(order.request), title=order.title,
            effect="" if order.request else EFFECT, values=dict(order.values),
            client="Blender", parent=order.parent,
        )  # fmt: skip
        self._ask(messages.SUBMIT, asked, lambda told: self._told(card, told))

    def _tell(self, op: messages.Op[JobInfo], message: OfJob) -> None:
        card = self.cards[message.job]
        self._ask(op, message, lambda told: self._told(card, told))

    def _refresh(self, job: str) -> None:
        self._tell(messages.JOB, OfJob(job=job))

    def _told(self, card: Card, told: JobInfo | BridgeError) -> None:
        """Take in a reply about a job."""
        if isinstance(told, BridgeError):
            # What is only late will be told again by events, or asked for when a server is there.
            # An order is another matter: it says why it is not on its way.
            if card.order is not None or not told.retryable:
                card.error = told
        elif card.info is None or told.seq >= card.info.seq:
            card.order = None
            self._learn(card, told)
        self._changed()

    def _learn(self, card: Card, info: JobInfo) -> None:
        card.info = info if info.keyframes or card.info is None else replace(
            info, keyframes=card.info.keyframes, request=info.request or card.info.request
        )  # fmt: skip
        card.error = BridgeError.from_table(info.failure) if info.state == "failed" else None
        for keyframe in info.keyframes:
            if keyframe.path:
                card.pictures.setdefault(keyframe.frame, keyframe.path)
        if info.state == "done" and not card.asked:
            self._collect(card, place=not card.ticket.placed)

    def collect(self, job: str, place: bool = True) -> None:
        """Ask for the files of a done job; place: to put them on the timeline (again)."""
        self._collect(self.cards[job], place)

    def _collect(self, card: Card, place: bool) -> None:
        card.asked = True

        def then(told: Made | BridgeError) -> None:
            if isinstance(told, BridgeError):
                # What got lost with the server is asked for again when the next one answers.
                card.error, card.asked = told, not told.retryable
            else:
                card.made, card.arrived = told, place
            self._changed()

        self._ask(messages.RESULT, OfJob(job=card.ticket.job), then)

    def _described(self, told: Any) -> None:
        if not isinstance(told, BridgeError):
            self.description = told
            self._changed()

    def _listed(self, told: Any) -> None:
        if not isinstance(told, BridgeError):
            self.models = told.rows
