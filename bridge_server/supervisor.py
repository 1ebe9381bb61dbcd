"""Workers: started, watched, given jobs, and started again (`worker` is the other end).

Nothing here computes or waits: messages come and go over pipes, in the server's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from bridge_server import pipe
from bridge_server.forecast import Forecast
from bridge_server.journal import Row

log = logging.getLogger(__name__)

#: Seconds without a sign of life after which a worker counts as dead; with which its end is waited
#: for when a job is stopped, and when the server ends; between starts of one that ends at once.
_SILENT, _PATIENCE, _FAREWELL, _PAUSE = 60.0, 30.0, 3.0, 2.0
#: Seconds in which a worker must be ready: it reads libraries from the disk.
_STARTING = 300.0
_LOOK = 1.0
#: Of Windows: keeps Ctrl-C in the server's terminal from the workers.
_APART: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


@dataclass(frozen=True, slots=True)
class Post:
    """Where a worker works. hang: seconds without a poll after which its work hangs."""

    device: str = ""
    threads: int = 0
    hang: float = 900.0

    @property
    def command(self) -> list[str]:
        """What starts the worker."""
        words = [sys.executable, "-m", "bridge_server.worker", "--threads", str(self.threads)]
        return [*words, "--device", self.device] if self.device else words


@dataclass(slots=True)
class Running:
    """A job at a worker. wish: the state for which it is being stopped, if it is."""

    job: str
    owner: str
    revision: int
    forecast: Forecast
    wish: str = ""
    since: float = 0.0


class Ledger(Protocol):
    """What the supervisor asks and tells the jobs; the server answers, from the disk."""

    async def next(self) -> tuple[Row, dict[str, Any], Path, bool] | None:
        """Return the job whose turn it is, its request for the worker, and its folder.

        Last: whether its clip was uploaded.
        """
        ...

    async def told(self, running: Running, message: pipe.Message) -> None:
        """Take over what a worker tells of a job."""
        ...

    async def crashed(self, running: Running, why: str) -> None:
        """Take over that a worker ended at a job."""
        ...

    async def speeds(self) -> dict[str, tuple[float, float]]:
        """Return what was learnt of this machine's speed."""
        ...


@dataclass(slots=True)
class _Slot:
    """A worker's place. beat: when it last gave a sign of life; idle: since its last poll."""

    post: Post
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    running: Running | None = None
    beat: float = 0.0
    idle: float = 0.0
    why: str = ""
    task: asyncio.Task[None] | None = None
    started: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """All workers of a server."""

    def __init__(
        self,
        ledger: Ledger,
        posts: Sequence[Post],
        logs: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._logs, self._clock = ledger, logs, clock
        self._slots = [_Slot(post) for post in posts]
        self._previews = False
        self._ending = False
        self._watch: asyncio.Task[None] | None = None

    # -------------------------------------------------------------------------------- from outside

    def start(self) -> None:
        """Start the workers."""
        for slot in self._slots:
            slot.task = asyncio.create_task(self._keep(slot))
        self._watch = asyncio.create_task(self._look())

    def wake(self) -> None:
        """See whether there is a job for a worker that has none."""
        for slot in self._slots:
            slot.wake.set()

    def find(self, job: str) -> Running | None:
        """Return a job that is at a worker."""
        return next((slot.running for slot in self._slots
                     if slot.running is not None and slot.running.job == job), None)  # fmt: skip

    @property
    def running(self) -> int:
        """How many jobs are at workers."""
        return sum(slot.running is not None for slot in self._slots)

    @property
    def doing(self) -> str:
        """What the workers are at, for people."""
        if any(not slot.ready for slot in self._slots):
            return "starting"
        stages = [
            slot.running.forecast.stage or "beginning" for slot in self._slots if slot.running
        ]
        return ", ".join(stages)

    def stop_job(self, job: str, wish: str) -> None:
        """Ask the worker that is at a job to stop; it then gets the state `wish`."""
        for slot in self._slots:
            if slot.running is not None and slot.running.job == job:
                # Who does not want it any more is not overruled by who wants it otherwise.
                if slot.running.wish != "cancelled":
                    slot.running.wish = wish
                slot.running.since = slot.running.since or self._clock()
                self._send(slot, {"do": "stop", "job": job})

    def show_previews(self, wanted: bool) -> None:
        """Let workers make previews, or save the time."""
        if wanted != self._previews:
            self._previews = wanted
            for slot in self._slots:
                self._send(slot, {"do": "watch", "previews": wanted})

    async def close(self) -> None:
        """Stop the workers; what is done of their jobs is in the store."""
        self._ending = True
        if self._watch is not None:
            self._watch.cancel()
        for slot in self._slots:
            if slot.process is not None and slot.process.stdin is not None:
                with suppress(OSError):
                    slot.process.stdin.close()
        tasks = [slot.task for slot in self._slots if slot.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_FAREWELL)
        for slot in self._slots:
            self._kill(slot, "the server ends")
            if slot.task is not None:
                slot.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------ a worker

    async def _keep(self, slot: _Slot) -> None:
        """Start a worker again and again."""
        while not self._ending:
            slot.started = self._clock()
            try:
                await self._life(slot)
            except OSError as error:
                log.error("a worker cannot be started: %s", error)
            if not self._ending and self._clock() - slot.started < _PAUSE:
                await asyncio.sleep(_PAUSE)

    async def _life(self, slot: _Slot) -> None:
        """One worker from its start to its end."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / "worker.log").open("ab") as errors:
            slot.process = process = subprocess.Popen(
                slot.post.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=os.name != "nt", creationflags=_APART,
            )  # fmt: skip
        messages = _messages(process)
        slot.beat, slot.idle, slot.why, slot.ready = self._clock(), 0.0, "", False
        log.info("worker %d on %s begins", process.pid, slot.post.device or "the best device")
        giving = asyncio.create_task(self._give(slot))
        try:
            while (message := await messages.get()) is not None:
                await self._on(slot, message)
        finally:
            giving.cancel()
            with suppress(asyncio.CancelledError):
                await giving
            await self._ended(slot, process)

    async def _give(self, slot: _Slot) -> None:
        """Give a worker its next job whenever it has none and there is one."""
        while True:
            slot.wake.clear()
            if slot.ready and slot.running is None and not self._ending:
                found = await self._ledger.next()
                if found is not None:
                    await self._begin(slot, *found)
                    continue
            await slot.wake.wait()

    async def _begin(
        self, slot: _Slot, row: Row, request: dict[str, Any], folder: Path, uploaded: bool
    ) -> None:
        forecast = Forecast({}, {}, self._clock)
        slot.idle = 0.0
        slot.running = running = Running(row.id, row.owner, row.revision, forecast)
        forecast.speeds = await self._ledger.speeds()
        self._send(slot, {"do": "run", "job": row.id, "revision": row.revision,
                          "request": request, "folder": str(folder),
                          "uploaded": uploaded})  # fmt: skip
        if running.wish:  # it was stopped meanwhile
            self._send(slot, {"do": "stop", "job": row.id})

    async def _on(self, slot: _Slot, message: pipe.Message) -> None:
        slot.beat = self._clock()
        what, running = message["tell"], slot.running
        if what == "ready":
            slot.ready = True
            self._send(slot, {"do": "watch", "previews": self._previews})
            slot.wake.set()
        elif what == "alive":
            slot.idle = message["idle"]
        elif running is not None and message.get("job") == running.job:
            if what == "progress":
                running.forecast.move(message["stage"], message["done"], message["total"])
            elif what == "settled":
                running.forecast.work = message["work"]
            elif what == "ended":
                # Told first: until then the job is neither here nor there.
                await self._ledger.told(running, message)
                slot.running = None
                slot.wake.set()
                return
            await self._ledger.told(running, message)

    async def _ended(self, slot: _Slot, process: subprocess.Popen[bytes]) -> None:
        self._kill(slot, slot.why)
        code = await asyncio.get_running_loop().run_in_executor(None, process.wait)
        slot.process, slot.ready = None, False
        running, slot.running = slot.running, None
        if running is None:
            log.log(logging.INFO if self._ending else logging.ERROR, "worker ends: %s", code)
            return
        why = slot.why or _cause(code)
        log.error("worker %d ended at job %s: %s", process.pid, running.job, why)
        await self._ledger.crashed(running, why)

    # ---------------------------------------------------------------------------------- the watch

    async def _look(self) -> None:
        """Kill workers that hang, are silent, or do not stop."""
        while True:
            await asyncio.sleep(_LOOK)
            for slot in self._slots:
                if slot.process is not None and (why := self._wrong(slot)):
                    log.error("worker %d is killed: %s", slot.process.pid, why)
                    self._kill(slot, why)

    def _wrong(self, slot: _Slot) -> str:
        now, running = self._clock(), slot.running
        if now - slot.beat > (_SILENT if slot.ready else _STARTING):
            return "the worker gave no sign of life any more"
        if running is None:
            return ""
        if running.since and now - running.since > _PATIENCE:
            return "the worker did not stop"
        if slot.idle > slot.post.hang:
            return f"the worker did not come forward for {slot.post.hang:.0f} seconds"
        return ""

    def _kill(self, slot: _Slot, why: str) -> None:
        if slot.process is not None and slot.process.poll() is None:
            slot.why = why
            with suppress(ProcessLookupError):
                slot.process.kill()

    def _send(self, slot: _Slot, message: pipe.Message) -> None:
        if slot.process is not None and slot.process.stdin is not None:
            with suppress(OSError, ValueError):  # it has ended: its reader says so
                slot.process.stdin.write(pipe.pack(message))
                slot.process.stdin.flush()


def _messages(process: subprocess.Popen[bytes]) -> asyncio.Queue[pipe.Message | None]:
    """What a worker tells, read in a thread: Windows' loop for sockets knows no pipes."""
    told: asyncio.Queue[pipe.Message | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    stdout = cast("BinaryIO", process.stdout)

    def read() -> None:
        message: pipe.Message | None = {}
        while message is not None:
            try:
                message = pipe.read(stdout)
            except (OSError, ValueError, TypeError) as error:
                log.error("worker %d says what is no message: %s", process.pid, error)
                message = None
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told.put_nowait, message)

    threading.Thread(target=read, name=f"worker {process.pid}", daemon=True).start()
    return told


def _cause(code: int) -> str:
    """Say in words why a process ended."""
    if code == -signal.SIGTERM or code == 0:
        return "the worker was ended"
    killed = getattr(signal, "SIGKILL", None)
    if killed is not None and code == -killed:
        return "the worker was killed, perhaps because the machine's memory ran out"
    if code < 0:
        return f"the worker crashed ({signal.Signals(-code).name})"
    return f"the worker ended with code {code}"
