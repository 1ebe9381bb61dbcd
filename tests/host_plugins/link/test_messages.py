from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_plugins.link import messages, wire
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import EVENTS, OPS, Event, JobInfo
from host_plugins.link.tables import Message
from tests.host_plugins.link.test_wire import outcome

CLASSES = [
    each
    for _, each in inspect.getmembers(messages, inspect.isclass)
    if issubclass(each, Message) and each is not Message
]
TABLES = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=2)


def some(kind: Any) -> st.SearchStrategy[Any]:
    """What may be in a field of this type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return st.from_regex(inner[1], fullmatch=True)
    if origin is tuple:
        return st.lists(some(inner[0]), max_size=2).map(tuple)
    if type(None) in inner:
        return st.none() | some(inner[0])
    if origin is not None:
        return TABLES if inner[1] is Any else st.dictionaries(st.text(max_size=5), some(inner[1]))
    if isinstance(kind, type) and issubclass(kind, Message):
        return some_message(kind)
    floats = st.floats(allow_nan=False, allow_infinity=False)
    plain = {
        str: st.text(max_size=9),
        int: st.integers(-(2**63), 2**63 - 1),
        bool: st.booleans(),
        float: floats,
    }
    return plain[kind]


def some_message(kind: type[Message]) -> st.SearchStrategy[Message]:
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [each.name for each in dataclasses.fields(kind) if each.name != "payloads"]
    return st.builds(kind, **{name: some(hints[name]) for name in names})


@given(st.data())
def test_every_message_survives_its_table(data: st.DataObject) -> None:
    for kind in CLASSES:
        sent = data.draw(some_message(kind))
        table = sent.table()
        assert kind.from_table(table) == sent
        assert kind.from_table({**table, "from a newer version": [1]}) == sent


@given(st.data())
def test_wrong_types_are_typed_errors(data: st.DataObject) -> None:
    wrong = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers()) | TABLES
    for kind in CLASSES:
        names = [each.name for each in dataclasses.fields(kind)]
        assert outcome(kind.from_table, {name: data.draw(wrong) for name in names}) in (
            None,
            Code.BAD_REQUEST,
        )


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("value", [None, 1, [0], ["x"], b"x", {"a": 1}])
def test_payloads_in_a_header_are_ignored(kind: type[Message], value: object) -> None:
    read = outcome(kind.from_table, {"payloads": value})
    assert read is outcome(kind.from_table, {})


def test_no_field_has_a_name_of_the_envelope() -> None:
    for kind in {*CLASSES} - {Event}:
        names = {each.name for each in dataclasses.fields(kind)}
        assert not names & wire.ENVELOPE, kind


def test_what_is_usual_is_left_out() -> None:
    assert JobInfo(job="a", state="queued", seq=1).table() == {
        "job": "a",
        "state": "queued",
        "seq": 1,
    }


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({}, "the field job is missing"),
        ({"job": "../../etc"}, "job: .* is not"),
        ({"job": "a" * 65}, "job: .* is not"),
        ({"job": "a", "base": 1, "frame": True, "what": "seed"}, "frame: True is not a whole"),
        ({"job": "a", "base": 1.0, "frame": 1, "what": "seed"}, "base: 1.0 is not a whole"),
        ({"job": "a", "base": 1, "frame": 1, "what": "seed", "value": 3}, "value: 3 is not a text"),
    ],
)
def test_bad_fields_are_named(table: dict[str, Any], reason: str) -> None:
    with pytest.raises(BridgeError, match=reason) as caught:
        messages.Edit.from_table(table)
    assert caught.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", True])
def test_numbers_are_numbers(value: Any) -> None:
    with pytest.raises(BridgeError, match="is not a number"):
        messages.Pong.from_table({"time": value})


def test_a_long_wrong_value_is_cut_in_the_message() -> None:
    with pytest.raises(BridgeError) as caught:
        messages.OfJob.from_table({"job": "?" * 60_000})
    assert len(str(caught.value)) < 200


def test_payloads_are_beside_the_table() -> None:
    sent = messages.UploadChunk(upload="u", offset=3, payloads=(b"abc",))
    assert sent.table() == {"upload": "u", "offset": 3}
    assert messages.UploadChunk.from_table(sent.table(), (b"abc",)) == sent
    assert "abc" not in repr(sent)


def test_operations() -> None:
    asked = {
        "hello", "ping", "describe", "submit", "jobs", "job", "cancel", "pause", "resume", "retry",
        "approve", "edit", "events.subscribe", "events.unsubscribe", "events.replay", "result",
        "upload.begin", "upload.chunk", "upload.end", "upload.frame", "download.chunk",
        "download.frame", "models", "doctor", "shutdown",
    }  # fmt: skip
    assert set(OPS) == asked
    assert all(name == op.name and len(name) <= 32 for name, op in OPS.items())


def test_kinds_of_events() -> None:
    assert set(messages.TRANSIENT) < set(EVENTS)
    event = Event(event="state", job="a", seq=4, data={"state": "done", "before": "running"})
    body = EVENTS[event.event].from_table(event.data)
    assert body == messages.StateChanged(state="done", before="running")


def test_messages_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        messages.OfJob(job="a").job = "b"  # pyright: ignore
