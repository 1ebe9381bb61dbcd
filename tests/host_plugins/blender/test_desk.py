from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from host_plugins.blender.desk import Card, Order
from host_plugins.blender.tickets import Ticket
from host_plugins.link.errors import Code
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
    assert card.state == "failed"
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
    finally:
        sitting.connection.close()
        serving.kill()


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
