"""What the server does for each operation (PROTOCOL.md, section 5): the dispatch table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bridge_server import (
    access,
    catalogue,
    descriptor,
    failures,
    job_logs,
    library,
    looks,
    pages,
    published,
    submission,
)
from bridge_server.access import UPLOAD, Owner, uploads
from bridge_server.catalogue import Entry
from bridge_server.config import Config
from bridge_server.envelope import Call
from bridge_server.jobs import info, to_request, whole
from bridge_server.journal import Row
from bridge_server.licences import needs_acceptance
from bridge_server.request import Request
from bridge_server.upload_limits import Limits
from bridge_server.words import cut
from fresco.errors import FrescoError, MissingWeights
from host_plugins.link import messages, wire
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import OPS, File, JobInfo, Message, Pong, Welcome
from host_plugins.link.wire import Buffer

if TYPE_CHECKING:
    from bridge_server.audience import Peer
    from bridge_server.server import Server

#: Answered only to the user, and not on the endpoint that has no encryption.
_TRUSTED = ("events.subscribe", "events.unsubscribe", "events.replay", "shutdown")
#: Each leaves something behind with the connection that it came by: a copy by another connection
#: is a request of its own.
_OF_CONNECTION = frozenset({"hello", "events.subscribe", "events.unsubscribe", "doctor"})
#: A job that runs is stopped for these.
_STOPPING = ("cancel", "pause", "edit")
#: These do not wait for the disk. At worst a job goes on after a power cut, and is stopped again.
_STOPS = frozenset({"cancel", "pause"})
CAPABILITIES = ("files", "uploads", "frames", "previews", "looks")
#: What clients may send, as the clerk has it too.
_UPLOADS = Limits()
#: Bytes of an uploaded or downloaded chunk at most.
CHUNK = _UPLOADS.chunk
#: Seconds that the doctor may take; between looks whether it is still wanted.
_DOCTOR, _GLANCE = 120.0, 0.2
#: Characters of a client's name of itself that are written down.
_CALLED = 80

Reply: TypeAlias = "tuple[Mapping[str, Any], tuple[Buffer, ...]]"
Table: TypeAlias = dict[str, Any]
Handler: TypeAlias = "Callable[[Server, Peer, Any], Awaitable[Message]]"


def needs_trust(op: str) -> bool:
    """Whether an operation is refused on the loopback endpoint."""
    return op in _TRUSTED


def is_of_connection(op: str) -> bool:
    """Whether an operation is about the connection that it comes by."""
    return op in _OF_CONNECTION


async def answer(server: Server, peer: Peer, call: Call) -> Reply:
    """Do what a request asks for; returns the reply's fields and payloads.

    Raises:
        BridgeError: there is no such operation (unsupported), or what it says.
    """
    op = OPS.get(call.op)
    if op is None:
        raise BridgeError(Code.UNSUPPORTED, f"there is no operation {call.op!r} here")
    asked = op.request.from_table(call.fields, call.payloads)
    if call.op in _ERRANDS:
        return await _ERRANDS[call.op](server, peer, call, asked)
    if call.op in _CHANGES:
        return await _changed(server, peer, call, asked), ()
    if call.op in _LONG:
        return await _LONG[call.op](server, peer, asked), ()
    reply = await HANDLERS[call.op](server, peer, asked)
    return reply.table(), getattr(reply, "payloads", ())


async def _changed(server: Server, peer: Peer, call: Call, asked: Any) -> Mapping[str, Any]:
    """Change a job, once for each request; one that is at a worker is told of it."""
    # Ids are made by clients: one owner's must not open the replies to another.
    whose, what = f"{peer.owner.name} {call.session}", f"{call.op} {call.id}"
    kept = await server.books.journalled(lambda: server.books.jobs.kept(whose, what))
    if kept is not None:
        return kept
    fresh = False

    def do() -> Mapping[str, Any]:
        nonlocal fresh
        row = _CHANGES[call.op](server.books.jobs, peer.owner, asked)
        fresh = True
        if row.state == "running" and call.op in _STOPPING:
            # Within the change: what the worker tells of its end comes before it, or after.
            server.supervisor.stop_job(asked.job)
        server.held.hold(row)
        return info(row).table()

    try:
        await _check_painted(server, peer, asked)
        durable = call.op not in _STOPS
        told = await server.books.journalled(
            lambda: server.books.jobs.once(whose, what, do), durable
        )
    except BridgeError as error:
        refusal = error
        await server.books.journalled(lambda: server.books.jobs.keep_refusal(whose, what, refusal))
        raise
    if fresh:
        server.logs.say(asked.job, f"asked to {call.op}", by=peer.words)
    return told


async def _check_painted(server: Server, peer: Peer, asked: Any) -> None:
    """Look at the picture of an edit, if it has one. Raises BridgeError: see `check_read`."""
    if isinstance(asked, messages.Edit) and asked.what == "painted" and asked.value:
        value = asked.value
        if value.startswith(UPLOAD):  # said when the job begins
            return
        await server.in_thread(lambda: access.check_read(value, peer.owner))


#: Their replies are kept: a late copy of one must not undo what came after it.
_CHANGES: Mapping[str, Callable[[Any, Any, Any], Row]] = {
    "cancel": lambda jobs, owner, asked: jobs.cancel(owner, asked.job),
    "pause": lambda jobs, owner, asked: jobs.pause(owner, asked.job),
    "resume": lambda jobs, owner, asked: jobs.resume(owner, asked.job),
    "retry": lambda jobs, owner, asked: jobs.retry(owner, asked.job),
    "approve": lambda jobs, owner, asked: jobs.approve(owner, asked),
    "edit": lambda jobs, owner, asked: jobs.edit(owner, asked),
}


async def _hello(server: Server, peer: Peer, asked: messages.Hello) -> Welcome:
    peer.client = asked.client[:_CALLED]
    limits = asdict(wire.LIMITS) | _UPLOADS.told()
    return Welcome(
        minor=wire.MINOR,
        server=_version(),
        capabilities=CAPABILITIES,
        limits=limits,
        owner=peer.owner.name,
        roots=tuple(map(str, peer.owner.roots)),
        workers=tuple({"device": post.device, "threads": post.threads} for post in server.posts),
    )


async def _ping(server: Server, peer: Peer, _asked: Message) -> Pong:
    # From memory: a ping must not wait for the journal.
    running = server.supervisor.running
    return Pong(
        time=time.time(),
        subscribed=peer.wanted is not None,
        running=running,
        queued=server.queued,
        doing=server.supervisor.doing,
    )


async def _describe(server: Server, _peer: Peer, asked: messages.Paged) -> Table:
    def described() -> Table:
        tables = [look.table() for look in looks.load(server.settings).values()]
        rest: Table = {"effects": [] if asked.page else [descriptor.load()]}
        return pages.paged(rest, "looks", pages.numbered(tables, asked.page))

    return await server.in_thread(described)


async def _submit(server: Server, peer: Peer, asked: messages.Submit) -> JobInfo:
    wanted = await server.in_thread(lambda: to_request(asked))
    row = await server.books.journalled(
        lambda: server.books.jobs.known(peer.owner, asked.job, wanted)
    )
    if row is None:
        await server.in_thread(lambda: _check(wanted, peer.owner, server.settings))
        if uploads(wanted):
            await server.held.check(peer.owner.name, wanted)

        def submit() -> Row:
            row = server.books.jobs.submit(peer.owner, asked, checked=True)
            server.held.hold(row)
            return row

        row = await server.books.journalled(submit)
        server.logs.say(row.id, "asked to submit", by=asked.client or peer.words, owner=row.owner)
    return _live(server, info(row))


def _check(wanted: Request, owner: Owner, settings: Config) -> None:
    """Check what can be told of a new job before it begins; reads files.

    Raises:
        BridgeError: see `access.check`. FrescoError: see `submission.check`.
    """
    access.check(wanted, owner)
    submission.check(wanted, settings)


async def _jobs(server: Server, peer: Peer, asked: messages.Listing) -> Table:
    found = await server.books.journalled(lambda: server.books.jobs.list(peer.owner, asked))
    live = [_live(server, own) for own in found.jobs]

    def listed() -> Table:
        told = pages.paged({}, "jobs", ((own.job, own.table()) for own in live))
        more = bool(told.pop("next", "")) or found.more
        return told | ({"more": True} if more else {})

    return await server.in_thread(listed)


async def _job(server: Server, peer: Peer, asked: messages.PagedOfJob) -> Table:
    row = await server.books.journalled(lambda: server.books.jobs.find(peer.owner, asked.job))
    told = _live(server, info(row))
    return await server.in_thread(lambda: whole(row, told, asked.page))


async def _subscribe(server: Server, peer: Peer, asked: messages.Subscribe) -> Table:
    # First the events, then the numbers: what happens between is told twice rather than never.
    if not asked.page:
        peer.wanted = asked
        server.audience.subscribed()
    return await server.books.journalled(lambda: server.books.jobs.newest(peer.owner, asked))


async def _unsubscribe(server: Server, peer: Peer, _asked: Message) -> messages.Nothing:
    peer.wanted = None
    server.audience.subscribed()
    return messages.Nothing()


async def _replay(server: Server, peer: Peer, asked: messages.Replay) -> Table:
    def replayed() -> Table:
        found = server.books.jobs.replay(peer.owner, asked)
        parts = ((str(each.seq), each.table()) for each in found.events)
        told = pages.paged({"newest": found.newest}, "events", parts)
        told.pop("next", "")  # they are asked for by their numbers
        return told

    return await server.books.journalled(replayed)


async def _result(server: Server, peer: Peer, asked: messages.PagedOfJob) -> Table:
    row = await server.books.journalled(lambda: server.books.jobs.find(peer.owner, asked.job))
    rest: Table = {"job": row.id, "state": row.state}
    if row.report and not asked.page:
        rest["report"] = row.report

    def found() -> Table:
        files = made(row, server.folder_of(row.id), behind=asked.page)
        return pages.paged(rest, "files", ((_key(file), file.table()) for file in files))

    return await server.in_thread(found)


async def _upload(server: Server, peer: Peer, call: Call, _asked: Any) -> Reply:
    return await server.errands.ask(call.op, peer.owner.name, call.fields, call.payloads)


async def _upload_frame(server: Server, peer: Peer, call: Call, asked: Any) -> Reply:
    answer = await _upload(server, peer, call, asked)
    server.held.look()
    return answer


async def _download(server: Server, peer: Peer, call: Call, asked: messages.OfJob) -> Reply:
    row = await server.books.journalled(lambda: server.books.jobs.find(peer.owner, asked.job))
    name = asked.name if isinstance(asked, messages.DownloadChunk) else ""

    def found() -> list[Table]:
        return [file.table() for file in made(row, server.folder_of(row.id), name)]

    files = await server.in_thread(found)
    roots = list(map(str, server.doors.named(row.owner).roots))
    more = {"files": files, "span": row.span or [0, 0], "roots": roots}
    return await server.errands.ask(call.op, peer.owner.name, call.fields, more=more)


_ERRANDS: Mapping[str, Callable[[Server, Peer, Call, Any], Awaitable[Reply]]] = {
    "upload.begin": _upload,
    "upload.chunk": _upload,
    "upload.end": _upload,
    "upload.frame": _upload_frame,
    "download.chunk": _download,
    "download.frame": _download,
}


async def _models(server: Server, _peer: Peer, asked: messages.Paged) -> Table:
    return await server.in_thread(lambda: _rows(_model_rows(server), asked))


async def _doctor(server: Server, peer: Peer, asked: messages.Paged) -> Table:
    if not asked.page:
        peer.examined = await server.examined()
    return await server.in_thread(lambda: _rows(peer.examined, asked))


def _rows(rows: Sequence[Table], asked: messages.Paged) -> Table:
    return pages.paged({}, "rows", pages.numbered(rows, asked.page))


async def _shutdown(server: Server, peer: Peer, asked: messages.Shutdown) -> messages.Nothing:
    if not peer.owner.local:
        raise BridgeError(Code.FORBIDDEN, "only the user who runs the server may end it")
    if not asked.when_idle or not (server.supervisor.running or server.queued):
        server.stop()
    else:
        server.stop_when_idle()
    return messages.Nothing()


HANDLERS: Mapping[str, Handler] = {
    "hello": _hello,
    "ping": _ping,
    "submit": _submit,
    "events.unsubscribe": _unsubscribe,
    "shutdown": _shutdown,
}
#: Their replies may be longer than a message, and are made apart from the event loop.
_LONG: Mapping[str, Callable[[Server, Peer, Any], Awaitable[Table]]] = {
    "describe": _describe,
    "jobs": _jobs,
    "job": _job,
    "events.subscribe": _subscribe,
    "events.replay": _replay,
    "result": _result,
    "models": _models,
    "doctor": _doctor,
}


def _live(server: Server, told: JobInfo) -> JobInfo:
    """Add to a job how far its worker is."""
    running = server.supervisor.find(told.job)
    if running is None or told.state != "running":
        return told
    here = running.forecast
    eta = here.left()
    return replace(told, stage=here.stage, done=here.done, total=here.total,
                   eta_s=None if eta is None else round(eta, 1))  # fmt: skip


#: In this order.
_ROLES = ("keyframe", "output", "log")


def made(row: Row, folder: Path, name: str = "", behind: str = "") -> Iterator[File]:
    """Yield the files of a job that are there, by roles and names.

    folder: the job's own; name: only of this name, if it is given; behind: only with a later key
    """
    facts = published.known(folder)
    for file in sorted(_named(row, folder), key=_key):
        if _key(file) <= behind or name not in ("", file.name):
            continue
        try:
            size = os.stat(file.path).st_size
        except OSError:  # removed meanwhile, or not there yet
            continue
        if file.role == "output":
            intact = published.intact(Path(file.path), facts)
            digest = facts[file.path].sha256 if intact else ""
            file = replace(file, intact=intact, sha256=digest)
        yield replace(file, size=size)


def _named(row: Row, folder: Path) -> Iterator[File]:
    """All files that the job may have, with no look at them."""
    for own in row.keyframes.values():
        yield File(name=own["name"], role="keyframe", size=0, path=own["path"], frame=own["frame"])
    if row.state == "done":
        for frame, file in _outputs(Path(row.output), row.span):
            yield File(name=file.name, role="output", size=0, path=str(file), frame=frame)
    for name in (job_logs.OLDER, job_logs.NAME):
        yield File(name=name, role="log", size=0, path=str(folder / name))


def _key(file: File) -> str:
    return f"{_ROLES.index(file.role)}{file.name}"


def _outputs(output: Path, span: Sequence[int]) -> Iterator[tuple[int | None, Path]]:
    """The files that an output's name stands for: of a sequence all images, with their frames.

    span: the source's frames [first, behind the last] that were wanted
    """
    if "#" not in output.name:
        yield None, output
        return
    marks = output.name.count("#")
    pattern = output.name.replace("#" * marks, "[0-9]" * marks)
    yield from enumerate(sorted(output.parent.glob(pattern)), span[0])


def _model_rows(server: Server) -> tuple[dict[str, Any], ...]:
    known = catalogue.load(server.settings)
    return tuple(_model_row(server, known[name]) for name in known)


def _model_row(server: Server, entry: Entry) -> dict[str, Any]:
    try:
        state = "pinned" if library.find(entry, server.settings).pinned else "here"
    except MissingWeights:
        state = ""
    except FrescoError:
        state = "changed"
    return {
        "name": entry.name,
        "title": entry.title,
        "role": entry.role.value,
        "state": state,
        "family": entry.family.value if entry.family else "",
        "control": entry.control,
        "size": entry.size,
        "licence": entry.licence.id if entry.licence else "",
        "licence_url": entry.licence.url if entry.licence else "",
        "accept": needs_acceptance(entry, server.settings),
    }


def examined(ending: Callable[[], bool]) -> tuple[Table, ...]:
    """What `fresco-bridge doctor` finds, in a process of its own: it loads every library.

    ending: whether the answer is not wanted any more
    """
    command = [sys.executable, "-m", "bridge_server", "doctor", "--json"]
    end = time.monotonic() + _DOCTOR
    # Not into a pipe, which somebody would have to empty meanwhile.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL)
        while process.poll() is None and not ending() and time.monotonic() < end:
            time.sleep(_GLANCE)
        process.kill()
        process.wait()
        said.seek(0)
        told = said.read()
    try:
        return tuple(_short(row) for row in json.loads(told))
    except ValueError as error:
        raise BridgeError(Code.INTERNAL, "doctor gave no answer",
                          "run `fresco-bridge doctor` in a terminal") from error  # fmt: skip


def _short(row: Table) -> Table:
    """A row for people, with no text in it that is endless, as a list of all models."""
    return {name: cut(value, failures.LONGEST) if isinstance(value, str) else value
            for name, value in row.items()}  # fmt: skip


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("fresco-bridge")
