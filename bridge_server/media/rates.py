"""Which exact rate a list of times stands for, and whether it is one."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

#: Time bases at least this fine hold the rate exactly where every step is equal.
_FINE = Fraction(1, 2000)
#: A frame must last so many ticks before one tick is taken for rounding.
_ROUNDED = 8
#: A frame that is held is shown for more than so many frames.
_HELD = Fraction(3, 2)
#: How near a named rate lies to the one that is meant: FFmpeg gives Matroska's nanoseconds as a
#: fraction of small numbers, 19001/317 for 60000/1001.
_NEAR = Fraction(1, 100_000)


def exact(
    pts: NDArray[np.int64],
    time_base: Fraction,
    last_duration: int,
    declared: Iterable[Fraction | None],
) -> tuple[Fraction, bool]:
    """Return the frames per second, and whether they vary (then it is the average).

    A rate fits if every frame lies where it says, rounded to the time base (Matroska's
    milliseconds); one tick is allowed for a muxer that rounds otherwise. The last frame must not be
    held: a still at the end is of the clip's length.

    pts: (N,) rising
    declared: rates that the container names, best first
    """
    named = [_meant(rate) for rate in declared if rate]
    for rate in (*_even(pts, time_base), *named, *_measured(pts, time_base)):
        held = last_duration * time_base * rate > _HELD
        if rate > 0 and not held and _fits(pts, time_base, rate):
            return rate, False
    ticks = int(pts[-1] - pts[0]) + max(1, last_duration)
    return Fraction(len(pts)) / (ticks * time_base), True


def _even(pts: NDArray[np.int64], time_base: Fraction) -> list[Fraction]:
    steps = np.diff(pts)
    if time_base > _FINE or not len(steps) or bool((steps != steps[0]).any()):
        return []
    return [1 / (int(steps[0]) * time_base)]


def _meant(rate: Fraction) -> Fraction:
    near = (usual for usual in _usual(rate) if abs(usual - rate) < usual * _NEAR)
    return next(near, rate)


def _usual(rate: Fraction) -> list[Fraction]:
    """The whole and the NTSC rate next to `rate`."""
    return [Fraction(round(rate)), Fraction(round(rate * 1001 / 1000) * 1000, 1001)]


def _measured(pts: NDArray[np.int64], time_base: Fraction) -> list[Fraction]:
    if len(pts) < 2:
        return []
    mean = (len(pts) - 1) / (int(pts[-1] - pts[0]) * time_base)
    if mean * time_base * _ROUNDED > 1:
        return []
    return _usual(mean)


def _fits(pts: NDArray[np.int64], time_base: Fraction, rate: Fraction) -> bool:
    step = 1 / (rate * time_base)
    index = np.arange(len(pts), dtype=np.int64)
    expected = (2 * index * step.numerator + step.denominator) // (2 * step.denominator)
    slack = 1 if step >= _ROUNDED else 0
    return bool((np.abs(pts - pts[0] - expected) <= slack).all())
