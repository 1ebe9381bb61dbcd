# SPDX-License-Identifier: GPL-3.0-or-later
"""Which source frame a strip shows at a timeline frame. Arithmetic only; no Blender in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Blender rounds the lengths of content that is played at another rate.
_ROUNDED = 1.5
#: Rates that are nearer to each other than this are one: they are single precision numbers.
_ALIKE = 1e-6


class Unclear(Exception):
    """What is shown cannot be told without rendering it; the text says why: "it is retimed"."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How a strip lies on the timeline, in timeline frames.

    start: where its content would begin, were nothing trimmed
    left, right: what is shown: [left, right)
    before, after: what is trimmed at either end; below 0 the first or last frame is held
    cut_before, cut_after: source frames that a hard split took away at either end
    """

    start: float
    left: int
    right: int
    before: float = 0.0
    after: float = 0.0
    cut_before: int = 0
    cut_after: int = 0

    @property
    def content(self) -> float:
        """How long the content is, in timeline frames."""
        return self.right - self.left + self.before + self.after


@dataclass(frozen=True, slots=True, eq=False)
class Movie:
    """Frames of a movie file.

    times: (frames,) int64, when they are shown, in the order of decoding; in units of its clock
    units: of the clock, in a second
    alpha: the file says that it has alpha
    fine: the file says that it has more than 8 bits
    """

    times: np.ndarray
    units: float
    alpha: bool
    fine: bool

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self.times)


def ratio(source: float, fps: float, base: float) -> float:
    """Return a source's frame rate by the timeline's, as Blender reckons: in single precision.

    source: frames per second; fps, base: the timeline's are fps / base
    """
    return float(np.float32(source) / (np.float32(fps) / np.float32(base)))


def speed(timing: Timing, count: int, rate: float) -> float:
    """Return how many source frames go by in one timeline frame: `rate`, or 1.

    A strip that was dropped onto the timeline is played at its file's own rate. No property says
    so; it shows in the length of the content. Where both fit and show the same, it is `rate`.

    count: frames that the source has
    rate: of `ratio`

    Raises:
        Unclear: the length fits neither, or both, and what is shown would differ.
    """
    if abs(rate - 1) < _ALIKE:
        return 1.0
    left = count - timing.cut_before - timing.cut_after
    as_is = abs(timing.content - left) <= _ROUNDED
    at_rate = abs(timing.content - left / rate) <= _ROUNDED
    if as_is == at_rate and (not as_is or _differ(timing, rate)):
        raise Unclear("its frame rate is not the timeline's, and how fast it plays is not certain")
    return rate if at_rate else 1.0


def _differ(timing: Timing, rate: float) -> bool:
    """Whether any frame that is shown depends on which of the two speeds it is."""
    places = _places(timing)
    return not np.array_equal(_nearest(places, rate), _nearest(places, 1.0))


def _places(timing: Timing) -> np.ndarray:
    return (np.arange(timing.left, timing.right) - timing.start).astype(np.float32)


def _nearest(places: np.ndarray, rate: float) -> np.ndarray:
    """The nearest source frames. Single precision, as Blender's: it decides between two."""
    return np.floor(places * np.float32(rate) + np.float32(0.5)).astype(np.int64)


def shown(timing: Timing, count: int, rate: float = 1.0) -> tuple[int, ...]:
    """Return the source frame that is shown at each timeline frame of a strip, from 0.

    count: frames that the source has; the last is held where the content is longer
    rate: of `speed`
    """
    length = count - timing.cut_before - timing.cut_after
    if rate == 1.0:
        # Blender may take a movie to be longer than it is, and counts hard cuts from there.
        length = max(length, round(timing.content))
    inside = np.clip(_nearest(_places(timing), rate), 0, max(length - 1, 0))
    return tuple(np.minimum(inside + timing.cut_before, count - 1).tolist())


def in_order(frames: Sequence[int]) -> bool:
    """Whether one source frame follows the other, none twice and none left out."""
    return all(frame == frames[0] + place for place, frame in enumerate(frames))
