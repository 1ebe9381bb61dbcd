"""What must outlive the server: jobs, their events, and replies, in one SQLite file.

One thread at a time. What is committed is on the disk; a job's row and the event that tells of its
change are committed together, so that neither is ever known without the other.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Event

#: Raised by one with every change of the tables that an older program could not read.
VERSION = 2
#: Replies that are kept for each session (PROTOCOL.md, section 4), and of all of them.
_REPLIES, _ALL_REPLIES = 64, 10_000
#: Bytes below which a disk counts as full: SQLite does not always say why it cannot write.
_ROOM = 1 << 18
#: Seconds; all who ask of jobs wait meanwhile.
_PATIENCE = 2.0

_SCHEMA = """
create table jobs (
    place integer primary key autoincrement,
    id text not null unique,
    owner text not null, state text not null, seq integer not null, revision integer not null,
    title text not null, client text not null, parent text not null, priority integer not null,
    created real not null, changed real not null,
    asked text not null, request text not null,
    gate text not null, passed text not null, forecast text not null, failure text not null,
    output text not null, notes text not null, keyframes text not null, report text not null,
    units text not null, crashes integer not null, span text not null,
    wish text not null default ''
);
create index by_state on jobs (state, priority desc, place);
create table events (
    job text not null, seq integer not null, time real not null, kind text not null,
    data text not null, primary key (job, seq)
) without rowid;
create table replies (
    session text not null, id text not null, time real not null, reply text not null,
    primary key (session, id)
);
create table speeds (what text primary key, seconds real not null, amount real not null);
"""
#: What brings a file of the version before up to date.
_NEWER = {1: "alter table jobs add column wish text not null default '';"}

Table: TypeAlias = dict[str, Any]
#: Is told of every event, in order, once it is on the disk.
Tell: TypeAlias = Callable[[Event, str], None]


@dataclass(slots=True)
class Row:
    """A job, as it is kept.

    place: its number in the order of submission
    asked: the request as submitted; request: with all edits
    passed: the gate that was passed last
    keyframes: newest first known state of each keyframe by its frame, as `Keyframe` tables
    report: how the written file compares with its source
    units: keys of the results that it stands on
    span: the source's frames [first, behind the last], once they are known
    crashes: workers that ended at it since it last came forward
    wish: the state for which it is being stopped, while it runs
    """

    id: str
    owner: str
    state: str = ""
    seq: int = 0
    revision: int = 1
    title: str = ""
    client: str = ""
    parent: str = ""
    priority: int = 0
    created: float = 0.0
    changed: float = 0.0
    asked: Table = field(default_factory=dict[str, Any])
    request: Table = field(default_factory=dict[str, Any])
    gate: str = ""
    passed: str = ""
    forecast: Table = field(default_factory=dict[str, Any])
    failure: Table = field(default_factory=dict[str, Any])
    output: str = ""
    notes: list[str] = field(default_factory=list[str])
    keyframes: Table = field(default_factory=dict[str, Any])
    report: list[Table] = field(default_factory=list[Table])
    units: list[str] = field(default_factory=list[str])
    crashes: int = 0
    span: list[int] = field(default_factory=list[int])
    wish: str = ""
    place: int = 0


_COLUMNS = [each.name for each in fields(Row) if each.name != "place"]
#: Long, and not needed where many jobs are listed.
_LONG = frozenset({"asked", "request", "keyframes", "report", "units", "span"})
_AS_JSON = frozenset(
    {"asked", "request", "forecast", "failure", "notes", "keyframes", "report", "units", "span"}
)


class Journal:
    """The file; made if it is not there.

    tell: called after each commit with its events and the jobs' owners
    """

    def __init__(
        self, file: Path, tell: Tell = lambda _event, _owner: None, patience: float = _PATIENCE
    ) -> None:
        """Open it.

        patience: seconds for which it is waited for where another program holds it

        Raises:
            BridgeError: it is damaged, or a newer program's (internal); the disk is full
                (no_space); another program holds it (busy).
        """
        self._tell = tell
        self._waiting: list[tuple[Event, str]] = []
        self._file = file
        try:
            self._base = sqlite3.connect(
                file, timeout=patience, isolation_level=None, check_same_thread=False
            )
            self._base.row_factory = sqlite3.Row
            # Committed means on the disk, also when the power goes. What `checkpoint` does would
            # make every so many commits wait for it.
            for setting in ("journal_mode = wal", "synchronous = full", "wal_autocheckpoint = 0"):
                self._base.execute(f"pragma {setting}")
            self._prepare(file)
        except sqlite3.DatabaseError as error:
            raise _refused(file, error) or _unreadable(file, str(error)) from error

    def _prepare(self, file: Path) -> None:
        (version,) = self._base.execute("pragma user_version").fetchone()
        if version in (0, *_NEWER):
            script = _NEWER.get(version, _SCHEMA)
            self._base.executescript(f"begin; {script} pragma user_version = {VERSION}; commit;")
        elif version != VERSION:
            raise _unreadable(file, f"it has version {version}, this program reads {VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    @contextmanager
    def change(self, durable: bool = True) -> Generator[None]:
        """Make everything within one change: all of it, or nothing; then tell of its events.

        durable: not to be lost when the power goes. Else it is not waited for the disk: it outlives
            this process, and becomes durable with the next change that is

        Raises:
            BridgeError: the disk is full (no_space); another program holds the file (busy).
        """
        try:
            self._base.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
            self._base.execute("begin immediate")
            yield
            self._base.execute("commit")
        except BaseException as error:
            self._waiting.clear()
            if self._base.in_transaction:  # not where the disk was full: then it is rolled back
                self._base.execute("rollback")
            if isinstance(error, sqlite3.OperationalError):
                raise _refused(self._file, error) or error from error
            raise
        waiting, self._waiting = self._waiting, []
        for event, owner in waiting:
            self._tell(event, owner)

    # --------------------------------------------------------------------------------------- jobs

    def find(self, job: str) -> Row | None:
        """Return a job; None if there is none of this id."""
        found = self._base.execute("select * from jobs where id = ?", (job,)).fetchone()
        return found and _row(found)

    def select(self, where: str, values: Iterable[Any] = (), limit: int = -1) -> list[Row]:
        """Return jobs. where: what follows "where" in SQL; values: for its question marks."""
        query = f"select * from jobs where {where} limit ?"
        return [_row(found) for found in self._base.execute(query, (*values, limit))]

    def glance(self, where: str, values: Iterable[Any], limit: int) -> list[Row]:
        """Return jobs as `select` does, without what is long."""
        names = [name for name in (*_COLUMNS, "place") if name not in _LONG]
        query = f"select {', '.join(names)} from jobs where {where} limit ?"
        return [_row(found, names) for found in self._base.execute(query, (*values, limit))]

    def numbers(self, where: str, values: Iterable[Any], limit: int) -> list[tuple[int, str, int]]:
        """Return of jobs their place, their id and the number of their newest event."""
        query = f"select place, id, seq from jobs where {where} limit ?"
        return [tuple(found) for found in self._base.execute(query, (*values, limit))]

    def count(self, state: str) -> int:
        """Return how many jobs are in a state."""
        query = "select count(*) from jobs where state = ?"
        return int(self._base.execute(query, (state,)).fetchone()[0])

    def add(self, row: Row) -> None:
        """Add a job."""
        columns, marks = ", ".join(_COLUMNS), ", ".join("?" * len(_COLUMNS))
        self._base.execute(
            f"insert into jobs ({columns}) values ({marks})",
            [_plain(row, name) for name in _COLUMNS],
        )

    def put(self, row: Row, *names: str) -> None:
        """Bring what has changed of a job to the file."""
        columns = ", ".join(f"{name} = ?" for name in names)
        values = [_plain(row, name) for name in names]
        self._base.execute(f"update jobs set {columns} where id = ?", (*values, row.id))

    def unchanged(self, states: Sequence[str], since: float) -> list[str]:
        """Return the ids of jobs that are in one of `states`, and have been since before a time."""
        query = f"select id from jobs where state in ({_marks(states)}) and changed < ?"
        return [found["id"] for found in self._base.execute(query, (*states, since))]

    def forget(self, job: str) -> None:
        """Remove a job, with its events."""
        self._base.execute("delete from events where job = ?", (job,))
        self._base.execute("delete from jobs where id = ?", (job,))

    # ------------------------------------------------------------------------------------- events

    def forget_events(self, states: Sequence[str], before: float) -> None:
        """Remove all events but the newest of jobs that came to one of `states` before a time."""
        self._base.execute(
            f"delete from events where exists (select 1 from jobs where id = job and "
            f"events.seq < jobs.seq and state in ({_marks(states)}) and changed < ?)",
            (*states, before),
        )

    def tell(self, row: Row, kind: str, data: Mapping[str, Any], time: float) -> Event:
        """Add a lasting event to a job; within `change`."""
        row.seq, row.changed = row.seq + 1, time
        event = Event(event=kind, job=row.id, seq=row.seq, time=time, data=data)
        self._base.execute(
            "insert into events values (?, ?, ?, ?, ?)",
            (row.id, row.seq, time, kind, json.dumps(dict(data))),
        )
        self.put(row, "seq", "changed")
        self._waiting.append((event, row.owner))
        return event

    def events(self, job: str, after: int, limit: int) -> list[Event]:
        """Return lasting events of a job, in order."""
        query = "select * from events where job = ? and seq > ? order by seq limit ?"
        return [_event(found) for found in self._base.execute(query, (job, after, limit))]

    def newest(self, job: str, kind: str) -> Event | None:
        """Return a job's newest lasting event of a kind; None if there is none."""
        query = "select * from events where job = ? and kind = ? order by seq desc limit 1"
        found = self._base.execute(query, (job, kind)).fetchone()
        return found and _event(found)

    # ------------------------------------------------------------------------------------ replies

    def reply(self, session: str, id_: str) -> Table | None:
        """Return the reply that was kept for a request; None if there is none."""
        query = "select reply from replies where session = ? and id = ?"
        found = self._base.execute(query, (session, id_)).fetchone()
        return found and json.loads(found["reply"])

    def keep_reply(self, session: str, id_: str, reply: Table, time: float) -> None:
        """Keep the reply to a request; the oldest of the session go."""
        # Old ones are told by their order, not by the clock, which may jump.
        values = (session, id_, time, json.dumps(reply))
        self._base.execute("insert or replace into replies values (?, ?, ?, ?)", values)
        self._base.execute(
            "delete from replies where session = ? and rowid not in "
            "(select rowid from replies where session = ? order by rowid desc limit ?)",
            (session, session, _REPLIES),
        )
        query = "delete from replies where rowid <= (select max(rowid) from replies) - ?"
        self._base.execute(query, (_ALL_REPLIES,))

    # ------------------------------------------------------------------------------------- speeds

    def speeds(self) -> dict[str, tuple[float, float]]:
        """Return what was learnt: what → seconds, and the amount of work done in them."""
        return {own["what"]: (own["seconds"], own["amount"])
                for own in self._base.execute("select * from speeds")}  # fmt: skip

    def learn(self, what: str, seconds: float, amount: float) -> None:
        """Keep how long an amount of work took."""
        values = (what, seconds, amount)
        self._base.execute("insert or replace into speeds values (?, ?, ?)", values)


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def read_speeds(file: Path) -> dict[str, tuple[float, float]]:
    """Return what was learnt (`Journal.speeds`) without a server; nothing where nothing was."""
    with suppress(sqlite3.Error), closing(_read_only(file)) as base:
        return {what: (seconds, amount)
                for what, seconds, amount in base.execute("select * from speeds")}  # fmt: skip
    return {}


def read_jobs(file: Path, limit: int) -> list[Row]:
    """Return the newest jobs, without a server.

    Raises:
        BridgeError: the file is there and cannot be read (internal).
    """
    if not file.exists():
        return []
    try:
        with closing(_read_only(file)) as base:
            base.row_factory = sqlite3.Row
            query = "select * from jobs order by place desc limit ?"
            return [_row(found) for found in base.execute(query, (limit,))]
    except (sqlite3.Error, IndexError) as error:
        raise _unreadable(file, str(error)) from error


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)


def _row(found: sqlite3.Row, names: Sequence[str] = (*_COLUMNS, "place")) -> Row:
    values = {name: json.loads(found[name]) if name in _AS_JSON else found[name] for name in names}
    return Row(**values)


def _event(found: sqlite3.Row) -> Event:
    data = json.loads(found["data"])
    return Event(
        event=found["kind"], job=found["job"], seq=found["seq"], time=found["time"], data=data
    )


def _plain(row: Row, name: str) -> Any:
    value = getattr(row, name)
    return json.dumps(value) if name in _AS_JSON else value


def checkpoint(file: Path) -> None:
    """Bring what was committed from the log beside the file into it; nobody waits for that.

    Raises:
        sqlite3.OperationalError: it cannot be written now; later is as good.
    """
    with closing(sqlite3.connect(file, timeout=0)) as base:
        base.execute("pragma wal_checkpoint(passive)")


def _refused(file: Path, error: sqlite3.DatabaseError) -> BridgeError | None:
    """What to say of an error, if it is the full disk's, or another program's that has the file."""
    if "is locked" in str(error):
        return BridgeError(Code.BUSY, f"another program holds the journal {file}",
                           "close what has it open, as a backup or a database browser, and try "
                           "again")  # fmt: skip
    try:
        free = shutil.disk_usage(file.parent).free
    except OSError:
        free = _ROOM
    if "is full" not in str(error) and free >= _ROOM:
        return None
    return BridgeError(Code.NO_SPACE, f"the disk with {file.parent} is full",
                       "make room, then try again")  # fmt: skip


def _unreadable(file: Path, why: str) -> BridgeError:
    return BridgeError(
        Code.INTERNAL, f"the journal {file} cannot be read: {why}",
        "move it elsewhere to begin with an empty one; clips that were made are not in it",
    )  # fmt: skip
