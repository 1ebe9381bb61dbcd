"""The server's half of the wire: requests are read, replies and events written (PROTOCOL.md, 3, 4).

What arrives is measured before anything is made of it, so that a header of a few bytes cannot
become gigabytes, nor a deep one overflow a stack. The clients' half is `host_plugins.link.wire`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from host_plugins.link import wire
from host_plugins.link.errors import BridgeError
from host_plugins.link.wire import (
    LIMITS,
    LONGEST_ID,
    LONGEST_NAME,
    MAJOR,
    Answer,
    Buffer,
    Limits,
    Notice,
    check_version,
    malformed,
    own,
    too_large,
    word,
)

#: First bytes of texts, lists, tables, and of what is not allowed, as extension types:
#: https://github.com/msgpack/msgpack/blob/master/spec.md
_TEXTS = frozenset({*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB})
_LISTS = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})
_TABLES = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_STRANGE = frozenset({0xC1, 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)})
#: Bytes before those of a text or binary value, by the first of them, where it is not the only one.
_PREFIXES = {0xC4: 2, 0xC5: 3, 0xC6: 5, 0xD9: 2, 0xDA: 3, 0xDB: 5}


@dataclass(frozen=True)
class Call:
    """A request as it arrives. token: only on the loopback endpoint."""

    id: str
    op: str
    session: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    payloads: tuple[Buffer, ...] = ()
    token: str = field(default="", repr=False)


def decode(
    frames: Sequence[Buffer], limits: Limits = LIMITS
) -> tuple[dict[str, Any], tuple[Buffer, ...]]:
    """Read frames as a header and payloads, measured before.

    Raises:
        BridgeError: they are no message (malformed), or larger than the limits (too_large).
    """
    wire.check_sizes([wire.size(frame) for frame in frames], limits)
    head = bytes(frames[0])
    _measure(head, limits)
    return wire.decode([head, *frames[1:]], limits)


def encode(
    header: Mapping[str, Any], payloads: Sequence[Buffer] = (), limits: Limits = LIMITS
) -> list[Buffer]:
    """Write a message as frames. What the other side would refuse is refused here, with a trace.

    Raises:
        BridgeError: it cannot be written (bad_request), or is larger than the limits (too_large).
    """
    frames = wire.encode(header, payloads, limits)
    _measure(bytes(frames[0]), limits)
    return frames


def read_call(frames: Sequence[Buffer], limits: Limits = LIMITS) -> Call:
    """Read a request.

    Raises:
        BridgeError: see `decode`; of another major version (version).
    """
    header, payloads = decode(frames, limits)
    check_version(header)
    return Call(
        word(header, "id", LONGEST_ID),
        word(header, "op", LONGEST_NAME),
        word(header, "session", LONGEST_ID),
        own(header),
        payloads,
        word(header, "token", LONGEST_ID, required=False),
    )


def request_id(frames: Sequence[Buffer], limits: Limits = LIMITS) -> str:
    """Return the id of a request that could not be read whole, to answer it; else nothing."""
    return _shown(frames, "id", limits)


def request_token(frames: Sequence[Buffer], limits: Limits = LIMITS) -> str:
    """Return the token that a request shows, whatever else it says; nothing if it shows none."""
    return _shown(frames, "token", limits)


def write_answer(answer: Answer, limits: Limits = LIMITS) -> list[Buffer]:
    """Write a reply. Raises BridgeError: see `encode`."""
    told = answer.fields if answer.error is None else answer.error.table()
    envelope = {"v": MAJOR, "id": answer.id, "session": answer.session, "ok": answer.error is None}
    return encode({**envelope, **told, **envelope}, answer.payloads, limits)


def write_notice(notice: Notice, limits: Limits = LIMITS) -> list[Buffer]:
    """Write an event. Raises BridgeError: see `encode`."""
    envelope = {"v": MAJOR, "event": notice.event, "session": notice.session}
    return encode({**envelope, **notice.fields, **envelope}, notice.payloads, limits)


def _shown(frames: Sequence[Buffer], name: str, limits: Limits) -> str:
    try:
        return word(decode(frames, limits)[0], name, LONGEST_ID)
    except BridgeError:
        return ""


def _measure(data: bytes, limits: Limits) -> None:
    """Walk over a header without making anything of it.

    Raises:
        BridgeError: it ends early, goes on behind its end, holds extension types or keys that are
            no texts (malformed); it is deeper or longer than the limits (too_large).
    """
    reader = msgpack.Unpacker(max_buffer_size=max(1, len(data)))
    reader.feed(data)
    levels, items = [[1, 0]], 0  # per level: values that are missing, and whether it is a table
    try:
        while levels:
            missing, table = levels[-1]
            if not missing:
                levels.pop()
                continue
            levels[-1][0] -= 1
            items += 1
            if items > limits.items:
                raise too_large("values", items, limits.items)
            if held := _next(reader, data, bool(table) and missing % 2 == 0, limits):
                if len(levels) > limits.depth:
                    raise too_large("levels", len(levels), limits.depth)
                levels.append(held)
    except (msgpack.OutOfData, IndexError) as error:
        raise malformed("the header ends early") from error
    except ValueError as error:
        raise malformed(f"the header cannot be read ({error})") from error
    if reader.tell() != len(data):
        raise malformed("bytes behind the header's end")


def _next(reader: Any, data: bytes, is_key: bool, limits: Limits) -> list[int]:
    """Go over a value; of a list or table only over its beginning: returns how many it holds."""
    at = reader.tell()
    first = data[at]
    if is_key and first not in _TEXTS:
        raise malformed("a key that is no text")
    if first in _LISTS:
        return [reader.read_array_header(), 0]
    if first in _TABLES:
        return [2 * reader.read_map_header(), 1]
    if first in _STRANGE:
        raise malformed(f"a value of type 0x{first:02x}")
    reader.skip()
    length = reader.tell() - at - _PREFIXES.get(first, 1)
    if length > limits.text:
        raise too_large("bytes in a value", length, limits.text)
    return []
