"""What is asked of each frame, where that changes over time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from operator import itemgetter
from statistics import fmean
from typing import Any

from bridge_server.request import Change

#: Frames that an average is taken of, at most about so many.
_SAMPLES = 256
_READ: dict[str, Callable[[str], Any]] = {"strength": float, "seed": int}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of one keyframe."""

    prompt: str
    negative: str
    strength: float
    seed: int


class Tracks:
    """Values of which each holds from its frame on, until the next one of its kind.

    points: in any order; their frames need not be keyframes, nor be in the clip's span
    usual: what holds before the first point of a kind
    """

    def __init__(self, points: Iterable[Change], usual: Asked) -> None:
        self._points: dict[str, list[tuple[int, Any]]] = {
            each.name: [(-1, getattr(usual, each.name))] for each in fields(Asked)
        }
        for point in sorted(points, key=lambda point: point.frame):
            value = _READ.get(point.what, str)(point.value)
            self._points[point.what].append((point.frame, value))

    def at(self, frame: int) -> Asked:
        """What holds at a frame of the source."""
        return Asked(**{name: self._value(name, frame) for name in self._points})

    def turns(self, span: range) -> list[int]:
        """The frames of `span` but its first that begin with other words than those before them."""
        words = ("prompt", "negative")
        frames = {frame for name in words for frame, _ in self._points[name] if frame in span[1:]}
        return [
            frame
            for frame in sorted(frames)
            if any(self._value(name, frame) != self._value(name, frame - 1) for name in words)
        ]

    def mean_strength(self, span: range) -> float:
        """The strength that is asked of the frames of `span`, on average."""
        if len(self._points["strength"]) == 1:
            return self._points["strength"][0][1]
        frames = span[:: max(1, len(span) // _SAMPLES)]
        return fmean(self._value("strength", frame) for frame in frames)

    def _value(self, name: str, frame: int) -> Any:
        points = self._points[name]
        return points[bisect_right(points, frame, key=itemgetter(0)) - 1][1]
