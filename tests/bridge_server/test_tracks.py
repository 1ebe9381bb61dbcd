"""Which value holds at which frame."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_server.request import Change
from bridge_server.tracks import Asked, Tracks

USUAL = Asked("summer", "", 0.75, 3)
#: Few words and frames, so that values repeat and frames are hit.
VALUES = {
    "prompt": st.sampled_from(["summer", "snow", "night"]),
    "negative": st.sampled_from(["", "blur"]),
    "strength": st.floats(0, 1).map(str),
    "seed": st.integers(0, 2**63 - 1).map(str),
}
FRAME = st.integers(0, 40)
POINTS = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(
        lambda what: st.builds(Change, FRAME, st.just(what), VALUES[what])
    ),
    max_size=12,
    unique_by=lambda point: (point.frame, point.what),
)


def walked(points: list[Change], last: int) -> list[dict[str, str]]:
    """What holds at each frame, told by going through all frames in order."""
    now = {"prompt": "summer", "negative": "", "strength": "0.75", "seed": "3"}
    told: list[dict[str, str]] = []
    for frame in range(last + 1):
        now = now | {point.what: point.value for point in points if point.frame == frame}
        told.append(now)
    return told


@given(POINTS, st.randoms(use_true_random=False))
def test_a_value_holds_until_the_next_of_its_kind_whatever_the_order(
    points: list[Change], random: Random
) -> None:
    expected = walked(points, 50)
    random.shuffle(points)
    tracks = Tracks(points, USUAL)
    for frame, told in enumerate(expected):
        asked = tracks.at(frame)
        assert asked.prompt == told["prompt"]
        assert asked.negative == told["negative"]
        assert asked.strength == float(told["strength"])
        assert asked.seed == int(told["seed"])


@given(POINTS, st.integers(0, 20), st.integers(1, 30))
def test_turns_are_where_the_words_become_others(
    points: list[Change], start: int, length: int
) -> None:
    words = [(told["prompt"], told["negative"]) for told in walked(points, 60)]
    span = range(start, start + length)
    turns = [frame for frame in span[1:] if words[frame] != words[frame - 1]]
    assert Tracks(points, USUAL).turns(span) == turns


@given(POINTS, st.integers(0, 20), st.integers(1, 30))
def test_the_mean_strength_is_that_of_the_frames(
    points: list[Change], start: int, length: int
) -> None:
    span = range(start, start + length)
    strengths = [float(told["strength"]) for told in walked(points, 60)]
    expected = sum(strengths[frame] for frame in span) / length
    assert Tracks(points, USUAL).mean_strength(span) == pytest.approx(expected)


def test_without_points_all_is_as_usual() -> None:
    tracks = Tracks((), USUAL)
    assert (tracks.at(0), tracks.at(10**9)) == (USUAL, USUAL)
    assert tracks.mean_strength(range(10**6)) == 0.75
