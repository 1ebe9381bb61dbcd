"""Connections: who they belong to, what they want to hear of, and events on their way to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bridge_server import envelope
from bridge_server.access import Owner
from bridge_server.loopback import Line
from bridge_server.outbox import Outbox
from host_plugins.link.messages import TRANSIENT, Event, Subscribe
from host_plugins.link.wire import Buffer, Notice

#: Requests per second of one client, and how many it may have in store.
_RATE, _BURST = 400.0, 1200.0
#: Bytes of a header that count as one request more: a large one takes longer to read.
WEIGHT = 2048
#: Clients that are remembered.
_PEERS = 512
#: Seconds between looks at what waits for slow clients.
_FLUSH = 0.02

#: Which socket, and the routing id there.
Key: TypeAlias = tuple[int, bytes]


@dataclass(slots=True, eq=False)
class Peer:
    """A connection, and who it belongs to.

    wanted: what it has subscribed to
    client: what the program calls itself; empty until it says so
    examined: what the doctor found when it was last asked, for further pages
    running: its requests that are being answered
    """

    owner: Owner
    outbox: Outbox | Line
    client: str = ""
    wanted: Subscribe | None = None
    examined: Sequence[dict[str, Any]] = ()
    running: int = 0
    seen: float = 0.0
    allowance: float = _BURST

    @property
    def words(self) -> str:
        """Who it is, for people."""
        return " of ".join(filter(None, (self.client, self.owner.name)))

    def allowed(self, now: float, header: int = 0) -> bool:
        """Count a request; whether it is not one too many (a token bucket).

        header: its bytes
        """
        self.allowance = min(_BURST, self.allowance + (now - self.seen) * _RATE)
        self.seen = now
        if self.allowance < 1:
            return False
        self.allowance -= 1 + header / WEIGHT
        return True


class Audience:
    """The connections that may subscribe to events. Everything is called in the event loop.

    session: of the server
    previews: is told whether anybody wants to see previews, when that may have changed
    """

    def __init__(self, session: str, previews: Callable[[bool], None]) -> None:
        self._session, self._previews = session, previews
        self._peers: dict[Key, Peer] = {}
        self._pictures: dict[tuple[str, int], bytes] = {}

    def peer(self, key: Key, sender: str, new: Callable[[], Peer]) -> Peer:
        """Return the connection of this key, or else a new one, which is then remembered.

        sender: of the message that came by it. Asked of every message: a client may choose its
            routing id, also one that was another's
        """
        peer = self._peers.get(key)
        if peer is not None and peer.owner.name != sender:
            self._part(key)
            peer = None
        if peer is None:
            self._forget_idle()
            peer = self._peers[key] = new()
        return peer

    def _part(self, key: Key) -> None:
        """Forget a connection whose routing id is another owner's now, who must hear none of it."""
        peer = self._peers.pop(key)
        peer.outbox.gone, peer.wanted = True, None
        self.subscribed()

    def _forget_idle(self) -> None:
        """Forget connections that ended; of too many the longest silent."""
        for key, peer in list(self._peers.items()):
            if peer.outbox.gone:
                del self._peers[key]
        while len(self._peers) >= _PEERS:
            idle = [key for key, peer in self._peers.items() if not peer.running]
            del self._peers[min(idle or self._peers, key=lambda key: self._peers[key].seen)]

    def subscribed(self) -> None:
        """Take over that a client wants other events than before."""
        wanted = [peer.wanted for peer in self._peers.values() if peer.wanted is not None]
        self._previews(any("preview" in own.transient for own in wanted))

    def show(self, job: str, frame: int, jpeg: bytes) -> None:
        """Keep a keyframe's picture for the event that tells of it."""
        self._pictures[job, frame] = jpeg

    def tell(self, event: Event, owner: str = "") -> None:
        """Tell of a lasting event, or one of the server itself. owner: of its job."""
        picture = self._pictures.pop((event.job, int(event.data.get("frame", -1))), None)
        payloads = (picture,) if event.event == "keyframe" and picture else ()
        self._broadcast(event, owner, payloads)

    def tell_passing(
        self, kind: str, job: str, owner: str, seq: int, data: dict[str, Any],
        payloads: tuple[Buffer, ...] = (),
    ) -> None:  # fmt: skip
        """Tell of something about a job that is not kept. seq: of its newest lasting event."""
        event = Event(event=kind, job=job, seq=seq, time=time.time(), transient=True, data=data)
        self._broadcast(event, owner, payloads)

    def _broadcast(self, event: Event, owner: str, payloads: tuple[Buffer, ...]) -> None:
        fields = event.table()
        notice = Notice(fields.pop("event"), self._session, fields, payloads)
        frames = envelope.write_notice(notice)
        for peer in self._peers.values():
            if peer.wanted is None or not _concerns(event, owner, peer, peer.wanted):
                continue
            if event.event in TRANSIENT and event.job:
                peer.outbox.send_newest(event.event, event.job, frames)
            else:
                peer.outbox.send(frames)

    async def flush(self) -> None:
        """Send what waits for slow clients, again and again."""
        while True:
            await asyncio.sleep(_FLUSH)
            gone = False
            for peer in list(self._peers.values()):
                if not peer.outbox.empty:
                    peer.outbox.flush()
                gone = gone or (peer.outbox.gone and peer.wanted is not None)
                if peer.outbox.gone:
                    peer.wanted = None
            if gone:
                self._forget_idle()
                self.subscribed()


def _concerns(event: Event, owner: str, peer: Peer, wanted: Subscribe) -> bool:
    """Whether a client is to be told of an event."""
    if not event.job:
        return True
    if not peer.owner.sees(owner) or (wanted.jobs and event.job not in wanted.jobs):
        return False
    return not event.transient or event.event in wanted.transient
