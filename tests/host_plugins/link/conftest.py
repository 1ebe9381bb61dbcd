"""A small server for the client to talk to: real sockets, and scripted answers."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import zmq

from bridge_server import envelope
from bridge_server.envelope import Call
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError
from host_plugins.link.wire import Answer, Notice

#: Fields, perhaps payloads; None: no answer at all.
Told = Mapping[str, Any] | tuple[Mapping[str, Any], tuple[bytes, ...]] | None


class Server:
    """A ROUTER in a thread. `answers`: op → what is answered; `calls`: what was asked.

    The thread ends with `stop`; `start` binds the same address again, as a new process would.
    """

    def __init__(self, address: str, keys: tuple[bytes, bytes] | None = None) -> None:
        self.address, self.keys, self.runs = address, keys, 0
        self.answers: dict[str, Callable[[Call], Told]] = {"ping": lambda _call: {"time": 1.0}}
        self.calls: list[Call] = []
        self.raw: list[bytes] = []
        self.identity = b""
        self._outbox: list[list[Any]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def session(self) -> str:
        return f"run{self.runs}"

    def start(self) -> None:
        self.runs += 1
        self._stopping.clear()
        bound = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(bound,))
        self._thread.start()
        assert bound.wait(5)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5)
            assert not self._thread.is_alive()
            self._thread = None

    def tell(self, event: str, payloads: tuple[bytes, ...] = (), **fields: Any) -> None:
        """Send an event to whoever asked last."""
        notice = Notice(event, self.session, fields, payloads)
        self._outbox.append([self.identity, *envelope.write_notice(notice)])

    def say(self, *frames: bytes) -> None:
        self._outbox.append([self.identity, *frames])

    def ops(self) -> list[str]:
        return [call.op for call in self.calls]

    def _run(self, bound: threading.Event) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.ROUTER)
        socket.linger = 0
        if self.keys:
            socket.curve_server = True
            socket.curve_secretkey = self.keys[1]
        socket.bind(self.address)
        self.address = socket.last_endpoint.decode().rstrip("\0")
        bound.set()
        while not self._stopping.is_set():
            while self._outbox:
                socket.send_multipart(self._outbox.pop(0))
            if socket.poll(5):
                self.identity, *frames = socket.recv_multipart()
                for reply in self._answer(frames):
                    socket.send_multipart([self.identity, *reply])
        socket.close()
        context.term()

    def _answer(self, frames: list[bytes]) -> Iterator[list[Any]]:
        call = envelope.read_call(frames)
        self.calls.append(call)
        answer = self.answers.get(call.op, lambda _call: {})
        try:
            told = answer(call)
        except BridgeError as error:
            yield envelope.write_answer(Answer(call.id, self.session, error=error))
            return
        if told is not None:
            fields, payloads = told if isinstance(told, tuple) else (told, ())
            yield envelope.write_answer(Answer(call.id, self.session, fields, payloads))

    def endpoint(self, **more: Any) -> Endpoint:
        return Endpoint(address=self.address, pid=self.runs, **more)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="fb"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server(short_folder: Path) -> Iterator[Server]:
    server = Server(f"ipc://{short_folder}/s")
    server.start()
    yield server
    server.stop()


def until(holds: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.005)
