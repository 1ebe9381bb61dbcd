"""How workers are started, watched and given jobs: real processes, which play at work."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bridge_server.journal import Row
from bridge_server.pipe import Message
from bridge_server.supervisor import Post, Running, Supervisor, Task
from host_plugins.link.errors import BridgeError

#: A worker's side of the pipe, for plays.
_HEAD = """
import sys, time
from bridge_server import pipe
def tell(what, **more):
    sys.stdout.buffer.write(pipe.pack({"tell": what, **more}))
    sys.stdout.buffer.flush()
"""
ALIVE = "tell('ready')\nwhile True:\n    tell('alive', idle=0.0)\n    time.sleep(0.1)"


class Play(Post):
    """A post where a script is run in place of the worker; it is named as the device."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", _HEAD + self.device]


class Ledger:
    """One job, and what was told of it. takes: seconds to take it from the queue."""

    def __init__(self, takes: float = 0.0, jobs: int = 0) -> None:
        self.takes, self.jobs, self.told_of = takes, jobs, list[str]()

    async def next(self, take: Callable[[Row], Running]) -> Task | None:
        if not self.jobs:
            return None
        self.jobs -= 1
        row = Row("a", "local")
        take(row)
        self.told_of.append("taken")
        await asyncio.sleep(self.takes)
        return Task(row, {}, Path())

    async def told(self, running: Running, message: Message) -> None:
        self.told_of.append(f"{running.job} {message['tell']}")

    async def crashed(self, running: Running, failure: BridgeError) -> None:
        self.told_of.append(f"{running.job} crashed: {failure.message}")

    async def interrupted(self, running: Running) -> None:
        self.told_of.append(f"{running.job} interrupted")

    async def troubled(self, why: str) -> None:
        self.told_of.append(why)

    async def speeds(self) -> dict[str, tuple[float, float]]:
        return {}


def play(
    folder: Path,
    script: str,
    ledger: Ledger,
    course: Callable[[Supervisor], Awaitable[None]],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    async def whole() -> None:
        supervisor = Supervisor(ledger, [Play(script)], folder, clock)
        supervisor.start()
        try:
            await course(supervisor)
        finally:
            await supervisor.close()

    asyncio.run(whole())


async def until(holds: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)


def test_a_job_is_not_lost_whose_worker_ends_while_it_is_taken(tmp_path: Path) -> None:
    ledger = Ledger(takes=1.0, jobs=1)

    async def course(_supervisor: Supervisor) -> None:
        await until(lambda: any("crashed" in own for own in ledger.told_of))

    play(tmp_path, "tell('ready')\ntime.sleep(0.2)\nsys.exit(3)", ledger, course)
    assert ledger.told_of[:2] == ["taken", "a crashed: the worker ended with code 3"]


def test_a_job_can_be_stopped_while_it_is_on_its_way_to_a_worker(tmp_path: Path) -> None:
    ledger = Ledger(takes=1.0, jobs=1)
    script = """
tell('ready')
while pipe.read(sys.stdin.buffer)['do'] != 'run':
    pass
assert pipe.read(sys.stdin.buffer) == {'do': 'stop', 'job': 'a'}
tell('ended', job='a', how='stopped')
"""

    async def course(supervisor: Supervisor) -> None:
        await until(lambda: ledger.told_of)
        supervisor.stop_job("a")
        await until(lambda: len(ledger.told_of) > 1)

    play(tmp_path, script, ledger, course)
    assert ledger.told_of == ["taken", "a ended"]


def test_a_worker_that_ends_at_once_is_started_ever_more_rarely(tmp_path: Path) -> None:
    ledger, begun = Ledger(), tmp_path / "begun"
    script = f"open({str(begun)!r}, 'a').write('x')\ntell('broken', why='no card')\nsys.exit(1)"

    async def course(supervisor: Supervisor) -> None:
        await until(lambda: ledger.told_of)
        assert "no card" in supervisor.doing
        await asyncio.sleep(1)

    play(tmp_path, script, ledger, course)
    assert begun.read_text() == "xx"
    assert "no worker can be started: no card" in ledger.told_of[0]


def test_the_end_of_the_server_is_no_crash(tmp_path: Path) -> None:
    ledger = Ledger(jobs=1)

    async def course(supervisor: Supervisor) -> None:
        await until(lambda: supervisor.running)

    begun = time.monotonic()
    play(tmp_path, ALIVE, ledger, course)  # it does not heed that its input ends
    assert ledger.told_of == ["taken", "a interrupted"]
    assert time.monotonic() - begun < 15


def test_a_machine_that_slept_has_workers_that_slept(tmp_path: Path) -> None:
    slept = 0.0

    async def course(supervisor: Supervisor) -> None:
        nonlocal slept
        await until(lambda: supervisor.doing == "")
        slept = 8 * 3600.0
        await asyncio.sleep(2.5)
        assert supervisor.doing == ""

    ledger = Ledger(jobs=0)
    silent = "tell('ready')\ntime.sleep(60)"
    play(tmp_path, silent, ledger, course, lambda: time.monotonic() + slept)
    assert ledger.told_of == []


def test_previews_do_not_pile_up_while_the_journal_cannot_be_written(tmp_path: Path) -> None:
    class Slow(Ledger):
        async def told(self, running: Running, message: Message) -> None:
            if not self.told_of[1:]:
                await asyncio.sleep(1)
            await super().told(running, message)

    script = """
tell('ready')
while pipe.read(sys.stdin.buffer)['do'] != 'run':
    pass
for _ in range(200):
    tell('preview', job='a')
tell('note', job='a')
tell('ended', job='a', how='done')
"""
    ledger = Slow(jobs=1)

    async def course(_supervisor: Supervisor) -> None:
        await until(lambda: "a ended" in ledger.told_of)

    play(tmp_path, script, ledger, course)
    assert 1 <= ledger.told_of.count("a preview") < 50
    assert "a note" in ledger.told_of
