"""How long a job will still take, learnt from this machine's earlier ones.

A stage's speed is in seconds per unit of its progress (frames measured, keyframes styled, frames
propagated, frames written) and per pixel; keyframes also per step and model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

STAGES = ("analyse", "translate", "propagate", "encode")
#: Share of an earlier figure that a new one replaces, at least.
_FRESH = 0.3
#: Seconds that a stage must have run before its own speed counts for more than the learnt one.
_TRUSTED = 3.0
#: Bytes per pixel that a propagated frame takes in the store.
_FRAME = 6

Speeds = Mapping[str, tuple[float, float]]


@dataclass(slots=True)
class Forecast:
    """The course of one job, as far as it is known.

    work: what the worker said of it, `worker._work`
    speeds: learnt; what → seconds and the amount of work done in them
    """

    work: Mapping[str, Any]
    speeds: Speeds
    clock: Callable[[], float] = time.monotonic
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    keyframes: int = 0
    _began: float = 0.0
    _before: float = 0.0
    learnt: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])

    def move(self, stage: str, done: float, total: float) -> None:
        """Take progress over; a stage that ends is learnt from."""
        if stage != self.stage:
            self.stage, self._began, self._before = stage, self.clock(), done
        self.done, self.total = done, total
        if stage == "translate":
            self.keyframes = max(1, round(total))
        worked = done - self._before
        if total and done >= total and worked > 0:
            seconds = self.clock() - self._began
            self.learnt[self._what(stage)] = (seconds, worked * self._unit(stage))

    def left(self) -> float | None:
        """Seconds until the job is done or at its gate; None where that is not known yet."""
        if self.stage not in STAGES:
            return None
        here = self._left_here()
        later = [self._expected(stage) for stage in STAGES[STAGES.index(self.stage) + 1 :]
                 if self._comes(stage)]  # fmt: skip
        known = [seconds for seconds in (here, *later) if seconds is not None]
        return sum(known) if len(known) == 1 + len(later) else None

    def rest(self) -> dict[str, Any]:
        """What comes after a gate: seconds, and bytes of the store; as far as it is known."""
        frames = float(self.work.get("frames", 0))
        told = {"disk": round(frames * float(self.work.get("pixels", 0)) * _FRAME)}
        later = [self._expected(stage) for stage in ("propagate", "encode")]
        known = [seconds for seconds in later if seconds is not None]
        return {**told, "seconds": round(sum(known), 1)} if len(known) == len(later) else told

    def _left_here(self) -> float | None:
        if self.total <= 0 or self.done >= self.total:
            return 0.0
        seconds, worked = self.clock() - self._began, self.done - self._before
        own = seconds / worked * (self.total - self.done) if worked > 0 else None
        learnt = self._expected(self.stage, self.total - self.done)
        if own is None or (learnt is not None and seconds < _TRUSTED):
            return learnt
        return own

    def _comes(self, stage: str) -> bool:
        """Whether the job goes as far as this stage."""
        return stage == "translate" or self.work.get("until", "done") == "done"

    def _expected(self, stage: str, amount: float | None = None) -> float | None:
        known = self.speeds.get(self._what(stage))
        if known is None or known[1] <= 0:
            return None
        if amount is None:
            amount = self._amount(stage)
        return known[0] / known[1] * amount * self._unit(stage)

    def _amount(self, stage: str) -> float:
        frames = float(self.work.get("frames", 0))
        # Until the keyframes are known: about one in ten frames is one.
        return float(self.keyframes or frames / 10) if stage == "translate" else frames

    def _unit(self, stage: str) -> float:
        """The work in one unit of a stage's progress."""
        if stage == "encode":
            return float(self.work.get("size", 1))
        pixels = float(self.work.get("pixels", 1))
        return pixels * float(self.work.get("steps", 1)) if stage == "translate" else pixels

    def _what(self, stage: str) -> str:
        return f"{stage} {self.work.get('model', '')}" if stage == "translate" else stage


def blended(old: tuple[float, float] | None, new: tuple[float, float]) -> tuple[float, float]:
    """Mix a new figure into what was learnt: recent ones count more, long ones too."""
    if old is None:
        return new
    kept = min(1 - _FRESH, old[1] / (old[1] + new[1]))
    scale = kept / (1 - kept) * new[1] / old[1] if old[1] else 0.0
    return old[0] * scale + new[0], old[1] * scale + new[1]
