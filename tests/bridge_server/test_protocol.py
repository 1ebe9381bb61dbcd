"""That the protocol's document says what the code does; and that its example is a client."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import typing
from pathlib import Path
from typing import Any

import pytest

import bridge_server
from bridge_server import descriptor, envelope
from bridge_server.request import Request
from bridge_server.states import TRANSITIONS
from host_plugins.link import errors, messages, wire
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.messages import EVENTS, OPS, TRANSIENT
from host_plugins.link.tables import Id, Message
from host_plugins.link.wire import Answer
from tests.host_plugins.link.conftest import Server, server, short_folder

__all__ = ["server", "short_folder"]  # fixtures

DOCUMENT = Path(bridge_server.__file__).with_name("PROTOCOL.md").read_text(encoding="utf-8")
_PARTS = re.split(r"^#{2,4} (.*)$", DOCUMENT, flags=re.MULTILINE)[1:]
#: Heading → its text, up to the next heading.
SECTIONS = dict(zip(_PARTS[::2], _PARTS[1::2], strict=True))
WORDS = {str: "text", int: "integer", float: "number", bool: "boolean"}


def rows(text: str) -> list[list[str]]:
    """The rows of a section's tables, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(text: str) -> list[str]:
    return re.findall(r"`([\w.-]+)`", text)


def in_words(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return "id" if kind == Id else "sha256"
    if origin is tuple:
        return f"list of {in_words(inner[0])}"
    if type(None) in inner:
        return f"{in_words(inner[0])} or null"
    if origin is not None:
        return "table" if inner[1] is Any else "table of integer"
    return WORDS.get(kind) or f"`{kind.__name__}`"


def default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    value = list(value) if isinstance(value, tuple) else value
    return f"`{json.dumps(value)}`"


def fields_of(kind: type[Message]) -> list[list[str]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    told = [each for each in dataclasses.fields(kind) if each.name != "payloads"]
    return [[f"`{each.name}`", in_words(hints[each.name]), default(each)] for each in told]


@pytest.mark.parametrize("name", OPS)
def test_every_operation(name: str) -> None:
    text = SECTIONS[f"`{name}`"]
    assert [row[:3] for row in rows(text)] == fields_of(OPS[name].request)
    reply = re.search(r"Reply: `(\w+)`", text)
    assert reply is not None
    assert reply[1] == OPS[name].reply.__name__
    assert ("No fields." in text) is (OPS[name].request is messages.Nothing)


@pytest.mark.parametrize(
    "kind", {op.reply for op in OPS.values()} | {messages.Keyframe, messages.File}
)
def test_every_reply(kind: type[Message]) -> None:
    assert [row[:3] for row in rows(SECTIONS[f"`{kind.__name__}`"])] == fields_of(kind)


@pytest.mark.parametrize("kind", EVENTS)
def test_every_event(kind: str) -> None:
    lasting = "transient" if kind in TRANSIENT else "lasting"
    text = SECTIONS[f"Event `{kind}`, {lasting}"]
    if kind == "keyframe":
        assert "Data: `Keyframe`" in text
    elif kind == "server":
        assert "Data as of `state`" in text
    else:
        assert [row[:3] for row in rows(text)] == fields_of(EVENTS[kind])
    envelope = fields_of(messages.Event)
    assert [row[:3] for row in rows(SECTIONS["7. Events"])] == envelope


def test_nothing_else_is_described() -> None:
    told = {name for heading in SECTIONS for name in names(heading)}
    replies = {op.reply.__name__ for op in OPS.values()} | {"Keyframe", "File"}
    assert told == {*OPS, *replies, *EVENTS}


def test_every_code() -> None:
    found = [row for row in rows(SECTIONS["6. Errors"]) if row[1] in ("yes", "no")]
    assert [row[0] for row in found] == [f"`{code.value}`" for code in errors.Code]
    retryable = {row[0].strip("`") for row in found if row[1] == "yes"}
    assert retryable == {code.value for code in errors.RETRYABLE}
    assert all(row[3].startswith("`kOfxStat") for row in found)


def test_every_state() -> None:
    found = {row[0].strip("`"): set(names(row[2])) for row in rows(SECTIONS["8. Jobs"])}
    assert found == {state: set(after) for state, after in TRANSITIONS.items()}


def test_every_limit() -> None:
    text = SECTIONS["3. Frames"]
    found = {
        row[2].strip(" `"): int(row[1])
        for row in (line.strip("|").split("|") for line in text.splitlines())
        if len(row) == 3 and row[1].strip().isdigit()
    }
    assert found == dataclasses.asdict(wire.LIMITS)


def test_the_bytes_of_the_example() -> None:
    blocks = re.findall(r"((?:^    .*\n)+)", SECTIONS["3. Frames"], re.MULTILINE)
    request, reply = (
        bytes.fromhex("".join(re.findall(r"^ +((?:[0-9a-f]{2} ?)+)(?=  |$)", block, re.MULTILINE)))
        for block in blocks[:2]
    )
    assert wire.write_call("1", "cancel", "5f0c", {"job": "a1"}) == [request]
    assert f"one frame of {len(request)} bytes" in DOCUMENT
    info = messages.JobInfo(job="a1", state="cancelled", seq=7)
    assert envelope.write_answer(Answer("1", "9e2b", info.table())) == [reply]
    assert f"one frame of {len(reply)} bytes" in DOCUMENT


def test_the_envelope() -> None:
    told = {name for row in rows(SECTIONS["4. Requests and replies"]) for name in names(row[0])}
    assert told == wire.ENVELOPE


def test_the_endpoint_file() -> None:
    told = [name for row in rows(SECTIONS["The endpoint file"]) for name in names(row[0])]
    assert sorted(told) == sorted(each.name for each in dataclasses.fields(Endpoint))


def test_every_field_of_a_request() -> None:
    text = SECTIONS["9. What a job is asked with"].partition("**The effect.**")[0]
    found = {row[0].strip("`"): row[1:3] for row in rows(text)}
    assert list(found) == [each.name for each in dataclasses.fields(Request)]
    kinds = {"str": "text", "int": "integer", "float": "number", "bool": "boolean"}
    for each in dataclasses.fields(Request):
        kind, _, null = str(each.type).partition(" | ")
        word = kinds.get(kind) or ("table" if kind == "Method" else "list of ")
        assert found[each.name][0].startswith(word), each.name
        assert found[each.name][0].endswith(" or null") is bool(null)
        usual = "`{}`" if each.name == "method" else default(each)
        assert found[each.name][1] == usual, each.name


def test_every_field_of_a_parameter() -> None:
    text = SECTIONS["9. What a job is asked with"].partition("**The effect.**")[2]
    told = {name for row in rows(text) for name in names(row[0])}
    assert told == {name for each in descriptor.load()["parameters"] for name in each}


def test_the_example_is_a_client(server: Server, tmp_path: Path) -> None:
    source = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert source is not None
    assert len(source[1].splitlines()) < 60
    module: dict[str, Any] = {"__name__": "example"}
    exec(compile(ast.parse(source[1]), "example", "exec"), module)
    states = ["queued", "running", "done"]
    server.answers["submit"] = lambda call: {"job": call.fields["job"], "state": "queued", "seq": 1}
    server.answers["job"] = lambda call: {
        "job": call.fields["job"],
        "state": states.pop(0),
        "seq": 2,
    }
    file = tmp_path / "endpoint.json"
    file.write_text(json.dumps(dataclasses.asdict(server.endpoint())))
    info = module["restyle"](str(file), "/a.mov", "snow")
    assert info["state"] == "done"
    submit = messages.Submit.from_table(server.calls[0].fields)
    assert submit.request == {"clip": "/a.mov", "prompt": "snow"}
    module["zmq"].Context.instance().destroy(linger=0)


def test_links_lead_somewhere() -> None:
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in SECTIONS}
    assert set(re.findall(r"\]\(#([^)]*)\)", DOCUMENT)) <= anchors
