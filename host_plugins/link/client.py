"""A client of the server, for programs with an event loop of their own and for scripts.

A `Client` has no thread. Everything happens inside its methods: a script calls `request`, an editor
calls `poll` from a timer. It belongs to one thread at a time; another thread makes its own.

Requests are sent again until they are answered. That is harmless, because no operation of the
protocol does more when it is asked twice (PROTOCOL.md, section 4).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from . import endpoint as endpoints
from . import messages, wire
from .endpoint import Endpoint
from .errors import BridgeError, Code
from .messages import Event, Op, R, Replay, Replayed, Subscribe, Subscription
from .tables import Message, Table, joined
from .wire import Answer, Buffer, Notice

#: Seconds until a request is sent again; each time doubled, up to the second. One more for so many
#: bytes.
_AGAIN, _AGAIN_AT_MOST, _BYTES_PER_S = 2.0, 15.0, 1e7
#: Seconds between pings while events are expected: a server that is gone tells nothing either.
_PULSE = 5.0
#: Messages that are taken from the socket before other things are looked after.
_AT_ONCE = 200

Then = Callable[[Answer], None]


@dataclass
class _Pending:
    """A request without an answer, as frames; times are the clock's, in seconds."""

    op: str
    frames: list[Buffer]
    then: Then
    deadline: float
    again: float
    wait: float


class Client:
    """A connection to the server; close it, or use it as a context.

    find: tells where the server is; asked again whenever it stays silent
    """

    def __init__(
        self,
        find: Callable[[], Endpoint] = endpoints.read,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._clock = find, clock
        self.session = os.urandom(16).hex()
        self._count = 0
        self._pending: dict[str, _Pending] = {}
        self._events: deque[Event] = deque()
        self._seen: dict[str, int] = {}  # per job the number of the last event that was handed out
        self._replaying: set[str] = set()
        self._wanted: Subscribe | None = None
        self._server = ""  # its session
        self._pulse = 0.0
        self._gone: BridgeError | None = None  # why no server was found at the last look
        self._endpoint: Endpoint | None = None
        self._context: Any = None
        self._socket: Any = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was not sent yet is lost."""
        self._disconnect()
        if self._context is not None:
            self._context.term()
            self._context = None

    # ------------------------------------------------------------------------------ requests

    def ask(self, op: Op[R], message: Message | None = None, timeout: float = 5.0) -> R:
        """Ask, and wait for the reply.

        timeout: seconds

        Raises:
            BridgeError: the server's; no server runs (unavailable); it did not answer (timeout).
        """
        payloads = getattr(message, "payloads", ())
        answer = self.request(op.name, message.table() if message else {}, payloads, timeout)
        return op.reply.from_table(answer.fields, answer.payloads)

    def request(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        payloads: Sequence[Buffer] = (),
        timeout: float = 5.0,
    ) -> Answer:
        """Ask as `ask` does, with plain tables. Raises BridgeError: see `ask`."""
        answers: list[Answer] = []
        id_ = self.post(op, fields, payloads, answers.append, timeout)
        try:
            while not answers:
                self._turn(self._clock() + timeout)
        finally:
            self._pending.pop(id_, None)
        if answers[0].error is not None:
            raise answers[0].error
        return answers[0]

    def post(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        payloads: Sequence[Buffer] = (),
        then: Then = lambda _answer: None,
        timeout: float = 5.0,
        before: Table | None = None,
    ) -> str:
        """Ask without waiting; returns the request's id.

        then: is called with the reply, or with an error, from `poll` or another method of this;
            with a reply that comes in pages once all of them are there, as one
        before: the pages that came already

        Raises:
            BridgeError: no server runs (unavailable), or the message cannot be written.
        """
        if self._socket is None:
            self._connect(self._find())
        self._count += 1
        id_ = f"{self._count:x}"
        frames = wire.write_call(id_, op, self.session, fields or {}, payloads)

        def arrived(answer: Answer) -> None:
            whole = joined(before or {}, answer.fields)
            if page := whole.pop("next", ""):
                self.post(op, {**(fields or {}), "page": page}, (), then, timeout, whole)
            else:
                then(replace(answer, fields=whole))

        now = self._clock()
        wait = _AGAIN + sum(map(wire.size, payloads)) / _BYTES_PER_S
        self._pending[id_] = _Pending(op, frames, arrived, now + timeout, now + wait, wait)
        self._send(frames)
        return id_

    # -------------------------------------------------------------------------------- events

    def subscribe(
        self,
        jobs: Sequence[str] = (),
        transient: Sequence[str] = ("progress", "preview"),
        after: Mapping[str, int] | None = None,
        timeout: float = 5.0,
    ) -> None:
        """Ask for events, of `jobs` or of all; also again after a reconnection.

        after: of jobs the last event that the caller knows; later ones are told again

        Raises:
            BridgeError: see `ask`.
        """
        self._seen |= after or {}
        wanted = Subscribe(jobs=tuple(jobs), transient=tuple(transient))
        self._subscribed(self.ask(messages.SUBSCRIBE, wanted, timeout))
        self._wanted, self._pulse = wanted, self._clock() + _PULSE

    def unsubscribe(self, timeout: float = 5.0) -> None:
        """Ask for no more events. Raises BridgeError: see `ask`."""
        self._wanted = None
        self.ask(messages.UNSUBSCRIBE, None, timeout)

    def poll(self, timeout: float = 0.0) -> list[Event]:
        """Look after the connection; return the events that came, within `timeout` seconds.

        Of each job they come in order, each lasting one once: what got lost is asked for again.
        """
        end = self._clock() + timeout
        self._turn(self._clock())
        while not self._events and self._clock() < end:
            self._turn(end)
        found = list(self._events)
        self._events.clear()
        return found

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield events as they come, until none came for `timeout` seconds."""
        while found := self.poll(timeout):
            yield from found

    # ---------------------------------------------------------------------------- connection

    def _connect(self, endpoint: Endpoint) -> None:
        import zmq

        if endpoint.address.startswith("tcp:") and not endpoint.server_key:
            raise BridgeError(
                Code.UNAUTHORISED, f"{endpoint.address} is not encrypted, so it is not used"
            )
        self._disconnect()
        self._context = self._context or zmq.Context()
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.maxmsgsize = wire.LIMITS.payload
        socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 1000
        socket.heartbeat_ivl, socket.heartbeat_timeout = 5000, 15000
        try:
            if endpoint.server_key:
                socket.curve_serverkey = endpoint.server_key.encode()
                socket.curve_publickey = endpoint.public_key.encode()
                socket.curve_secretkey = endpoint.secret_key.encode()
            socket.connect(endpoint.address)
        except zmq.ZMQError as error:  # no address, or no keys
            socket.close()
            what = f"{endpoint.address} cannot be connected to: {error}"
            raise BridgeError(Code.UNAVAILABLE, what, "start the server again") from error
        self._socket, self._endpoint = socket, endpoint

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _look(self) -> None:
        """See whether the server has moved, because it is silent."""
        try:
            found = self._find()
            if found != self._endpoint:
                self._connect(found)
                self._resubscribe()
            self._gone = None
        except BridgeError as error:
            self._gone = error

    def _send(self, frames: list[Buffer]) -> None:
        import zmq

        with suppress(zmq.Again):  # too much is waiting: it is sent again later
            self._socket.send_multipart(frames, zmq.NOBLOCK)

    def _turn(self, until: float) -> None:
        """Do what is due; take what comes, and wait for it, at most until `until`."""
        self._keep_up()
        if self._socket is None:
            return time.sleep(max(0.0, until - self._clock()))
        due = [until, *(min(each.again, each.deadline) for each in self._pending.values())]
        if self._wanted:
            due.append(self._pulse)
        wait = max(0.0, min(due) - self._clock())
        if self._socket.poll(int(wait * 1000) + (wait > 0)):
            self._take()
        return None

    def _keep_up(self) -> None:
        """Give up what is too late, send again what may be lost, and feel the server's pulse."""
        now = self._clock()
        for id_, pending in list(self._pending.items()):
            if now >= pending.deadline:
                del self._pending[id_]
                silent = f"the FreSCo Bridge server did not answer {pending.op!r} in time"
                error = self._gone or BridgeError(Code.TIMEOUT, silent)
                pending.then(Answer(id_, self._server, error=error))
        late = [pending for pending in self._pending.values() if now >= pending.again]
        if late:
            self._look()
        for pending in late:
            pending.wait = min(2 * pending.wait, max(_AGAIN_AT_MOST, pending.wait))
            pending.again = now + pending.wait
            self._send(pending.frames)
        if self._wanted and now >= self._pulse:
            self._pulse = now + _PULSE
            self._post_quietly(messages.PING.name, {}, self._on_pong, _PULSE)

    def _take(self) -> None:
        import zmq

        for _ in range(_AT_ONCE):
            try:
                frames: list[bytes] = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._on_message(frames)

    # ------------------------------------------------------------------------- what comes in

    def _on_message(self, frames: list[bytes]) -> None:
        event: Event | None = None
        try:
            message = wire.read_answer(frames)
            if isinstance(message, Notice):
                fields = {**message.fields, "event": message.event}
                event = Event.from_table(fields, message.payloads)
        except BridgeError:  # what it was is asked for again
            return
        reborn = self._server not in ("", message.session)
        self._server = message.session
        if reborn:  # another process, which knows nothing of a subscription
            self._resubscribe()
        if event is not None:
            self._on_event(event)
        elif isinstance(message, Answer) and (pending := self._pending.pop(message.id, None)):
            pending.then(message)

    def _on_event(self, event: Event) -> None:
        """Hand out an event, or notice by its number that others are missing."""
        seen = self._seen.get(event.job, 0)
        if not event.job or (event.transient and event.seq == seen):
            self._events.append(event)
        elif not event.transient and event.seq == seen + 1:
            self._seen[event.job] = event.seq
            self._events.append(event)
        elif event.seq > seen:
            self._replay(event.job)

    def _replay(self, job: str) -> None:
        if job in self._replaying:
            return
        self._replaying.add(job)
        asked = Replay(job=job, after=self._seen.get(job, 0))

        def then(answer: Answer) -> None:
            self._replaying.discard(job)
            if answer.error is None:
                self._replayed(job, Replayed.from_table(answer.fields))
            elif not answer.error.retryable:
                self._seen.pop(job, None)

        self._post_quietly(messages.REPLAY.name, asked.table(), then, 30.0)

    def _replayed(self, job: str, told: Replayed) -> None:
        before = self._seen.get(job, 0)
        if told.events:  # what is before the first of them is no longer kept
            self._seen[job] = max(before, told.events[0].seq - 1)
        for event in told.events:
            self._on_event(event)
        if before < self._seen.get(job, 0) < told.newest:
            self._replay(job)
        else:
            self._seen[job] = max(self._seen.get(job, 0), told.newest)

    def _subscribed(self, told: Subscription, again: bool = False) -> None:
        """Ask for what is missing; of a job that began while nobody was subscribed, everything."""
        for job, newest in told.newest.items():
            if self._seen.setdefault(job, 0 if again else newest) < newest:
                self._replay(job)

    def _resubscribe(self) -> None:
        def then(answer: Answer) -> None:
            if answer.error is None:
                self._subscribed(Subscription.from_table(answer.fields), again=True)

        if self._wanted:
            self._replaying.clear()
            op = messages.SUBSCRIBE.name
            self._post_quietly(op, self._wanted.table(), then, 30.0)

    def _on_pong(self, answer: Answer) -> None:
        if answer.error is None and not answer.fields.get("subscribed"):
            self._resubscribe()

    def _post_quietly(self, op: str, fields: Mapping[str, Any], then: Then, timeout: float) -> None:
        """Ask for the client's own sake; what fails is tried again at the next pulse."""

        def quietly(answer: Answer) -> None:
            with suppress(BridgeError):
                then(answer)

        with suppress(BridgeError):
            self.post(op, fields, (), quietly, timeout)
