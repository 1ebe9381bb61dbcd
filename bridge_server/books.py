"""The jobs and their journal, in a thread of their own: nobody else waits for that file."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from bridge_server.jobs import Jobs
from bridge_server.journal import Journal
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Event

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Seconds between tries to write the journal.
_AGAIN = 1.0
#: What keeps it from being written for a while.
_PASSING = (Code.NO_SPACE, Code.BUSY)


class Books:
    """The jobs of one server.

    ending: whether the server is about to end
    """

    jobs: Jobs

    def __init__(self, ending: Callable[[], bool] = lambda: False) -> None:
        self._ending = ending
        self._thread = ThreadPoolExecutor(1, "journal")

    async def open(self, file: Path, tell: Callable[[Event, str], None]) -> None:
        """Open the journal; see `Journal`.

        Raises:
            BridgeError: it cannot be used; says why.
        """
        self.jobs = Jobs(await self._in_thread(lambda: Journal(file, tell)))

    async def close(self) -> None:
        """Close the journal, once all that was to be written is."""
        await self._in_thread(self.jobs.journal.close)
        self._thread.shutdown()

    async def journalled(self, change: Callable[[], T], durable: bool = True) -> T:
        """Do something with the jobs as one change of the journal.

        durable: see `Journal.change`
        """

        def within() -> T:
            with self.jobs.journal.change(durable):
                return change()

        return await self._in_thread(within)

    async def persisted(self, change: Callable[[], T]) -> T:
        """`journalled`, again and again while it cannot be written: a worker's news are not lost.

        Raises:
            BridgeError: it still cannot, and the server ends (no_space, busy). What ran then is
                taken up at the next start.
        """
        while not (done := await self._tried(change)):
            await asyncio.sleep(_AGAIN)
        return done[0]

    async def _tried(self, change: Callable[[], T]) -> tuple[T, ...]:
        """The result of a change; nothing where the disk is full, or the file held by another."""
        try:
            return (await self.journalled(change),)
        except (sqlite3.OperationalError, BridgeError) as error:
            if self._ending() or (isinstance(error, BridgeError) and error.code not in _PASSING):
                raise
            log.error("the journal cannot be written: %s", error)
            return ()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
