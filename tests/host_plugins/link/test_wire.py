from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_server import envelope
from host_plugins.link import wire
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.wire import Answer, Limits, Notice

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
FIELDS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name not in wire.ENVELOPE),
    VALUES,
    max_size=5,
)
PAYLOADS = st.lists(st.binary(max_size=50), max_size=3).map(tuple)
NAMES = st.text(min_size=1, max_size=32)


def refused(frames: list[bytes], limits: Limits = wire.LIMITS) -> Code:
    with pytest.raises(BridgeError) as caught:
        wire.decode(frames, limits)
    return caught.value.code


def outcome(read: Callable[[Any], Any], frames: Any) -> Code | None:
    """None if it can be read; anything but a typed error fails the test."""
    try:
        read(frames)
    except BridgeError as error:
        return error.code
    return None


EXPECTED = (None, Code.MALFORMED, Code.TOO_LARGE, Code.VERSION)


@given(NAMES, NAMES, FIELDS, PAYLOADS)
def test_replies_and_events_arrive_as_they_were_sent(
    name: str, session: str, fields: dict[str, Any], payloads: tuple[bytes, ...]
) -> None:
    answer = Answer(name, session, fields, payloads)
    assert wire.read_answer(envelope.write_answer(answer)) == answer
    notice = Notice(name, session, fields, payloads)
    assert wire.read_answer(envelope.write_notice(notice)) == notice


def test_an_error_arrives() -> None:
    sent = BridgeError(Code.NOT_FOUND, "no such job", "list them")
    answer = wire.read_answer(envelope.write_answer(Answer("1", "s", error=sent)))
    assert isinstance(answer, Answer)
    assert answer.error is not None
    assert answer.error.table() == sent.table()


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_any_bytes_are_a_message_or_a_typed_error(frames: list[bytes]) -> None:
    for read in (wire.decode, wire.read_answer):
        assert outcome(read, frames) in EXPECTED


@given(VALUES)
def test_what_can_be_written_can_be_read(value: Any) -> None:
    header, payloads = wire.decode(wire.encode({"x": value}, [b"p"]))
    assert header == {"x": value}
    assert payloads == (b"p",)


@pytest.mark.parametrize("first", [b"\xdd", b"\xdf", b"\xdb", b"\xc6"])
def test_a_claimed_length_costs_nothing(first: bytes) -> None:
    tracemalloc.start()
    code = refused([b"\x81\xa1x" + first + b"\xff" * 4])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code in (Code.MALFORMED, Code.TOO_LARGE)
    assert peak < 100_000


@pytest.mark.parametrize(
    "head",
    [b"", b"\xc0", b"\x93\x01\x02\x03", b"\x80\x80", b"\x81\xa1x", b"\x81\xda\x01", b"\x81\x01\x01",
     b"\x81\xa1\xff\x01", b"\x81\xa1x\xc1", b"\x81\xa1x\xd4\x01\x00", b"\x81\xa1x" + b"\x91" * 9999,
     b"\x81\xa1x\xd6\xff\x00\x00\x00\x00"],
)  # fmt: skip
def test_what_is_no_message(head: bytes) -> None:
    assert refused([head]) is Code.MALFORMED


def test_sizes_are_limited_before_anything_is_read() -> None:
    limits = Limits(frames=3, header=20, text=8, payload=10, payloads=15)
    head = b"\x81\xa1x\x01"
    assert refused([]) is Code.MALFORMED
    assert refused([head, b"", b"", b""], limits) is Code.TOO_LARGE
    assert refused([head + bytes(20)], limits) is Code.TOO_LARGE
    assert refused([head, bytes(11)], limits) is Code.TOO_LARGE
    assert refused([head, bytes(8), bytes(8)], limits) is Code.TOO_LARGE
    assert refused([b"\x81\xa1x\xa9123456789"], limits) is Code.MALFORMED
    assert wire.decode([head, bytes(8), bytes(7)], limits)[0] == {"x": 1}


@pytest.mark.parametrize("value", [2**64, "\ud800", object()])
def test_what_cannot_be_written(value: Any) -> None:
    with pytest.raises(BridgeError) as caught:
        wire.encode({"x": value})
    assert caught.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_another_major_version_is_refused(version: Any) -> None:
    frames = wire.encode({"v": version, "id": "7", "op": "ping", "session": "s"})
    with pytest.raises(BridgeError, match="same release") as caught:
        wire.read_answer(frames)
    assert caught.value.code is Code.VERSION


def test_a_view_is_measured_in_bytes() -> None:
    wide = memoryview(bytes(16)).cast("d")
    assert wire.size(wide) == 16
    assert refused([b"\x80", wide], Limits(payload=15)) is Code.TOO_LARGE  # pyright: ignore
