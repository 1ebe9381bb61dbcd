"""Workers: started, watched, given jobs, and started again (`worker` is the other end).

Nothing here computes or waits: messages come and go over pipes, in the server's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
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
from host_plugins.link.errors import BridgeError, Code

log = logging.getLogger(__name__)

#: Seconds without a sign of life after which a worker counts as dead; with which its end is waited
#: for when a job is stopped, and when the server ends; for its end once it is killed.
_SILENT, _PATIENCE, _FAREWELL, _KILLED = 60.0, 30.0, 3.0, 1.0
#: Seconds between starts of a worker that came to nothing: at first, doubled each time, at most;
#: starts in a row after which that is told.
_PAUSE, _LONGEST, _TELL = 2.0, 60.0, 2
#: Seconds in which a worker must be ready: it reads libraries from the disk.
_STARTING = 300.0
_LOOK = 1.0
#: Messages of a worker that may wait, from which on previews are not kept: later ones come.
_BEHIND = 16
#: Seconds between looks from which on it was this process, or the machine, that slept.
_ASLEEP = 10.0
#: What to do where a job ends its workers.
_NO_MEMORY = (
    "choose a smaller size or fewer keyframes per batch, or close other programs; then retry"
)
_NO_ANSWER = "see whether all its files can be read, also those on a network; then retry"
_DEFECT = (
    "see `fresco-bridge doctor` and `fresco-bridge logs JOB`; a smaller size may help; then retry"
)
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
    """A job at a worker. since: when it was asked to stop; 0: it was not."""

    job: str
    owner: str
    forecast: Forecast
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Task:
    """A job for a worker.

    request: with files in place of uploads
    folder: of the job
    uploaded: whether its clip was uploaded
    roots: folders that its owner is bound to
    """

    row: Row
    request: dict[str, Any]
    folder: Path
    uploaded: bool = False
    roots: Sequence[str] = ()


class Ledger(Protocol):
    """What the supervisor asks and tells the jobs; the server answers, from the disk."""

    async def next(self, take: Callable[[Row], Running]) -> Task | None:
        """Return the job whose turn it is.

        take: to be called within the change that lets a job run: who wants it stopped after that
            finds it at its worker
        """
        ...

    async def told(self, running: Running, message: pipe.Message) -> None:
        """Take over what a worker tells of a job."""
        ...

    async def crashed(self, running: Running, failure: BridgeError) -> None:
        """Take over that a worker ended at a job, and what its user may do where that goes on."""
        ...

    async def interrupted(self, running: Running) -> None:
        """Take over that a job was interrupted by the server's end."""
        ...

    async def troubled(self, why: str) -> None:
        """Take over that no worker can be started."""
        ...

    async def speeds(self) -> dict[str, tuple[float, float]]:
        """Return what was learnt of this machine's speed."""
        ...


@dataclass(slots=True)
class _Slot:
    """A worker's place.

    beat: when it last gave a sign of life; idle: seconds since its last poll, as it says
    over: the worker has ended, and is given nothing more
    vain: workers in a row that came to nothing; trouble: why they did not even start
    """

    post: Post
    process: subprocess.Popen[bytes] | None = None
    mouth: _Mouth | None = None
    ready: bool = False
    over: bool = False
    vain: int = 0
    trouble: str = ""
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
            return next((slot.trouble for slot in self._slots if slot.trouble), "starting")
        stages = [
            slot.running.forecast.stage or "beginning" for slot in self._slots if slot.running
        ]
        return ", ".join(stages)

    def stop_job(self, job: str) -> None:
        """Ask the worker that is at a job to stop; may be called from any thread."""
        for slot in self._slots:
            running = slot.running
            if running is not None and running.job == job:
                running.since = running.since or self._clock()
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
        tasks = [slot.task for slot in self._slots if slot.task is not None]
        for slot in self._slots:
            if slot.mouth is not None:
                slot.mouth.close()
            elif slot.task is not None:  # between two workers
                slot.task.cancel()
        await _settled(tasks, _FAREWELL)
        for slot in self._slots:
            self._kill(slot, "the server was ended")
        await _settled(tasks, _KILLED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------ a worker

    async def _keep(self, slot: _Slot) -> None:
        """Start a worker again and again."""
        while not self._ending:
            slot.started, slot.why = self._clock(), ""
            slot.vain += 1
            try:
                await self._life(slot)
            except OSError as error:
                slot.trouble = f"no worker can be started: {error}"
                log.error(slot.trouble)
            except Exception:
                log.exception("the care of a worker failed")
            if not self._ending:
                await self._rest(slot)

    async def _rest(self, slot: _Slot) -> None:
        """Let a worker that came to nothing wait for its next start, longer each time."""
        if self._clock() - slot.started > _LONGEST:
            slot.vain = 0
        if not slot.vain:
            return
        if slot.trouble and slot.vain >= _TELL and not any(own.ready for own in self._slots):
            await self._ledger.troubled(slot.trouble)
        await asyncio.sleep(min(_LONGEST, _PAUSE * 2 ** (slot.vain - 1)))

    async def _life(self, slot: _Slot) -> None:
        """One worker from its start to its end."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / "worker.log").open("ab") as errors:
            slot.process = process = subprocess.Popen(
                slot.post.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=os.name != "nt", creationflags=_APART,
            )  # fmt: skip
        slot.mouth = _Mouth(process)
        slot.beat, slot.idle, slot.ready, slot.over = self._clock(), 0.0, False, False
        messages = self._ears(slot, process)
        log.info("worker %d on %s begins", process.pid, slot.post.device or "the best device")
        giving = asyncio.create_task(self._give(slot))
        try:
            while (message := await messages.get()) is not None:
                await self._on(slot, message)
        finally:
            # Not cancelled: a job that is just being taken from the queue would be nowhere.
            slot.over, slot.ready, was_ready = True, False, slot.ready
            slot.wake.set()
            await asyncio.wait([giving])
            await self._ended(slot, process, was_ready)

    async def _give(self, slot: _Slot) -> None:
        """Give a worker its next job whenever it has none and there is one."""
        try:
            while not slot.over:
                slot.wake.clear()
                free = slot.ready and slot.running is None and not self._ending
                if free and (task := await self._next(slot)) is not None:
                    await self._begin(slot, task)
                    continue
                await slot.wake.wait()
        except Exception:
            log.exception("no job could be given to a worker")
            self._kill(slot, "the server could not give it a job")

    async def _next(self, slot: _Slot) -> Task | None:
        found: Task | None = None
        try:
            found = await self._ledger.next(lambda row: self._take(slot, row))
        finally:
            if found is None:
                slot.running = None
        return found

    def _take(self, slot: _Slot, row: Row) -> Running:
        """Count a job as being at a worker, though that is yet to be told; from any thread."""
        slot.idle = 0.0
        slot.running = Running(row.id, row.owner, Forecast({}, {}, self._clock))
        return slot.running

    async def _begin(self, slot: _Slot, task: Task) -> None:
        running, row = slot.running, task.row
        assert running is not None, "it was taken"
        running.forecast.speeds = await self._ledger.speeds()
        self._send(slot, {"do": "run", "job": row.id, "revision": row.revision,
                          "request": task.request, "folder": str(task.folder),
                          "uploaded": task.uploaded, "roots": list(task.roots),
                          "crashes": row.crashes})  # fmt: skip
        if running.since:  # it was stopped meanwhile
            self._send(slot, {"do": "stop", "job": row.id})

    async def _on(self, slot: _Slot, message: pipe.Message) -> None:
        what, running = message["tell"], slot.running
        if what == "ready":
            slot.ready, slot.trouble = True, ""
            self._send(slot, {"do": "watch", "previews": self._previews})
            slot.wake.set()
        elif what == "broken":
            slot.why = message["why"]
        elif running is not None and message.get("job") == running.job:
            slot.vain = 0
            if what == "progress":
                running.forecast.move(message["stage"], message["done"], message["total"])
            elif what == "settled":
                running.forecast.work = message["work"]
            elif what == "expected":
                running.forecast.expected = message
            elif what == "ended":
                # Told first: until then the job is neither here nor there.
                await self._ledger.told(running, message)
                slot.running = None
                slot.wake.set()
                return
            await self._ledger.told(running, message)

    async def _ended(self, slot: _Slot, process: subprocess.Popen[bytes], was_ready: bool) -> None:
        self._kill(slot, slot.why)
        code = await asyncio.get_running_loop().run_in_executor(None, process.wait)
        if slot.mouth is not None:
            slot.mouth.close()
        slot.process = slot.mouth = None
        failure = BridgeError(Code.INTERNAL, slot.why, _NO_ANSWER) if slot.why else _cause(code)
        why = failure.message
        if not self._ending:
            at = slot.running.job if slot.running else "no job"
            log.error("worker %d ended at %s: %s", process.pid, at, why)
            if not was_ready:
                more = f"{self._logs / 'worker.log'} may say more"
                slot.trouble = f"no worker can be started: {why}; {more}"
        try:
            if slot.running is not None:
                await self._lost(slot.running, failure)
        finally:
            slot.running = None  # told first: until then the job is neither here nor there

    async def _lost(self, running: Running, failure: BridgeError) -> None:
        if self._ending:
            await self._ledger.interrupted(running)
        else:
            await self._ledger.crashed(running, failure)

    # ---------------------------------------------------------------------------------- the watch

    async def _look(self) -> None:
        """Kill workers that hang, are silent, or do not stop."""
        before = self._clock()
        while True:
            await asyncio.sleep(_LOOK)
            before, passed = self._clock(), self._clock() - before
            for slot in self._slots:
                if passed > _ASLEEP:
                    self._wait_anew(slot, passed)
                elif slot.process is not None and (why := self._wrong(slot)):
                    log.error("worker %d is killed: %s", slot.process.pid, why)
                    self._kill(slot, why)

    def _wait_anew(self, slot: _Slot, asleep: float) -> None:
        """Count no time in which nobody could come forward."""
        slot.beat += asleep
        if slot.running is not None and slot.running.since:
            slot.running.since += asleep

    def _wrong(self, slot: _Slot) -> str:
        now, running = self._clock(), slot.running
        silent = now - slot.beat
        if silent > (_SILENT if slot.ready else _STARTING):
            return "the worker gave no sign of life any more"
        if running is None:
            return ""
        if silent > slot.post.hang:
            return f"the worker gave no sign of life for {slot.post.hang:.0f} seconds"
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
        if slot.mouth is not None:
            slot.mouth.say(message)

    def _ears(
        self, slot: _Slot, process: subprocess.Popen[bytes]
    ) -> asyncio.Queue[pipe.Message | None]:
        """What a worker tells, read in a thread: Windows' loop for sockets knows no pipes."""
        told: asyncio.Queue[pipe.Message | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        stdout = cast("BinaryIO", process.stdout)

        def take(message: pipe.Message | None) -> None:
            # Counted when it comes, not when its turn is: a full disk may hold up the journal.
            slot.beat = self._clock()
            if message is not None and message["tell"] == "alive":
                slot.idle = message["idle"]
            elif message is None or message["tell"] != "preview" or told.qsize() < _BEHIND:
                told.put_nowait(message)

        def read() -> None:
            message: pipe.Message | None = {}
            while message is not None:
                try:
                    message = pipe.read(stdout)
                except (OSError, ValueError, TypeError) as error:
                    log.error("worker %d says what is no message: %s", process.pid, error)
                    message = None
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(take, message)

        threading.Thread(target=read, name=f"worker {process.pid}", daemon=True).start()
        return told


class _Mouth:
    """Tells a worker, in a thread: one that hangs and does not read holds nobody up."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._messages: queue.SimpleQueue[pipe.Message | None] = queue.SimpleQueue()
        self._stdin = cast("BinaryIO", process.stdin)
        name = f"to worker {process.pid}"
        threading.Thread(target=self._write, name=name, daemon=True).start()

    def say(self, message: pipe.Message) -> None:
        """Say something soon; may be called from any thread."""
        self._messages.put(message)

    def close(self) -> None:
        """Say nothing more: the worker ends."""
        self._messages.put(None)

    def _write(self) -> None:
        with suppress(OSError, ValueError):  # it has ended: its reader says so
            while (message := self._messages.get()) is not None:
                self._stdin.write(pipe.pack(message))
                self._stdin.flush()
        with suppress(OSError, ValueError):
            self._stdin.close()


async def _settled(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def _cause(code: int) -> BridgeError:
    """Say in words why a process ended, and what may be done about it."""
    if code == -signal.SIGTERM or code == 0:
        return BridgeError(Code.INTERNAL, "the worker was ended", "retry goes on where it was")
    killed = getattr(signal, "SIGKILL", None)
    if killed is not None and code == -killed:
        why = "the worker was killed, perhaps because the machine's memory ran out"
        return BridgeError(Code.OUT_OF_MEMORY, why, _NO_MEMORY)
    if code < 0:
        why = f"the worker crashed ({signal.Signals(-code).name})"
        return BridgeError(Code.INTERNAL, why, _DEFECT)
    return BridgeError(Code.INTERNAL, f"the worker ended with code {code}", _DEFECT)
