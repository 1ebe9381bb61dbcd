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
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

import zmq
import zmq.asyncio
from filelock import FileLock, Timeout

from bridge_server import (
    access,
    config,
    envelope,
    failures,
    operations,
    pipe,
    published,
    signpost,
)
from bridge_server.access import LOCAL, UPLOAD, Owner, placed, uploads
from bridge_server.config import Config, state_folder
from bridge_server.doors import Door, Doors, Wishes, kept_keys
from bridge_server.envelope import Call
from bridge_server.errands import Errands
from bridge_server.forecast import blended
from bridge_server.job_logs import JobLogs, shortened
from bridge_server.jobs import Jobs
from bridge_server.journal import Journal, Row, checkpoint
from bridge_server.loopback import Line, Loopback
from bridge_server.outbox import Outbox
from bridge_server.request import Request, from_table
from bridge_server.store import Store, allowance
from bridge_server.supervisor import Post, Running, Supervisor, Task
from fresco.errors import FrescoError
from host_plugins.link import endpoint, wire
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import (
    TRANSIENT,
    Event,
    Keyframe,
    OfUpload,
    Preview,
    Progress,
    Subscribe,
)
from host_plugins.link.wire import Answer, Buffer, Notice

log = logging.getLogger(__name__)
T = TypeVar("T")
#: Is told that a server can be reached: where, from other machines (or empty), and its public key.
Ready: TypeAlias = Callable[[endpoint.Endpoint, str, str], None]
#: The frames [first, behind the last) that are missing, by the upload.
Missing: TypeAlias = dict[str, list[list[int]]]

#: Requests per second of one client, and how many it may have in store.
_RATE, _BURST = 400.0, 1200.0
#: Bytes of a header that count as one request more: a large one takes longer to read.
_WEIGHT = 2048
#: Requests of one client that are being answered at once; clients that are remembered.
_AT_ONCE, _PEERS = 64, 512
#: Seconds between looks at what waits for slow clients; between tries to write the journal.
_FLUSH, _JOURNAL_AGAIN = 0.02, 1.0
#: What keeps the journal from being written for a while.
_PASSING = (Code.NO_SPACE, Code.BUSY)
#: Seconds between looks whether the endpoint file is still what was written.
_AT_DOOR = 5.0
#: Why a job comes forward again, for people.
_SERVER_ENDED = "the server was ended"
#: Seconds between looks at what is old and may go.
_TIDY = 3600.0
#: Seconds between bringing the journal's log into its file.
_CHECKPOINT = 10.0
#: Seconds for which the last replies may leave when the server ends.
_FAREWELL = 0.2
#: Seconds between looks at uploads that nobody needs.
_TEND = 1800.0
#: Seconds after which a clerk that ended is asked again.
_CLERK_AGAIN = 1.0
#: How a note begins that says what a job waits for; gaps in a clip that it names.
_WAITS, _SPANS = "waits for the frames", 5
#: Seconds for which a result stays after it was used, whatever the budget.
_SPARE = 600.0


@dataclass(slots=True, eq=False)
class Peer:
    """A connection, and who it belongs to.

    wanted: what it has subscribed to
    client: what the program calls itself; empty until it says so
    examined: what the doctor found when it was last asked, for further pages
    """

    owner: Owner
    outbox: Outbox | Line
    client: str = ""
    wanted: Subscribe | None = None
    examined: Sequence[dict[str, Any]] = ()
    running: int = 0
    seen: float = 0.0
    allowance: float = _BURST

    @property
    def words(self) -> str:
        """Who it is, for people."""
        return " of ".join(filter(None, (self.client, self.owner.name)))

    def allowed(self, now: float, header: int = 0) -> bool:
        """Count a request; whether it is not one too many (a token bucket).

        header: its bytes
        """
        self.allowance = min(_BURST, self.allowance + (now - self.seen) * _RATE)
        self.seen = now
        if self.allowance < 1:
            return False
        self.allowance -= 1 + header / _WEIGHT
        return True


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
    jobs: Jobs = field(init=False)
    supervisor: Supervisor = field(init=False)
    doors: Doors = field(init=False)
    logs: JobLogs = field(init=False)
    _busy: float = 0.0
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _peers: dict[tuple[int, bytes], Peer] = field(default_factory=dict[tuple[int, bytes], Peer])
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _journal: ThreadPoolExecutor = field(init=False)
    _files: ThreadPoolExecutor = field(init=False)
    _doctor: ThreadPoolExecutor = field(init=False)
    queued: int = 0
    errands: Errands = field(init=False)
    _held: set[str] = field(default_factory=set[str])
    _looks: asyncio.Event = field(default_factory=asyncio.Event)
    _idle_end: bool = False
    _loopback: Loopback | None = None
    _asking: dict[_Request, _Asked] = field(default_factory=dict["_Request", "_Asked"])
    _pictures: dict[tuple[str, int], bytes] = field(default_factory=dict[tuple[str, int], bytes])

    async def run(self, ready: Callable[[endpoint.Endpoint], None] = lambda _at: None) -> None:
        """Serve until `stop`.

        Raises:
            BridgeError: an address or the journal cannot be used; says why.
        """
        self._loop = asyncio.get_running_loop()
        self._journal = ThreadPoolExecutor(1, "journal")
        self._files = ThreadPoolExecutor(4, "files")
        self._doctor = ThreadPoolExecutor(1, "doctor")
        for folder in (self.state, self.state / "shared"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        journal = await self._in(
            self._journal, lambda: Journal(self.state / config.JOURNAL, self._tell)
        )
        self.logs = JobLogs(self.state / "jobs")
        self.jobs = Jobs(journal)
        self.supervisor = Supervisor(_Ledger(self), self.posts, self.state)
        self.errands = Errands(self.state / "uploads", operations.CHUNK, self.state)
        await self.journalled(self._recover)
        self.queued = await self.journalled(lambda: journal.count("queued"))
        context = zmq.asyncio.Context()
        keys = kept_keys(self.state / "keys.json")
        self.doors = Doors(self.wishes, keys, self.state / "shared")
        at = self.doors.start(context, self.folder, importlib.metadata.version("fresco-bridge"))
        signpost.write(at, self.folder)
        try:
            self.supervisor.start()
            self._spawn(self._tend())
            self._spawn(self._look_at_held())
            self._spawn(self._flush())
            self._spawn(self._tidy())
            self._spawn(self._checkpoint())
            self._spawn(self._stay_found(at))
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
            await self._close(context, journal)
            signpost.remove(at, self.folder)  # again: it may just have been renewed

    def _recover(self) -> None:
        """Take the queue up where the last server left it."""
        self.jobs.recover()
        for row in self.jobs.journal.select("state = 'queued'"):
            self.hold(row)

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

    async def _tidy(self) -> None:
        """Let go of what is old, now and every hour."""
        while True:
            logs, jobs = await self.persisted(self.jobs.tidy)
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

    async def _close(self, context: zmq.asyncio.Context, journal: Journal) -> None:
        self._broadcast(Event(event="server", transient=True, time=time.time(),
                              data={"state": "stopping"}))  # fmt: skip
        await asyncio.sleep(_FAREWELL)
        if self._loopback is not None:
            await self._loopback.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.supervisor.close()
        self.errands.close()
        await self._in(self._journal, journal.close)
        self._journal.shutdown()
        self.logs.close()
        self._files.shutdown(cancel_futures=True)
        self._doctor.shutdown(cancel_futures=True)
        self.doors.stop()
        context.destroy(linger=500)

    # ------------------------------------------------------------------------------------ threads

    async def journalled(self, change: Callable[[], T], durable: bool = True) -> T:
        """Do something with the jobs as one change of the journal, in its thread.

        durable: see `Journal.change`
        """

        def within() -> T:
            with self.jobs.journal.change(durable):
                return change()

        return await self._in(self._journal, within)

    async def persisted(self, change: Callable[[], T]) -> T:
        """`journalled`, again and again while it cannot be written: a worker's news are not lost.

        Raises:
            BridgeError: it still cannot, and the server ends (no_space, busy). What ran then is
                taken up at the next start.
        """
        while not (done := await self._tried(change)):
            await asyncio.sleep(_JOURNAL_AGAIN)
        return done[0]

    async def _tried(self, change: Callable[[], T]) -> tuple[T, ...]:
        """The result of a change; nothing where the disk is full, or the file held by another."""
        try:
            return (await self.journalled(change),)
        except (sqlite3.OperationalError, BridgeError) as error:
            if self.ending or (isinstance(error, BridgeError) and error.code not in _PASSING):
                raise
            log.error("the journal cannot be written: %s", error)
            return ()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Read or write files, without holding up anybody."""
        return await self._in(self._files, work)

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(threads, work)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------------------------ uploads

    def is_ready(self, job: str) -> bool:
        """Whether all that a job needs has arrived."""
        return job not in self._held

    async def check_uploads(self, owner: str, wanted: Request) -> None:
        """Look at the uploads of a new job; frames may still be missing.

        Raises:
            BridgeError: an upload that there is not (not_found), or is not complete (wrong_state);
                frames without an end (invalid).
        """
        await self._missing(owner, wanted, new=True)

    def hold(self, row: Row) -> None:
        """Hold a job that comes forward back until its uploads are looked at.

        Called within the change that lets it come forward: else its turn might come first.
        """
        if row.state == "queued" and _uploads_of(row):
            self._held.add(row.id)
            self._loop.call_soon_threadsafe(self.look_at_held)

    def look_at_held(self) -> None:
        """Have the jobs looked at that wait for uploads, in the event loop; see `_let_forward`."""
        self._looks.set()

    async def _look_at_held(self) -> None:
        while True:
            self._looks.clear()
            await _tried_once(self._let_forward)
            await self._looks.wait()

    async def _let_forward(self) -> None:
        """Let jobs come forward whose uploads have arrived, and those that never will: they fail.

        Of the others the user is told what they wait for.
        """
        for row in await self.persisted(self._held_rows) if self._held else ():
            try:
                missing = await self._missing(row.owner, from_table(row.request))
            except (BridgeError, FrescoError) as error:
                if isinstance(error, BridgeError) and error.retryable:
                    self._loop.call_later(_CLERK_AGAIN, self.look_at_held)
                    continue
                missing = {}  # said where the job begins
            if missing:
                await self.persisted(lambda row=row, lack=missing: self._say_held(row.id, lack))
            else:
                await self.persisted(lambda row=row: self._held.discard(row.id))
                self.supervisor.wake()

    def _held_rows(self) -> list[Row]:
        """The jobs that are held back. One that is not queued any more will be held anew."""
        found = map(self.jobs.journal.find, sorted(self._held))
        rows = [row for row in found if row is not None and row.state == "queued"]
        self._held = {row.id for row in rows}
        return rows

    def _say_held(self, job: str, missing: Missing) -> None:
        """Tell the user of a job, once, which frames it waits for."""
        row = self.jobs.journal.find(job)
        if row is None or row.state != "queued" or any(map(_is_wait, row.notes)):
            return
        for ref, spans in sorted(missing.items()):
            self.jobs.note(job, _wait(ref, spans))

    async def _missing(self, owner: str, wanted: Request, new: bool = False) -> Missing:
        """Return the frames that a job must still wait for; of uploads that lack none, nothing.

        new: the job is; its uploads count as used then
        """
        missing: Missing = {}
        for ref in uploads(wanted):
            more = {**_need(ref, wanted), "new": new}
            found, _ = await self.errands.ask("missing", owner, more=more)
            if found["missing"]:
                missing[ref] = found["missing"]
        return missing

    async def arrived(self, row: Row) -> dict[str, Any]:
        """Return a job's request with files in place of uploads, its paths looked at once more.

        Raises:
            BridgeError: one is not there (not_found), or not complete (wrong_state); a path is not
                where it may be any more (forbidden).
        """
        wanted = from_table(row.request)
        files: dict[str, Path] = {}
        for ref in uploads(wanted):
            found, _ = await self.errands.ask("source", row.owner, more=_need(ref, wanted))
            files[ref] = Path(found["path"])
            if ref == wanted.clip and not wanted.rate and found["rate"]:
                wanted = replace(wanted, rate=found["rate"])
        owner = self.doors.named(row.owner)
        return await self.in_thread(lambda: _placed(wanted, owner, files).table())

    async def _tend(self) -> None:
        """Look after the store and uploads now and then; what nobody needs goes.

        A round that fails, as where another program holds the journal, is made up for by the next.
        """
        while True:
            await _tried_once(self._evict)
            await _tried_once(self._expire)
            self.look_at_held()
            await asyncio.sleep(_TEND)

    async def _expire(self) -> None:
        """Let uploads go that no unfinished job needs."""
        if (self.state / "uploads").is_dir():
            await self.errands.ask("expire", more={"needed": await self._needed()})

    async def _needed(self) -> list[tuple[str, str]]:
        """The owners and names of the uploads that jobs stand on, or are to begin with.

        Not of one that lacks frames: as long as some still come it is used anyhow, and a job whose
        frames never come must not keep it for ever.
        """
        needed = list[tuple[str, str]]()
        for row in await self.journalled(self.jobs.unfinished):
            missing: Missing = {}
            if row.state in ("queued", "paused"):
                with contextlib.suppress(BridgeError, FrescoError):
                    missing = await self._missing(row.owner, from_table(row.request))
            # What is no upload's name nothing can have; the clerk would refuse the others with it.
            named = filter(_is_ref, _uploads_of(row))
            needed += [(row.owner, ref) for ref in named if ref not in missing]
        return needed

    async def _evict(self) -> None:
        """Bring the store back into its budget; what unfinished jobs stand on stays."""
        keep = await self.journalled(self.jobs.results_needed)
        await self.in_thread(lambda: _evicted(self.settings, keep))

    # ----------------------------------------------------------------------------------- requests

    async def _receive(self, number: int, door: Door) -> None:
        while True:
            frames: list[zmq.Frame] = await door.socket.recv_multipart(copy=False)
            identity = frames[0].bytes
            if len(frames) > 1:
                peer = self._peer((number, identity), door, frames[-1])
                self._on_frames(peer, [frame.buffer for frame in frames[1:]])

    def _peer(self, key: tuple[int, bytes], door: Door, last: zmq.Frame) -> Peer:
        # Asked of every message: a client may choose its routing id, also one that was another's.
        sender, peer = self.doors.sender(door, last), self._peers.get(key)
        if peer is not None and peer.owner.name != sender:
            self._part(key)
            peer = None
        if peer is None:
            self._forget_idle()
            outbox = Outbox(door.socket, key[1])
            peer = self._peers[key] = Peer(self.doors.named(sender), outbox)
        return peer

    def _part(self, key: tuple[int, bytes]) -> None:
        """Forget a connection whose routing id is another owner's now, who must hear none of it."""
        peer = self._peers.pop(key)
        peer.outbox.gone, peer.wanted = True, None
        self.subscribed()

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

    def _forget_idle(self) -> None:
        """Forget connections that ended; of too many the longest silent."""
        for key, peer in list(self._peers.items()):
            if peer.outbox.gone:
                del self._peers[key]
        while len(self._peers) >= _PEERS:
            idle = [key for key, peer in self._peers.items() if not peer.running]
            del self._peers[min(idle or self._peers, key=lambda key: self._peers[key].seen)]

    def _on_frames(
        self, peer: Peer, buffers: list[Buffer], denied: Callable[[str], bool] = lambda _op: False
    ) -> None:
        """Read a request, and begin to answer it.

        denied: operations that are not possible where it came in
        """
        self._busy = time.monotonic()
        small = wire.size(buffers[0]) <= _WEIGHT
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

    # ------------------------------------------------------------------------------------- events

    def _tell(self, event: Event, owner: str) -> None:
        """Pass a lasting event on; called in the journal's thread, in the order of the journal."""
        self._write_down(event)
        picture = self._pictures.pop((event.job, int(event.data.get("frame", -1))), None)
        payloads = (picture,) if event.event == "keyframe" and picture else ()
        self._loop.call_soon_threadsafe(self._broadcast, event, owner, payloads)

    def _write_down(self, event: Event) -> None:
        """Say in a job's log what became of it; its keyframes and notes its worker writes down."""
        data = dict(event.data)
        if event.event == "state":
            level = "error" if data["state"] == "failed" else "info"
            self.logs.say(event.job, f"is {data.pop('state')}", level, **data)
        elif event.event == "edited":
            change = f"{data['what']}@{data['frame']}={data.get('value')}"
            self.logs.say(event.job, "edited", change=change, revision=data["revision"])

    def _broadcast(self, event: Event, owner: str = "", payloads: tuple[Buffer, ...] = ()) -> None:
        fields = event.table()
        notice = Notice(fields.pop("event"), self.session, fields, payloads)
        frames = envelope.write_notice(notice)
        for peer in self._peers.values():
            if peer.wanted is None or not _concerns(event, owner, peer, peer.wanted):
                continue
            if event.event in TRANSIENT and event.job:
                peer.outbox.send_newest(event.event, event.job, frames)
            else:
                peer.outbox.send(frames)
        if event.event == "state" and event.job:
            self._count(event)

    def _count(self, event: Event) -> None:
        """Keep count of the queue, and let workers and a wanted end see what has changed."""
        self.queued += (event.data["state"] == "queued") - (event.data.get("before") == "queued")
        self.supervisor.wake()
        self._loop.call_later(_FAREWELL, self._end_if_idle)

    def subscribed(self) -> None:
        """Take over that a client wants other events than before."""
        wanted = [peer.wanted for peer in self._peers.values() if peer.wanted is not None]
        self.supervisor.show_previews(any("preview" in own.transient for own in wanted))

    def transient(self, running: Running, seq: int, kind: str, data: dict[str, Any],
                  payloads: tuple[Buffer, ...] = ()) -> None:  # fmt: skip
        """Tell of something that is not kept."""
        event = Event(event=kind, job=running.job, seq=seq, time=time.time(), transient=True,
                      data=data)  # fmt: skip
        self._broadcast(event, running.owner, payloads)

    def show(self, job: str, frame: int, jpeg: bytes) -> None:
        """Keep a keyframe's picture for the event that tells of it."""
        self._pictures[job, frame] = jpeg

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH)
            gone = False
            for peer in list(self._peers.values()):
                if not peer.outbox.empty:
                    peer.outbox.flush()
                gone = gone or (peer.outbox.gone and peer.wanted is not None)
                if peer.outbox.gone:
                    peer.wanted = None
            if gone:
                self._forget_idle()
                self.subscribed()


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


def _concerns(event: Event, owner: str, peer: Peer, wanted: Subscribe) -> bool:
    """Whether a client is to be told of an event."""
    if not event.job:
        return True
    if not peer.owner.sees(owner) or (wanted.jobs and event.job not in wanted.jobs):
        return False
    return not event.transient or event.event in wanted.transient


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


def _uploads_of(row: Row) -> set[str]:
    """Return the uploads that a job names.

    Its request may be one that this version does not take: then all that look like some.
    """
    try:
        return uploads(from_table(row.request))
    except (BridgeError, FrescoError) as error:
        log.error("the request of job %s cannot be read: %s", row.id, error)
        return set(_refs(row.request))


def _is_ref(ref: str) -> bool:
    """Whether an upload may have this name."""
    try:
        OfUpload.from_table({"upload": ref.removeprefix(UPLOAD)})
    except BridgeError:
        return False
    return True


def _refs(told: Any) -> Iterator[str]:
    """Yield the texts anywhere in plain lists and tables that begin as an upload's name."""
    if isinstance(told, str):
        if told.startswith(UPLOAD):
            yield told
    elif isinstance(told, Mapping):
        yield from _refs(list(cast("Mapping[str, Any]", told).values()))
    elif isinstance(told, Sequence):
        for each in cast("Sequence[Any]", told):
            yield from _refs(each)


def _placed(wanted: Request, owner: Owner, files: dict[str, Path]) -> Request:
    if owner.bound:
        access.check(wanted, owner)
    return placed(wanted, owner, files)


def _need(ref: str, wanted: Request) -> dict[str, Any]:
    """An upload, and what a request needs of it (`incoming.Need`)."""
    beside = (wanted.mask, wanted.subject, *(own.maps for own in wanted.controls))
    role = "clip" if ref == wanted.clip else "beside" if ref in beside else "picture"
    need = {"role": role, "start": wanted.start, "stop": wanted.stop, "handles": wanted.handles}
    return {"ref": ref, "clip": wanted.clip, "need": need}


def _wait(ref: str, spans: Sequence[Sequence[int]]) -> str:
    """What a job waits for, for people.

    spans: frames [first, behind the last) of an upload
    """
    told = ", ".join(f"{first} to {stop - 1}" for first, stop in spans[:_SPANS])
    more = " and others" if len(spans) > _SPANS else ""
    return f"{_WAITS} {told}{more} of {ref}, which have not been sent yet"


def _is_wait(note: str) -> bool:
    return note.startswith(_WAITS)


class _Ledger:
    """What the supervisor asks and tells; see `supervisor.Ledger`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seq: dict[str, int] = {}

    async def next(self, take: Callable[[Row], Running]) -> Task | None:
        server = self._server

        def taken() -> Row | None:
            row = server.jobs.next(server.is_ready)
            if row is not None:
                take(row)
            return row

        while (row := await server.persisted(taken)) is not None:
            self._seq[row.id] = row.seq
            uploaded = str(row.request["clip"]).startswith(UPLOAD)
            try:
                row.request = await server.arrived(row)
            except Exception as error:  # the worker must get its next job, whatever this one is
                await self._fail(row, failures.told(error))
            else:
                roots = tuple(map(str, server.doors.named(row.owner).roots))
                return Task(row, row.request, server.folder_of(row.id), uploaded, roots)
        return None

    async def _fail(self, row: Row, failure: BridgeError) -> None:
        jobs = self._server.jobs
        await self._server.persisted(lambda: jobs.failed(row.id, failure, row.revision))

    async def speeds(self) -> dict[str, tuple[float, float]]:
        return await self._server.persisted(self._server.jobs.journal.speeds)

    async def told(self, running: Running, message: pipe.Message) -> None:
        server, jobs, job = self._server, self._server.jobs, running.job
        what = message["tell"]
        if what == "progress":
            eta = running.forecast.left()
            told = Progress(stage=message["stage"], done=message["done"], total=message["total"],
                            eta_s=None if eta is None else round(eta, 1))  # fmt: skip
            server.transient(running, self._seq.get(job, 0), "progress", told.table())
        elif what == "preview":
            told = Preview(
                frames=tuple(message["frames"]), step=message["step"], last=message["last"]
            )
            payloads = tuple(message["jpegs"])
            server.transient(running, self._seq.get(job, 0), "preview", told.table(), payloads)
        else:
            change = self._change(running, message)

            def changed() -> int:
                change()
                row = jobs.journal.find(job)
                return 0 if row is None else row.seq

            self._seq[job] = await server.persisted(changed)
            if what == "ended":
                await self._learn(running, message["how"])

    def _change(self, running: Running, message: pipe.Message) -> Callable[[], Any]:
        jobs, job = self._server.jobs, running.job
        what = message["tell"]
        if what == "settled":
            return lambda: jobs.settled(job, message["output"], message["span"], message["notes"])
        if what == "expected":
            ahead = running.forecast.ahead()
            return lambda: jobs.expected(job, ahead)
        if what == "planned":
            return lambda: jobs.uses(job, message["units"], forward=False)
        if what == "kept":
            return lambda: jobs.uses(job, [message["unit"]])
        if what == "note":
            return lambda: jobs.note(job, message["text"])
        if what == "keyframe":
            self._server.show(job, message["frame"], message["jpeg"])
            keyframe = Keyframe(frame=message["frame"], name=f"keyframe-{message['frame']:06d}.png",
                                path=message["path"], final=message["final"])  # fmt: skip
            return lambda: jobs.keyframe(job, keyframe)
        assert what == "ended", what
        return self._end(running, message)

    def _end(self, running: Running, message: pipe.Message) -> Callable[[], Any]:
        jobs, job, revision = self._server.jobs, running.job, message["revision"]
        how = message["how"]
        if how == "done":
            return lambda: jobs.done(job, revision, message["report"], message["keyframes"])
        if how == "rested":
            rest = running.forecast.rest()
            return lambda: jobs.rested(job, revision, message["keyframes"], rest)
        if how == "failed":
            failure = BridgeError.from_table(message["failure"])
            return lambda: jobs.failed(job, failure, revision)
        return lambda: jobs.stopped(job, _SERVER_ENDED)

    async def _learn(self, running: Running, how: str) -> None:
        journal = self._server.jobs.journal
        if how in ("done", "rested"):
            running.forecast.end()
        learnt, known = running.forecast.learnt, running.forecast.speeds

        def learn() -> None:
            for what, new in learnt.items():
                journal.learn(what, *blended(known.get(what), new))

        await self._server.persisted(learn)

    async def crashed(self, running: Running, failure: BridgeError) -> None:
        jobs = self._server.jobs
        await self._server.persisted(lambda: jobs.crashed(running.job, failure))

    async def interrupted(self, running: Running) -> None:
        jobs = self._server.jobs
        await self._server.persisted(lambda: jobs.stopped(running.job, _SERVER_ENDED))

    async def troubled(self, why: str) -> None:
        await self._server.persisted(lambda: self._server.jobs.note_waiting(why))


def serve(
    wishes: Wishes,
    posts: Sequence[Post],
    ready: Ready = lambda _at, _abroad, _key: None,
    idle_end: float = 0.0,
) -> None:
    """Run a server in this process until it is told to stop, or gets SIGTERM or SIGINT.

    idle_end: see `Server`

    Raises:
        BridgeError: one is running already (conflict), or an address cannot be used.
    """
    settings, folder = config.load(), endpoint.folders()[0]
    state = state_folder(settings)
    signpost.private_folder(folder)
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
