from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_server.media.rates import exact

RATES = [Fraction(n) for n in (12, 15, 24, 25, 30, 48, 50, 60, 120)] + [
    Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)
]


@given(st.sampled_from(RATES), st.integers(3, 400), st.integers(0, 10**6))
def test_milliseconds_of_matroska_still_give_the_exact_rate(
    rate: Fraction, count: int, start: int
) -> None:
    pts = np.array([round(i * 1000 / rate) for i in range(count)], np.int64) + start
    assert exact(pts, Fraction(1, 1000), round(1000 / rate), [rate]) == (rate, False)


@given(st.sampled_from(RATES), st.integers(2, 200))
def test_an_even_clip_needs_no_word_of_the_container(rate: Fraction, count: int) -> None:
    base = Fraction(1, rate.numerator * 1000)
    pts = np.arange(count, dtype=np.int64) * int(1 / (rate * base))
    assert exact(pts, base, 1, [Fraction(7)]) == (rate, False)


def test_a_last_frame_that_is_held_is_no_even_clip() -> None:
    pts = np.arange(5, dtype=np.int64) * 40
    for last, rate in ((40, Fraction(25)), (55, Fraction(25)), (1000, Fraction(5000, 1160))):
        found = exact(pts, Fraction(1, 1000), last, [Fraction(25)])
        assert found == (rate, last == 1000)


def test_one_frame_has_the_rate_that_the_container_names() -> None:
    assert exact(np.array([5]), Fraction(1, 90000), 3003, [None, RATES[0]]) == (RATES[0], False)


@pytest.mark.parametrize(
    ("named", "meant"),
    [((19001, 317), (60000, 1001)), ((29011, 242), (120000, 1001)), ((7001, 146), (48000, 1001)),
     ((25, 2), (25, 2)), ((10, 3), (10, 3))],
)  # fmt: skip
def test_a_named_rate_is_the_one_that_is_meant(
    named: tuple[int, int], meant: tuple[int, int]
) -> None:
    rate = Fraction(*meant)
    pts = np.array([round(i * 1000 / rate) for i in range(4)], np.int64)
    found = exact(pts, Fraction(1, 1000), round(1000 / rate), [Fraction(*named)])
    assert found == (rate, False)


def test_a_gap_makes_it_variable_and_the_rate_the_average() -> None:
    pts = np.array([0, 20, 40, 60, 100], np.int64)
    rate, variable = exact(pts, Fraction(1, 600), 20, [Fraction(30)])
    assert variable
    assert rate == Fraction(5 * 600, 120)


@pytest.mark.parametrize("step", [1, 2])
def test_a_coarse_clock_allows_no_rounding(step: int) -> None:
    """At a clock of one tick per frame, a tick beside is a frame beside."""
    pts = np.array([0, 1, 2, 3, 4, 8, 9], np.int64) * step
    assert exact(pts, Fraction(1, 30 * step), step, [Fraction(30)])[1]
