"""Guided by coverage (atheris): what comes in by a socket, through the reader and the dispatch.

Run by `test_fuzz`, or with ``python -m tests.bridge_server.coverage_fuzz TARGET FOLDER
[libFuzzer's options]``; TARGET is ``wire`` or ``dispatch``. The journal of the server is in FOLDER,
and so is what made it fail.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]
import msgpack

with atheris.instrument_imports(include=["bridge_server", "host_plugins"]):
    from bridge_server import config, envelope, failures, operations, server
    from bridge_server.access import LOCAL, Owner
    from bridge_server.audience import Peer
    from bridge_server.doors import Wishes
    from host_plugins.link import wire
    from host_plugins.link.errors import BridgeError, Code
    from host_plugins.link.messages import OPS, Event

#: They start processes, or end this one.
_APART = frozenset({"doctor", "shutdown", *operations._ERRANDS})
#: Fields of requests as the document has them, to begin with.
_SEEDS: dict[str, dict[str, object]] = {
    "hello": {"client": "a fuzzer", "minor": 1},
    "submit": {"job": "a1", "request": {"clip": "/no/such.mp4", "prompt": "oil", "seed": 3}},
    "jobs": {"states": ["queued"], "limit": 3, "before": "a1"},
    "events.subscribe": {"jobs": ["a1"], "transient": ["progress"]},
    "events.replay": {"job": "a1", "after": 0, "limit": 5},
    "approve": {"job": "a1", "gate": "keyframes", "until": "done"},
    "edit": {"job": "a1", "base": 1, "frame": 4, "what": "seed", "value": "5"},
    "upload.begin": {"upload": "u", "name": "a.mov", "size": 9, "sha256": "0" * 64},
    "upload.frame": {"upload": "u", "frame": 1, "width": 2, "height": 2},
    "download.chunk": {"job": "a1", "name": "log.jsonl", "offset": 0, "length": 10},
}


def seeds(folder: Path) -> None:
    """Write a request of each kind, and a submission with the effect's values."""
    folder.mkdir(exist_ok=True)
    for op in OPS:
        _seed(folder / op, op, _SEEDS.get(op, {"job": "a1", "upload": "u"}))
    values = {"prompt": "oil", "strength": 0.5, "auto_strength": False, "Source": "/no/such.mp4"}
    effect = {"job": "a2", "effect": "io.fresco.Stylise", "values": values}
    _seed(folder / "effect", "submit", effect)


def _seed(file: Path, op: str, fields: dict[str, object]) -> None:
    header = {"v": 1, "id": "1", "op": op, "session": "s", **fields}
    file.write_bytes(bytes(msgpack.packb(header) or b""))


def through_the_reader(data: bytes) -> None:
    """A header with payloads: it is read, or refused with a code of the protocol."""
    cut = int.from_bytes(data[:2], "big") % (len(data) + 1)
    for frames in ([data], [data[2:cut], data[cut:]]):
        envelope.request_id(frames)
        envelope.request_token(frames)
        try:
            call = envelope.read_call(frames)
        except BridgeError as error:
            if error.code is Code.INTERNAL:
                raise
            continue
        again = envelope.read_call(wire.write_call(call.id, call.op, call.session, call.fields))
        assert (again.id, again.op, dict(again.fields)) == (call.id, call.op, dict(call.fields))


class Dispatch:
    """A server without sockets and workers: its dispatch table, jobs and journal are real."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        made = server.Server(config.load(), folder / "state", folder, Wishes(), ())
        made.state.mkdir(parents=True, exist_ok=True)
        made.prepare(self._loop)
        self._loop.run_until_complete(made.books.open(made.state / config.JOURNAL, _unheard))
        made.books.jobs.journal._base.execute("pragma synchronous = off")  # as many runs as can be
        self._server = made
        self._peer = Peer(Owner(LOCAL), _Deaf())  # pyright: ignore[reportArgumentType]

    def __call__(self, data: bytes) -> None:
        """Answer a request: with what it asks for, or a code of the protocol."""
        try:
            call = envelope.read_call([data])
        except BridgeError:
            return
        if call.op in _APART:
            return
        try:
            reply, payloads = self._loop.run_until_complete(
                operations.answer(self._server, self._peer, call)
            )
        except Exception as error:
            told = failures.told(error)
            if told.code is Code.INTERNAL:
                raise
            envelope.write_answer(wire.Answer(call.id, "s", error=told))
        else:
            envelope.write_answer(wire.Answer(call.id, "s", reply, payloads))


def _unheard(_event: Event, _owner: str) -> None:
    """Tell nobody of an event."""


class _Deaf:
    """Where nothing is sent to."""

    gone, empty = False, True


def main() -> None:
    """Fuzz for as long as libFuzzer's options say."""
    target, folder = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.ERROR)
    os.environ[config.HOME] = str(folder / "home")
    seeds(folder / "seeds")
    one: Callable[[bytes], None] = through_the_reader if target == "wire" else Dispatch(folder)
    options = [*sys.argv[3:], f"-artifact_prefix={folder}/", str(folder / "seeds")]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
