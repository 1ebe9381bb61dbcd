"""Frames on the wire: a msgpack header and binary payloads (PROTOCOL.md, section 3).

What arrives is measured before anything is made of it, so that a header of a few bytes cannot
become gigabytes, nor a deep one overflow a stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .errors import BridgeError, Code

MAJOR, MINOR = 1, 0

Buffer: TypeAlias = "bytes | bytearray | memoryview"

#: Names in a header that are no message's own.
ENVELOPE = frozenset(
    {"v", "id", "op", "session", "token", "ok", "code", "error", "hint", "retryable", "event"}
)
#: Of ids and sessions; of names of operations and events.
_LONGEST_ID, _LONGEST_NAME = 64, 32


@dataclass(frozen=True)
class Limits:
    """What a message may hold; sizes in bytes.

    frames: the header and its payloads
    items: values in a header, at every depth together
    depth: of lists and tables inside each other, the header itself counted
    text: one text or binary value in a header
    payload: one payload; payloads: all of a message
    """

    frames: int = 33
    header: int = 1 << 18
    items: int = 1 << 14
    depth: int = 16
    text: int = 1 << 16
    payload: int = 1 << 26
    payloads: int = 1 << 27


LIMITS = Limits()


@dataclass(frozen=True)
class Call:
    """A request as it arrives. token: only on the loopback endpoint."""

    id: str
    op: str
    session: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    payloads: tuple[Buffer, ...] = ()
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Answer:
    """A reply as it arrives. error: why it was not done; None if it was."""

    id: str
    session: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    payloads: tuple[Buffer, ...] = ()
    error: BridgeError | None = None


@dataclass(frozen=True)
class Notice:
    """An event as it arrives."""

    event: str
    session: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    payloads: tuple[Buffer, ...] = ()


def encode(
    header: Mapping[str, Any], payloads: Sequence[Buffer] = (), limits: Limits = LIMITS
) -> list[Buffer]:
    """Write a message as frames.

    Raises:
        BridgeError: it cannot be written (bad_request), or is larger than the limits (too_large).
    """
    import msgpack

    try:
        head = bytes(msgpack.packb(header) or b"")
    except (TypeError, ValueError, OverflowError) as error:
        raise BridgeError(Code.BAD_REQUEST, f"the message cannot be written: {error}") from error
    frames: list[Buffer] = [head, *payloads]
    check_sizes([size(frame) for frame in frames], limits)
    _measure(head, limits)  # what the other side would refuse is refused here, with a trace
    return frames


def decode(
    frames: Sequence[Buffer], limits: Limits = LIMITS
) -> tuple[dict[str, Any], tuple[Buffer, ...]]:
    """Read frames as a header and payloads.

    Raises:
        BridgeError: they are no message (malformed), or larger than the limits (too_large).
    """
    import msgpack

    check_sizes([size(frame) for frame in frames], limits)
    head = bytes(frames[0])
    _measure(head, limits)
    try:
        header: Any = msgpack.unpackb(
            head,
            raw=False,
            use_list=True,
            strict_map_key=True,
            max_str_len=limits.text,
            max_bin_len=limits.text,
            max_array_len=limits.items,
            max_map_len=limits.items,
            max_ext_len=0,
        )
    except ValueError as error:  # of msgpack's errors, and of text that is no UTF-8
        raise _malformed(f"the header cannot be read ({error})") from error
    if not isinstance(header, dict):
        raise _malformed("the header is no table")
    return header, tuple(frames[1:])  # pyright: ignore[reportUnknownVariableType]


def write_call(call: Call, limits: Limits = LIMITS) -> list[Buffer]:
    """Write a request. Raises BridgeError: see `encode`."""
    # First in the header, for who reads it in hex; and last, so that no field can replace it.
    envelope = {"v": MAJOR, "id": call.id, "op": call.op, "session": call.session}
    token = {"token": call.token} if call.token else {}
    return encode({**envelope, **call.fields, **envelope, **token}, call.payloads, limits)


def write_answer(answer: Answer, limits: Limits = LIMITS) -> list[Buffer]:
    """Write a reply. Raises BridgeError: see `encode`."""
    told = answer.fields if answer.error is None else answer.error.table()
    envelope = {"v": MAJOR, "id": answer.id, "session": answer.session, "ok": answer.error is None}
    return encode({**envelope, **told, **envelope}, answer.payloads, limits)


def write_notice(notice: Notice, limits: Limits = LIMITS) -> list[Buffer]:
    """Write an event. Raises BridgeError: see `encode`."""
    envelope = {"v": MAJOR, "event": notice.event, "session": notice.session}
    return encode({**envelope, **notice.fields, **envelope}, notice.payloads, limits)


def read_call(frames: Sequence[Buffer], limits: Limits = LIMITS) -> Call:
    """Read a request.

    Raises:
        BridgeError: see `decode`; of another major version (version).
    """
    header, payloads = decode(frames, limits)
    _check_version(header)
    return Call(
        _word(header, "id", _LONGEST_ID),
        _word(header, "op", _LONGEST_NAME),
        _word(header, "session", _LONGEST_ID),
        _own(header),
        payloads,
        _word(header, "token", _LONGEST_ID, required=False),
    )


def read_answer(frames: Sequence[Buffer], limits: Limits = LIMITS) -> Answer | Notice:
    """Read what a server sends: a reply, or an event.

    Raises:
        BridgeError: see `read_call`.
    """
    header, payloads = decode(frames, limits)
    _check_version(header)
    session = _word(header, "session", _LONGEST_ID)
    if "event" in header:
        return Notice(_word(header, "event", _LONGEST_NAME), session, _own(header), payloads)
    # Empty where the server could not read the request's.
    id_ = _word(header, "id", _LONGEST_ID, required=False)
    if header.get("ok") is True:
        return Answer(id_, session, _own(header), payloads)
    return Answer(id_, session, error=BridgeError.from_table(header))


def request_id(frames: Sequence[Buffer], limits: Limits = LIMITS) -> str:
    """Return the id of a request that could not be read whole, to answer it; else nothing."""
    try:
        return _word(decode(frames, limits)[0], "id", _LONGEST_ID)
    except BridgeError:
        return ""


def request_token(frames: Sequence[Buffer], limits: Limits = LIMITS) -> str:
    """Return the token that a request shows, whatever else it says; nothing if it shows none."""
    try:
        return _word(decode(frames, limits)[0], "token", _LONGEST_ID)
    except BridgeError:
        return ""


def check_sizes(sizes: Sequence[int], limits: Limits = LIMITS) -> None:
    """Check the frames of a message by their sizes, before they are copied.

    Raises:
        BridgeError: there are none (malformed), too many or too large ones (too_large).
    """
    if not sizes:
        raise _malformed("a message without a frame")
    if len(sizes) > limits.frames:
        raise _too_large("frames", len(sizes), limits.frames)
    if sizes[0] > limits.header:
        raise _too_large("bytes of header", sizes[0], limits.header)
    largest, total = max(sizes[1:], default=0), sum(sizes[1:])
    if largest > limits.payload:
        raise _too_large("bytes in a payload", largest, limits.payload)
    if total > limits.payloads:
        raise _too_large("bytes of payloads", total, limits.payloads)


def size(frame: Buffer) -> int:
    """Return the bytes of a frame."""
    return frame.nbytes if isinstance(frame, memoryview) else len(frame)


def _check_version(header: Mapping[str, Any]) -> None:
    if header.get("v") != MAJOR or isinstance(header.get("v"), bool):
        raise BridgeError(
            Code.VERSION,
            f"the other side speaks version {header.get('v')!r} of the protocol, and this {MAJOR}",
            "install the plugin and the program from the same release",
        )


def _own(header: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in header.items() if name not in ENVELOPE}


def _word(header: Mapping[str, Any], name: str, longest: int, required: bool = True) -> str:
    word = header.get(name, "")
    if not isinstance(word, str) or len(word) > longest or (required and not word):
        raise _malformed(f"{name} must be a text of 1 to {longest} characters")
    return word


def _malformed(reason: str) -> BridgeError:
    return BridgeError(Code.MALFORMED, f"no message of this protocol: {reason}")


def _too_large(what: str, found: int, allowed: int) -> BridgeError:
    return BridgeError(Code.TOO_LARGE, f"a message of {found} {what}; {allowed} are allowed")


# How msgpack begins a value: https://github.com/msgpack/msgpack/blob/master/spec.md
#: First byte → bytes of the number that follows.
_NUMBERS = {
    0xCA: 4,
    0xCB: 8,
    **{0xCC + i: 1 << i for i in range(4)},
    **{0xD0 + i: 1 << i for i in range(4)},
}
#: First byte → bytes of the length that follows, for binaries, texts, lists and tables.
_BINARIES, _TEXTS = {0xC4: 1, 0xC5: 2, 0xC6: 4}, {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS, _TABLES = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}
_PLAIN = frozenset({*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)})
_TEXT, _LIST, _TABLE, _OTHER = range(4)


def _measure(data: bytes, limits: Limits) -> None:
    """Walk over a header without making anything of it.

    Raises:
        BridgeError: it ends early, goes on behind its end, holds extension types or keys that are
            no texts (malformed); it is deeper or longer than the limits (too_large).
    """
    open_: list[list[int]] = [
        [1, 0]
    ]  # per level: values that are missing, and whether it is a table
    items = at = 0
    while open_:
        level = open_[-1]
        if not level[0]:
            open_.pop()
            continue
        is_key = bool(level[1]) and level[0] % 2 == 0
        level[0] -= 1
        items += 1
        if items > limits.items:
            raise _too_large("values", items, limits.items)
        kind, count, at = _next(data, at, limits)
        if is_key and kind != _TEXT:
            raise _malformed("a key that is no text")
        if kind in (_LIST, _TABLE):
            if len(open_) > limits.depth:
                raise _too_large("levels", len(open_), limits.depth)
            open_.append([count, int(kind == _TABLE)])
    if at != len(data):
        raise _malformed("bytes behind the header's end")


def _next(data: bytes, at: int, limits: Limits) -> tuple[int, int, int]:
    """Return the kind of the value at `at`, how many it holds, and where the next one is."""
    if at >= len(data):
        raise _malformed("the header ends early")
    first, at = data[at], at + 1
    kind, count, size = _kind(data, first, at)
    if kind in (_LIST, _TABLE):
        return kind, count, at + size
    if count > limits.text:
        raise _too_large("bytes in a value", count, limits.text)
    end = at + size + count
    if end > len(data):
        raise _malformed("the header ends early")
    return kind, 0, end


def _kind(data: bytes, first: int, at: int) -> tuple[int, int, int]:
    """Return a value's kind, its length in bytes or values, and the bytes that tell the length."""
    if first in _PLAIN:
        return _OTHER, 0, 0
    if first in _NUMBERS:
        return _OTHER, _NUMBERS[first], 0
    if first < 0xC0:  # lengths in the first byte
        if first >= 0xA0:
            return _TEXT, first & 0x1F, 0
        return (_LIST, first & 0x0F, 0) if first >= 0x90 else (_TABLE, 2 * (first & 0x0F), 0)
    for kind, sizes in ((_TEXT, _TEXTS), (_OTHER, _BINARIES), (_LIST, _LISTS), (_TABLE, _TABLES)):
        if first in sizes:
            count = int.from_bytes(data[at : at + sizes[first]], "big")
            return kind, 2 * count if kind == _TABLE else count, sizes[first]
    raise _malformed(f"a value of type 0x{first:02x}")
