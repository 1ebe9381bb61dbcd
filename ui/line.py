"""The line to the server: a thread that owns the client, so that the window never waits.

What is asked for here is answered later, in the thread that this object belongs to. Whether there
is a server is looked at every second; one that is started again is met again, by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from PySide6.QtCore import QObject, QThread, Signal

from host_plugins.link import endpoint, messages
from host_plugins.link.client import Client
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Op, Pong
from host_plugins.link.tables import Message
from host_plugins.link.wire import Answer
from ui.standing import Server, Standing
from ui.starter import Starter, tail

R = TypeVar("R", bound=Message)
Wish = Callable[[Client], None]

#: Seconds: between looks at the server; that a wish may wait; for replies.
_LOOK, _TURN, _REPLY, _GREETING = 1.0, 0.05, 15.0, 3.0
#: For what was asked for just before the window was closed.
_LAST_WORD = 0.5


class Line(QThread):
    """The thread. Its signals arrive in the thread that made it.

    changed: a `Server`, whenever it stands otherwise with it
    met: a server is there that was not before; what is known of jobs is old
    happened: an `Event`
    """

    changed = Signal(object)
    met = Signal()
    happened = Signal(object)
    _answered = Signal(object, object)

    def __init__(self, starter: Starter, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._starter = starter
        self._wishes: SimpleQueue[Wish] = SimpleQueue()
        self._server = Server(Standing.UNKNOWN)
        self._pid = 0  # of the server that was met
        self._due = 0.0
        self._answered.connect(self._deliver)

    # ------------------------------------------------------------- called from the window's thread

    def ask(
        self,
        op: Op[R],
        message: Message | None,
        then: Callable[[R], None],
        failed: Callable[[BridgeError], None],
    ) -> None:
        """Ask the server; `then` or `failed` is called once, later."""
        self._wishes.put(lambda client: self._post(client, op, message, then, failed))

    def start_server(self) -> None:
        """Start a server, if there is none."""
        self._wishes.put(lambda _client: self._start())

    def log(self) -> str:
        """Return the end of what servers print that are started in the background."""
        return tail(self._starter.printed)

    def close(self) -> None:
        """End the thread, and wait for it; what was asked for last is still sent."""
        self.requestInterruption()
        self.wait()

    def _deliver(self, told: Callable[[Any], None], what: Any) -> None:
        told(what)

    # ----------------------------------------------------------------------- of the thread itself

    def run(self) -> None:
        """Look after the connection until the window is closed."""
        with Client() as client:
            while not self.isInterruptionRequested():
                self._turn(client)
            if not self._wishes.empty():
                self._grant(client)
                client.poll(_LAST_WORD)

    def _turn(self, client: Client) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _LOOK
            self._look(client)
        self._grant(client)
        for event in client.poll(_TURN):
            self.happened.emit(event)

    def _grant(self, client: Client) -> None:
        while not self._wishes.empty():
            self._wishes.get()(client)

    def _post(
        self,
        client: Client,
        op: Op[R],
        message: Message | None,
        then: Callable[[R], None],
        failed: Callable[[BridgeError], None],
    ) -> None:
        def told(answer: Answer) -> None:
            try:
                if answer.error is not None:
                    raise answer.error
                self._answered.emit(then, op.reply.from_table(answer.fields, answer.payloads))
            except BridgeError as error:
                self._answered.emit(failed, error)

        try:
            client.post(op.name, message.table() if message else {}, (), told, _REPLY)
        except BridgeError as error:
            self._answered.emit(failed, error)

    def _start(self) -> None:
        try:
            endpoint.read()  # there is one already
        except BridgeError:
            self._start_one()
        self._due = 0.0

    def _start_one(self) -> None:
        try:
            self._starter.start()
            self._tell(Server(Standing.STARTING))
        except BridgeError as error:
            self._tell(Server(Standing.ABSENT, problem=error))

    def _look(self, client: Client) -> None:
        """See whether there is a server, and feel its pulse."""
        starting = self._starter.under_way  # first: what has ended still seems to live
        try:
            found = endpoint.read()
            if found.pid != self._pid:
                client.subscribe(timeout=_GREETING)
                self._pid = found.pid
                self.met.emit()
            client.post(messages.PING.name, {}, (), self._on_pong, _GREETING)
        except BridgeError as error:
            self._on_absence(error, starting)

    def _on_absence(self, error: BridgeError, starting: bool) -> None:
        if error.code is Code.TIMEOUT:
            return self._tell(Server(Standing.SILENT))
        self._pid = 0
        if starting:
            return self._tell(Server(Standing.STARTING))
        usual = error.code is Code.UNAVAILABLE and error.retryable
        return self._tell(
            Server(Standing.ABSENT, problem=self._starter.ended() if usual else error)
        )

    def _on_pong(self, answer: Answer) -> None:
        if not self._pid:
            return  # it has ended meanwhile
        if answer.error is not None:
            self._tell(Server(Standing.SILENT))
        else:
            self._tell(Server(Standing.HERE, Pong.from_table(answer.fields).doing))

    def _tell(self, server: Server) -> None:
        """Say how it stands; errors are equal if they say the same."""
        if _essence(server) != _essence(self._server):
            self._server = server
            self.changed.emit(server)


def _essence(server: Server) -> tuple[Standing, str, str]:
    return server.standing, server.doing, str(server.problem or "")
