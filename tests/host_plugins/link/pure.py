"""What of the link needs no socket, checked by plain assertions: run under every Python there is.

python pure.py FOLDER, where FOLDER holds copies of `link` and of msgpack's Python source.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any


class Link:
    """The modules of the copy; untyped, because no checker sees it there."""

    def __init__(self) -> None:
        self.errors: Any = import_module("link.errors")
        self.wire: Any = import_module("link.wire")
        self.messages: Any = import_module("link.messages")
        self.endpoint: Any = import_module("link.endpoint")
        self.timing: Any = import_module("link.timing")
        self.client: Any = import_module("link.client")

    def refusal(self, call: Callable[[Any], Any], value: Any) -> str:
        try:
            call(value)
        except self.errors.BridgeError as error:
            return error.code.value
        return ""


def main(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    link = Link()
    assert Path(link.wire.__file__).is_relative_to(folder)
    assert "zmq" not in sys.modules
    for check in (check_timing, check_wire, check_messages):
        check(link)
    here = link.endpoint.Endpoint("ipc://x", link.endpoint.os.getpid())
    file = folder / "run" / link.endpoint.NAME
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.touch(0o600)
    file.write_text(json.dumps(vars(here)))
    assert link.endpoint.read([file.parent]) == here


def check_timing(link: Link) -> None:
    timing = link.timing
    rate = timing.parse_rate("29.97 DF")
    assert rate == Fraction(30000, 1001)
    for frame in (0, 1799, 1800, 17981, 17982, 107892, 2589407):
        for separator in ":;":
            assert timing.frame_of(timing.timecode_of(frame, rate, separator), rate) == frame
    assert timing.timecode_of(1800, rate, ";") == "00:01:00;02"
    assert timing.source_frame(48, Fraction(24), Fraction(25)) == 50
    span = timing.Placement(86400, 86460, 100, Fraction(24), Fraction(24)).source_span()
    assert span.with_handles(12, 165) == timing.Span(88, 165, 12, 5)


def check_wire(link: Link) -> None:
    wire = link.wire
    fields = {"values": {"prompt": "ü", "n": [1, 2.5, None, b"x"]}}
    header, payloads = wire.decode(wire.write_call("1", "submit", "s", fields, (b"p",)))
    assert (wire.own(header), payloads) == (fields, (b"p",))
    reply = wire.encode({"v": 1, "id": "1", "session": "s", "ok": True, **fields})
    assert wire.read_answer(reply) == wire.Answer("1", "s", fields)
    deep, huge = b"\x81\xa1x" + b"\x91" * 9999, b"\xdf\xff\xff\xff\xff"
    for bad in (b"", b"\x93", huge, deep, b"\x81\xa1x\xc7", b"\x81\xa1x\xa1\xff"):
        assert link.refusal(wire.decode, [bad]) in ("malformed", "too_large"), bad[:20]


def check_messages(link: Link) -> None:
    messages = link.messages
    info = messages.JobInfo(job="a", state="done", seq=3, keyframes=(messages.Keyframe(frame=4),))
    assert messages.JobInfo.from_table(info.table()) == info
    for name, op in messages.OPS.items():
        refusal = link.refusal(op.request.from_table, {"job": "..", "upload": 3, "client": None})
        assert refusal in ("", "bad_request"), name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
