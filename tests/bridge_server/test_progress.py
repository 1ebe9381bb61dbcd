"""What a log shows of a job's way."""

from __future__ import annotations

import io

import pytest

from bridge_server.events import Progress
from bridge_server.progress import Lines


class Told:
    """Lines with a clock that the test moves."""

    def __init__(self) -> None:
        self.now, self.out = 100.0, io.StringIO()
        self.lines = Lines(self.out, lambda: self.now)

    def after(self, seconds: float, done: float, total: float, stage: str = "translate") -> str:
        """Say that it is `seconds` later and `done` is done; returns what is written then."""
        self.now += seconds
        self.out.seek(0)
        self.out.truncate()
        self.lines(Progress(stage, done, total))
        return self.out.getvalue()


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_line_says_the_time_that_is_left(told: Told) -> None:
    assert told.after(0, 0, 10) == "styling keyframes: 0 %\n"
    assert told.after(80, 4, 10) == "styling keyframes: 40 %, about 2 min left\n"
    assert told.after(80, 8, 10) == "styling keyframes: 80 %, about 40 s left\n"
    assert told.after(0, 10, 10) == "styling keyframes: done\n"


def test_what_was_done_before_is_no_part_of_the_speed(told: Told) -> None:
    assert told.after(0, 50, 100) == "styling keyframes: 50 %\n"
    assert told.after(60, 60, 100) == "styling keyframes: 60 %, about 4 min left\n"


def test_nothing_is_said_within_a_tenth(told: Told) -> None:
    told.after(0, 0, 100)
    assert told.after(5, 9, 100) == ""
    assert told.after(5, 10.5, 100).startswith("styling keyframes: 10 %, about")


def test_each_stage_has_a_speed_of_its_own(told: Told) -> None:
    told.after(0, 0, 4, "analyse")
    told.after(4, 4, 4, "analyse")
    told.after(0, 0, 10, "encode")
    assert told.after(10, 5, 10, "encode") == "writing the clip: 50 %, about 10 s left\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "1 s"), (59, "59 s"), (59.6, "1 min"), (90 * 60, "1 h 30 min"), (7199, "2 h 0 min")],
)
def test_a_time_in_words(told: Told, seconds: float, said: str) -> None:
    told.after(0, 0, 2)
    assert told.after(seconds, 1, 2) == f"styling keyframes: 50 %, about {said} left\n"
