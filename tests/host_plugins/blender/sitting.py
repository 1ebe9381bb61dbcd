"""A desk on a real server, as Blender has one."""

from __future__ import annotations

import time
from collections.abc import Callable

from host_plugins.blender.connection import Connection
from host_plugins.blender.desk import Desk
from host_plugins.link import endpoint
from tests.bridge_server.serving import Serving


class Sitting:
    """A desk and its connection; `until` does what Blender's timer does."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.looks = 0
        self.desk = Desk(lambda *asked: self.connection.ask(*asked), self._see)
        self.connection = Connection(
            "a test",
            lambda event: self.desk.on_event(event),
            lambda: self.desk.on_up(),
            lambda: endpoint.read([serving.runtime]),
        )
        self.connection.open()

    def _see(self) -> None:
        self.looks += 1

    def until(self, holds: Callable[[], object], seconds: float = 240.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, {
                job: (card.state, str(card.error)) for job, card in self.desk.cards.items()
            }
            self.connection.collect()
            self.desk.advance()
            time.sleep(0.01)
