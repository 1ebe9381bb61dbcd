from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from host_plugins.blender.desk import Card, Desk, Order
from host_plugins.blender.tickets import Ticket
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Event, JobInfo, Keyframe, Made
from tests.bridge_server.reels import pictures
from tests.bridge_server.serving import Serving
from tests.host_plugins.blender.sitting import Sitting


@dataclass
class Look:
    done: int
    total: int
    finished: bool = False
    error: str = ""


class Slow:
    """Renders a frame with every look."""

    def __init__(self, total: int, error: str = "") -> None:
        self.now, self.cancelled = Look(0, total), False
        self._error = error

    def poll(self) -> Look:
        done = min(self.now.done + 1, self.now.total)
        self.now = Look(
            done, self.now.total, done == self.now.total, self._error if done > 1 else ""
        )
        return self.now

    def cancel(self) -> None:
        self.cancelled = True


def ticket(folder: Path) -> Ticket:
    folder.mkdir(exist_ok=True)
    return Ticket(uuid.uuid4().hex, "Scene", "shot", 1, tuple(range(9)), str(folder), "oil")


def values(clip: Path, folder: Path, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"prompt": "oil painting", "size": 64, "steps": 3, "cut_mode": "none"}
    told |= {"keyframe_mode": "every", "keyframe_every": 4, "Source": str(clip)}
    return {**told, "output": str(folder), **more}


def begin(sitting: Sitting, clip: Path, folder: Path, **more: Any) -> Card:
    return sitting.desk.begin(ticket(folder), Order(values(clip, folder, **more), title="a shot"))


def test_a_job_goes_from_the_desk_to_its_files(
    sitting: Sitting, clip: Path, tmp_path: Path
) -> None:
    card = begin(sitting, clip, tmp_path / "styled")
    sitting.until(lambda: card.arrived)
    assert card.state == "done"
    assert card.info is not None
    assert card.info.request["prompt"] == "oil painting"
    assert sorted(card.pictures) == [0, 4, 8]
    assert card.made is not None
    (output,) = (file for file in card.made.files if file.role == "output")
    assert Path(output.path).parent == tmp_path / "styled", "an existing folder takes the result"
    assert len(pictures(Path(output.path))) == 9
    assert sitting.desk.description is not None
    assert any(row["name"] == "fresco-draft" for row in sitting.desk.models)


def test_keyframes_are_looked_at_changed_and_approved(
    sitting: Sitting, clip: Path, tmp_path: Path
) -> None:
    card = begin(sitting, clip, tmp_path / "styled", until="keyframes", prompt="pencil sketch")
    sitting.until(lambda: card.state == "waiting")
    assert card.info is not None
    before = dict(card.pictures)
    sitting.desk.edit(card.ticket.job, 4, {"seed": "77", "prompt": "neon night"})
    sitting.until(lambda: card.info and card.info.revision == 3)
    sitting.until(lambda: card.state == "waiting" and card.pictures[4] != before[4])
    assert card.pictures[0] == before[0]
    sitting.desk.approve(card.ticket.job)
    sitting.until(lambda: card.arrived)
    changes = {(own["what"], own["value"]) for own in card.info.request["changes"]}
    assert changes == {("seed", "77"), ("prompt", "neon night")}


def test_a_wrong_change_is_said_and_the_job_stands(
    sitting: Sitting, clip: Path, tmp_path: Path
) -> None:
    card = begin(sitting, clip, tmp_path / "styled", until="keyframes", prompt="mosaic")
    sitting.until(lambda: card.state == "waiting")
    sitting.desk.edit(card.ticket.job, 4, {"strength": "7"})
    sitting.until(lambda: card.error)
    assert card.error is not None
    assert card.error.code is Code.INVALID
    assert card.state == "waiting"


def test_what_must_be_rendered_first_is_waited_for(
    sitting: Sitting, clip: Path, tmp_path: Path
) -> None:
    rendering = Slow(5)
    order = Order(values(clip, tmp_path, until="first_frame"))
    card = sitting.desk.begin(ticket(tmp_path), order, [rendering])
    assert (card.state, card.share) == ("rendering", 0.2)
    sitting.until(lambda: card.state == "waiting")
    assert rendering.now.finished


def test_a_rendering_that_fails_fails_the_job_before_it_is_sent(
    sitting: Sitting, clip: Path, tmp_path: Path
) -> None:
    other = Slow(9)
    order = Order(values(clip, tmp_path))
    card = sitting.desk.begin(ticket(tmp_path), order, [Slow(5, "the disk is full"), other])
    sitting.until(lambda: card.error)
    assert "the disk is full" in str(card.error)
    assert (card.state, other.cancelled) == ("failed", True)


def test_a_job_is_stopped_before_and_after_it_is_sent(
    sitting: Sitting, clip: Path, tmp_path: Path
) -> None:
    rendering = Slow(10**6)
    card = sitting.desk.begin(ticket(tmp_path), Order(values(clip, tmp_path)), [rendering])
    sitting.desk.cancel(card.ticket.job)
    assert rendering.cancelled
    assert card.state == "cancelled"
    assert card.error is not None
    assert card.error.code is Code.CANCELLED

    sent = begin(sitting, clip, tmp_path / "other", steps=300)
    sitting.until(lambda: sent.state == "running")
    sitting.desk.cancel(sent.ticket.job)
    sitting.until(lambda: sent.state == "cancelled")


def test_jobs_of_an_opened_file_are_found_again(
    sitting: Sitting, clip: Path, tmp_path: Path
) -> None:
    card = begin(sitting, clip, tmp_path / "styled", prompt="sepia film")
    sitting.until(lambda: card.arrived)
    other = Sitting(sitting.serving)
    try:
        other.desk.adopt([card.ticket, ticket(tmp_path)])
        again, lost = other.desk.cards.values()
        other.until(lambda: again.arrived and lost.error)
        assert sorted(again.pictures) == [0, 4, 8]
        assert lost.error is not None
        assert lost.error.code is Code.NOT_FOUND
        placed = Sitting(sitting.serving)
        placed.desk.adopt([replace(card.ticket, placed=True)])
        (kept,) = placed.desk.cards.values()
        placed.until(lambda: kept.made)
        assert not kept.arrived, "what was placed once is not placed again by itself"
        placed.desk.collect(kept.ticket.job)
        placed.until(lambda: kept.arrived)
        placed.connection.close()
    finally:
        other.connection.close()


def test_a_job_survives_the_server(clip: Path, tmp_path: Path) -> None:
    serving = Serving(tmp_path / "own")
    serving.folder.mkdir()
    sitting = Sitting(serving.start())
    try:
        sitting.until(lambda: sitting.connection.state.up)
        card = begin(sitting, clip, tmp_path / "styled", steps=12)
        sitting.until(lambda: card.state == "running")
        serving.kill()
        sitting.until(lambda: sitting.connection.state.name == "down")
        serving.start()
        sitting.until(lambda: card.arrived)
        assert card.state == "done"
        assert card.error is None
    finally:
        sitting.connection.close()
        serving.kill()


class Script:
    """Answers a desk as a test says; keeps what is asked."""

    def __init__(self) -> None:
        self.desk = Desk(lambda op, message, then: self.asked.append((op.name, message, then)))
        self.asked: list[tuple[str, Any, Any]] = []

    def answer(self, op: str, told: Any) -> None:
        """Answer the oldest question of a kind."""
        found = next(each for each in self.asked if each[0] == op)
        self.asked.remove(found)
        found[2](told)

    def count(self, op: str) -> int:
        return sum(each[0] == op for each in self.asked)


GONE = BridgeError(Code.UNAVAILABLE, "no server runs")


def info(job: str, seq: int = 1, state: str = "done", revision: int = 1) -> JobInfo:
    return JobInfo(job=job, state=state, seq=seq, revision=revision)


def made(job: str) -> Made:
    return Made(job=job, state="done")


def test_without_a_server_old_jobs_of_a_file_are_no_failures(tmp_path: Path) -> None:
    script = Script()
    old = ticket(tmp_path)
    script.desk.adopt([old])
    script.answer("job", GONE)
    card = script.desk.cards[old.job]
    assert (card.state, card.error, card.active) == ("unknown", None, False)
    script.desk.on_up()
    script.answer("job", info(old.job))
    assert card.state == "done"


def test_a_result_that_got_lost_with_the_server_is_asked_for_again(tmp_path: Path) -> None:
    script = Script()
    old = ticket(tmp_path)
    script.desk.adopt([old])
    script.answer("job", info(old.job))
    script.answer("result", GONE)
    card = script.desk.cards[old.job]
    assert not card.arrived
    script.desk.on_up()
    script.answer("job", info(old.job))
    script.answer("result", made(old.job))
    assert card.arrived
    assert card.error is None


def test_another_file_keeps_only_what_is_still_to_be_sent(tmp_path: Path) -> None:
    script = Script()
    sent, waits = ticket(tmp_path), ticket(tmp_path)
    script.desk.adopt([sent])
    rendering = Slow(100)
    script.desk.begin(waits, Order(), [rendering])
    script.desk.leave()
    assert list(script.desk.cards) == [waits.job]
    assert not rendering.cancelled
    for _ in range(100):
        script.desk.advance()
    script.answer("job", info(sent.job))
    script.answer("submit", info(waits.job))
    assert script.count("result") == 2, "an answer to what was left does no harm"
    script.answer("result", made(sent.job))
    script.answer("result", made(waits.job))
    assert script.desk.arrived() == [], "its strip is not in this file"
    script.desk.adopt([waits])
    (card,) = script.desk.arrived()
    assert card.ticket == waits


def test_what_one_copy_of_a_strip_knows_holds_for_all(tmp_path: Path) -> None:
    script = Script()
    old = ticket(tmp_path)
    script.desk.adopt([old])
    script.desk.adopt([replace(old, placed=True)])
    script.desk.adopt([old])
    assert script.desk.cards[old.job].ticket.placed
    script.answer("job", info(old.job))
    script.answer("result", made(old.job))
    assert script.desk.arrived() == []


def test_a_picture_whose_event_got_lost_is_replaced(tmp_path: Path) -> None:
    script = Script()
    old = ticket(tmp_path)
    script.desk.adopt([old])
    script.answer(
        "job", replace(info(old.job, state="waiting"), keyframes=(Keyframe(frame=4, path="/a"),))
    )
    card = script.desk.cards[old.job]
    assert card.pictures == {4: "/a"}
    script.desk.on_event(
        Event(
            event="keyframe", job=old.job, seq=2, data={"frame": 4, "path": "/b"}, payloads=(b"b",)
        )
    )
    script.answer(
        "job", replace(info(old.job, 2, "waiting"), keyframes=(Keyframe(frame=4, path="/b"),))
    )
    assert card.pictures == {4: b"b"}, "the small one that came is as good"
    script.desk.on_up()
    script.answer(
        "job", replace(info(old.job, 3, "waiting"), keyframes=(Keyframe(frame=4, path="/c"),))
    )
    assert card.pictures == {4: "/c"}


def test_a_job_that_is_hidden_while_its_change_is_under_way_does_no_harm(tmp_path: Path) -> None:
    script = Script()
    old = ticket(tmp_path)
    script.desk.adopt([old])
    script.answer("job", info(old.job, state="waiting"))
    script.desk.edit(old.job, 4, {"seed": "1", "prompt": "neon"})
    script.desk.forget(old.job)
    script.answer("edit", info(old.job, seq=2, state="waiting", revision=2))
    (edit,) = (message for op, message, _ in script.asked if op == "edit")
    assert (edit.what, edit.base) == ("prompt", 2)


def test_a_job_stopped_before_it_was_sent_stays_so(tmp_path: Path) -> None:
    script = Script()
    own = ticket(tmp_path)
    script.desk.begin(own, Order(), [Slow(100)])
    script.desk.cancel(own.job)
    script.desk.on_up()
    assert script.count("job") == 0
    assert script.desk.cards[own.job].state == "cancelled"


def test_without_a_server_the_order_waits_for_one(clip: Path, tmp_path: Path) -> None:
    serving = Serving(tmp_path / "own")
    serving.folder.mkdir()
    sitting = Sitting(serving)
    try:
        card = begin(sitting, clip, tmp_path / "styled", until="first_frame")
        sitting.until(lambda: card.error)
        assert card.error is not None
        assert card.error.code is Code.UNAVAILABLE
        serving.start()
        sitting.until(lambda: card.state == "waiting")
        assert card.error is None
    finally:
        sitting.connection.close()
        serving.kill()


def test_the_main_thread_never_waits(sitting: Sitting, clip: Path, tmp_path: Path) -> None:
    took: list[float] = []

    def timed(act: Any) -> None:
        begun = time.perf_counter()
        act()
        took.append(time.perf_counter() - begun)

    sitting.serving.process.send_signal(19)  # pyright: ignore  # SIGSTOP: it answers nothing
    try:
        timed(lambda: begin(sitting, clip, tmp_path / "styled"))
        for _ in range(20):
            timed(sitting.connection.collect)
            timed(sitting.desk.advance)
            time.sleep(0.02)
    finally:
        sitting.serving.process.send_signal(18)  # pyright: ignore
    assert max(took) < 0.5, "though the server is silent"
    (card,) = sitting.desk.cards.values()
    sitting.until(lambda: card.info is not None)
    sitting.desk.cancel(card.ticket.job)
