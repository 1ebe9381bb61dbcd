"""Frames on the wire: a msgpack header and binary payloads (PROTOCOL.md, section 3).

A client's half: requests are written here, replies and events read. The server, to which strangers
may speak, walks over a header before it makes anything of it; here msgpack's own limits are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .errors import BridgeError, Code

MAJOR, MINOR = 1, 1

Buffer: TypeAlias = "bytes | bytearray | memoryview"

#: Names in a header that are no message's own.
ENVELOPE = frozenset(
    {"v", "id", "op", "session", "token", "ok", "code", "error", "hint", "retryable", "event"}
)
#: Of ids and sessions; of names of operations and events.
LONGEST_ID, LONGEST_NAME = 64, 32


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
    try:
        header: Any = msgpack.unpackb(
            frames[0],
            max_str_len=limits.text,
            max_bin_len=limits.text,
            max_array_len=limits.items,
            max_map_len=limits.items,
            max_ext_len=0,
        )
    except ValueError as error:  # of msgpack's errors, and of text that is no UTF-8
        raise malformed(f"the header cannot be read ({error})") from error
    if not isinstance(header, dict):
        raise malformed("the header is no table")
    return header, tuple(frames[1:])  # pyright: ignore[reportUnknownVariableType]


def write_call(
    id_: str,
    op: str,
    session: str,
    fields: Mapping[str, Any],
    payloads: Sequence[Buffer] = (),
    limits: Limits = LIMITS,
) -> list[Buffer]:
    """Write a request. Raises BridgeError: see `encode`."""
    # First in the header, for who reads it in hex; and last, so that no field can replace it.
    envelope = {"v": MAJOR, "id": id_, "op": op, "session": session}
    return encode({**envelope, **fields, **envelope}, payloads, limits)


def read_answer(frames: Sequence[Buffer], limits: Limits = LIMITS) -> Answer | Notice:
    """Read what a server sends: a reply, or an event.

    Raises:
        BridgeError: see `decode`; of another major version (version).
    """
    header, payloads = decode(frames, limits)
    check_version(header)
    session = word(header, "session", LONGEST_ID)
    if "event" in header:
        return Notice(word(header, "event", LONGEST_NAME), session, own(header), payloads)
    # Empty where the server could not read the request's.
    id_ = word(header, "id", LONGEST_ID, required=False)
    if header.get("ok") is True:
        return Answer(id_, session, own(header), payloads)
    return Answer(id_, session, error=BridgeError.from_table(header))


def check_sizes(sizes: Sequence[int], limits: Limits = LIMITS) -> None:
    """Check the frames of a message by their sizes, before they are copied.

    Raises:
        BridgeError: there are none (malformed), too many or too large ones (too_large).
    """
    if not sizes:
        raise malformed("a message without a frame")
    for what, found, allowed in (
        ("frames", len(sizes), limits.frames),
        ("bytes of header", sizes[0], limits.header),
        ("bytes in a payload", max(sizes[1:], default=0), limits.payload),
        ("bytes of payloads", sum(sizes[1:]), limits.payloads),
    ):
        if found > allowed:
            raise too_large(what, found, allowed)


def size(frame: Buffer) -> int:
    """Return the bytes of a frame."""
    return frame.nbytes if isinstance(frame, memoryview) else len(frame)


def check_version(header: Mapping[str, Any]) -> None:
    """Check what the other side speaks. Raises BridgeError: another major version (version)."""
    if header.get("v") != MAJOR or isinstance(header.get("v"), bool):
        raise BridgeError(
            Code.VERSION,
            f"the other side speaks version {header.get('v')!r} of the protocol, and this {MAJOR}",
            "install the plugin and the program from the same release",
        )


def own(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return a header without its envelope."""
    return {name: value for name, value in header.items() if name not in ENVELOPE}


def word(header: Mapping[str, Any], name: str, longest: int, required: bool = True) -> str:
    """Return a name of the envelope. Raises BridgeError: it is none (malformed)."""
    word = header.get(name, "")
    if not isinstance(word, str) or len(word) > longest or (required and not word):
        raise malformed(f"{name} must be a text of 1 to {longest} characters")
    return word


def malformed(reason: str) -> BridgeError:
    """Say that something is no message."""
    return BridgeError(Code.MALFORMED, f"no message of this protocol: {reason}")


def too_large(what: str, found: int, allowed: int) -> BridgeError:
    """Say that a message is beyond a limit."""
    return BridgeError(Code.TOO_LARGE, f"a message of {found} {what}; {allowed} are allowed")
