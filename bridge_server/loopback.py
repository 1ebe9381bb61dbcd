"""The endpoint for clients without CURVE: ZMTP 3.0 (RFC 23) on 127.0.0.1, without libzmq.

Whoever can start a process on this machine can connect here. libzmq keeps the frames of a message
until the last one is there, however many there are; here nothing is kept for who has shown no
token: the header is looked at before a payload is read (PROTOCOL.md, section 2).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import socket

from bridge_server import envelope
from host_plugins.link import wire
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.wire import LIMITS, Buffer

#: Flags of a frame.
_MORE, _LONG, _COMMAND = 1, 2, 4
#: Bytes of a greeting, and of the largest command that means something here.
_GREETING, _LARGEST_COMMAND = 64, 1024
#: Connections; seconds until the first token must have been shown; seconds and bytes for which a
#: connection that is being closed is still read, so that the last answer arrives.
_MOST, _SHAKE, _LINGER, _LINGER_BYTES = 128, 10.0, 1.0, 1 << 20
#: Bytes that may wait for a client that does not read.
_WAITING = 1 << 27
_ROUTER = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"


class _Wrong(Exception):
    """What came is no ZMTP, or not for this side."""


class Line:
    """A connection; an `Outbox` for its replies."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.gone = False

    @property
    def empty(self) -> bool:
        """Whether nothing waits here: asyncio sends what waits there."""
        return True

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send a reply; who lets too many wait loses the connection."""
        if self.gone:
            return
        if self._writer.transport.get_write_buffer_size() > _WAITING:
            self.gone = True
            self._writer.transport.abort()
            return
        for number, frame in enumerate(frames):
            flags = _MORE if number + 1 < len(frames) else 0
            self._writer.write(_head(flags, wire.size(frame)))
            self._writer.write(frame)

    def send_newest(self, kind: str, job: str, frames: Sequence[Buffer]) -> None:
        """Events are not sent here."""
        raise AssertionError(f"{kind} of {job}: {len(frames)} frames for who cannot subscribe")

    def flush(self) -> None:
        """Send what waits: nothing does."""


@dataclass(slots=True)
class Loopback:
    """Listens; every message goes to `on_message`, its header's token checked before the rest.

    listener: bound, and listening
    trusts: whether a header shows the token
    refuse: makes the answer to what cannot be taken, of its id and what is wrong
    """

    listener: socket
    trusts: Callable[[bytes], bool]
    on_message: Callable[[Line, list[Buffer]], None]
    refuse: Callable[[str, BridgeError], list[Buffer]]
    _server: asyncio.Server | None = None
    _lines: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def start(self) -> None:
        """Begin to take connections."""
        self._server = await asyncio.start_server(self._connected, sock=self.listener)

    async def stop(self) -> None:
        """Take no more, and close those that are there."""
        if self._server is not None:
            self._server.close()
        lines = list(self._lines)
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._lines) >= _MOST:
            writer.transport.abort()
            return
        self._lines.add(task)
        line = Line(writer)
        try:
            await self._talk(reader, writer, line)
        except (_Wrong, OSError, EOFError, TimeoutError, asyncio.TimeoutError):
            pass  # it is no client of this protocol, or it has ended
        except asyncio.CancelledError:  # the server ends: the last answers are on their way
            pass
        finally:
            self._lines.discard(task)
            line.gone = True
            writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line
    ) -> None:
        async def begin() -> list[Buffer]:
            await _greeted(reader, writer)
            return await self._message(reader, writer, line)

        frames = await asyncio.wait_for(begin(), _SHAKE)
        while frames:
            self.on_message(line, frames)
            frames = await self._message(reader, writer, line)
        writer.write_eof()
        with suppress(OSError, TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(_ignored(reader), _LINGER)

    async def _message(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line
    ) -> list[Buffer]:
        """Read the next message; none where it was refused and the connection is to be closed."""
        flags, size = await _begun(reader, writer)
        header = await reader.readexactly(size) if size <= LIMITS.header else b""
        if not self.trusts(header):
            line.send(self.refuse(envelope.request_id([header]), _UNTRUSTED))
            return []
        frames: list[Buffer] = [header]
        sizes = [size]
        while flags & _MORE:
            flags, size = await _begun(reader, writer)
            sizes.append(size)
            try:
                wire.check_sizes(sizes)
            except BridgeError as error:
                line.send(self.refuse(envelope.request_id([header]), error))
                return []
            frames.append(await reader.readexactly(size))
        return frames


_UNTRUSTED = BridgeError(
    Code.UNAUTHORISED,
    "this request shows no right token",
    "read it from the endpoint file; it changes with every start of the server",
)


async def _greeted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet, and hear the other side's READY."""
    mechanism = b"NULL".ljust(20, b"\0")
    writer.write(b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism + bytes(32))
    theirs = await reader.readexactly(_GREETING)
    if theirs[0] != 0xFF or theirs[9] != 0x7F or theirs[10] < 3 or theirs[12:32] != mechanism:
        raise _Wrong
    flags, size = await _head_of(reader)
    if not flags & _COMMAND or size > _LARGEST_COMMAND:
        raise _Wrong
    if not (await reader.readexactly(size)).startswith(b"\x05READY"):
        raise _Wrong
    writer.write(_head(_COMMAND, len(_ROUTER)) + _ROUTER)


async def _begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, int]:
    """Flags and size of the next frame; commands before it are looked after."""
    while True:
        flags, size = await _head_of(reader)
        if not flags & _COMMAND:
            return flags, size
        if size > _LARGEST_COMMAND:
            raise _Wrong
        body = await reader.readexactly(size)
        if body.startswith(b"\x04PING"):
            # A time to live of 2 bytes, then what is to be sent back.
            pong = b"\x04PONG" + body[7:]
            if writer.transport.get_write_buffer_size() < _LARGEST_COMMAND:
                writer.write(_head(_COMMAND, len(pong)) + pong)


async def _head_of(reader: asyncio.StreamReader) -> tuple[int, int]:
    flags = (await reader.readexactly(1))[0]
    if flags & ~(_MORE | _LONG | _COMMAND):
        raise _Wrong
    if flags & _LONG:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
        return flags, size
    return flags, (await reader.readexactly(1))[0]


async def _ignored(reader: asyncio.StreamReader) -> None:
    """Read what still comes: a connection closed with something unread loses its last answer."""
    for _ in range(_LINGER_BYTES >> 16):
        if not await reader.read(1 << 16):
            return


def _head(flags: int, size: int) -> bytes:
    if size < 256:
        return bytes([flags, size])
    return bytes([flags | _LONG]) + struct.pack("!Q", size)
