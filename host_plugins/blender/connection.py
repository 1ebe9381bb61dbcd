# SPDX-License-Identifier: GPL-3.0-or-later
"""The server, spoken to in a thread of its own: Blender never waits for it.

What is asked is put into a queue; what was answered, and what happened, is collected from another
by the main thread, which alone may touch Blender's data. Nothing here knows Blender.
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import program
from ..link import endpoint as endpoints
from ..link import messages
from ..link.client import Client
from ..link.endpoint import Endpoint
from ..link.errors import BridgeError, Code
from ..link.messages import Event, Hello, Message, Op, Pong
from ..link.wire import Answer

#: Seconds between looks for a server, also for one that starts, and between pings.
_LOOK, _SOON, _PULSE = 1.0, 0.1, 2.0
#: Seconds for a reply, and for a server to start.
_REPLY, _STARTING = 15.0, 60.0
#: Seconds that the thread listens before it looks at what is to be asked.
_LISTEN = 0.05

#: Called on the main thread with a reply, or with what went wrong.
Then = Callable[[Any], None]


@dataclass(frozen=True)
class State:
    """The server as the user is told of it.

    name: "down", "starting", "loading" or "ready"
    doing: in plain words, of "loading"; error: why it is down, if it should not be
    """

    name: str = "down"
    doing: str = ""
    error: BridgeError | None = None

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self.name in ("loading", "ready")


@dataclass(frozen=True)
class _Asked:
    op: Op[Any]
    message: Message | None
    then: Then


class Connection:
    """A connection to the server that is found anew whenever it is lost.

    client: who asks, for the server's users: "Blender 5.0"
    on_event: called on the main thread with each event
    on_up: called on the main thread whenever another server answers
    """

    def __init__(
        self,
        client: str,
        on_event: Callable[[Event], None] = lambda _event: None,
        on_up: Callable[[], None] = lambda: None,
        find: Callable[[], Endpoint] = endpoints.read,
    ) -> None:
        self._name, self._find = client, find
        self._on_event, self._on_up = on_event, on_up
        self._asked: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        #: Of the thread: what was asked and is not answered yet.
        self._open: list[_Asked] = []
        self._told: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="FreSCo Bridge", daemon=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pulse = 0.0
        self.state = State()

    # ------------------------------------------------------------------------- the main thread's

    def open(self) -> None:
        """Begin to look for the server."""
        self._thread.start()

    def close(self) -> None:
        """End; what was not answered yet is forgotten."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def ask(self, op: Op[Any], message: Message | None, then: Then) -> None:
        """Ask; `then` gets the reply's message or a BridgeError, when it is collected."""
        self._asked.put(_Asked(op, message, then))

    def collect(self) -> bool:
        """Hand out what has come, on this thread; whether there was anything."""
        found = False
        while not self._told.empty():
            found = True
            self._told.get()()
        return found

    def start_server(self, words: Sequence[str], printed: Path) -> None:
        """Start a server. Raises BridgeError: see `program.start_server`."""
        # The thread takes a process without its time for one that does not start.
        self._started = time.monotonic()
        self._process = program.start_server(words, printed)
        self.state = State("starting")

    # ----------------------------------------------------------------------------- the thread's

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._talk()
            except BridgeError as error:  # noqa: PERF203
                self._down(error)
                self._ending.wait(_SOON if self._starting() else _LOOK)

    def _talk(self) -> None:
        """As `_converse`; what nobody thought of must not end the thread. Raises BridgeError."""
        try:
            self._converse()
        except BridgeError:
            raise
        except Exception as error:
            traceback.print_exc()
            raise BridgeError(Code.INTERNAL, f"the connection failed: {error!r}") from error

    def _converse(self) -> None:
        """Speak to the server that there is, until it is gone. Raises BridgeError: it is."""
        with Client(self._find) as client:
            self._greet(client)
            while not self._ending.is_set():
                self._serve(client)

    def _greet(self, client: Client) -> None:
        client.ask(messages.HELLO, Hello(client=self._name), _REPLY)
        client.subscribe(timeout=_REPLY)
        self._process = None
        self._pong(client.ask(messages.PING, None, _REPLY))
        self._told.put(self._on_up)

    def _serve(self, client: Client) -> None:
        """Ask what is to be asked, and pass on what comes. Raises BridgeError: the server is gone.

        A server that is silent is one that ended, or works too hard to say so: the ping tells.
        """
        for event in client.poll(_LISTEN):
            if event.event == "server":
                raise BridgeError(Code.UNAVAILABLE, "the server was ended", "start it again")
            self._told.put(lambda event=event: self._on_event(event))
        while not self._asked.empty():
            self._post(client, self._asked.get())
        if time.monotonic() >= self._pulse:
            self._pong(client.ask(messages.PING, None, _REPLY))

    def _post(self, client: Client, asked: _Asked) -> None:
        def then(answer: Answer) -> None:
            self._open.remove(asked)
            self._answer(asked, answer)

        message = asked.message
        fields = message.table() if message else {}
        self._open.append(asked)
        try:
            client.post(asked.op.name, fields, getattr(message, "payloads", ()), then, _REPLY)
        except BridgeError as error:
            self._open.remove(asked)
            self._tell(asked, error)

    def _answer(self, asked: _Asked, answer: Answer) -> None:
        if answer.error is not None:
            return self._tell(asked, answer.error)
        try:
            return self._tell(asked, asked.op.reply.from_table(answer.fields, answer.payloads))
        except BridgeError as error:
            return self._tell(asked, error)

    def _tell(self, asked: _Asked, told: Any) -> None:
        self._told.put(lambda: asked.then(told))

    def _pong(self, pong: Pong) -> None:
        self._pulse = time.monotonic() + _PULSE
        self.state = State("loading", pong.doing) if pong.doing else State("ready")

    def _down(self, error: BridgeError) -> None:
        """Say that there is no server; to everybody who asked, unless one is just starting."""
        while self._open:
            self._tell(self._open.pop(0), error)
        ended = self._process is not None and self._process.poll() is not None
        if self._starting() and not ended:
            self.state = State("starting")
            return
        if ended or self._process is not None:
            self._process = None
            hint = "its log says why: see Copy Log, or run `fresco-bridge doctor`"
            what = "the server ended while it started" if ended else "the server does not start"
            self.state = State("down", error=BridgeError(Code.UNAVAILABLE, what, hint))
        elif not (error.code is Code.UNAVAILABLE and self.state.error):
            plain = error.code is Code.UNAVAILABLE and error.retryable
            self.state = State("down", error=None if plain else error)
        with suppress(queue.Empty):
            while True:
                self._tell(self._asked.get_nowait(), error)

    def _starting(self) -> bool:
        return self._process is not None and time.monotonic() < self._started + _STARTING
