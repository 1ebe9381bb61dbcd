"""What is on its way to one client, without ever waiting for it.

A socket takes so many messages of a client that does not read; what it does not take waits here. Of
transient events only the newest of each kind and job does. Beyond a limit the rest is dropped: lost
events are asked for again, and so are replies (PROTOCOL.md, sections 4 and 7).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import zmq
import zmq.asyncio

from host_plugins.link.wire import Buffer, size

#: Messages and bytes that wait for a client, at most.
_MESSAGES, _BYTES = 256, 1 << 27


class Outbox:
    """Sends to one client of a ROUTER."""

    def __init__(self, socket: zmq.asyncio.Socket, identity: bytes) -> None:
        self._socket, self._identity = socket, identity
        self._waiting: deque[list[Buffer]] = deque()
        self._bytes = 0
        self._newest: dict[tuple[str, str], list[Buffer]] = {}
        self.gone = False

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self.gone or not (self._waiting or self._newest)

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send a reply or a lasting event, now or when the client reads again."""
        self.flush()
        message = list(frames)
        if (self._waiting or not self._try(message)) and not self.gone:
            length = sum(map(size, message))
            if len(self._waiting) < _MESSAGES and self._bytes + length <= _BYTES:
                self._waiting.append(message)
                self._bytes += length

    def send_newest(self, kind: str, job: str, frames: Sequence[Buffer]) -> None:
        """Send a transient event; one that still waits for the same is dropped for it."""
        self.flush()
        self._newest.pop((kind, job), None)
        message = list(frames)
        if not self.empty or not self._try(message):
            self._newest[kind, job] = message

    def flush(self) -> None:
        """Send what the socket takes now."""
        while self._waiting and self._try(self._waiting[0]):
            self._bytes -= sum(map(size, self._waiting.popleft()))
        while self._newest and not self._waiting:
            key = next(iter(self._newest))
            if not self._try(self._newest[key]):
                break
            del self._newest[key]

    def _try(self, message: list[Buffer]) -> bool:
        """Send at once, or not at all; what goes to nobody counts as sent."""
        if self.gone:
            return True
        # Not awaited: with NOBLOCK it is done, one way or the other, when the call returns.
        sent = self._socket.send_multipart([self._identity, *message], zmq.NOBLOCK)
        assert isinstance(sent, asyncio.Future)
        error = sent.exception()
        if error is None:
            return True
        if isinstance(error, zmq.Again):
            return False
        self.gone = True
        return True
