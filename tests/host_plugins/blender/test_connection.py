from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from host_plugins.blender.connection import Connection
from host_plugins.link import endpoint, messages
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError
from host_plugins.link.messages import Shutdown
from tests.bridge_server.serving import Serving


def until(connection: Connection, holds: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, connection.state
        connection.collect()
        time.sleep(0.01)


def test_what_nobody_thought_of_does_not_end_the_connection(serving: Serving) -> None:
    failures = [ValueError("a file of another kind"), ZeroDivisionError()]

    def find() -> Endpoint:
        if failures:
            raise failures.pop()
        return endpoint.read([serving.runtime])

    connection = Connection("a test", find=find)
    connection.open()
    try:
        until(connection, lambda: connection.state.up)
    finally:
        connection.close()


def test_what_was_asked_of_a_server_that_goes_is_answered(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    serving.start()
    answers: list[object] = []
    connection = Connection("a test", find=lambda: endpoint.read([serving.runtime]))
    connection.open()
    try:
        until(connection, lambda: connection.state.up)
        connection.ask(messages.SHUTDOWN, Shutdown(), answers.append)
        for _ in range(50):
            connection.ask(messages.MODELS, None, answers.append)
        until(connection, lambda: len(answers) == 51)
        until(connection, lambda: connection.state.name == "down")
        assert all(each.retryable for each in answers if isinstance(each, BridgeError))
    finally:
        connection.close()
        serving.kill()
