"""Whatever arrives, the server answers with a typed error, stays small, and stays quick."""

from __future__ import annotations

import contextlib
import os
import re
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host_plugins.link.errors import Code
from host_plugins.link.messages import OPS
from host_plugins.link.wire import LIMITS
from tests.bridge_server.plain import COMMAND, LONG, MORE, Ended, Plain, framed, greeting, message
from tests.bridge_server.serving import Serving
from tests.bridge_server.strangers import Refused, Stranger, endpoint_of, packed, unpacked

LONG_RUN = bool(os.environ.get("FRESCO_BRIDGE_LONG"))
FUZZ = settings(
    max_examples=3000 if LONG_RUN else 150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
#: Bytes that a server may be larger after all of it; it also warms up meanwhile.
GROWTH = 96 << 20
CODES = {code.value for code in Code}
#: Not these: they do what they say.
HARMLESS = sorted(set(OPS) - {"shutdown", "doctor"})


class Target:
    """A server that is being fuzzed; says how large it was at the start."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.stranger = Stranger(serving.runtime)
        assert serving.process is not None
        self.process = psutil.Process(serving.process.pid)
        for _ in range(50):
            self.stranger.ask("ping")
            self.stranger.ask("jobs")
        self.before = self.process.memory_info().rss

    def quick(self) -> None:
        """The server answers another client, soon; it is still the same process."""
        took = self._ping()
        while took is None:  # its allowance is used up for a moment
            time.sleep(0.25)
            took = self._ping()
        assert took < 1.0
        assert not self.serving.process_ended()

    def _ping(self) -> float | None:
        """Seconds until the answer; None where that was "busy"."""
        begun = time.monotonic()
        try:
            self.stranger.ask("ping")
        except Refused as refusal:
            if refusal.code != "busy":
                raise
            return None
        return time.monotonic() - begun

    def small(self) -> None:
        grown = self.process.memory_info().rss - self.before
        assert grown < GROWTH, f"{grown / 2**20:.0f} MiB more"

    def answer(self, *frames: bytes) -> dict[str, Any]:
        """The reply to frames that may be anything; once the allowance is used up, later."""
        while True:
            self.stranger.send_frames(frames)
            answer = self.stranger.receive(10)
            assert answer is not None, "no reply"
            if answer.header.get("code") != "busy":
                return answer.header
            time.sleep(0.1)

    def typed(self, *frames: bytes) -> dict[str, Any]:
        told = self.answer(*frames)
        assert told["ok"] is True or told["code"] in CODES - {"internal"}, told
        return told


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    serving = Serving(tmp_path_factory.mktemp("target"), ["--loopback"]).start()
    made = Target(serving)
    yield made
    made.quick()
    made.small()
    made.stranger.close()
    assert serving.stop() == 0
    log = (serving.folder / "server.log").read_text()
    assert "Traceback" not in log, log[-3000:]


texts = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", "\0", "../../etc/passwd", "/proc/self/fd/0", "/dev/zero", "a" * 65536,
                     "upload:x", "upload:../x", "nan", "1e999", "-1", "%s%n", "' or 1=1 --"]),
)  # fmt: skip
numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]),
    st.floats(),
    st.booleans(),
    st.none(),
)
values = st.recursive(
    st.one_of(texts, numbers, st.binary(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
#: The names of fields that mean something somewhere, so that more than the first check is met.
INNER = ["clip", "prompt", "loras", "controls", "pictures", "changes", "method", "start", "stop",
         "size", "seed", "cuts", "keyframes", "rate", "accept", "name", "kind", "maps", "frame",
         "what", "value", "Source", "Mask", "steps", "more_controls", "embeddings", "until",
         "batch", "output", "temporal_until", "auto_strength", "strength", "smooth_at",
         "tracks"]  # fmt: skip
tables = st.dictionaries(st.sampled_from(INNER), values, max_size=6)


def call_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Requests of an operation, each field of which may be anything."""
    known = {each.name: values | tables | st.lists(tables, max_size=2)
             for each in fields(OPS[name].request) if each.name != "payloads"}  # fmt: skip
    likely = {"job": st.sampled_from(["a", "b", "x-1"]) | values, "effect": st.just(
        "io.fresco.Stylise") | st.just("") | values}  # fmt: skip
    mixed = {key: likely.get(key, kind) for key, kind in known.items()}
    return st.fixed_dictionaries({}, optional={**mixed, "more": values}).map(
        lambda table: {**table, "op": name}
    )


@FUZZ
@given(frames=st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_bytes(target: Target, frames: list[bytes]) -> None:
    told = target.answer(*frames)
    assert told["ok"] is False
    assert told["code"] in ("malformed", "version", "too_large")


@FUZZ
@given(call=st.sampled_from(HARMLESS).flatmap(call_of), id_=st.sampled_from("abc"))
def test_wrong_types(target: Target, call: dict[str, Any], id_: str) -> None:
    header = {"v": 1, "id": id_, "session": "s", **call}
    sent = packed(header)
    told = target.typed(sent)
    # What is longer than a header may be is not read: nobody knows its id.
    assert told["id"] == ("" if len(sent) > LIMITS.header else id_)
    target.answer(packed({"v": 1, "id": "z", "op": "events.unsubscribe", "session": "s"}))


@FUZZ
@given(
    envelope=st.dictionaries(
        st.sampled_from(["v", "id", "op", "session", "token", "ok", "event", "code", "job"]), values
    )
)
def test_envelopes(target: Target, envelope: dict[str, Any]) -> None:
    told = target.typed(packed(envelope))
    assert isinstance(told["id"], str)


@FUZZ
@given(cut=st.integers(0, 60), flip=st.integers(0, 59), byte=st.integers(0, 255))
def test_a_request_with_a_hole(target: Target, cut: int, flip: int, byte: int) -> None:
    whole = bytearray(packed({"v": 1, "id": "1", "op": "job", "session": "5f0c", "job": "none"}))
    whole[flip % len(whole)] = byte
    target.typed(bytes(whole[: cut or None]))


@pytest.mark.parametrize(
    "frame",
    [
        b"\x91" * 200_000,
        b"\x81\xa1a" * 80_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xdc\xff\xff" * 1000,
        b"\x81\xa1a\xdb\x7f\xff\xff\xff",
        b"\xdc\x40\x00" + b"\x00" * 16384,
        bytes(262145),
        b"\x81\xd9\xff" + b"a" * 255 + b"\xc0",
    ],
)
def test_what_says_that_it_is_huge(target: Target, frame: bytes) -> None:
    told = target.answer(frame)
    assert told["code"] in ("malformed", "too_large", "version")
    target.quick()


def test_too_many_frames(target: Target) -> None:
    header = packed({"v": 1, "id": "1", "op": "ping", "session": "s"})
    assert target.answer(header, *[b""] * 32)["ok"]
    assert target.answer(header, *[b""] * 33)["code"] == "too_large"
    assert target.answer(header, *[b""] * 5000)["code"] == "too_large"


def test_too_many_bytes(target: Target) -> None:
    header = packed({"v": 1, "id": "1", "op": "ping", "session": "s"})
    told = target.answer(header, *[bytes(48 << 20)] * 3)
    assert told["code"] == "too_large"
    target.quick()


def test_a_frame_beyond_the_limit_ends_the_connection(target: Target) -> None:
    own = Stranger(target.serving.runtime)
    own.ask("ping")
    own.send_frames([bytes((64 << 20) + 1)])
    assert own.receive(1.0) is None
    own.close()
    target.quick()


def test_headers_as_large_as_allowed_do_not_hold_others_up(target: Target) -> None:
    """Each takes milliseconds to read, so they count for more than small ones."""
    own = Stranger(target.serving.runtime)
    big = packed({"v": 1, "id": "1", "op": "ping", "session": "s", "x": [0] * 16000,
                  "y": ["a" * 60_000] * 3})  # fmt: skip
    for _ in range(100):
        own.send_frames([big])
    slow: list[float] = []
    for _ in range(20):
        begun = time.monotonic()
        target.stranger.ask("ping")
        slow.append(time.monotonic() - begun)
    answers = [own.receive(10) for _ in range(100)]
    own.close()
    codes = [told.header.get("code") for told in answers if told is not None]
    assert len(codes) == 100
    assert "busy" in codes
    assert sorted(slow)[10] < 0.2


def test_many_small_messages(target: Target) -> None:
    own = Stranger(target.serving.runtime)
    begun = time.monotonic()
    for number in range(4000):
        own.send(own.envelope("ping", str(number)))
    got: dict[str, str] = {}
    while len(got) < 4000 and (told := own.receive(3)) is not None:
        got[told["id"]] = told.header.get("code", "")
    took = time.monotonic() - begun
    own.close()
    assert set(got.values()) <= {"", "busy"}
    assert len(got) > 1200
    assert list(got.values()).count("") <= 1200 + 400 * took + 64
    target.quick()


def test_too_many_at_once(target: Target) -> None:
    own = Stranger(target.serving.runtime)
    own.ask("ping")
    for number in range(200):
        own.send(own.envelope("models", str(number)))
    codes: list[str] = []
    for _ in range(200):
        told = own.receive(30)
        assert told is not None
        codes.append(told.header.get("code", ""))
    own.close()
    assert codes.count("") >= 64
    assert "busy" in codes
    target.quick()


# --------------------------------------------------------------------------- the loopback endpoint


def plain_of(target: Target) -> Plain:
    told = endpoint_of(target.serving.runtime)
    return Plain(told["loopback"], told["token"], 3.0)


def until_closed(plain: Plain) -> bytes:
    """Everything that still comes."""
    got = b""
    with contextlib.suppress(ConnectionResetError, Ended):
        while part := plain.socket.recv(1 << 16):
            got += part
    plain.close()
    return got


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".ljust(64),
        greeting(mechanism=b"CURVE"),
        greeting(mechanism=b"PLAIN"),
        b"\xff" * 64,
        bytes(64),
        greeting()[:10] + b"\x01\x00" + greeting()[12:],
        greeting() + b"\x00\x00",
        greeting() + framed(b"\x05ERROR\x00", COMMAND),
        greeting() + bytes([COMMAND | LONG]) + b"\xff" * 8,
        greeting() + b"\xf8\x00",
    ],
)
def test_a_wrong_greeting(target: Target, first: bytes) -> None:
    plain = plain_of(target)
    plain.socket.sendall(first)
    assert len(until_closed(plain)) <= 64 + 40
    target.quick()


def test_a_page_in_a_browser_cannot_ask(target: Target) -> None:
    """A web page may send what it likes to 127.0.0.1, but not what a greeting begins with."""
    plain = plain_of(target)
    body = greeting() + message(packed({"v": 1, "op": "ping"}))
    plain.socket.sendall(b"POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\n" + body)
    assert len(until_closed(plain)) <= 64


@FUZZ
@given(rubbish=st.binary(max_size=300))
def test_rubbish_behind_the_greeting(target: Target, rubbish: bytes) -> None:
    plain = plain_of(target).shake()
    plain.socket.sendall(rubbish)
    plain.socket.shutdown(1)
    got = until_closed(plain)
    assert len(got) < 2000


def test_half_messages_are_not_kept(target: Target) -> None:
    """Without a token nothing but a header is ever read."""
    before = target.process.memory_info().rss
    lines: list[Plain] = []
    header = packed({"v": 1, "id": "1", "op": "ping", "session": "s"})
    for _ in range(40):
        plain = plain_of(target).shake()
        with contextlib.suppress(OSError):
            plain.socket.sendall(framed(header, MORE))
            for _ in range(8):
                plain.socket.sendall(bytes([MORE | LONG]) + (1 << 20).to_bytes(8, "big"))
                plain.socket.sendall(bytes(1 << 20))
        lines.append(plain)
    assert target.process.memory_info().rss - before < 48 << 20
    target.quick()
    for plain in lines:
        plain.close()


def test_with_the_token_limits_hold_too(target: Target) -> None:
    for sizes in ([0] * 40, [(64 << 20) + 1], [60 << 20] * 3):
        plain = plain_of(target).shake()
        header = {"v": 1, "id": "7", "op": "ping", "session": "s", "token": plain.token}
        plain.socket.sendall(framed(packed(header), MORE))
        with contextlib.suppress(OSError):
            for size in sizes:
                plain.socket.sendall(bytes([MORE | LONG]) + size.to_bytes(8, "big"))
                if size <= 60 << 20:
                    plain.socket.sendall(bytes(size))
        told = unpacked(plain.message()[0])
        assert (told["id"], told["code"]) == ("7", "too_large")
        plain.close()
    target.quick()


def test_connections_that_say_nothing_are_closed(target: Target) -> None:
    told = endpoint_of(target.serving.runtime)
    silent = [Plain(told["loopback"], told["token"], 15.0) for _ in range(200)]
    target.quick()
    assert len(until_closed(silent[0])) <= 64  # within 10 s
    for plain in silent[1:]:
        plain.close()
    again = plain_of(target).shake()
    assert again.ask("ping")["ok"]
    again.close()


def test_paths_of_all_kinds(target: Target, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    paths = ["/" + "../" * 40 + "etc/passwd", str(tmp_path / "loop"), "/proc/self/mem", "/dev/full",
             "/" + "a/" * 3000, "/etc/passwd\0.mp4", "\\\\server\\share", "C:\\x", "//x/y",
             *(f"/{each}" for each in string.punctuation)]  # fmt: skip
    for path in paths:
        header = {"v": 1, "id": "1", "op": "submit", "session": "s", "job": "paths",
                  "request": {"clip": path, "output": path}}  # fmt: skip
        told = target.answer(packed(header))
        assert told["ok"] is False, path
        assert told["code"] in ("invalid", "not_found", "forbidden"), path


@pytest.mark.skipif(not LONG_RUN, reason="a minute each: make test-long")
@pytest.mark.parametrize("target", ["wire", "dispatch"])
def test_nothing_is_found_where_coverage_leads(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="there is no atheris here: pip install -e .[fuzz]")
    command = [sys.executable, "-m", "tests.bridge_server.coverage_fuzz", target, str(tmp_path)]
    done = subprocess.run(
        [*command, "-max_total_time=60", "-timeout=20", "-seed=1"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    found = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
    assert found is not None, done.stderr[-4000:]
    print(f"{target}: {found[0]}")
    assert int(found[1]) > 100
