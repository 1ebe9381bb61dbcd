"""The requests, replies and events of the protocol (PROTOCOL.md, sections 5 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .tables import Digest, Id, Message, Table, table_field
from .wire import Buffer

R = TypeVar("R", bound=Message)

#: Kinds of events that are told once, and not kept.
TRANSIENT = ("progress", "preview", "server")

# -------------------------------------------------------------------------------- parts of replies


class Keyframe(Message):
    """A styled keyframe. name: for download.chunk; final: it will not change any more."""

    frame: int
    name: str = ""
    path: str = ""
    final: bool = True


class File(Message):
    """A file that a job made. role: output, keyframe or log; size in bytes.

    sha256: of an output that is intact
    intact: it is as the job wrote it, as far as size and time tell
    """

    name: str
    role: str
    size: int
    sha256: str = ""
    path: str = ""
    frame: int | None = None
    intact: bool = True


# ------------------------------------------------------------------------------------------ events


class Event(Message):
    """What happened to a job. `data` is read by the class of its kind in `EVENTS`.

    seq: of a lasting one its number, from 1 without gaps; of a transient one that of the newest
        lasting one of the job
    time: seconds since 1970; job: empty for the server's own
    """

    event: str
    job: str = ""
    seq: int = 0
    time: float = 0.0
    transient: bool = False
    data: Table = table_field()
    payloads: tuple[Buffer, ...] = ()


class StateChanged(Message):
    """The job's state, or of an event without a job the server's ("stopping").

    before: empty for a new job; why: of a change that nobody asked for, in plain words
    """

    state: str
    before: str = ""
    gate: str = ""
    forecast: Table = table_field()
    failure: Table = table_field()
    why: str = ""


class Edited(Message):
    """A change of a keyframe was taken over."""

    revision: int
    frame: int
    what: str
    value: str | None = None


class Note(Message):
    """Something that the user should know."""

    text: str


class Progress(Message):
    """How far a stage is; total 0: it has no work. eta_s: seconds until the job rests."""

    stage: str
    done: float
    total: float
    eta_s: float | None = None


class Preview(Message):
    """What keyframes look like after a step; a payload for each of `frames`."""

    frames: tuple[int, ...]
    step: int
    last: int
    encoding: str = "jpeg"


#: Every kind of event, and what its data is.
EVENTS: Mapping[str, type[Message]] = {
    "state": StateChanged,
    "edited": Edited,
    "keyframe": Keyframe,
    "note": Note,
    "progress": Progress,
    "preview": Preview,
    "server": StateChanged,
}

# ----------------------------------------------------------------------------------------- replies
# `next`: there is more, which `page` of the next request asks for; see `Client.post`.


class Nothing(Message):
    """A request that says no more than its operation, or: it was done."""


class Welcome(Message):
    """The server. limits: as `wire.Limits`; roots: folders that files may be in; none: any.

    workers: `device` and `threads` of each, as the server was told
    """

    minor: int
    server: str
    capabilities: tuple[str, ...] = ()
    limits: Table = table_field()
    owner: str = ""
    roots: tuple[str, ...] = ()
    workers: tuple[Table, ...] = ()


class Pong(Message):
    """subscribed: this connection gets events; doing: what the server is at, in plain words."""

    time: float
    subscribed: bool = False
    running: int = 0
    queued: int = 0
    doing: str = ""


class Description(Message):
    """effects: descriptors; looks: presets of their parameters."""

    effects: tuple[Table, ...]
    looks: tuple[Table, ...] = ()
    next: str = ""


class JobInfo(Message):
    """A job as it is now.

    seq: of its newest lasting event; revision: counts changes of the request, from 1
    stage, done, total, eta_s: how far it is, and seconds that are left; gate: where it waits
    failure: of a failed one, the error's table; output: the file that it makes
    request, keyframes: only in the reply to `job`
    """

    job: str
    state: str
    seq: int
    revision: int = 1
    title: str = ""
    client: str = ""
    owner: str = ""
    parent: str = ""
    priority: int = 0
    created: float = 0.0
    changed: float = 0.0
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    eta_s: float | None = None
    gate: str = ""
    forecast: Table = table_field()
    failure: Table = table_field()
    output: str = ""
    notes: tuple[str, ...] = ()
    request: Table = table_field()
    keyframes: tuple[Keyframe, ...] = ()
    next: str = ""


class JobList(Message):
    """jobs: the newest first; more: there are older ones."""

    jobs: tuple[JobInfo, ...] = ()
    more: bool = False


class Subscription(Message):
    """newest: the newest event of each job that was named, is not at rest, or had one today."""

    newest: Mapping[str, int] = field(default_factory=dict[str, int])
    next: str = ""


class Replayed(Message):
    """events: lasting ones in order; newest: the number of the job's newest."""

    newest: int
    events: tuple[Event, ...] = ()


class Made(Message):
    """What a job made so far. report: rows {name, source, result, state} of the written file."""

    job: str
    state: str
    files: tuple[File, ...] = ()
    report: tuple[Table, ...] = ()
    next: str = ""


class UploadInfo(Message):
    """offset: bytes that are here; file: what to call it in a request, once it is complete."""

    upload: str
    offset: int = 0
    file: str = ""


class Chunk(Message):
    """A part of a file of `size` bytes; the payload holds its bytes from `offset` on."""

    offset: int
    size: int
    payloads: tuple[Buffer, ...] = ()


class Picture(Message):
    """A styled frame, if it is ready; the payload holds its rows, the top one first."""

    ready: bool
    width: int = 0
    height: int = 0
    depth: str = ""
    components: str = ""
    payloads: tuple[Buffer, ...] = ()


class Rows(Message):
    """Tables: of models {name, title, role, state, ...}, of doctor {area, subject, state, ...}."""

    rows: tuple[Table, ...] = ()
    next: str = ""


# ---------------------------------------------------------------------------------------- requests


class Hello(Message):
    """client: the program that asks, for people; version: its own; minor: of the protocol."""

    client: str
    version: str = ""
    minor: int = 0


class Submit(Message):
    """A new job, of a request's table or of an effect's values. parent: it is a version of this."""

    job: Id
    request: Table = table_field()
    effect: str = ""
    values: Table = table_field()
    priority: int = 0
    title: str = ""
    client: str = ""
    parent: str = ""


class Listing(Message):
    """states: only such jobs; limit: at most so many; before: only older ones than this."""

    states: tuple[str, ...] = ()
    limit: int = 100
    before: str = ""


class Paged(Message):
    """page: `next` of the page before; empty: the first."""

    page: str = ""


class OfJob(Message):
    """The job that is meant."""

    job: Id


class PagedOfJob(OfJob):
    """As `Paged`."""

    page: str = ""


class Approve(OfJob):
    """gate: that the job may pass; until: the gate that it goes on to."""

    gate: str
    until: str = "done"


class Edit(OfJob):
    """Change a keyframe. base: the revision that was looked at; value None: as it was."""

    base: int
    frame: int
    what: str
    value: str | None = None


class Subscribe(Message):
    """jobs: of these, none: of all; transient: such kinds too; page: as of `Paged`."""

    jobs: tuple[Id, ...] = ()
    transient: tuple[str, ...] = ("progress", "preview")
    page: str = ""


class Replay(OfJob):
    """after: the number of the last event that is known; limit: at most so many."""

    after: int = 0
    limit: int = 200


class OfUpload(Message):
    """The upload that is meant."""

    upload: Id


class UploadBegin(OfUpload):
    """A file of `size` bytes, called `name`."""

    name: str
    size: int
    sha256: Digest


class UploadChunk(OfUpload):
    """The payload holds the file's bytes from `offset` on."""

    offset: int
    payloads: tuple[Buffer, ...] = ()


class UploadFrame(OfUpload):
    """A frame of a clip that is no file; the payload holds its rows, the top one first.

    depth: u8, u16, f16 or f32; components: rgb or rgba; colour: srgb, linear or unknown
    rate: frames per second, as "30000/1001"
    """

    frame: int
    width: int
    height: int
    depth: str = "u8"
    components: str = "rgba"
    colour: str = "unknown"
    rate: str = ""
    payloads: tuple[Buffer, ...] = ()


class DownloadChunk(OfJob):
    """Of the job's file `name`, `length` bytes, or fewer at its end."""

    name: str
    offset: int = 0
    length: int = 1 << 20


class DownloadFrame(OfJob):
    """A styled frame, by its number in the source; the words are those of `UploadFrame`."""

    frame: int
    depth: str = "u8"
    components: str = "rgba"
    colour: str = "unknown"


class Shutdown(Message):
    """when_idle: only when there is nothing to do; otherwise jobs go on at the next start."""

    when_idle: bool = False


@dataclass(frozen=True)
class Op(Generic[R]):
    """An operation: its name on the wire, what it is asked with and answered by."""

    name: str
    request: type[Message]
    reply: type[R]


HELLO = Op("hello", Hello, Welcome)
PING = Op("ping", Nothing, Pong)
DESCRIBE = Op("describe", Paged, Description)
SUBMIT = Op("submit", Submit, JobInfo)
JOBS = Op("jobs", Listing, JobList)
JOB = Op("job", PagedOfJob, JobInfo)
CANCEL = Op("cancel", OfJob, JobInfo)
PAUSE = Op("pause", OfJob, JobInfo)
RESUME = Op("resume", OfJob, JobInfo)
RETRY = Op("retry", OfJob, JobInfo)
APPROVE = Op("approve", Approve, JobInfo)
EDIT = Op("edit", Edit, JobInfo)
SUBSCRIBE = Op("events.subscribe", Subscribe, Subscription)
UNSUBSCRIBE = Op("events.unsubscribe", Nothing, Nothing)
REPLAY = Op("events.replay", Replay, Replayed)
RESULT = Op("result", PagedOfJob, Made)
UPLOAD_BEGIN = Op("upload.begin", UploadBegin, UploadInfo)
UPLOAD_CHUNK = Op("upload.chunk", UploadChunk, UploadInfo)
UPLOAD_END = Op("upload.end", OfUpload, UploadInfo)
UPLOAD_FRAME = Op("upload.frame", UploadFrame, UploadInfo)
DOWNLOAD_CHUNK = Op("download.chunk", DownloadChunk, Chunk)
DOWNLOAD_FRAME = Op("download.frame", DownloadFrame, Picture)
MODELS = Op("models", Paged, Rows)
DOCTOR = Op("doctor", Paged, Rows)
SHUTDOWN = Op("shutdown", Shutdown, Nothing)
OPS: Mapping[str, Op[Any]] = {each.name: each for each in globals().values() if type(each) is Op}
