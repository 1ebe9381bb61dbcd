from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_plugins.blender import tickets
from host_plugins.blender.tickets import Ticket

PLAIN = Ticket("a1", "Scene", "shot.mp4", 101, tuple(range(20, 30)), "/films/styled/shot", "oil")
HELD = Ticket("b2", "Scene", "Ölbild", 5, (3, 3, 4, 6, 6), "/films", "x", mute=True, placed=True)


def test_a_strip_remembers_its_jobs() -> None:
    assert tickets.read(tickets.write([PLAIN, HELD])) == [PLAIN, HELD]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_any_frames_come_back(frames: list[int]) -> None:
    ticket = Ticket("a", "s", "t", 0, tuple(frames), "f", "n")
    assert tickets.read(tickets.write([ticket])) == [ticket]


def test_a_long_plain_clip_is_remembered_in_few_words() -> None:
    film = Ticket("a", "s", "t", 0, tuple(range(200_000)), "f", "n")
    assert len(tickets.write([film])) < 200


@pytest.mark.parametrize(
    "text",
    ["", "{", "3", "{}", '[{"job": "a"}]', '[{"frames": null}]', "[[]]", "[null]", None, 3.5],
)
def test_what_is_no_ticket_is_left_out(text: Any) -> None:
    assert tickets.read(text) == []


def test_what_a_later_version_adds_is_ignored() -> None:
    told = tickets.write([PLAIN]).replace('"job":', '"colour": "red", "job":')
    assert tickets.read(told) == [PLAIN]


def test_frames_of_the_source_are_found_by_the_timeline() -> None:
    assert (PLAIN.first, PLAIN.stop, PLAIN.plain) == (20, 30, True)
    assert [PLAIN.source_frame(at) for at in (101, 105, 110)] == [20, 24, 29]
    assert [PLAIN.source_frame(at) for at in (0, 500)] == [20, 29], "the nearest one outside"
    assert (HELD.first, HELD.stop, HELD.plain) == (3, 7, False)
    assert [HELD.source_frame(at) for at in range(5, 10)] == [3, 3, 4, 6, 6]


def test_a_strip_that_was_moved_takes_its_result_along() -> None:
    anchored = replace(PLAIN, anchor=81.5)
    assert tickets.read(tickets.write([anchored])) == [anchored]
    later = anchored.moved(106.5)
    assert (later.start, later.anchor) == (126, 106.5)
    assert later.source_frame(126) == 20
    assert later.moved(81.5) == anchored
    assert PLAIN.moved(500.0) == PLAIN, "of an old ticket nothing is known"


def test_a_ticket_replaces_the_one_of_its_job() -> None:
    again = tickets.placed(PLAIN)
    assert tickets.renewed([PLAIN, HELD], again) == [HELD, again]
