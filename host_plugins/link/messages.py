"""The requests, replies and events of the protocol (PROTOCOL.md, sections 5 and 7).

A message is a plain table on the wire. Unknown fields are ignored, and a field that has its default
is left out, so either side may be the newer one.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias, TypeVar

from .errors import BridgeError, Code
from .wire import Buffer

M = TypeVar("M", bound="Message")
R = TypeVar("R", bound="Message")

#: Of jobs and uploads; made by the client, and safe as a part of a file's name.
Id: TypeAlias = Annotated[str, re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")]
#: A SHA-256 in hex.
Digest: TypeAlias = Annotated[str, re.compile(r"[0-9a-f]{64}")]
Table: TypeAlias = Mapping[str, Any]

#: Each state of a job, and those that may follow (PROTOCOL.md, section 8).
TRANSITIONS: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"running", "paused", "failed", "cancelled"}),
    "running": frozenset({"queued", "paused", "waiting", "done", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    "waiting": frozenset({"queued", "cancelled"}),
    "done": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
#: Kinds of events that are told once, and not kept.
TRANSIENT = ("progress", "preview", "server")

_table = partial(field, default_factory=dict[str, Any])
if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    @dataclass_transform(frozen_default=True, kw_only_default=True)
    def _message(cls: type[M]) -> type[M]: ...
else:
    # Compared and shown by `Message`, and without slots: an editor waits while these are made.
    _message = dataclass(frozen=True, kw_only=True, eq=False, repr=False)


@_message
class Message:
    """A table on the wire; its field `payloads`, if it has one, is what follows the header."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.table().items())
        return f"{type(self).__name__}({told})"

    def table(self) -> dict[str, Any]:
        """Return plain tables, lists and values, without what has its default."""
        every = {each.name: (getattr(self, each.name), _default(each)) for each in fields(self)}
        every.pop("payloads", None)
        return {name: _plain(value) for name, (value, usual) in every.items() if value != usual}

    @classmethod
    def from_table(cls: type[M], table: Table, payloads: tuple[Buffer, ...] = ()) -> M:
        """Read what `table` wrote.

        Raises:
            BridgeError: a field is missing or of another type (bad_request); names it.
        """
        kinds = _kinds(cls)
        # What follows the header is never in it; there the name means nothing.
        told = {name: kind for name, kind in kinds.items() if name in table and name != "payloads"}
        values = {name: _value(kind, table[name], name) for name, kind in told.items()}
        if "payloads" in kinds:
            values["payloads"] = payloads
        for each in fields(cls):
            if each.name not in values and _default(each) is MISSING:
                raise BridgeError(Code.BAD_REQUEST, f"the field {each.name} is missing")
        return cls(**values)


# -------------------------------------------------------------------------------- parts of replies


@_message
class Keyframe(Message):
    """A styled keyframe. name: for download.chunk; final: it will not change any more."""

    frame: int
    name: str = ""
    path: str = ""
    final: bool = True


@_message
class File(Message):
    """A file that a job made. role: output, keyframe, report, sheet or log; size in bytes.

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


@_message
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
    data: Table = _table()
    payloads: tuple[Buffer, ...] = ()


@_message
class StateChanged(Message):
    """The job's state, or of an event without a job the server's ("stopping").

    before: empty for a new job; why: of a change that nobody asked for, in plain words
    """

    state: str
    before: str = ""
    gate: str = ""
    forecast: Table = _table()
    failure: Table = _table()
    why: str = ""


@_message
class Edited(Message):
    """A change of a keyframe was taken over."""

    revision: int
    frame: int
    what: str
    value: str | None = None


@_message
class Note(Message):
    """Something that the user should know."""

    text: str


@_message
class Progress(Message):
    """How far a stage is; total 0: it has no work. eta_s: seconds until the job rests."""

    stage: str
    done: float
    total: float
    eta_s: float | None = None


@_message
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


@_message
class Nothing(Message):
    """A request that says no more than its operation, or: it was done."""


@_message
class Welcome(Message):
    """The server. limits: as `wire.Limits`; roots: folders that files may be in; none: any.

    workers: `device` and `threads` of each, as the server was told
    """

    minor: int
    server: str
    capabilities: tuple[str, ...] = ()
    limits: Table = _table()
    owner: str = ""
    roots: tuple[str, ...] = ()
    workers: tuple[Table, ...] = ()


@_message
class Pong(Message):
    """subscribed: this connection gets events; doing: what the server is at, in plain words."""

    time: float
    subscribed: bool = False
    running: int = 0
    queued: int = 0
    doing: str = ""


@_message
class Description(Message):
    """effects: descriptors; looks: presets of their parameters."""

    effects: tuple[Table, ...]
    looks: tuple[Table, ...] = ()


@_message
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
    forecast: Table = _table()
    failure: Table = _table()
    output: str = ""
    notes: tuple[str, ...] = ()
    request: Table = _table()
    keyframes: tuple[Keyframe, ...] = ()


@_message
class JobList(Message):
    """jobs: the newest first; more: there are older ones."""

    jobs: tuple[JobInfo, ...] = ()
    more: bool = False


@_message
class Subscription(Message):
    """newest: the newest event of each job that was named, is not at rest, or had one today."""

    newest: Mapping[str, int] = field(default_factory=dict[str, int])


@_message
class Replayed(Message):
    """events: lasting ones in order; newest: the number of the job's newest."""

    newest: int
    events: tuple[Event, ...] = ()


@_message
class Made(Message):
    """What a job made so far. report: rows {name, source, result, state} of the written file."""

    job: str
    state: str
    files: tuple[File, ...] = ()
    report: tuple[Table, ...] = ()


@_message
class UploadInfo(Message):
    """offset: bytes that are here; file: what to call it in a request, once it is complete."""

    upload: str
    offset: int = 0
    file: str = ""


@_message
class Chunk(Message):
    """A part of a file of `size` bytes; the payload holds its bytes from `offset` on."""

    offset: int
    size: int
    payloads: tuple[Buffer, ...] = ()


@_message
class Picture(Message):
    """A styled frame, if it is ready; the payload holds its rows, the top one first."""

    ready: bool
    width: int = 0
    height: int = 0
    depth: str = ""
    components: str = ""
    payloads: tuple[Buffer, ...] = ()


@_message
class Rows(Message):
    """Tables: of models {name, title, role, state, ...}, of doctor {area, subject, state, ...}."""

    rows: tuple[Table, ...] = ()


# ---------------------------------------------------------------------------------------- requests


@_message
class Hello(Message):
    """client: the program that asks, for people; version: its own; minor: of the protocol."""

    client: str
    version: str = ""
    minor: int = 0


@_message
class Submit(Message):
    """A new job, of a request's table or of an effect's values. parent: it is a version of this."""

    job: Id
    request: Table = _table()
    effect: str = ""
    values: Table = _table()
    priority: int = 0
    title: str = ""
    client: str = ""
    parent: str = ""


@_message
class Listing(Message):
    """states: only such jobs; limit: at most so many; before: only older ones than this."""

    states: tuple[str, ...] = ()
    limit: int = 100
    before: str = ""


@_message
class OfJob(Message):
    """The job that is meant."""

    job: Id


@_message
class Approve(OfJob):
    """gate: that the job may pass; until: the gate that it goes on to."""

    gate: str
    until: str = "done"


@_message
class Edit(OfJob):
    """Change a keyframe. base: the revision that was looked at; value None: as it was."""

    base: int
    frame: int
    what: str
    value: str | None = None


@_message
class Subscribe(Message):
    """jobs: of these, none: of all; transient: such kinds too."""

    jobs: tuple[Id, ...] = ()
    transient: tuple[str, ...] = ("progress", "preview")


@_message
class Replay(OfJob):
    """after: the number of the last event that is known; limit: at most so many."""

    after: int = 0
    limit: int = 200


@_message
class OfUpload(Message):
    """The upload that is meant."""

    upload: Id


@_message
class UploadBegin(OfUpload):
    """A file of `size` bytes, called `name`."""

    name: str
    size: int
    sha256: Digest


@_message
class UploadChunk(OfUpload):
    """The payload holds the file's bytes from `offset` on."""

    offset: int
    payloads: tuple[Buffer, ...] = ()


@_message
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


@_message
class DownloadChunk(OfJob):
    """Of the job's file `name`, `length` bytes, or fewer at its end."""

    name: str
    offset: int = 0
    length: int = 1 << 20


@_message
class DownloadFrame(OfJob):
    """A styled frame, by its number in the source; the words are those of `UploadFrame`."""

    frame: int
    depth: str = "u8"
    components: str = "rgba"
    colour: str = "unknown"


@_message
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
DESCRIBE = Op("describe", Nothing, Description)
SUBMIT = Op("submit", Submit, JobInfo)
JOBS = Op("jobs", Listing, JobList)
JOB = Op("job", OfJob, JobInfo)
CANCEL = Op("cancel", OfJob, JobInfo)
PAUSE = Op("pause", OfJob, JobInfo)
RESUME = Op("resume", OfJob, JobInfo)
RETRY = Op("retry", OfJob, JobInfo)
APPROVE = Op("approve", Approve, JobInfo)
EDIT = Op("edit", Edit, JobInfo)
SUBSCRIBE = Op("events.subscribe", Subscribe, Subscription)
UNSUBSCRIBE = Op("events.unsubscribe", Nothing, Nothing)
REPLAY = Op("events.replay", Replay, Replayed)
RESULT = Op("result", OfJob, Made)
UPLOAD_BEGIN = Op("upload.begin", UploadBegin, UploadInfo)
UPLOAD_CHUNK = Op("upload.chunk", UploadChunk, UploadInfo)
UPLOAD_END = Op("upload.end", OfUpload, UploadInfo)
UPLOAD_FRAME = Op("upload.frame", UploadFrame, UploadInfo)
DOWNLOAD_CHUNK = Op("download.chunk", DownloadChunk, Chunk)
DOWNLOAD_FRAME = Op("download.frame", DownloadFrame, Picture)
MODELS = Op("models", Nothing, Rows)
DOCTOR = Op("doctor", Nothing, Rows)
SHUTDOWN = Op("shutdown", Shutdown, Nothing)
OPS: Mapping[str, Op[Any]] = {each.name: each for each in globals().values() if type(each) is Op}


# ------------------------------------------------------------------------------- tables and values


def _default(each: Any) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return value.table()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


@cache
def _kinds(cls: type[Message]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {each.name: hints[each.name] for each in fields(cls)}


def _value(kind: Any, given: Any, name: str) -> Any:
    """Check a value that came over the wire; tables become messages, lists tuples."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        _check(isinstance(given, str) and inner[1].fullmatch(given), name, inner[1].pattern, given)
        return given
    if origin is tuple:
        _check(isinstance(given, list | tuple), name, "a list", given)
        return tuple(_value(inner[0], item, name) for item in given)
    if origin is Mapping:
        _check(isinstance(given, Mapping), name, "a table", given)
        return {key: _value(inner[1], item, name) for key, item in given.items()}
    if type(None) in inner:
        return None if given is None else _value(inner[0], given, name)
    if isinstance(kind, type) and issubclass(kind, Message):
        _check(isinstance(given, Mapping), name, "a table", given)
        return kind.from_table(given)
    return given if kind is Any else _scalar(kind, given, name)


def _scalar(kind: Any, given: Any, name: str) -> Any:
    """Check a text, number or truth value; a whole number is a number too."""
    wanted = int | float if kind is float else kind
    good = isinstance(given, wanted) and isinstance(given, bool) is (kind is bool)
    if kind is int:
        good = good and -(2**63) <= given < 2**63
    _check(good and (kind is not float or math.isfinite(given)), name, _WORDS[kind], given)
    return float(given) if kind is float else given


_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _check(good: Any, name: str, wanted: str, given: Any) -> None:
    if not good:
        told = repr(given)
        told = told if len(told) <= 60 else f"{told[:57]}..."
        raise BridgeError(Code.BAD_REQUEST, f"{name}: {told} is not {wanted}")
