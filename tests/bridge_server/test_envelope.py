from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_server import envelope
from bridge_server.envelope import Call
from host_plugins.link import wire
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.wire import Limits

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
        envelope.decode(frames, limits)
    return caught.value.code


def outcome(read: Callable[[Any], Any], frames: Any) -> Code | None:
    """None if it can be read; anything but a typed error fails the test."""
    try:
        read(frames)
    except BridgeError as error:
        return error.code
    return None


EXPECTED = (None, Code.MALFORMED, Code.TOO_LARGE, Code.VERSION)


@given(NAMES, NAMES, NAMES, FIELDS, PAYLOADS)
def test_a_request_arrives_as_it_was_sent(
    id_: str, op: str, session: str, fields: dict[str, Any], payloads: tuple[bytes, ...]
) -> None:
    frames = wire.write_call(id_, op, session, fields, payloads)
    assert envelope.read_call(frames) == Call(id_, op, session, fields, payloads)


def test_a_token_is_carried_and_not_shown() -> None:
    call = envelope.read_call(wire.write_call("1", "ping", "s", {"token": "secret"}))
    assert call.token == "secret"
    assert not call.fields
    assert "secret" not in repr(call)


def test_fields_cannot_replace_the_envelope() -> None:
    frames = wire.write_call("1", "ping", "s", {"op": "shutdown", "v": 9})
    assert envelope.read_call(frames).op == "ping"


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_any_bytes_are_a_message_or_a_typed_error(frames: list[bytes]) -> None:
    for read in (envelope.decode, envelope.read_call):
        assert outcome(read, frames) in EXPECTED


@given(FIELDS, st.data())
def test_a_damaged_message_is_a_message_or_a_typed_error(
    fields: dict[str, Any], data: st.DataObject
) -> None:
    head = bytearray(wire.write_call("1", "submit", "s", fields)[0])
    for _ in range(data.draw(st.integers(1, 4))):
        head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(head)))
    for damaged in (bytes(head), bytes(head[:cut])):
        assert outcome(envelope.read_call, [damaged]) in EXPECTED


@given(VALUES)
def test_what_can_be_written_can_be_read(value: Any) -> None:
    header, payloads = envelope.decode(envelope.encode({"x": value}, [b"p"]))
    assert header == {"x": value}
    assert payloads == (b"p",)


HUGE = {
    "list": b"\xdd\xff\xff\xff\xff",
    "table": b"\xdf\xff\xff\xff\xff",
    "text": b"\xdb\xff\xff\xff\xff",
    "binary": b"\xc6\xff\xff\xff\xff",
}


@pytest.mark.parametrize("claim", HUGE.values(), ids=HUGE.keys())
def test_a_claimed_length_costs_nothing(claim: bytes) -> None:
    tracemalloc.start()
    code = refused([b"\x81\xa1x" + claim])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code in (Code.MALFORMED, Code.TOO_LARGE)
    assert peak < 100_000


@pytest.mark.parametrize("deep", [b"\x91", b"\x81\xa1x"], ids=["lists", "tables"])
def test_depth_is_limited(deep: bytes) -> None:
    assert refused([b"\x81\xa1x" + deep * 50_000 + b"\xc0"]) is Code.TOO_LARGE
    allowed = b"\x81\xa1x" + deep * (wire.LIMITS.depth - 1) + b"\xc0"
    assert envelope.decode([allowed])[0].keys() == {"x"}
    assert refused([b"\x81\xa1x" + deep * wire.LIMITS.depth + b"\xc0"]) is Code.TOO_LARGE


def test_the_largest_header_takes_little_memory() -> None:
    """The worst that fits: as many values as are allowed, each a table of one entry."""
    count = wire.LIMITS.items // 3 - 2
    body = b"\x81\xa1x\xdc" + count.to_bytes(2, "big") + b"\x81\xa1y\xc0" * count
    tracemalloc.start()
    assert len(envelope.decode([body])[0]["x"]) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000
    assert refused([b"\x81\xa1x\xdd" + (2**17).to_bytes(4, "big") + b"\xc0" * 2**17]) is (
        Code.TOO_LARGE
    )


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"", "ends early"),
        (b"\xc0", "no table"),
        (b"\x93\x01\x02\x03", "no table"),
        (b"\x80\x80", "behind the header's end"),
        (b"\x81\xa1x", "ends early"),
        (b"\x81\xa5x", "ends early"),
        (b"\x81\xda\x01", "ends early"),
        (b"\x81\x01\x01", "key that is no text"),
        (b"\x81\xc4\x01x\x01", "key that is no text"),
        (b"\x81\xa1x\x81\xc0\x01", "key that is no text"),
        (b"\x81\xa1\xff\x01", "cannot be read"),
        (b"\x81\xa1x\xc1", "type 0xc1"),
        (b"\x81\xa1x\xd4\x01\x00", "type 0xd4"),
        (b"\x81\xa1x\xd6\xff\x00\x00\x00\x00", "type 0xd6"),
        (b"\x81\xa1x\xc7\x00\x01", "type 0xc7"),
    ],
)
def test_what_is_no_message(head: bytes, reason: str) -> None:
    with pytest.raises(BridgeError, match=reason) as caught:
        envelope.decode([head])
    assert caught.value.code is Code.MALFORMED


def test_sizes_are_limited_before_anything_is_read() -> None:
    limits = Limits(frames=3, header=20, text=8, payload=10, payloads=15)
    head = b"\x81\xa1x\x01"
    assert refused([]) is Code.MALFORMED
    assert refused([head, b"", b"", b""], limits) is Code.TOO_LARGE
    assert refused([head + bytes(20)], limits) is Code.TOO_LARGE
    assert refused([head, bytes(11)], limits) is Code.TOO_LARGE
    assert refused([head, bytes(8), bytes(8)], limits) is Code.TOO_LARGE
    assert refused([b"\x81\xa1x\xa9123456789"], limits) is Code.TOO_LARGE
    assert envelope.decode([head, bytes(8), bytes(7)], limits)[0] == {"x": 1}


@pytest.mark.parametrize("value", [2**64, "\ud800", object(), {1: 2}, [[]] * 2**15])
def test_what_cannot_be_written(value: Any) -> None:
    with pytest.raises(BridgeError) as caught:
        envelope.encode({"x": value})
    assert caught.value.code in (Code.BAD_REQUEST, Code.TOO_LARGE, Code.MALFORMED)


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_another_major_version_is_refused(version: Any) -> None:
    frames = envelope.encode({"v": version, "id": "7", "op": "ping", "session": "s"})
    with pytest.raises(BridgeError, match="same release") as caught:
        envelope.read_call(frames)
    assert caught.value.code is Code.VERSION
    assert envelope.request_id(frames) == "7"


@pytest.mark.parametrize(
    "change", [{"id": 3}, {"id": ""}, {"op": "x" * 33}, {"session": None}, {"token": []}]
)
def test_the_envelope_is_checked(change: dict[str, Any]) -> None:
    header = {"v": 1, "id": "1", "op": "ping", "session": "s", **change}
    with pytest.raises(BridgeError, match="must be a text") as caught:
        envelope.read_call(envelope.encode(header))
    assert caught.value.code is Code.MALFORMED


def test_the_id_of_what_cannot_be_read_is_empty() -> None:
    assert envelope.request_id([b"\xc1"]) == ""
    assert envelope.request_id([msgpack.packb({"id": 3}) or b""]) == ""


def test_a_view_is_measured_in_bytes() -> None:
    wide = memoryview(bytes(16)).cast("d")
    assert wire.size(wide) == 16
    assert refused([b"\x80", wide], Limits(payload=15)) is Code.TOO_LARGE  # pyright: ignore
