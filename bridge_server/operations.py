"""What the server does for each operation (PROTOCOL.md, section 5): the dispatch table."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bridge_server import access, catalogue, descriptor, job_logs, library, looks, published
from bridge_server.access import UPLOAD, uploads
from bridge_server.catalogue import Entry
from bridge_server.jobs import info, to_request
from bridge_server.journal import Row
from bridge_server.licences import needs_acceptance
from fresco.errors import FrescoError, MissingWeights
from host_plugins.link import messages, wire
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import OPS, File, JobInfo, Made, Message, Pong, Rows, Welcome
from host_plugins.link.wire import Buffer

if TYPE_CHECKING:
    from bridge_server.server import Peer, Server

#: Answered only to the user, and not on the endpoint that has no encryption.
_TRUSTED = ("events.subscribe", "events.unsubscribe", "events.replay", "shutdown")
#: The state that each gives a job that runs.
_WISHES = {"cancel": "cancelled", "pause": "paused", "edit": "queued"}
CAPABILITIES = ("files", "uploads", "frames", "previews", "looks")
#: Bytes of an uploaded or downloaded chunk at most.
CHUNK = 8 << 20
#: Seconds that the doctor may take; between looks whether it is still wanted.
_DOCTOR, _GLANCE = 120.0, 0.2
#: Characters of a client's name of itself that are written down.
_CALLED = 80

Reply: TypeAlias = "tuple[Mapping[str, Any], tuple[Buffer, ...]]"
Handler: TypeAlias = "Callable[[Server, Peer, Any], Awaitable[Message]]"


def needs_trust(op: str) -> bool:
    """Whether an operation is refused on the loopback endpoint."""
    return op in _TRUSTED


async def answer(server: Server, peer: Peer, call: wire.Call) -> Reply:
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
    reply = await HANDLERS[call.op](server, peer, asked)
    return reply.table(), getattr(reply, "payloads", ())


async def _changed(server: Server, peer: Peer, call: wire.Call, asked: Any) -> Mapping[str, Any]:
    """Change a job, once for each request; one that is at a worker is told of it."""
    # Ids are made by clients: one owner's must not open the replies to another.
    whose, what = f"{peer.owner.name} {call.session}", f"{call.op} {call.id}"
    kept = await server.journalled(lambda: server.jobs.kept(whose, what))
    if kept is not None:
        return kept
    fresh = at_worker = False

    def wish() -> None:
        if call.op in _WISHES:
            server.supervisor.stop_job(asked.job, _WISHES[call.op])
        elif call.op == "resume":
            server.supervisor.resume_job(asked.job)

    def do() -> Mapping[str, Any]:
        nonlocal fresh, at_worker
        row = _CHANGES[call.op](server.jobs, peer.owner, asked)
        fresh, at_worker = True, row.state == "running"
        if at_worker:
            # Within the change: what the worker tells of its end comes before it, or after.
            wish()
        return info(row).table()

    try:
        await _check_painted(server, peer, asked)
        told = await server.journalled(lambda: server.jobs.once(whose, what, do))
    except BridgeError as error:
        refusal = error
        await server.journalled(lambda: server.jobs.keep_refusal(whose, what, refusal))
        raise
    if at_worker:
        wish()  # again: the job may have been on its way from the queue to the worker
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
    limits = asdict(wire.LIMITS) | {"chunk": CHUNK}
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


async def _describe(server: Server, _peer: Peer, _asked: Message) -> messages.Description:
    known = await server.in_thread(lambda: looks.load(server.settings))
    tables = tuple(look.table() for look in known.values())
    return messages.Description(effects=(descriptor.load(),), looks=tables)


async def _submit(server: Server, peer: Peer, asked: messages.Submit) -> JobInfo:
    wanted = await server.in_thread(lambda: to_request(asked))
    row = await server.journalled(lambda: server.jobs.known(peer.owner, asked.job, wanted))
    if row is None:
        await server.in_thread(lambda: access.check(wanted, peer.owner))
        if uploads(wanted):  # before it is a job: else its turn might come first
            await server.hold(asked.job, peer.owner.name, wanted)
        row = await server.journalled(lambda: server.jobs.submit(peer.owner, asked, checked=True))
        server.logs.say(row.id, "asked to submit", by=asked.client or peer.words, owner=row.owner)
    return _live(server, info(row))


async def _jobs(server: Server, peer: Peer, asked: messages.Listing) -> messages.JobList:
    found = await server.journalled(lambda: server.jobs.list(peer.owner, asked))
    return replace(found, jobs=tuple(_live(server, own) for own in found.jobs))


async def _job(server: Server, peer: Peer, asked: messages.OfJob) -> JobInfo:
    row = await server.journalled(lambda: server.jobs.find(peer.owner, asked.job))
    return _live(server, info(row, whole=True))


async def _subscribe(
    server: Server, peer: Peer, asked: messages.Subscribe
) -> messages.Subscription:
    # First the events, then the numbers: what happens between is told twice rather than never.
    peer.wanted = asked
    server.subscribed()
    return await server.journalled(lambda: server.jobs.newest(peer.owner, asked))


async def _unsubscribe(server: Server, peer: Peer, _asked: Message) -> messages.Nothing:
    peer.wanted = None
    server.subscribed()
    return messages.Nothing()


async def _replay(server: Server, peer: Peer, asked: messages.Replay) -> messages.Replayed:
    return await server.journalled(lambda: server.jobs.replay(peer.owner, asked))


async def _result(server: Server, peer: Peer, asked: messages.OfJob) -> Made:
    row = await server.journalled(lambda: server.jobs.find(peer.owner, asked.job))
    files = await server.in_thread(lambda: tuple(made(row, server.folder_of(row.id))))
    return Made(job=row.id, state=row.state, files=files, report=tuple(row.report))


async def _upload(server: Server, peer: Peer, call: wire.Call, _asked: Any) -> Reply:
    return await server.errands.ask(call.op, peer.owner.name, call.fields, call.payloads)


async def _upload_frame(server: Server, peer: Peer, call: wire.Call, asked: Any) -> Reply:
    answer = await _upload(server, peer, call, asked)
    await server.look_at_held()
    return answer


async def _download(server: Server, peer: Peer, call: wire.Call, asked: messages.OfJob) -> Reply:
    row = await server.journalled(lambda: server.jobs.find(peer.owner, asked.job))
    files = [
        file.table() for file in await server.in_thread(lambda: made(row, server.folder_of(row.id)))
    ]
    more = {"files": files, "span": row.span or [0, 0]}
    return await server.errands.ask(call.op, peer.owner.name, call.fields, more=more)


_ERRANDS: Mapping[str, Callable[[Server, Peer, wire.Call, Any], Awaitable[Reply]]] = {
    "upload.begin": _upload,
    "upload.chunk": _upload,
    "upload.end": _upload,
    "upload.frame": _upload_frame,
    "download.chunk": _download,
    "download.frame": _download,
}


async def _models(server: Server, _peer: Peer, _asked: Message) -> Rows:
    return Rows(rows=await server.in_thread(lambda: _model_rows(server)))


async def _doctor(server: Server, _peer: Peer, _asked: Message) -> Rows:
    return Rows(rows=await server.in_thread(lambda: _examined(lambda: server.ending)))


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
    "describe": _describe,
    "submit": _submit,
    "jobs": _jobs,
    "job": _job,
    "events.subscribe": _subscribe,
    "events.unsubscribe": _unsubscribe,
    "events.replay": _replay,
    "result": _result,
    "models": _models,
    "doctor": _doctor,
    "shutdown": _shutdown,
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


def made(row: Row, folder: Path) -> list[File]:
    """Return the files of a job that are there.

    folder: the job's own
    """
    keyframes = sorted(row.keyframes.values(), key=lambda own: own["frame"])
    named: list[tuple[str, str, Path, int | None]] = [
        (own["name"], "keyframe", Path(own["path"]), own["frame"]) for own in keyframes
    ]
    if row.state == "done":
        named += [(file.name, "output", file, None) for file in _outputs(Path(row.output))]
    named += [(name, "log", folder / name, None) for name in (job_logs.OLDER, job_logs.NAME)]
    facts = published.known(folder)
    found: list[File] = []
    for name, role, path, frame in named:
        try:
            size = path.stat().st_size
        except OSError:  # removed meanwhile, or not there yet
            continue
        intact = role != "output" or published.intact(path, facts)
        found.append(
            File(name=name, role=role, size=size, path=str(path), frame=frame, intact=intact)
        )
    return found


def _outputs(output: Path) -> list[Path]:
    """The files that an output's name stands for: of a sequence all images."""
    if "#" not in output.name:
        return [output]
    marks = output.name.count("#")
    pattern = output.name.replace("#" * marks, "[0-9]" * marks)
    return sorted(output.parent.glob(pattern))


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


def _examined(ending: Callable[[], bool]) -> tuple[dict[str, Any], ...]:
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
        return tuple(json.loads(told))
    except ValueError as error:
        raise BridgeError(Code.INTERNAL, "doctor gave no answer",
                          "run `fresco-bridge doctor` in a terminal") from error  # fmt: skip


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("fresco-bridge")
