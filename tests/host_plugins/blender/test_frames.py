"""The arithmetic of which source frame is shown, against a plain second way."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_plugins.blender import frames
from host_plugins.blender.frames import Timing, Unclear

COUNTS = st.integers(1, 400)
#: Frames per second, as their exact values and as what Blender has: fps and base.
RATES = {
    Fraction(24): (24, 1.0),
    Fraction(25): (25, 1.0),
    Fraction(30): (30, 1.0),
    Fraction(50): (50, 1.0),
    Fraction(60): (60, 1.0),
    Fraction(24000, 1001): (24, 1.001),
    Fraction(30000, 1001): (30, 1.001),
}


@st.composite
def cut(draw: st.DrawFn) -> tuple[Timing, int]:
    """A strip of so many source frames, at the timeline's own rate, trimmed, split and held."""
    count = draw(COUNTS)
    before_cut = draw(st.integers(0, count - 1))
    after_cut = draw(st.integers(0, count - 1 - before_cut))
    length = count - before_cut - after_cut
    start = draw(st.integers(-1000, 1000))
    before = draw(st.integers(-20, length - 1))
    after = draw(st.integers(-20, length - 1 - max(before, 0)))
    left, right = start + before, start + length - after
    return Timing(start, left, right, before, after, before_cut, after_cut), count


@given(cut())
def test_at_the_timelines_rate_each_frame_is_its_own(given_: tuple[Timing, int]) -> None:
    timing, count = given_
    last = count - timing.cut_after - 1
    wanted = [
        min(max(timing.cut_before + frame - int(timing.start), timing.cut_before), last)
        for frame in range(timing.left, timing.right)
    ]
    assert frames.speed(timing, count, 1.0) == 1.0
    assert list(frames.shown(timing, count)) == wanted


@given(cut())
def test_frames_never_go_back_and_are_there(given_: tuple[Timing, int]) -> None:
    timing, count = given_
    shown = frames.shown(timing, count)
    assert len(shown) == timing.right - timing.left
    assert all(0 <= frame < count for frame in shown)
    assert list(shown) == sorted(shown)


@given(COUNTS, st.sampled_from(sorted(RATES)), st.sampled_from(sorted(RATES)))
def test_a_hidden_rate_is_told_from_the_length(
    count: int, source: Fraction, timeline: Fraction
) -> None:
    rate = frames.ratio(float(source), *RATES[timeline])
    length = max(int(count / (source / timeline)), 1)
    shown_at_rate = Timing(1, 1, 1 + length)
    as_is = Timing(1, 1, 1 + count)
    try:
        speeds = frames.speed(shown_at_rate, count, rate), frames.speed(as_is, count, rate)
    except Unclear:
        # The two lengths are one, but not what is shown.
        assert abs(length - count) <= 3
        return
    slow = [frames.shown(as_is, count, speed) for speed in (speeds[1], 1.0)]
    assert slow[0] == slow[1]
    nearest = frames.shown(shown_at_rate, count, speeds[0])
    for place, frame in enumerate(nearest):
        exact = place * source / timeline
        inside = min(max(exact, 0), count - 1)
        assert abs(frame - inside) <= Fraction(1, 2) + Fraction(1, 1000)


@pytest.mark.parametrize(
    ("source", "timeline", "wanted"),
    [
        # Measured in Blender; between two frames single precision decides.
        (29.97002, (25, 1.0), {1: 1, 2: 2, 3: 4, 5: 6, 10: 12, 20: 24}),
        (25.0, (24, 1.0), {11: 11, 12: 13, 36: 38, 60: 62, 108: 112}),
        (25.0, (30, 1.0), {3: 3, 9: 8, 15: 13}),
        (29.97003, (24, 1.001), {2: 3, 6: 8, 10: 13}),
    ],
)
def test_between_frames_it_rounds_as_blender(
    source: float, timeline: tuple[int, float], wanted: dict[int, int]
) -> None:
    rate = frames.ratio(source, *timeline)
    length = math.floor(200 / rate)
    shown = frames.shown(Timing(7, 7, 7 + length), 200, rate)
    assert {place: shown[place] for place in wanted} == wanted


def test_a_length_that_fits_no_rate_is_unclear() -> None:
    with pytest.raises(Unclear, match="not certain"):
        frames.speed(Timing(1, 1, 151), 100, 2.0)


def test_lengths_that_fit_both_are_unclear_only_where_it_matters() -> None:
    rate = frames.ratio(30, 30, 1.001)
    short = Timing(1, 1, 201)
    assert frames.speed(short, 200, rate) == rate
    assert frames.shown(short, 200, rate) == frames.shown(short, 200)
    with pytest.raises(Unclear):
        frames.speed(Timing(1, 1, 1001), 1001, rate)


@given(st.lists(st.integers(0, 20), min_size=1), st.integers(0, 99), st.integers(1, 50))
def test_in_order(shuffled: list[int], first: int, length: int) -> None:
    assert frames.in_order(range(first, first + length))
    wanted = [shuffled[0] + place for place in range(len(shuffled))]
    assert frames.in_order(shuffled) == (shuffled == wanted)
