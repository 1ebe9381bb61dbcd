"""The server: clients at its doors, jobs in its journal, workers behind it.

The event loop only passes things on. The journal has a thread of its own, in which every change is
one transaction; other files are read in a pool of threads; all computing is done by the workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import zmq
import zmq.asyncio
from filelock import FileLock, Timeout

from bridge_server import access, config, envelope, failures, operations, signpost
from bridge_server.access import LOCAL, UPLOAD, Owner, placed
from bridge_server.audience import WEIGHT, Audience, Key, Peer
from bridge_server.bookkeeper import Bookkeeper
from bridge_server.books import Books
from bridge_server.config import Config, state_folder
from bridge_server.doors import Door, Doors, Wishes, kept_keys
from bridge_server.envelope import Call
from bridge_server.errands import Errands
from bridge_server.held_jobs import HeldJobs
from bridge_server.job_logs import JobLogs
from bridge_server.journal import Row
from bridge_server.loopback import Line, Loopback
from bridge_server.outbox import Outbox
from bridge_server.request import Request
from bridge_server.supervisor import Post, Supervisor, Task
from bridge_server.upkeep import Upkeep
from host_plugins.link import endpoint, wire
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Event
from host_plugins.link.wire import Answer, Buffer

log = logging.getLogger(__name__)
T = TypeVar("T")
#: Is told that a server can be reached: where, from other machines (or empty), and its public key.
Ready: TypeAlias = Callable[[endpoint.Endpoint, str, str], None]

#: Requests of one client that are being answered at once.
_AT_ONCE = 64
#: Seconds between looks whether the endpoint file is still what was written.
_AT_DOOR = 5.0
#: Seconds for which the last replies may leave when the server ends.
_FAREWELL = 0.2

#: What a request and its copies have in common: owner, session, operation and id; and the
#: connection, where the operation leaves something behind with it.
_Request: TypeAlias = tuple[str, str, str, str, Peer | None]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A request that is being answered. peers: who sent it, the first first."""

    call: Call
    peers: list[Peer]


@dataclass(slots=True, eq=False)
class Server:
    """One running server.

    folder: of the endpoint file; state: of the journal and the jobs' logs
    idle_end: seconds without jobs and requests after which it ends by itself; 0: it does not
    """

    settings: Config
    state: Path
    folder: Path
    wishes: Wishes = field(default_factory=Wishes)
    posts: Sequence[Post] = (Post(),)
    idle_end: float = 0.0
    session: str = field(default_factory=lambda: os.urandom(16).hex())
    books: Books = field(init=False)
    audience: Audience = field(init=False)
    supervisor: Supervisor = field(init=False)
    doors: Doors = field(init=False)
    logs: JobLogs = field(init=False)
    errands: Errands = field(init=False)
    held: HeldJobs = field(init=False)
    queued: int = 0
    _busy: float = 0.0
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _files: ThreadPoolExecutor = field(init=False)
    _doctor: ThreadPoolExecutor = field(init=False)
    _idle_end: bool = False
    _loopback: Loopback | None = None
    _asking: dict[_Request, _Asked] = field(default_factory=dict["_Request", "_Asked"])

    async def run(self, ready: Callable[[endpoint.Endpoint], None] = lambda _at: None) -> None:
        """Serve until `stop`.

        Raises:
            BridgeError: an address or the journal cannot be used; says why.
        """
        for folder in (self.state, self.state / "shared"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.prepare(asyncio.get_running_loop())
        await self.books.open(self.state / config.JOURNAL, self._tell)
        await self.books.journalled(self._recover)
        self.queued = await self.books.journalled(lambda: self.books.jobs.journal.count("queued"))
        context = zmq.asyncio.Context()
        keys = kept_keys(self.state / "keys.json")
        self.doors = Doors(self.wishes, keys, self.state / "shared")
        at = self.doors.start(context, self.folder, importlib.metadata.version("fresco-bridge"))
        signpost.write(at, self.folder)
        try:
            self.supervisor.start()
            for work in (*self._upkeep().rounds(), self.audience.flush(), self._stay_found(at)):
                self._spawn(work)
            if self.idle_end > 0:
                self._spawn(self._end_when_idle())
            for number, door in enumerate(self.doors.open):
                self._spawn(self._receive(number, door))
            if self.doors.plain is not None:
                await self._open_loopback(self.doors.plain)
            ready(at)
            await self._stop.wait()
        finally:
            signpost.remove(at, self.folder)
            await self._close(context)
            signpost.remove(at, self.folder)  # again: it may just have been renewed

    def prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put the parts together; nothing is opened or started yet."""
        self._loop = loop
        self._files = ThreadPoolExecutor(4, "files")
        self._doctor = ThreadPoolExecutor(1, "doctor")
        self.books = Books(lambda: self.ending)
        self.logs = JobLogs(self.state / "jobs")
        self.errands = Errands(self.state / "uploads", operations.CHUNK, self.state)
        self.held = HeldJobs(self.books, self.errands, loop, lambda: self.supervisor.wake())
        self.audience = Audience(self.session, lambda wanted: self.supervisor.show_previews(wanted))
        ledger = Bookkeeper(self.books, self.audience, self.held.is_ready, self._task)
        self.supervisor = Supervisor(ledger, self.posts, self.state)

    def _upkeep(self) -> Upkeep:
        return Upkeep(self.settings, self.state, self.books, self.held, self.logs, self.in_thread)

    def _recover(self) -> None:
        """Take the queue up where the last server left it."""
        self.books.jobs.recover()
        for row in self.books.jobs.journal.select("state = 'queued'"):
            self.held.hold(row)

    def stop(self) -> None:
        """End soon, in the event loop."""
        self._stop.set()

    def folder_of(self, job: str) -> Path:
        """Where a job's log is, and what must be remembered of it."""
        return self.logs.folder / job

    @property
    def ending(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def stop_when_idle(self) -> None:
        """End as soon as no job is queued or running."""
        self._idle_end = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._idle_end and not self.queued and not self.supervisor.running:
            self._stop.set()

    async def _end_when_idle(self) -> None:
        """End when nobody has asked anything, and nothing was to do, for a while."""
        self._busy = time.monotonic()
        while True:
            await asyncio.sleep(min(5.0, self.idle_end / 4))
            if self.queued or self.supervisor.running:
                self._busy = time.monotonic()
            elif time.monotonic() - self._busy > self.idle_end:
                log.info("nothing to do for %.0f seconds", self.idle_end)
                self._stop.set()

    async def _stay_found(self, at: endpoint.Endpoint) -> None:
        """Write the endpoint file again where it is gone or damaged: no other server will."""
        while not self.ending:
            await asyncio.sleep(_AT_DOOR)
            try:
                if await self.in_thread(lambda: not self.ending and _renewed(at, self.folder)):
                    log.warning("the endpoint file in %s was written anew", self.folder)
            except (OSError, BridgeError) as error:
                log.error("the endpoint file cannot be written anew: %s", error)

    async def _close(self, context: zmq.asyncio.Context) -> None:
        self.audience.tell(Event(event="server", transient=True, time=time.time(),
                                 data={"state": "stopping"}))  # fmt: skip
        await asyncio.sleep(_FAREWELL)
        if self._loopback is not None:
            await self._loopback.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.supervisor.close()
        self.errands.close()
        await self.books.close()
        self.logs.close()
        self._files.shutdown(cancel_futures=True)
        self._doctor.shutdown(cancel_futures=True)
        self.doors.stop()
        context.destroy(linger=500)

    # ------------------------------------------------------------------------------------ threads

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Read or write files, without holding up anybody."""
        return await self._in(self._files, work)

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(threads, work)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ----------------------------------------------------------------------------------- requests

    async def _receive(self, number: int, door: Door) -> None:
        while True:
            frames: list[zmq.Frame] = await door.socket.recv_multipart(copy=False)
            identity = frames[0].bytes
            if len(frames) > 1:
                peer = self._peer((number, identity), door, frames[-1])
                self._on_frames(peer, [frame.buffer for frame in frames[1:]])

    def _peer(self, key: Key, door: Door, last: zmq.Frame) -> Peer:
        sender = self.doors.sender(door, last)
        return self.audience.peer(
            key, sender, lambda: Peer(self.doors.named(sender), Outbox(door.socket, key[1]))
        )

    async def _open_loopback(self, listener: socket.socket) -> None:
        """Let clients in that have no CURVE. What a connection may do is counted with it."""
        peers: WeakKeyDictionary[Line, Peer] = WeakKeyDictionary()

        def on_message(line: Line, frames: list[Buffer]) -> None:
            peer = peers.get(line)
            if peer is None:
                peer = peers[line] = Peer(self.doors.named(LOCAL), line)
            self._on_frames(peer, frames, operations.needs_trust)

        def refuse(id_: str, error: BridgeError) -> list[Buffer]:
            return envelope.write_answer(Answer(id_, self.session, error=error))

        self._loopback = Loopback(listener, self.doors.trusts, on_message, refuse)
        await self._loopback.start()

    def _on_frames(
        self, peer: Peer, buffers: list[Buffer], denied: Callable[[str], bool] = lambda _op: False
    ) -> None:
        """Read a request, and begin to answer it.

        denied: operations that are not possible where it came in
        """
        self._busy = time.monotonic()
        small = wire.size(buffers[0]) <= WEIGHT
        try:
            if not peer.allowed(time.monotonic(), wire.size(buffers[0])):
                raise BridgeError(Code.BUSY, "too many requests", "ask less often")
            call = envelope.read_call(buffers)
            if denied(call.op):
                raise BridgeError(Code.FORBIDDEN, f"{call.op} is not possible on this endpoint")
            if peer.running >= _AT_ONCE:
                raise BridgeError(Code.BUSY, "too many requests at once", "wait for replies")
        except BridgeError as error:
            # Who asks too often is not also given the time to have long requests read.
            id_ = envelope.request_id(buffers) if small or error.code is not Code.BUSY else ""
            self._answer(peer, Answer(id_, self.session, error=error))
            return
        peer.running += 1
        request = _request(peer, call)
        known = self._asking.get(request)
        if known is not None and known.call == call:  # a copy of what is being done already
            known.peers.append(peer)
            return
        self._asking[request] = asked = _Asked(call, [peer])
        self._spawn(self._answered(request, asked))

    async def _answered(self, request: _Request, asked: _Asked) -> None:
        """Do what is asked for, and answer the request and all copies of it that came meanwhile."""
        call, peer = asked.call, asked.peers[0]
        try:
            reply, payloads = await operations.answer(self, peer, call)
            answer = Answer(call.id, self.session, reply, payloads)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            told = failures.told(error)
            if told.code is Code.INTERNAL:
                log.exception("%s failed", call.op)
            answer = Answer(call.id, self.session, error=told)
        finally:
            if self._asking.get(request) is asked:
                del self._asking[request]
            for each in asked.peers:
                each.running -= 1
        for each in asked.peers:
            self._answer(each, answer)

    async def examined(self) -> Sequence[dict[str, Any]]:
        """Return what the doctor finds: one at a time, in a thread that nobody else waits for."""
        return await self._in(self._doctor, lambda: operations.examined(lambda: self.ending))

    def _answer(self, peer: Peer, answer: Answer) -> None:
        try:
            frames = envelope.write_answer(answer)
        except BridgeError as error:
            frames = envelope.write_answer(Answer(answer.id, self.session, error=error))
        peer.outbox.send(frames)

    # --------------------------------------------------------------------------------------- jobs

    async def _task(self, row: Row) -> Task:
        """Make of a job what its worker is told, its paths looked at once more.

        Raises:
            BridgeError: an upload is not there (not_found), or not complete (wrong_state); a path
                is not where it may be any more (forbidden).
            FrescoError: the request is one that this version does not take.
        """
        wanted, files = await self.held.arrived(row)
        owner = self.doors.named(row.owner)
        request = await self.in_thread(lambda: _placed(wanted, owner, files).table())
        uploaded = str(row.request["clip"]).startswith(UPLOAD)
        roots = tuple(map(str, owner.roots))
        return Task(row, request, self.folder_of(row.id), uploaded, roots)

    def _tell(self, event: Event, owner: str) -> None:
        """Pass a lasting event on; called in the journal's thread, in the order of the journal."""
        self.logs.tell(event)
        self._loop.call_soon_threadsafe(self._told, event, owner)

    def _told(self, event: Event, owner: str) -> None:
        self.audience.tell(event, owner)
        if event.event == "state":
            self._count(event)

    def _count(self, event: Event) -> None:
        """Keep count of the queue, and let workers and a wanted end see what has changed."""
        self.queued += (event.data["state"] == "queued") - (event.data.get("before") == "queued")
        self.supervisor.wake()
        self._loop.call_later(_FAREWELL, self._end_if_idle)


def _request(peer: Peer, call: Call) -> _Request:
    own = peer if operations.is_of_connection(call.op) else None
    return peer.owner.name, call.session, call.op, call.id, own


def _renewed(at: endpoint.Endpoint, folder: Path) -> bool:
    """Make the endpoint file what it should be; whether it was not."""
    with contextlib.suppress(BridgeError):
        if endpoint.read([folder]) == at:
            return False
    signpost.write(at, folder)
    return True


def _placed(wanted: Request, owner: Owner, files: dict[str, Path]) -> Request:
    if owner.bound:
        access.check(wanted, owner)
    return placed(wanted, owner, files)


def serve(
    wishes: Wishes,
    posts: Sequence[Post],
    ready: Ready = lambda _at, _abroad, _key: None,
    idle_end: float = 0.0,
) -> None:
    """Run a server in this process until it is told to stop, or gets SIGTERM or SIGINT.

    idle_end: see `Server`

    Raises:
        BridgeError: one is running already (conflict), an address cannot be used, or there is no
            place where clients would find it (see `signpost.place`).
    """
    settings, folder = config.load(), signpost.place()
    state = state_folder(settings)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Both: one server answers at an address, and one works off what is in a journal.
    with _alone(folder / "server.lock"), _alone(state / "journal.lock"):
        server = Server(settings, state, folder, wishes, posts, idle_end)
        loop = _loop()
        try:
            loop.run_until_complete(_until_signal(server, ready))
        finally:
            loop.close()


@contextlib.contextmanager
def _alone(file: Path) -> Generator[None]:
    """Hold the lock of a folder, so that no other server uses it meanwhile.

    Raises:
        BridgeError: another one does (conflict).
    """
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BridgeError(
            Code.CONFLICT, f"a server is running already in {file.parent}",
            f"use that one, or set both {endpoint.FOLDER} and {config.HOME} to other folders "
            "for a second",
        ) from error  # fmt: skip
    try:
        yield
    finally:
        lock.release()


async def _until_signal(server: Server, ready: Ready) -> None:
    loop = asyncio.get_running_loop()

    def end(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(server.stop)

    def ready_now(at: endpoint.Endpoint) -> None:
        ready(at, server.doors.abroad, server.doors.keys[0].decode())

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    await server.run(ready_now)


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop: of Windows the one that pyzmq can use."""
    if sys.platform == "win32":
        return asyncio.SelectorEventLoop()
    return asyncio.new_event_loop()
