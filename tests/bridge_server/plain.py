"""A client of the loopback endpoint without ZeroMQ: ZMTP 3.0 over a TCP socket (RFC 23)."""

from __future__ import annotations

import os
import socket
import struct
import uuid
from typing import Any

from tests.bridge_server.strangers import Answer, Refused, packed, unpacked

MORE, LONG, COMMAND = 1, 2, 4


def greeting(minor: int = 0, mechanism: bytes = b"NULL") -> bytes:
    """The 64 bytes that each side begins with."""
    signature = b"\xff" + bytes(8) + b"\x7f"
    return signature + bytes([3, minor]) + mechanism.ljust(20, b"\0") + bytes(32)


def framed(body: bytes, flags: int = 0) -> bytes:
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | LONG]) + struct.pack(">Q", len(body)) + body


def command(name: bytes, body: bytes = b"") -> bytes:
    return framed(bytes([len(name)]) + name + body, COMMAND)


def property_(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value


def message(*frames: bytes) -> bytes:
    *before, last = frames
    return b"".join(framed(each, MORE) for each in before) + framed(last)


class Ended(Exception):
    """The other side has closed the connection."""


class Plain:
    """One connection; raises ``Ended`` and ``TimeoutError``."""

    def __init__(self, address: str, token: str, seconds: float = 5.0) -> None:
        host, port = address.removeprefix("tcp://").rsplit(":", 1)
        self.token = token
        self.session = os.urandom(16).hex()
        self.socket = socket.create_connection((host, int(port)), timeout=seconds)

    def shake(self) -> Plain:
        """Greet, and wait for the other side's READY."""
        self.socket.sendall(greeting())
        theirs = self.take(64)
        assert theirs[:1] == b"\xff"
        assert theirs[9:10] == b"\x7f"
        assert theirs[10] >= 3
        assert theirs[12:32].rstrip(b"\0") == b"NULL"
        self.socket.sendall(command(b"READY", property_(b"Socket-Type", b"DEALER")))
        flags, body = self.frame()
        assert flags & COMMAND
        assert body[1 : 1 + body[0]] == b"READY"
        return self

    def take(self, count: int) -> bytes:
        made = bytearray()
        while len(made) < count:
            part = self.socket.recv(count - len(made))
            if not part:
                raise Ended
            made += part
        return bytes(made)

    def frame(self) -> tuple[int, bytes]:
        flags = self.take(1)[0]
        size = struct.unpack(">Q", self.take(8))[0] if flags & LONG else self.take(1)[0]
        return flags, self.take(size)

    def message(self) -> list[bytes]:
        """The next message; heartbeats are answered meanwhile."""
        made: list[bytes] = []
        while True:
            flags, body = self.frame()
            if flags & COMMAND:
                if body[1 : 1 + body[0]] == b"PING":
                    # A PING is followed by a time to live (2 bytes) and a context to give back.
                    self.socket.sendall(command(b"PONG", body[7:]))
                continue
            made.append(body)
            if not flags & MORE:
                return made

    def ask(self, op: str, *payloads: bytes, token: str | None = None, **fields: Any) -> Answer:
        """Ask and wait; raises ``Refused``."""
        id_ = uuid.uuid4().hex
        header = {"v": 1, "id": id_, "op": op, "session": self.session, **fields}
        shown = self.token if token is None else token
        if shown:
            header["token"] = shown
        self.socket.sendall(message(packed(header), *payloads))
        while True:
            first, *rest = self.message()
            answer = Answer(unpacked(first), rest)
            if answer["id"] in (id_, ""):
                break
        if not answer["ok"]:
            raise Refused(answer.header)
        return answer

    def close(self) -> None:
        self.socket.close()
