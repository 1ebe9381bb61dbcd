"""A client written from bridge_server/PROTOCOL.md alone: it shares no line with the bridge's own.

What it cannot do, the document does not say. Numbers in brackets are the document's sections.
"""

from __future__ import annotations

import json
import os
import stat
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgpack
import zmq

Table: TypeAlias = "dict[str, Any]"

#: The kinds of events that have numbers of their own [7].
LASTING = ("state", "edited", "keyframe", "note")


class Refused(Exception):
    """A reply that is not ``ok`` [6]."""

    def __init__(self, header: Table) -> None:
        super().__init__(header["error"])
        self.code: str = header["code"]
        self.hint: str = header.get("hint", "")
        self.retryable: bool = header.get("retryable", False)


class Away(Exception):
    """There is no server, or it does not answer."""


def packed(header: Table) -> bytes:
    return msgpack.packb(header)  # pyright: ignore


def unpacked(frame: bytes) -> Table:
    header = msgpack.unpackb(frame)  # pyright: ignore
    assert isinstance(header, dict)
    return header  # pyright: ignore


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def endpoint_of(folder: Path) -> Table:
    """The endpoint file of a living server [2].

    Raises ``Away`` where there is none, or none that may be trusted.
    """
    path = folder / "endpoint.json"
    try:
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid():
            raise Away("the endpoint file is not a file of this user")
        if about.st_mode & 0o077:
            raise Away("others may read the endpoint file")
        told = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise Away("no endpoint file") from None
    if not lives(told["pid"]):
        raise Away("its server has died")
    return told


def keys_for(told: Table, secret: bytes | None) -> dict[str, bytes]:
    """What CURVE needs; empty for ipc.

    :param secret: of another key pair than the one in the file, Z85
    """
    if not told["server_key"]:
        if not told["address"].startswith("ipc://"):
            raise Away("a TCP address without a key must not be spoken to")
        return {}
    mine = secret or told["secret_key"].encode()
    return {
        "curve_serverkey": told["server_key"].encode(),
        "curve_secretkey": mine,
        "curve_publickey": zmq.curve_public(mine),
    }


def gathered(told: Table, page: Table) -> Table:
    """Two pages as one: lists go on, tables grow, and else what was told first counts [4]."""
    whole = told | {name: value for name, value in page.items() if name not in told}
    for name in told.keys() & page.keys():
        old, new = told[name], page[name]
        if isinstance(old, list):
            whole[name] = old + new
        elif isinstance(old, dict):
            whole[name] = gathered(old, new)  # pyright: ignore[reportUnknownArgumentType]
    return whole


@dataclass(frozen=True)
class Answer:
    """A reply that is ``ok``, or an event."""

    header: Table
    payloads: Sequence[bytes] = ()

    def __getitem__(self, name: str) -> Any:
        return self.header[name]


@dataclass
class Story:
    """What is known of the jobs' lasting events, in order and without gaps [7]."""

    last: dict[str, int] = field(default_factory=dict[str, int])
    told: dict[str, list[Table]] = field(default_factory=dict[str, list[Table]])
    behind: set[str] = field(default_factory=set[str])

    def begin(self, newest: dict[str, int]) -> None:
        """A subscription said where each job is; what came before it is asked for by replay."""
        for job, seq in newest.items():
            if seq > self.last.setdefault(job, seq):
                self.behind.add(job)

    def hear(self, event: Table) -> bool:
        """Take an event in; returns whether it is news."""
        job = event.get("job", "")
        if not job:
            return True
        known, seq = self.last.get(job, 0), event.get("seq", 0)
        if event.get("transient", False):
            if seq > known:
                self.behind.add(job)
            return seq >= known
        if seq <= known:
            return False
        if seq > known + 1:
            self.behind.add(job)
            return False
        self.last[job] = seq
        self.told.setdefault(job, []).append(event)
        return True


class Stranger:
    """A DEALER that asks, is told events, and sends again what was lost [4]."""

    def __init__(self, runtime: Path, secret: bytes | None = None, wait: float = 2.0) -> None:
        self.runtime = runtime
        self.session = os.urandom(16).hex()
        self.story = Story()
        self.previews: list[Answer] = []
        self.renewed = 0
        self._secret = secret
        self._wait = wait
        self._theirs = ""
        self._at: tuple[str, str] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket, self._at = None, None

    def _connected(self) -> zmq.Socket[bytes]:
        """The connection, made anew where the endpoint file names another server."""
        told = endpoint_of(self.runtime)
        at = (told["address"], told["server_key"])
        if self._socket is not None and self._at == at:
            return self._socket
        self.close()
        made = zmq.Context.instance().socket(zmq.DEALER)
        made.linger = 0
        made.setsockopt(zmq.MAXMSGSIZE, 67108864)
        for name, value in keys_for(told, self._secret).items():
            setattr(made, name, value)
        made.connect(told["address"])
        self._socket, self._at = made, at
        return made

    def send(self, header: Table, payloads: Sequence[bytes] = ()) -> None:
        """Send a header as it is; raises ``Away``."""
        self.send_frames([packed(header), *payloads])

    def send_frames(self, frames: Sequence[bytes]) -> None:
        """Send what may be no message of the protocol; raises ``Away``.

        A socket whose key was refused never connects again: it would wait for ever.
        """
        socket = self._connected()
        if not socket.poll(1000, zmq.POLLOUT):
            raise Away("nothing can be sent")
        socket.send_multipart(frames)

    def envelope(self, op: str, id_: str = "", **fields: Any) -> Table:
        id_ = id_ or uuid.uuid4().hex
        return {"v": 1, "id": id_, "op": op, "session": self.session, **fields}

    def receive(self, seconds: float) -> Answer | None:
        """The next message, events told to the story; None after so many seconds."""
        if self._socket is None or not self._socket.poll(round(seconds * 1000)):
            return None
        header, *payloads = self._socket.recv_multipart()
        answer = Answer(unpacked(header), payloads)
        if self._theirs and self._theirs != answer["session"]:
            self.renewed += 1
        self._theirs = answer["session"]
        if "event" in answer.header:
            heard = self.story.hear(answer.header)
            if heard and answer["event"] == "preview":
                self.previews.append(answer)
        return answer

    def ask(self, op: str, *payloads: bytes, id_: str = "", **fields: Any) -> Answer:
        """Ask, and ask again until there is a reply.

        Raises ``Refused``, or ``Away`` where none came.
        """
        header = self.envelope(op, id_, **fields)
        wait, bytes_ = self._wait, sum(map(len, payloads))
        for _ in range(4):
            try:
                self.send(header, payloads)
            except Away:
                time.sleep(min(wait, 0.2))
                continue
            reply = self.reply_to(header["id"], wait + bytes_ / 10e6)
            if reply is not None:
                return reply
            wait = min(2 * wait, 15.0)
        raise Away(f"no reply to {op}")

    def whole(self, op: str, **fields: Any) -> Table:
        """Ask for a reply and all its pages [4]."""
        page = self.ask(op, **fields).header
        told = page
        while page.get("next"):
            page = self.ask(op, **fields, page=page["next"]).header
            told = gathered(told, page)
        return {name: value for name, value in told.items() if name != "next"}

    def reply_to(self, id_: str, seconds: float) -> Answer | None:
        """The reply to a request; None after so many seconds. Raises ``Refused``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            answer = self.receive(left)
            if answer is None or "event" in answer.header or answer["id"] != id_:
                continue
            if not answer["ok"]:
                raise Refused(answer.header)
            return answer
        return None

    def subscribe(self, *jobs: str, transient: Sequence[str] = ("progress", "preview")) -> Table:
        told = self.whole("events.subscribe", jobs=list(jobs), transient=list(transient))
        self.story.begin(told.get("newest", {}))
        return told

    def listen(self, seconds: float) -> None:
        """Read events for so long, and ask for those that were lost."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.receive(left)
            self.catch_up()

    def catch_up(self) -> None:
        """Ask for what is missing, page by page."""
        while self.story.behind:
            job = self.story.behind.pop()
            self.replay(job)

    def replay(self, job: str, limit: int = 200) -> None:
        """Take in the lasting events that a job has and the story has not."""
        while True:
            last = self.story.last.get(job, 0)
            page = self.ask("events.replay", job=job, after=last, limit=limit)
            events = page.header.get("events", [])
            if events and events[0]["seq"] > last + 1:
                # Older ones are no longer kept: what is left is taken for the whole.
                self.story.last[job] = events[0]["seq"] - 1
            for each in events:
                self.story.hear(each)
            if not events or self.story.last.get(job, 0) >= page["newest"]:
                return
