"""What may be done to jobs, and what becomes of them (PROTOCOL.md, sections 5 and 8).

Every method that changes something is called within `Journal.change`. None waits for work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bridge_server import access, descriptor, failures, pages, request
from bridge_server.access import Owner
from bridge_server.journal import Journal, Row
from bridge_server.request import GATES, Change, Request
from bridge_server.states import AT_REST, TRANSITIONS
from bridge_server.words import cut
from fresco.errors import FrescoError
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import (
    Approve,
    Edit,
    Edited,
    JobInfo,
    JobList,
    Keyframe,
    Listing,
    Note,
    Replay,
    Replayed,
    StateChanged,
    Submit,
    Subscribe,
)
from host_plugins.link.wire import LIMITS

EFFECT = "io.fresco.Stylise"
#: Jobs that are in another state than those at rest, in SQL.
_UNFINISHED = f"state not in {AT_REST}"
#: What a running job may be stopped for; a later one beats an earlier one.
_WISHES = ("", "queued", "paused", "cancelled")
#: Why one comes forward again that was stopped for that.
_CHANGED = "it was changed, or resumed"
_CHANGES = ("prompt", "negative", "strength", "seed", "painted")
_DAY = 24 * 3600.0
_MOST = 200
_PRIORITIES = range(-100, 101)
#: Workers that may end at a job, one after the other with nothing done between, before it fails.
_CRASHES = 5
#: Seconds for which the events of jobs at rest are kept but for the newest, their logs, and they
#: themselves (PROTOCOL.md, section 8); and the results of those that wait at a gate.
_EVENTS_S, _LOGS_S, _JOBS_S, _WAITS_S = 7 * _DAY, 30 * _DAY, 365 * _DAY, 30 * _DAY

#: Bytes that are told of a title, a client, a path and a note; notes that are told of, the newest.
_TITLE, _CLIENT, _PATH, _NOTE, _NOTES = 1000, 200, access.LONGEST_PATH, 500, 32
#: Characters of an id.
_ID = 64
#: Bytes and values of a request beside its changes and tracks (PROTOCOL.md, section 9).
_REQUEST = (96 << 10, 1 << 12)
#: Keyframes that are named where one is asked for that there is not.
_NAMED = 6

Table = dict[str, Any]


class Jobs:
    """The jobs of a journal.

    clock: seconds since 1970
    """

    def __init__(self, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self.journal, self._clock = journal, clock

    # ---------------------------------------------------------------------------------- questions

    def find(self, owner: Owner, job: str) -> Row:
        """Return a job.

        Raises:
            BridgeError: there is none that `owner` may see (not_found).
        """
        row = self.journal.find(job)
        if row is None or not owner.sees(row.owner):
            raise BridgeError(Code.NOT_FOUND, f"there is no job {job}", "see which there are: jobs")
        return row

    def list(self, owner: Owner, asked: Listing) -> JobList:
        """Return jobs, the newest first.

        Raises:
            BridgeError: a limit that cannot be (invalid).
        """
        limit = _limit(asked.limit)
        where: list[str] = ["1"]
        values: list[Any] = []
        if not owner.local:
            where, values = ["owner = ?"], [owner.name]
        if asked.states:
            where.append(f"state in ({', '.join('?' * len(asked.states))})")
            values += asked.states
        if asked.before:
            where.append("place < ?")
            values.append(self.find(owner, asked.before).place)
        query = f"{' and '.join(where)} order by place desc"
        found = self.journal.glance(query, values, limit + 1)
        return JobList(jobs=tuple(map(info, found[:limit])), more=len(found) > limit)

    def replay(self, owner: Owner, asked: Replay) -> Replayed:
        """Return lasting events of a job.

        Raises:
            BridgeError: there is no such job (not_found); a limit that cannot be (invalid).
        """
        row = self.find(owner, asked.job)
        events = self.journal.events(row.id, asked.after, _limit(asked.limit))
        return Replayed(newest=row.seq, events=tuple(events))

    def newest(self, owner: Owner, asked: Subscribe) -> Table:
        """Return the numbers of the newest events of the jobs that a subscription is about.

        A page of them, as a table of `Subscription`.
        """
        found = self._named(owner, asked) if asked.jobs else self._recent(owner, asked.page)
        return pages.paged({}, "newest", found, lambda parts: dict(own for _, own in parts))

    def _named(self, owner: Owner, asked: Subscribe) -> Iterator[pages.Part]:
        for job in sorted(set(asked.jobs)):
            if job > asked.page:
                where = "id = ? and (? or owner = ?)"
                for _, *told in self.journal.numbers(where, [job, owner.local, owner.name], 1):
                    yield job, told

    def _recent(self, owner: Owner, page: str) -> Iterator[pages.Part]:
        """Jobs that are not at rest, or had an event within a day; the newest first."""
        before = int(page) if page.isdecimal() else 2**62
        where = (f"({_UNFINISHED} or changed > ?) and place < ? and (? or owner = ?) "
                 "order by place desc")  # fmt: skip
        values = [self._clock() - _DAY, before, owner.local, owner.name]
        for place, *told in self.journal.numbers(where, values, LIMITS.items // 2):
            yield str(place), told

    def unfinished(self) -> list[Row]:
        """Return all jobs that may go on."""
        return self.journal.select(_UNFINISHED)

    def results_needed(self) -> set[str]:
        """Return the keys of results that jobs stand on which may go on.

        Not of one that has long waited at its gate: whoever looks at a few keyframes may never
        come back, and what is missing then is made anew.
        """
        rows = self.journal.select(
            f"{_UNFINISHED} and (state != 'waiting' or changed > ?)", [self._clock() - _WAITS_S]
        )
        return {unit for row in rows for unit in row.units}

    # ------------------------------------------------------------------------------------ changes

    def known(self, owner: Owner, job: str, wanted: Request) -> Row | None:
        """Return the job of this id; None if there is none.

        Raises:
            BridgeError: it was asked for with other words, or by somebody else (conflict).
        """
        known = self.journal.find(job)
        if known is not None and (known.owner != owner.name or known.asked != wanted.table()):
            raise BridgeError(
                Code.CONFLICT, f"the id {job} stands for another job", "submit it with a new id"
            )
        return known

    def submit(self, owner: Owner, asked: Submit, checked: bool = False) -> Row:
        """Add a job, or find the one that was added by the same words.

        checked: its files were looked at; that may take long, and the journal must not wait for it

        Raises:
            BridgeError: what is asked for cannot be (invalid, not_found, forbidden, bad_request);
                the id stands for another job (conflict).
        """
        wanted = to_request(asked)
        known = self.known(owner, asked.job, wanted)
        if known is not None:
            return known
        if len(asked.parent) > _ID:
            raise BridgeError(Code.INVALID, "parent: no job has an id of more than 64 characters")
        if asked.priority not in _PRIORITIES:
            raise BridgeError(Code.INVALID, f"priority: {asked.priority} is not -100 to 100")
        if not checked:
            access.check(wanted, owner)
        row = Row(
            id=asked.job, owner=owner.name, title=asked.title, client=asked.client,
            parent=asked.parent, priority=asked.priority, created=self._clock(),
            asked=wanted.table(), request=wanted.table(), output=wanted.output,
        )  # fmt: skip
        self.journal.add(row)
        self._move(row, "queued")
        return row

    def cancel(self, owner: Owner, job: str) -> Row:
        """Cancel a job, unless it is at rest; one that runs, once its worker has stopped."""
        row = self.find(owner, job)
        if row.state == "running":
            self._wish(row, "cancelled")
        elif row.state not in AT_REST:
            self._move(row, "cancelled")
        return row

    def pause(self, owner: Owner, job: str) -> Row:
        """Pause a job; one that runs, once its worker has stopped.

        Raises:
            BridgeError: there is no such job (not_found); it cannot be paused (wrong_state).
        """
        row = self.find(owner, job)
        if row.state == "queued":
            self._move(row, "paused")
        elif row.state == "running":
            self._wish(row, "paused")
        elif row.state != "paused":
            raise _wrong_state(row, "be paused")
        return row

    def resume(self, owner: Owner, job: str) -> Row:
        """Let a job come forward again that is paused, or is to be.

        Raises:
            BridgeError: there is no such job (not_found); it does not rest (wrong_state).
        """
        row = self.find(owner, job)
        self._go_on(row, "paused")
        if row.state == "paused":
            self._move(row, "queued")
        elif row.state not in ("running", "queued"):
            raise _wrong_state(row, "be resumed")
        return row

    def retry(self, owner: Owner, job: str) -> Row:
        """Let a job that failed, was cancelled or is to be, go on where it was."""
        row = self.find(owner, job)
        self._go_on(row, "cancelled")
        if row.state in ("failed", "cancelled"):
            row.crashes = 0
            self.journal.put(row, "crashes")
            self._move(row, "queued")
        return row

    def _wish(self, row: Row, state: str) -> None:
        """Keep what a running job is to become; who does not want it any more is not overruled."""
        row.wish = max(row.wish, state, key=_WISHES.index)
        self.journal.put(row, "wish")

    def _go_on(self, row: Row, wish: str) -> None:
        """Take back that a job is to become `wish`; its worker may have been stopped for it."""
        if row.wish == wish:
            row.wish = "queued"
            self.journal.put(row, "wish")

    def approve(self, owner: Owner, asked: Approve) -> Row:
        """Let a job pass the gate where it waits.

        Raises:
            BridgeError: there is no such job (not_found) or gate (invalid); the job has not come
                there yet (conflict).
        """
        row = self.find(owner, asked.job)
        if asked.gate not in GATES[:-1] or asked.until not in _later(asked.gate):
            raise BridgeError(
                Code.INVALID, f"until: {asked.until!r} is not later than {asked.gate!r}",
                f"the gates are, in this order: {', '.join(GATES)}",
            )  # fmt: skip
        if row.passed in GATES[GATES.index(asked.gate) :]:
            return row
        if row.state != "waiting" or row.gate != asked.gate:
            comes = row.request.get("until", "done") == asked.gate
            raise BridgeError(
                Code.CONFLICT, f"job {row.id} does not wait at {asked.gate}; it is {row.state}",
                "wait for it to come there" if comes else "it does not stop there",
            )  # fmt: skip
        row.passed, row.request = asked.gate, {**row.request, "until": asked.until}
        self.journal.put(row, "passed", "request")
        self._move(row, "queued")
        return row

    def edit(self, owner: Owner, asked: Edit) -> Row:
        """Change a keyframe of a job; one that runs goes on with that once its worker has stopped.

        A painted picture was looked at before: see `access.check_read`.

        Raises:
            BridgeError: there is no such job (not_found); somebody changed it meanwhile
                (conflict); no such keyframe or value (invalid); it is done (wrong_state).
        """
        row = self.find(owner, asked.job)
        if asked.base == row.revision - 1 and self._was_edited(row, asked):
            return row
        if row.state == "done":
            raise _wrong_state(row, "change any more", "submit a new job with the change")
        if asked.base != row.revision:
            raise BridgeError(
                Code.CONFLICT, f"job {row.id} is at revision {row.revision}, not {asked.base}",
                "look at it again",
            )  # fmt: skip
        row.request = _edited(row, asked)
        row.revision += 1
        row.keyframes = {
            frame: {**own, "final": own.get("final", True) and int(frame) != asked.frame}
            for frame, own in row.keyframes.items()
        }
        self.journal.put(row, "request", "revision", "keyframes")
        told = Edited(revision=row.revision, frame=asked.frame, what=asked.what, value=asked.value)
        self.journal.tell(row, "edited", told.table(), self._clock())
        if row.state == "running":
            self._wish(row, "queued")
        elif row.state == "waiting":
            self._move(row, "queued")
        return row

    def _was_edited(self, row: Row, asked: Edit) -> bool:
        """Whether the newest change is this one."""
        wanted = Edited(
            revision=row.revision, frame=asked.frame, what=asked.what, value=asked.value
        )
        newest = self.journal.newest(row.id, "edited")
        return newest is not None and Edited.from_table(newest.data) == wanted

    def tidy(self) -> tuple[Sequence[str], Sequence[str]]:
        """Let go of what nobody will ask for any more: see `_EVENTS_S` and below.

        Returns the jobs of which the logs are no longer kept, and those that were forgotten.
        """
        now = self._clock()
        forgotten = self.journal.unchanged((*AT_REST, "waiting"), now - _JOBS_S)
        for job in forgotten:
            self.journal.forget(job)
        self.journal.forget_events(AT_REST, now - _EVENTS_S)
        return self.journal.unchanged(AT_REST, now - _LOGS_S), forgotten

    def once(
        self, session: str, id_: str, change: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Return what `change` returns, or what it returned when the same request came before.

        Raises:
            BridgeError: what `change` raises, or raised when the same request came before.
        """
        kept = self.kept(session, id_)
        if kept is not None:
            return kept
        reply = dict(change())
        self.journal.keep_reply(session, id_, reply, self._clock())
        return reply

    def kept(self, session: str, id_: str) -> Mapping[str, Any] | None:
        """Return the reply that was kept for a request; None if there is none.

        Raises:
            BridgeError: it was refused.
        """
        kept = self.journal.reply(session, id_)
        if kept is not None and "code" in kept:
            raise BridgeError.from_table(kept)
        return kept

    def keep_refusal(self, session: str, id_: str, error: BridgeError) -> None:
        """Keep that a request was refused; not where it may succeed later."""
        if not error.retryable and self.journal.reply(session, id_) is None:
            self.journal.keep_reply(session, id_, error.table(), self._clock())

    # ------------------------------------------------------------------------------------ workers

    def next(self, ready: Callable[[str], bool] = lambda _job: True) -> Row | None:
        """Let the queued job whose turn it is run; None if there is none.

        ready: whether what a job needs is there
        """
        queue = self.journal.numbers("state = 'queued' order by priority desc, place", (), -1)
        row = next((self._row(job) for _, job, _ in queue if ready(job)), None)
        if row is not None:
            row.failure = {}
            self.journal.put(row, "failure")
            self._move(row, "running")
        return row

    def recover(self) -> list[Row]:
        """Let jobs come forward again that ran when the server ended, unless they were stopped."""
        found = self.journal.select("state = 'running' order by place")
        for row in found:
            self._move(row, row.wish or "queued", why="the server was started anew")
        return found

    def settled(self, job: str, output: str, span: list[int], notes: list[str]) -> None:
        """Keep what a worker found out about a job before the work."""
        row = self._row(job)
        row.output, row.span = output, span
        self.journal.put(row, "output", "span")
        for text in notes:
            self.note(job, text)

    def expected(self, job: str, forecast: Table) -> None:
        """Keep what a job will take, now that its keyframes are known."""
        row = self._row(job)
        row.forecast = forecast
        self.journal.put(row, "forecast")

    def note(self, job: str, text: str) -> None:
        """Tell the user something about a job, once."""
        row, text = self._row(job), cut(text, failures.LONGEST)
        if text not in row.notes:
            row.notes = [*row.notes, text]
            self.journal.put(row, "notes")
            self.journal.tell(row, "note", Note(text=text).table(), self._clock())

    def note_waiting(self, text: str) -> None:
        """Tell the users of all queued jobs something, once."""
        for row in self.journal.select("state = 'queued' order by place"):
            self.note(row.id, text)

    def keyframe(self, job: str, keyframe: Keyframe) -> None:
        """Keep where a styled keyframe is, and tell of it if that was not known."""
        row = self._row(job)
        table, frame = keyframe.table(), str(keyframe.frame)
        if row.keyframes.get(frame) == table:
            return
        row.keyframes, row.crashes = {**row.keyframes, frame: table}, 0
        self.journal.put(row, "keyframes", "crashes")
        self.journal.tell(row, "keyframe", table, self._clock())

    def uses(self, job: str, units: list[str], forward: bool = True) -> None:
        """Keep which results a job stands on. forward: they were made just now."""
        row = self._row(job)
        row.units, row.crashes = sorted({*row.units, *units}), 0 if forward else row.crashes
        self.journal.put(row, "units", "crashes")

    def done(self, job: str, revision: int, report: list[Table], keyframes: list[int]) -> Row:
        """Take a finished job over, unless it was changed meanwhile."""
        row = self._row(job)
        if self._outdated(row, revision):
            return row
        row.report, row.forecast = report, {}
        self._forget_keyframes(row, keyframes)
        self.journal.put(row, "report", "forecast")
        self._move(row, "done")
        return row

    def rested(self, job: str, revision: int, keyframes: list[int], forecast: Table) -> Row:
        """Let a job wait at its gate, unless a client wants it otherwise or has changed it."""
        row = self._row(job)
        if self._as_wished(row, "cancelled", "paused") or self._outdated(row, revision):
            return row
        row.gate, row.forecast = str(row.request.get("until", "done")), forecast
        self._forget_keyframes(row, keyframes)
        self.journal.put(row, "gate", "forecast")
        self._move(row, "waiting", gate=row.gate, forecast=forecast)
        return row

    def _outdated(self, row: Row, revision: int) -> bool:
        """Whether a job was changed since it had `revision`; then it is not yet what it became."""
        if row.revision == revision:
            return False
        self._move(row, row.wish or "queued", why="a keyframe was changed")
        return True

    def _forget_keyframes(self, row: Row, keyframes: list[int]) -> None:
        """Forget those that the job has no more."""
        row.keyframes = {frame: own for frame, own in row.keyframes.items()
                         if int(frame) in keyframes}  # fmt: skip
        self.journal.put(row, "keyframes")

    def stopped(self, job: str, why: str) -> Row:
        """Give a job that was stopped the state for which it was; else it comes forward again.

        why: it was stopped, where nobody wished it
        """
        row = self._row(job)
        if not self._as_wished(row):
            self._move(row, "queued", why=why)
        return row

    def failed(self, job: str, failure: BridgeError, revision: int) -> Row:
        """Let a job fail, and say why; unless it was cancelled, or changed since `revision`."""
        row = self._row(job)
        if not self._as_wished(row, "cancelled") and not self._outdated(row, revision):
            self._fail(row, failure)
        return row

    def crashed(self, job: str, failure: BridgeError) -> Row:
        """Let a job come forward again whose worker ended; if too often, let it fail.

        One that was to be stopped becomes what it was to be stopped for.
        """
        row = self._row(job)
        if self._as_wished(row):
            return row
        row.crashes += 1
        self.journal.put(row, "crashes")
        if row.crashes >= _CRASHES:
            why = f"{failure.message}, {row.crashes} times with nothing done between"
            self._fail(row, BridgeError(failure.code, why, failure.hint))
        else:
            self._move(row, "queued", why=failure.message)
        return row

    def _fail(self, row: Row, failure: BridgeError) -> None:
        row.failure = failure.table()
        self.journal.put(row, "failure")
        self._move(row, "failed", failure=row.failure)

    def _as_wished(self, row: Row, *wishes: str) -> bool:
        """Give a job that ended the state that a client wants for it; whether there is one.

        Looked at within the change of the end: a wish that came before is fulfilled, and one that
        comes later finds the job in its new state.

        wishes: that count where it ended so; none: all
        """
        if row.wish not in (wishes or _WISHES[1:]):
            return False
        self._move(row, row.wish, why=_CHANGED if row.wish == "queued" else "")
        return True

    def _row(self, job: str) -> Row:
        row = self.journal.find(job)
        assert row is not None, "jobs are never removed while they run"
        return row

    def _move(self, row: Row, state: str, **more: Any) -> None:
        before = row.state
        if before and state not in TRANSITIONS[before]:
            raise _wrong_state(row, f"become {state}")
        row.state, row.wish = state, ""
        if state != "waiting":
            row.gate = ""
        self.journal.put(row, "state", "gate", "wish")
        told = StateChanged(state=state, before=before, **more)
        self.journal.tell(row, "state", told.table(), self._clock())


def info(row: Row) -> JobInfo:
    """Return a job as clients see it where many are listed; what is endless is cut off."""
    failure = {name: cut(value, failures.LONGEST) if isinstance(value, str) else value
               for name, value in row.failure.items()}  # fmt: skip
    return JobInfo(
        job=row.id, state=row.state, seq=row.seq, revision=row.revision,
        title=cut(row.title, _TITLE), client=cut(row.client, _CLIENT), owner=row.owner,
        parent=cut(row.parent, _CLIENT), priority=row.priority, created=row.created,
        changed=row.changed, gate=row.gate, forecast=row.forecast, failure=failure,
        output=cut(row.output, _PATH),
        notes=tuple(cut(text, _NOTE) for text in row.notes[-_NOTES:]),
    )  # fmt: skip


def whole(row: Row, told: JobInfo, after: str = "") -> Table:
    """Return a job with its request and keyframes, or a page of that, as a table of `JobInfo`.

    told: what else is told of it, on the first page; after: where the page before ended
    """
    rest: Table = {"job": told.job, "state": told.state, "seq": told.seq}
    asked: Table = {}
    if not after:
        rest = told.table()
        asked = {name: value for name, value in row.request.items() if name not in _OF_REQUEST}
    parts = ((key, value) for key, value in _parts(row) if key > after)
    taken, following = pages.page({**rest, "request": asked}, parts)
    lists: dict[str, list[Any]] = {}
    for key, value in taken:
        lists.setdefault(_LISTS[key[0]], []).append(value)
    asked |= {name: lists[name] for name in _OF_REQUEST if name in lists}
    more = {"request": asked, "keyframes": lists.get("keyframes"), "next": following}
    return {**rest, **{name: value for name, value in more.items() if value}}


#: The lists of a job that may be of any length, by what the keys of their parts begin with.
_LISTS = {"c": "changes", "d": "tracks", "k": "keyframes"}
_OF_REQUEST = ("changes", "tracks")


def _parts(row: Row) -> Iterator[pages.Part]:
    """The parts of these lists, one list after the other."""
    changes = row.request.get("changes", ())
    for own in sorted(changes, key=lambda own: (own["frame"], own["what"])):
        yield f"c{own['frame']:020d} {own['what']}", own
    for number, own in enumerate(row.request.get("tracks", ())):  # they stay as submitted
        yield f"d{number:020d}", own
    for frame in sorted(row.keyframes, key=int):
        yield f"k{int(frame):020d}", row.keyframes[frame]


def to_request(asked: Submit) -> Request:
    """Make the request that is asked for.

    Raises:
        BridgeError: there are two, or none (bad_request); a field or value that cannot be
            (invalid); more than a reply could tell (too_large).
    """
    if bool(asked.request) == bool(asked.effect):
        raise BridgeError(Code.BAD_REQUEST, "request or effect: one of them must be given")
    if asked.effect not in ("", EFFECT):
        raise BridgeError(Code.INVALID, f"effect: there is no {asked.effect!r}, only {EFFECT}")
    try:
        table = asked.request or descriptor.to_request(asked.values)
        wanted = request.from_table(table)
    except FrescoError as error:
        raise BridgeError(Code.INVALID, str(error)) from error
    bytes_, values = pages.size(replace(wanted, changes=(), tracks=()).table())
    if bytes_ > _REQUEST[0] or values > _REQUEST[1]:
        raise BridgeError(
            Code.TOO_LARGE, f"request: {bytes_} bytes and {values} values, beside changes",
            f"use {_REQUEST[0]} bytes and {_REQUEST[1]} values at most",
        )  # fmt: skip
    return wanted


def _edited(row: Row, asked: Edit) -> Table:
    """Return the job's request with a keyframe changed.

    Raises:
        BridgeError: no such keyframe or value (invalid).
    """
    if asked.what not in _CHANGES:
        raise BridgeError(Code.INVALID, f"what: {asked.what!r} is none of {', '.join(_CHANGES)}")
    known = {*row.keyframes, *(str(own["frame"]) for own in row.request.get("changes", ()))}
    if row.keyframes and str(asked.frame) not in known:
        near = sorted(map(int, row.keyframes), key=lambda own: abs(own - asked.frame))[:_NAMED]
        frames = ", ".join(map(str, sorted(near)))
        raise BridgeError(Code.INVALID, f"frame: {asked.frame} is no keyframe; near it: {frames}")
    wanted = request.from_table(row.request)
    others = [own for own in wanted.changes if (own.frame, own.what) != (asked.frame, asked.what)]
    try:
        own = [] if asked.value is None else [Change(asked.frame, asked.what, asked.value)]
        changed = replace(wanted, changes=tuple(others + own))
    except FrescoError as error:
        raise BridgeError(Code.INVALID, str(error)) from error
    return changed.table()


def _later(gate: str) -> tuple[str, ...]:
    return GATES[GATES.index(gate) + 1 :]


def _limit(asked: int) -> int:
    if not 1 <= asked <= _MOST:
        raise BridgeError(Code.INVALID, f"limit: {asked} is not 1 to {_MOST}")
    return asked


def _wrong_state(row: Row, what: str, hint: str = "") -> BridgeError:
    return BridgeError(Code.WRONG_STATE, f"job {row.id} is {row.state} and cannot {what}", hint)
