"""What a server does now and then, whoever asks: it lets go of what is old and nobody needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge_server import config, published
from bridge_server.books import Books
from bridge_server.config import Config
from bridge_server.held_jobs import HeldJobs
from bridge_server.job_logs import JobLogs, shortened
from bridge_server.journal import checkpoint
from bridge_server.store import Store, allowance
from host_plugins.link.errors import BridgeError

log = logging.getLogger(__name__)

#: Seconds between looks at what is old and may go.
_TIDY = 3600.0
#: Seconds between bringing the journal's log into its file.
_CHECKPOINT = 10.0
#: Seconds between looks at the store, and at uploads that nobody needs.
_TEND = 1800.0
#: Seconds for which a result stays after it was used, whatever the budget.
_SPARE = 600.0


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The rounds of one server; a round that fails is made up for by the next.

    state: the folder of the journal, the logs and the uploads
    in_thread: does something with files, where nobody waits for it
    """

    settings: Config
    state: Path
    books: Books
    held: HeldJobs
    logs: JobLogs
    in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]

    def rounds(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what is to go on for as long as the server does."""
        return self._tend(), self._look(), self._tidy(), self._checkpoint()

    async def _look(self) -> None:
        """Look at the jobs that wait for uploads, whenever something has come."""
        while True:
            await _tried_once(self.held.let_forward)
            await self.held.asked()

    async def _tend(self) -> None:
        """Look after the store and uploads."""
        while True:
            await _tried_once(self._evict)
            await _tried_once(self._expire)
            self.held.look()
            await asyncio.sleep(_TEND)

    async def _evict(self) -> None:
        """Bring the store back into its budget; what unfinished jobs stand on stays."""
        keep = await self.books.journalled(self.books.jobs.results_needed)
        await self.in_thread(lambda: _evicted(self.settings, keep))

    async def _expire(self) -> None:
        if (self.state / "uploads").is_dir():
            await self.held.expire()

    async def _tidy(self) -> None:
        """Let go of old jobs, logs and what was printed, now and every hour."""
        while True:
            logs, jobs = await self.books.persisted(self.books.jobs.tidy)
            self.logs.forget(logs)
            self.logs.forget_all(jobs, published.FILES)
            for name in ("worker.log", "server.log"):
                await self.in_thread(lambda name=name: shortened(self.state / name))
            await asyncio.sleep(_TIDY)

    async def _checkpoint(self) -> None:
        """Keep the journal's log short."""
        while True:
            await asyncio.sleep(_CHECKPOINT)
            with contextlib.suppress(sqlite3.OperationalError):
                await self.in_thread(lambda: checkpoint(self.state / config.JOURNAL))


def _evicted(settings: Config, keep: set[str]) -> None:
    store = Store(settings.store)
    held = sum(result.size for result in store.results())
    budget = allowance(settings.store_budget, held, shutil.disk_usage(settings.store).free)
    if held > budget:
        done = store.evict(budget, keep, _SPARE)
        log.info("%d results went out of the store, %d bytes", len(done.keys), done.freed)


async def _tried_once(work: Callable[[], Awaitable[None]]) -> None:
    """Do a part of the upkeep; where it fails, say so, and let the rest of it go on."""
    try:
        await work()
    except Exception as error:
        trace = not isinstance(error, BridgeError)
        log.error("the upkeep goes on without a part of it: %s", error, exc_info=trace)
