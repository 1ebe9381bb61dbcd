"""Messages between the server and a worker: tables, one behind the other, over a pipe.

Not the protocol of the clients: both ends are always of one release.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import msgpack

_LENGTH = struct.Struct("!I")
#: Bytes; the largest messages are a batch's previews.
_LARGEST = 1 << 27

Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """Write a message, its length before it."""
    body = bytes(msgpack.packb(message) or b"")
    return _LENGTH.pack(len(body)) + body


def read(file: BinaryIO) -> Message | None:
    """Read the next message; None where the other end is gone, if in the middle of a message."""
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    length = _checked(head)
    body = file.read(length)
    return _unpacked(body) if len(body) == length else None


def _checked(head: bytes) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > _LARGEST:
        raise ValueError(f"a message of {length} bytes over the pipe; somebody else writes there")
    return length


def _unpacked(body: bytes) -> Message:
    message: Message = msgpack.unpackb(body)
    return message
