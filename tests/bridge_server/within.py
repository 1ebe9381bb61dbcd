"""A real server in this process, without workers: what it does now and then can be hurried."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from bridge_server import config
from bridge_server.doors import Wishes
from bridge_server.server import Server


def run(folder: Path, check: Callable[[Server], Awaitable[None]]) -> None:
    """Run a server in a folder, and `check` beside it once it can be reached."""
    asyncio.run(_beside(folder, check))


async def _beside(folder: Path, check: Callable[[Server], Awaitable[None]]) -> None:
    reached = asyncio.Event()
    server = Server(config.load(), folder / "state", folder / "run", Wishes(), ())
    running = asyncio.create_task(server.run(lambda _at: reached.set()))
    waiting = asyncio.create_task(reached.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if running.done():
            await running
        await check(server)
    finally:
        server.stop()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await running


async def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)
