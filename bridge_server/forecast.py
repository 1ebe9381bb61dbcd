"""What a job will take, and how long it still takes, learnt from this machine's earlier ones.

A stage's speed is in seconds per unit of its progress (frames measured, keyframes styled, frames
propagated, frames written) and per pixel, on one device; of keyframes also per pass of the network,
and by the model. What comes before the first step of a translation (reading the model, most of all)
is learnt apart: it does not grow with the clip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the server computes nothing, and reads no libraries that do
    from bridge_server.job import Job

STAGES = ("analyse", "translate", "propagate", "encode")
#: The share that an earlier figure keeps of its weight with every new one.
_KEPT = 0.7
#: Seconds that a stage must have run before its own speed counts for more than the learnt one.
_TRUSTED = 3.0
#: Until the keyframes are known: about one in so many frames is one.
_DISTANCE = 10

Speeds = Mapping[str, tuple[float, float]]


def work(job: Job, warm: bool = False) -> dict[str, Any]:
    """Return what the time that a job takes depends on, as plain values.

    warm: whether the model is in memory already
    """
    place = job.environment
    passes = 2 if job.settings.guidance_scale > 1 else 1
    steps = job.settings.steps * job.tracks.mean_strength(job.span)
    return {
        "frames": len(job.span),
        "pixels": job.size.height * job.size.width,
        "size": job.clip.height * job.clip.width,
        "model": job.model,
        "passes": max(1, round(steps)) * passes,
        "until": job.request.until,
        "place": f"cpu:{place.threads}" if place.device == "cpu" else place.device,
        "warm": warm,
    }


@dataclass(slots=True)
class Forecast:
    """The course of one job, as far as it is known.

    work: what `work` said of it
    speeds: learnt; what → seconds and the amount of work done in them
    expected: `events.Expected` as a table, once the keyframes are known
    learnt: what this job adds to `speeds`
    """

    work: Mapping[str, Any]
    speeds: Speeds
    clock: Callable[[], float] = time.monotonic
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    expected: Mapping[str, Any] = field(default_factory=dict[str, Any])
    learnt: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    _began: float = 0.0
    _before: float = 0.0
    _last: float = 0.0
    #: When there was progress for the first time, and how much.
    _first: tuple[float, float] | None = None

    def move(self, stage: str, done: float, total: float) -> None:
        """Take progress over; a stage that another one follows is learnt from."""
        now = self.clock()
        if stage != self.stage:
            self._learn(now)
            self.stage, self._began, self._before, self._first = stage, now, done, None
        if self._first is None and done > self._before:
            self._first = now, done
        self.done, self.total, self._last = done, total, now

    def end(self) -> None:
        """Learn from the last stage: the job has come where it should."""
        self._learn(self.clock())

    # ------------------------------------------------------------------------------- what is told

    def left(self) -> float | None:
        """Seconds until the job is done or at its gate; None where that is not known yet."""
        if self.stage not in STAGES:
            return None
        later = STAGES[STAGES.index(self.stage) + 1 :]
        parts = [self._seconds(stage, self._amount(stage)) for stage in later]
        return _sum([self._left_here(), *parts])

    def ahead(self) -> dict[str, Any]:
        """What is missing until the job is done or at its gate, when its keyframes are found."""
        return self._told("todo", "memory", "disk")

    def rest(self) -> dict[str, Any]:
        """What comes after the gate of the job."""
        return self._told("rest", "rest_memory", "rest_disk")

    def _told(self, stages: str, memory: str, disk: str) -> dict[str, Any]:
        """Seconds, if they are known, and bytes of memory and of the store."""
        if not self.expected:
            return {}
        amounts: Mapping[str, float] = self.expected[stages]
        seconds = _sum([self._seconds(stage, amount) for stage, amount in amounts.items()])
        told = {"memory": self.expected[memory], "disk": self.expected[disk]}
        return told if seconds is None else {"seconds": round(seconds, 1), **told}

    # ---------------------------------------------------------------------------------- arithmetic

    def _left_here(self) -> float | None:
        missing = self.total - self.done
        if self.total <= 0 or missing <= 0:
            return 0.0
        learnt, since = self._paced(missing), self.clock() - self._last
        if self._first is None:
            return None if learnt is None else learnt + max(0.0, self._opening(self.stage) - since)
        when, done = self._first
        seconds, worked = self._last - when, self.done - done
        if worked > 0 and (learnt is None or seconds >= _TRUSTED):
            learnt = seconds / worked * missing
        return None if learnt is None else max(0.0, learnt - since)

    def _amount(self, stage: str) -> float:
        """The work that is missing of a stage, in its own unit."""
        if self.expected:
            return float(self.expected["todo"].get(stage, 0))
        frames = float(self.work.get("frames", 0))
        until = self.work.get("until", "done")
        if stage == "translate":
            return 1.0 if until == "first_frame" else max(1.0, frames / _DISTANCE)
        return frames if until == "done" else 0.0

    def _seconds(self, stage: str, amount: float) -> float | None:
        """How long so much of a stage takes, with what comes before; None if that is not known."""
        if amount <= 0:
            return 0.0
        return _sum([self._paced(amount, stage), self._opening(stage)])

    def _paced(self, amount: float, stage: str = "") -> float | None:
        """How long so much takes once it has begun."""
        stage = stage or self.stage
        known = self.speeds.get(self._what(stage))
        if known is None or known[1] <= 0:
            return None
        return known[0] / known[1] * amount * self._unit(stage)

    def _opening(self, stage: str) -> float:
        known = self.speeds.get(self._what_before(stage))
        return known[0] / known[1] if known is not None and known[1] > 0 else 0.0

    def _learn(self, now: float) -> None:
        """Learn from a stage that is complete; one that was stopped says nothing of its end."""
        worked = self.done - self._before
        if self._first is None or self.done < self.total or worked <= 0:
            return
        unit, (when, done) = self._unit(self.stage), self._first
        if self.stage == "translate" and self.done - done >= worked / 2:
            pace = (now - when) / (self.done - done)
            opening = max(0.0, when - self._began - pace * (done - self._before))
            self.learnt[self._what("translate")] = pace * worked, worked * unit
            self.learnt[self._what_before("translate")] = opening, 1.0
        else:
            self.learnt[self._what(self.stage)] = now - self._began, worked * unit

    def _unit(self, stage: str) -> float:
        """The work in one unit of a stage's progress."""
        if stage == "encode":
            return float(self.work.get("size", 1))
        pixels = float(self.work.get("pixels", 1))
        return pixels * float(self.work.get("passes", 1)) if stage == "translate" else pixels

    def _what(self, stage: str) -> str:
        named = ("place", "model") if stage == "translate" else ("place",)
        return " ".join([stage, *(str(self.work.get(name, "")) for name in named)])

    def _what_before(self, stage: str) -> str:
        return f"before {self._what(stage)}, {'warm' if self.work.get('warm') else 'cold'}"


def blended(old: tuple[float, float] | None, new: tuple[float, float]) -> tuple[float, float]:
    """Add a new figure to what was learnt: recent ones count more, and so do long ones."""
    if old is None:
        return new
    return old[0] * _KEPT + new[0], old[1] * _KEPT + new[1]


def _sum(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
