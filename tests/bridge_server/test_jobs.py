"""What may be done to jobs: the rules, on a real journal, without sockets or workers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge_server.access import Owner
from bridge_server.jobs import Jobs, info
from bridge_server.journal import Journal, Row, checkpoint
from bridge_server.states import TRANSITIONS
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import (
    Approve,
    Edit,
    Event,
    Keyframe,
    Listing,
    Replay,
    Submit,
    Subscribe,
)

T = TypeVar("T")
KILLED = BridgeError(Code.OUT_OF_MEMORY, "the worker was killed", "choose a smaller size")
ME, OTHER = Owner(), Owner("somebody", (Path("/"),))


class Desk:
    """Jobs on a journal in a folder, and what they told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told, self.now = folder, list[Event](), 1000.0
        self.clip = folder / "clip.mp4"
        self.clip.touch()
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.folder / "journal", lambda event, _owner: self.tell(event))
        self.jobs = Jobs(self.journal, lambda: self.now)

    def tell(self, event: Event) -> None:
        self.told.append(event)

    def do(self, change: Callable[[], T]) -> T:
        with self.journal.change():
            return change()

    def submit(self, job: str = "a", owner: Owner = ME, priority: int = 0, **request: Any) -> Row:
        asked = Submit(job=job, request={"clip": str(self.clip), **request}, priority=priority)
        return self.do(lambda: self.jobs.submit(owner, asked))

    def state(self, job: str = "a") -> str:
        row = self.journal.find(job)
        assert row is not None
        return row.state


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def refused(desk: Desk, change: Callable[[], Any]) -> Code:
    with pytest.raises(BridgeError) as told:
        desk.do(change)
    return told.value.code


def test_a_job_and_its_event_are_on_the_disk_together(desk: Desk) -> None:
    desk.submit()
    assert [(own.event, own.seq, own.data["state"]) for own in desk.told] == [
        ("state", 1, "queued")
    ]
    desk.journal.close()
    desk.open()
    assert desk.state() == "queued"
    assert desk.journal.events("a", 0, 10) == desk.told


def test_what_fails_in_the_middle_leaves_nothing(desk: Desk) -> None:
    def half() -> None:
        asked = Submit(job="a", request={"clip": str(desk.clip)})
        desk.jobs.submit(ME, asked)
        raise BridgeError(Code.INTERNAL, "in the middle")

    assert refused(desk, half) is Code.INTERNAL
    assert desk.journal.find("a") is None
    assert desk.told == []


def test_what_does_not_wait_for_the_disk_outlives_the_process(desk: Desk) -> None:
    desk.submit()
    with desk.journal.change(durable=False):
        desk.jobs.cancel(ME, "a")
    kept = desk.folder / "kept"
    kept.mkdir()
    for file in desk.folder.glob("journal*"):  # as a process that is killed leaves them
        (kept / file.name).write_bytes(file.read_bytes())
    (row,) = Journal(kept / "journal").select("id = 'a'")
    assert row.state == "cancelled"


def test_the_log_is_brought_into_the_file_while_it_is_open(desk: Desk) -> None:
    for number in range(30):
        desk.submit(f"job{number}")
    checkpoint(desk.folder / "journal")
    written = (desk.folder / "journal-wal").stat().st_size
    for number in range(30, 60):
        desk.submit(f"job{number}")
    assert (desk.folder / "journal-wal").stat().st_size < 1.5 * written, "its room is used again"
    assert desk.journal.count("queued") == 60


def test_the_most_urgent_comes_first_then_the_oldest(desk: Desk) -> None:
    for name, priority in (("a", 0), ("b", 3), ("c", 0), ("d", 3)):
        desk.submit(name, priority=priority)
    order: list[str] = []
    while row := desk.do(desk.jobs.next):
        order.append(row.id)
    assert order == ["b", "d", "a", "c"]


def test_a_job_that_is_not_ready_is_passed_over(desk: Desk) -> None:
    desk.submit("a")
    desk.submit("b")
    row = desk.do(lambda: desk.jobs.next(lambda job: job != "a"))
    assert row is not None
    assert row.id == "b"
    assert desk.state("a") == "queued"


def test_others_jobs_are_not_there(desk: Desk) -> None:
    desk.submit("mine")
    desk.submit("theirs", OTHER)
    assert refused(desk, lambda: desk.jobs.find(OTHER, "mine")) is Code.NOT_FOUND
    assert refused(desk, lambda: desk.jobs.cancel(OTHER, "mine")) is Code.NOT_FOUND
    assert [job.job for job in desk.jobs.list(OTHER, Listing()).jobs] == ["theirs"]
    assert [job.job for job in desk.jobs.list(ME, Listing()).jobs] == ["theirs", "mine"]
    assert set(desk.jobs.newest(OTHER, Subscribe())["newest"]) == {"theirs"}
    code = refused(desk, lambda: desk.jobs.submit(OTHER, Submit(job="mine", request={"clip": "/"})))
    assert code is Code.CONFLICT


def test_lists_go_on_where_they_ended(desk: Desk) -> None:
    for number in range(7):
        desk.submit(f"j{number}")
    first = desk.jobs.list(ME, Listing(limit=3))
    assert ([job.job for job in first.jobs], first.more) == (["j6", "j5", "j4"], True)
    rest = desk.jobs.list(ME, Listing(limit=10, before="j4"))
    assert ([job.job for job in rest.jobs], rest.more) == (["j3", "j2", "j1", "j0"], False)
    assert refused(desk, lambda: desk.jobs.list(ME, Listing(limit=0))) is Code.INVALID


def test_a_late_copy_of_a_request_does_nothing(desk: Desk) -> None:
    desk.submit()

    def once(id_: str, change: Callable[[], Row]) -> Any:
        return desk.do(lambda: desk.jobs.once("s", id_, lambda: info(change()).table()))

    paused = once("1", lambda: desk.jobs.pause(ME, "a"))
    once("2", lambda: desk.jobs.resume(ME, "a"))
    desk.journal.close()
    desk.open()  # the replies outlive the server
    assert once("1", lambda: desk.jobs.pause(ME, "a")) == paused
    assert desk.state() == "queued"


def test_only_the_last_replies_are_kept(desk: Desk) -> None:
    for number in range(80):
        desk.do(lambda n=number: desk.jobs.once("s", str(n), lambda: {"n": n}))
    assert desk.journal.reply("s", "79") == {"n": 79}
    assert desk.journal.reply("s", "16") == {"n": 16}
    assert desk.journal.reply("s", "15") is None


def test_an_edit_while_it_runs_is_not_lost(desk: Desk) -> None:
    desk.submit()
    row = desk.do(desk.jobs.next)
    assert row is not None
    edit = Edit(job="a", base=1, frame=3, what="prompt", value="red")
    edited = desk.do(lambda: desk.jobs.edit(ME, edit))
    assert (edited.state, edited.revision) == ("running", 2)
    # The worker had just finished the old one.
    done = desk.do(lambda: desk.jobs.done("a", row.revision, [], [0]))
    assert done.state == "queued"
    assert done.request["changes"] == [{"frame": 3, "what": "prompt", "value": "red"}]


def test_an_edit_can_be_taken_back(desk: Desk) -> None:
    row = desk.submit(changes=["seed@3=7"])
    for base, value in ((1, "8"), (2, None)):
        change = Edit(job="a", base=base, frame=3, what="seed", value=value)
        row = desk.do(lambda change=change: desk.jobs.edit(ME, change))
    assert "changes" not in row.request
    assert row.asked["changes"]


def test_edits_that_cannot_be(desk: Desk, tmp_path: Path) -> None:
    desk.submit()
    desk.do(desk.jobs.next)
    desk.do(lambda: desk.jobs.keyframe("a", Keyframe(frame=4, path="/p")))
    for change, code in (
        (Edit(job="a", base=1, frame=5, what="seed", value="1"), Code.INVALID),
        (Edit(job="a", base=1, frame=4, what="colour", value="1"), Code.INVALID),
        (Edit(job="a", base=1, frame=4, what="seed", value="red"), Code.INVALID),
        (Edit(job="a", base=2, frame=4, what="seed", value="1"), Code.CONFLICT),
        (Edit(job="b", base=1, frame=4, what="seed", value="1"), Code.NOT_FOUND),
    ):
        assert refused(desk, lambda change=change: desk.jobs.edit(ME, change)) is code, change


def test_gates(desk: Desk) -> None:
    desk.submit(until="first_frame")
    desk.do(desk.jobs.next)
    early = Approve(job="a", gate="first_frame", until="keyframes")
    assert refused(desk, lambda: desk.jobs.approve(ME, early)) is Code.CONFLICT
    desk.do(lambda: desk.jobs.rested("a", 1, [0], {"seconds": 5}))
    back = Approve(job="a", gate="keyframes", until="first_frame")
    assert refused(desk, lambda: desk.jobs.approve(ME, back)) is Code.INVALID
    row = desk.do(lambda: desk.jobs.approve(ME, early))
    assert (row.state, row.request["until"]) == ("queued", "keyframes")
    again = desk.do(lambda: desk.jobs.approve(ME, early))
    assert again.state == "queued"
    desk.do(desk.jobs.next)
    row = desk.do(lambda: desk.jobs.rested("a", 1, [0], {}))
    assert (row.state, row.gate) == ("waiting", "keyframes")


def test_a_job_whose_workers_end_again_and_again_fails(desk: Desk) -> None:
    desk.submit()
    for _ in range(4):
        desk.do(desk.jobs.next)
        assert desk.do(lambda: desk.jobs.crashed("a", KILLED)).state == "queued"
    desk.do(desk.jobs.next)
    desk.do(lambda: desk.jobs.uses("a", ["k"]))  # it came forward: counted anew
    assert desk.do(lambda: desk.jobs.crashed("a", KILLED)).state == "queued"
    for _ in range(3):
        desk.do(desk.jobs.next)
        desk.do(lambda: desk.jobs.crashed("a", KILLED))
    desk.do(desk.jobs.next)
    row = desk.do(lambda: desk.jobs.crashed("a", KILLED))
    assert (row.state, row.failure["code"]) == ("failed", "out_of_memory")
    assert "killed, 5 times" in row.failure["error"]
    assert row.failure["hint"] == "choose a smaller size"
    assert desk.do(lambda: desk.jobs.retry(ME, "a")).state == "queued"


@pytest.mark.parametrize(
    ("wish", "end", "state"),
    [
        ("pause", "rested", "paused"),
        ("pause", "failed", "failed"),
        ("pause", "crashed", "paused"),
        ("cancel", "rested", "cancelled"),
        ("cancel", "failed", "cancelled"),
        ("cancel", "crashed", "cancelled"),
    ],
)
def test_a_wish_beats_an_end_that_it_makes_needless(
    desk: Desk, wish: str, end: str, state: str
) -> None:
    """With nothing changed at its keyframes: a failure is to be seen, unless nobody wants it."""
    desk.submit(until="keyframes")
    desk.do(desk.jobs.next)
    desk.do(lambda: getattr(desk.jobs, wish)(ME, "a"))
    ends: dict[str, Callable[[], Any]] = {
        "rested": lambda: desk.jobs.rested("a", 1, [0], {}),
        "failed": lambda: desk.jobs.failed("a", KILLED, 1),
        "crashed": lambda: desk.jobs.crashed("a", KILLED),
    }
    assert desk.do(ends[end]).state == state


def test_a_server_that_starts_takes_up_what_ran(desk: Desk) -> None:
    desk.submit("a")
    desk.submit("b")
    desk.do(desk.jobs.next)
    desk.journal.close()
    desk.open()
    assert [row.id for row in desk.do(desk.jobs.recover)] == ["a"]
    assert desk.told[-1].data["why"]
    row = desk.do(desk.jobs.next)
    assert row is not None
    assert row.id == "a"


@pytest.mark.parametrize(
    ("wishes", "state"),
    [
        (("edit",), "queued"),
        (("pause",), "paused"),
        (("pause", "resume"), "queued"),
        (("edit", "pause"), "paused"),
        (("edit", "cancel"), "cancelled"),
        (("cancel", "pause"), "cancelled"),
        (("pause", "cancel", "resume"), "cancelled"),
        (("cancel", "retry"), "queued"),
    ],
)
@pytest.mark.parametrize("end", ["stopped", "crashed", "done", "rested", "failed", "recovered"])
def test_a_running_job_becomes_what_was_wanted_of_it(
    desk: Desk, wishes: tuple[str, ...], state: str, end: str
) -> None:
    """Also where a keyframe was changed just before, and where the server was killed."""
    desk.submit(until="keyframes")
    desk.do(desk.jobs.next)
    for wish in ("edit", *wishes):
        revision = len([own for own in desk.told if own.event == "edited"]) + 1
        change = Edit(job="a", base=revision, frame=0, what="seed", value=str(revision))
        asked: Any = change if wish == "edit" else "a"
        row = desk.do(lambda wish=wish, asked=asked: getattr(desk.jobs, wish)(ME, asked))
        assert row.state == "running"
    ends: dict[str, Callable[[], Any]] = {
        "stopped": lambda: desk.jobs.stopped("a", "the server was ended"),
        "crashed": lambda: desk.jobs.crashed("a", KILLED),
        "done": lambda: desk.jobs.done("a", 1, [], [0]),
        "rested": lambda: desk.jobs.rested("a", 1, [0], {}),
        "failed": lambda: desk.jobs.failed("a", KILLED, 1),
        "recovered": lambda: desk.jobs.recover(),
    }
    if end == "recovered":
        desk.journal.close()
        desk.open()
    desk.do(ends[end])
    assert desk.state() == state
    row = desk.jobs.find(ME, "a")
    assert row.wish == ""


def test_a_journal_of_the_version_before_is_brought_up_to_date(desk: Desk) -> None:
    desk.submit()
    desk.journal.close()
    with closing(sqlite3.connect(desk.folder / "journal")) as base:
        base.executescript("alter table jobs drop column wish; pragma user_version = 1;")
    desk.open()
    desk.do(desk.jobs.next)
    assert desk.do(lambda: desk.jobs.cancel(ME, "a")).wish == "cancelled"


def test_who_looks_at_keyframes_and_never_comes_back_keeps_no_room_for_ever(desk: Desk) -> None:
    for job in "ab":
        desk.submit(job, until="keyframes")
        desk.do(desk.jobs.next)
        desk.do(lambda job=job: desk.jobs.uses(job, [f"of {job}"]))
    desk.do(lambda: desk.jobs.rested("a", 1, [0], {}))
    assert desk.jobs.results_needed() == {"of a", "of b"}
    desk.now += 40 * 24 * 3600
    assert desk.jobs.results_needed() == {"of b"}
    desk.now += 400 * 24 * 3600
    assert desk.do(desk.jobs.tidy)[1] == ["a"]


def test_a_clock_that_jumps_loses_nothing(desk: Desk) -> None:
    desk.submit("a")
    desk.now = -5e8
    desk.submit("b")
    desk.do(lambda: desk.jobs.once("s", "1", lambda: {"a": 1}))
    desk.now = 5e9
    desk.do(lambda: desk.jobs.once("s", "2", lambda: {"a": 2}))
    assert desk.do(desk.jobs.tidy) == ([], [])
    assert desk.do(lambda: desk.jobs.once("s", "1", lambda: {"a": 3})) == {"a": 1}
    assert [own.seq for own in desk.jobs.replay(ME, Replay(job="b")).events] == [1]
    assert [job.job for job in desk.jobs.list(ME, Listing()).jobs] == ["b", "a"]
    assert set(desk.jobs.newest(ME, Subscribe())["newest"]) == {"a", "b"}


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=6), st.integers(0, 8))
@settings(max_examples=25, deadline=None)
def test_replay_has_no_gaps(tmp_path_factory: Any, notes: list[str], after: int) -> None:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.submit()
    for text in notes:
        desk.do(lambda text=text: desk.jobs.note("a", text))
    told = desk.jobs.replay(ME, Replay(job="a", after=after))
    assert told.newest == 1 + len(set(notes))
    assert [own.seq for own in told.events] == list(range(after + 1, told.newest + 1))


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order: states follow the table, numbers have no gaps."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.desk = Desk(Path(tempfile.mkdtemp()))
        self.desk.submit(until="keyframes")

    def attempt(self, change: Callable[[], Any]) -> None:
        with suppress(BridgeError):
            self.desk.do(change)

    @rule(op=st.sampled_from(["cancel", "pause", "resume", "retry"]))
    def ask(self, op: str) -> None:
        self.attempt(lambda: getattr(self.desk.jobs, op)(ME, "a"))

    @rule()
    def approve(self) -> None:
        self.attempt(lambda: self.desk.jobs.approve(ME, Approve(job="a", gate="keyframes")))

    @rule(base=st.integers(1, 4), seed=st.integers(0, 3))
    def edit(self, base: int, seed: int) -> None:
        change = Edit(job="a", base=base, frame=0, what="seed", value=str(seed))
        self.attempt(lambda: self.desk.jobs.edit(ME, change))

    @rule()
    def begin(self) -> None:
        self.desk.do(self.desk.jobs.next)

    @rule(how=st.sampled_from(["done", "rested", "failed", "crashed", "stopped"]))
    def end(self, how: str) -> None:
        jobs, row = self.desk.jobs, self.desk.journal.find("a")
        assert row is not None
        if row.state != "running":
            return
        ends: dict[str, Callable[[], Any]] = {
            "done": lambda: jobs.done("a", row.revision, [], [0]),
            "rested": lambda: jobs.rested("a", row.revision, [0], {}),
            "failed": lambda: jobs.failed("a", BridgeError(Code.MEDIA, "no"), row.revision),
            "crashed": lambda: jobs.crashed("a", KILLED),
            "stopped": lambda: jobs.stopped("a", "the server was ended"),
        }
        self.desk.do(ends[how])

    @invariant()
    def numbers_and_states_follow(self) -> None:
        told = self.desk.told
        assert [own.seq for own in told] == list(range(1, len(told) + 1))
        states = [own.data for own in told if own.event == "state"]
        for own in states:
            before = own.get("before", "")
            assert not before or own["state"] in TRANSITIONS[before]
        assert states[-1]["state"] == self.desk.state()
        assert self.desk.journal.events("a", 0, 1000) == told


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def test_what_is_old_is_let_go_of_and_nothing_that_is_under_way(desk: Desk) -> None:
    for job in ("done", "waits"):
        desk.submit(job)
    desk.do(lambda: desk.jobs.cancel(ME, "done"))
    desk.do(lambda: desk.jobs.pause(ME, "waits"))
    day = 24 * 3600.0
    desk.now += 6 * day
    assert desk.do(desk.jobs.tidy) == ([], [])
    assert len(desk.journal.events("done", 0, 200)) == 2

    desk.now += 2 * day
    assert desk.do(desk.jobs.tidy) == ([], [])
    told = desk.jobs.replay(ME, Replay(job="done"))
    assert ([event.seq for event in told.events], told.newest) == ([2], 2)
    assert len(desk.journal.events("waits", 0, 200)) == 2

    desk.now += 30 * day
    assert desk.do(desk.jobs.tidy) == (["done"], [])
    desk.now += 365 * day
    assert desk.do(desk.jobs.tidy) == ([], ["done"])
    assert desk.journal.find("done") is None
    assert desk.journal.events("done", 0, 200) == []
    assert desk.state("waits") == "paused"
