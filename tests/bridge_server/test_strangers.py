"""The real server, met by clients that know nothing but its document."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.bridge_server.plain import Plain, message
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import SMALL, Serving
from tests.bridge_server.strangers import (
    LASTING,
    Refused,
    Stranger,
    endpoint_of,
    packed,
    unpacked,
)

AT_REST = ("done", "failed", "cancelled", "waiting", "paused")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("a server"), ["--loopback"]).start()
    yield serving
    assert serving.stop() == 0


@pytest.fixture
def stranger(serving: Serving) -> Iterator[Stranger]:
    stranger = Stranger(serving.runtime)
    yield stranger
    stranger.close()


@pytest.fixture
def plain(serving: Serving) -> Iterator[Plain]:
    told = endpoint_of(serving.runtime)
    plain = Plain(told["loopback"], told["token"]).shake()
    yield plain
    plain.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("clips") / "one shot.mp4", (9,))


def wanted(clip: Path, output: Path, **more: object) -> dict[str, object]:
    return {"clip": str(clip), **SMALL, "output": str(output), **more}


def rest(stranger: Stranger, job: str, seconds: float = 120.0) -> str:
    """Listen until a job rests; returns its state."""
    end = time.monotonic() + seconds
    while (state := stranger.ask("job", job=job)["state"]) not in AT_REST:
        assert time.monotonic() < end, state
        stranger.listen(0.2)
    stranger.listen(0.3)
    return state


def test_the_endpoint_file_says_where(serving: Serving) -> None:
    told = endpoint_of(serving.runtime)
    assert told["address"].startswith("ipc://")
    assert told["loopback"].startswith("tcp://127.0.0.1:")
    assert (told["major"], told["minor"], told["server_key"]) == (1, 1, "")
    assert len(told["token"]) <= 64
    assert serving.runtime.stat().st_mode & 0o777 == 0o700
    assert (serving.runtime / "endpoint.json").stat().st_mode & 0o777 == 0o600


def test_hello_and_ping(stranger: Stranger) -> None:
    welcome = stranger.ask("hello", client="a stranger", version="0.1")
    assert (welcome["owner"], welcome["minor"]) == ("local", 1)
    assert welcome["limits"]["payload"] == 67108864
    assert welcome["limits"]["chunk"] > 0
    assert "files" in welcome["capabilities"]
    pong = stranger.ask("ping")
    assert abs(pong["time"] - time.time()) < 5
    assert not pong.header.get("subscribed", False)
    assert pong["session"] == welcome["session"]


def test_a_job_is_followed_by_its_numbers(stranger: Stranger, clip: Path, tmp_path: Path) -> None:
    stranger.subscribe()
    asked = {"job": uuid.uuid4().hex, "request": wanted(clip, tmp_path / "a.mp4")}
    assert stranger.ask("submit", **asked)["state"] == "queued"
    assert stranger.ask("submit", **asked)["job"] == asked["job"]  # once more: the same job
    assert rest(stranger, str(asked["job"])) == "done"
    told = stranger.story.told[str(asked["job"])]
    assert [each["seq"] for each in told] == list(range(1, len(told) + 1))
    assert {each["event"] for each in told} <= set(LASTING)
    states = [each["data"]["state"] for each in told if each["event"] == "state"]
    assert states == ["queued", "running", "done"]
    replayed = Stranger(stranger.runtime)
    replayed.replay(str(asked["job"]), limit=2)  # in pages
    assert [each["seq"] for each in replayed.story.told[str(asked["job"])]] == [
        each["seq"] for each in told
    ]
    replayed.close()
    roles = [file["role"] for file in stranger.ask("result", job=asked["job"])["files"]]
    assert roles.count("output") == 1


def test_events_that_were_missed_are_asked_for(
    stranger: Stranger, clip: Path, tmp_path: Path
) -> None:
    stranger.subscribe()
    job = uuid.uuid4().hex
    stranger.story.last[job] = 0
    other = Stranger(stranger.runtime)
    other.ask("submit", job=job, request=wanted(clip, tmp_path / "b.mp4", prompt="ink"))
    lost = stranger.receive(5)  # is read, and forgotten: as if the wire had lost it
    assert lost is not None
    stranger.story.last.clear()
    stranger.story.told.clear()
    assert rest(stranger, job) == "done"
    numbers = [each["seq"] for each in stranger.story.told[job]]
    assert numbers == list(range(1, len(numbers) + 1))
    other.close()


def test_a_request_without_a_reply_is_sent_again(serving: Serving) -> None:
    stranger = Stranger(serving.runtime, wait=0.2)
    header = stranger.envelope("ping")
    stranger.send(header)
    stranger.send(header)
    assert stranger.reply_to(header["id"], 5)
    assert stranger.reply_to(header["id"], 5)
    stranger.close()


def test_cancel_may_be_said_twice(stranger: Stranger, clip: Path, tmp_path: Path) -> None:
    job = uuid.uuid4().hex
    request = wanted(clip, tmp_path / "c.mp4", steps=400, size=128)
    stranger.ask("submit", job=job, request=request)
    first = stranger.ask("cancel", id_="one", job=job)
    assert rest(stranger, job) == "cancelled"
    again = stranger.ask("cancel", id_="one", job=job)
    assert again.header == first.header  # the kept reply
    assert stranger.ask("cancel", job=job)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"v": 2}, "version"),
        ({"op": "dance"}, "unsupported"),
        ({"op": "job"}, "bad_request"),
        ({"op": "job", "job": "no-such-job"}, "not_found"),
        ({"op": "job", "job": 7}, "bad_request"),
        ({"op": "submit", "job": "x"}, "bad_request"),
        ({"op": "submit", "job": "x", "request": {"clip": "/none", "colour": 1}}, "invalid"),
        ({"op": "submit", "job": "x", "request": {"clip": "none.mp4"}}, "invalid"),
        ({"op": "submit", "job": "x", "request": {"clip": "/none.mp4"}}, "not_found"),
        ({"op": "submit", "job": "x", "request": {"clip": "upload:none"}}, "not_found"),
        ({"op": "jobs", "limit": 0}, "invalid"),
        ({"op": "upload.chunk", "upload": "x", "offset": "0"}, "bad_request"),
        ({"session": ""}, "malformed"),
    ],
)
def test_errors_have_codes(stranger: Stranger, change: dict[str, object], code: str) -> None:
    header = stranger.envelope("ping") | change
    stranger.send(header)
    with pytest.raises(Refused) as told:
        stranger.reply_to(header["id"], 5)
    assert told.value.code == code


def test_frames_that_are_no_message(stranger: Stranger) -> None:
    stranger.ask("ping")
    for frames in ([b""], [b"\xc1"], [b"\x93\1\2\3"], [b"\x80" + b"x"], [b"\x81\1\1"]):
        stranger.send_frames(frames)
        answer = stranger.receive(5)
        assert answer is not None
        assert answer["id"] == ""
        assert (answer["ok"], answer["code"]) == (False, "malformed")


def test_a_page_of_the_document_is_the_example(serving: Serving, stranger: Stranger) -> None:
    """The bytes of section 3 are taken for what they are said to be."""
    frame = bytes.fromhex(
        "85 a176 01 a26964 a131 a26f70 a663616e63656c a773657373696f6e a435663063 a36a6f62 a26131"
    )
    assert len(frame) == 39
    stranger.ask("ping")
    stranger.send_frames([frame])
    with pytest.raises(Refused) as told:
        stranger.reply_to("1", 5)
    assert told.value.code == "not_found"


# ---------------------------------------------------------------------------------- plain sockets


def test_a_plugin_without_zeromq(plain: Plain, clip: Path, tmp_path: Path) -> None:
    assert plain.ask("hello", client="a plugin")["owner"] == "local"
    job = uuid.uuid4().hex
    plain.ask("submit", job=job, request=wanted(clip, tmp_path / "p.mp4", prompt="neon"))
    end = time.monotonic() + 120
    while (state := plain.ask("job", job=job)["state"]) not in AT_REST:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert state == "done"
    assert len(plain.ask("describe")["effects"]) == 1  # a frame of many bytes


@pytest.mark.parametrize("op", ["events.subscribe", "events.unsubscribe", "events.replay",
                                "shutdown"])  # fmt: skip
def test_what_the_loopback_endpoint_does_not_do(plain: Plain, op: str) -> None:
    with pytest.raises(Refused) as told:
        plain.ask(op, job="x")
    assert told.value.code == "forbidden"


@pytest.mark.parametrize("token", ["wrong", "", "é" * 20])
@pytest.mark.parametrize("fields", [{}, {"v": 2}, {"session": 7}, {"op": "shutdown"}])
def test_without_the_token_nothing_else_counts(
    plain: Plain, token: str, fields: dict[str, object]
) -> None:
    with pytest.raises(Refused) as told:
        plain.ask(**({"op": "ping", "token": token} | fields))  # pyright: ignore
    assert told.value.code == "unauthorised"


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x91" * 40, b"\x80", bytes(300_000)])
def test_what_is_no_message_shows_no_token_either(serving: Serving, frame: bytes) -> None:
    told = endpoint_of(serving.runtime)
    plain = Plain(told["loopback"], told["token"]).shake()
    plain.socket.sendall(message(frame))
    assert unpacked(plain.message()[0])["code"] == "unauthorised"
    plain.close()


def test_zeromq_speaks_to_the_loopback_endpoint_too(serving: Serving) -> None:
    told = endpoint_of(serving.runtime)
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(told["loopback"])
    header = {"v": 1, "id": "1", "op": "ping", "session": "s", "token": told["token"]}
    socket.send(packed(header))
    assert socket.poll(5000)
    assert unpacked(socket.recv_multipart()[0])["ok"]
    socket.close()


def test_a_silent_plugin_is_not_sent_away(serving: Serving) -> None:
    """A plugin asks when a user does something: hours may lie between, and it reads nothing."""
    told = endpoint_of(serving.runtime)
    plain = Plain(told["loopback"], told["token"]).shake()
    plain.ask("ping")
    plain.socket.settimeout(7.0 if not os.environ.get("FRESCO_BRIDGE_LONG") else 30.0)
    with pytest.raises(TimeoutError):
        plain.socket.recv(1)  # not even a heartbeat, which would want an answer
    plain.socket.settimeout(5.0)
    plain.ask("ping")
    plain.close()
