"""The forecast, on a machine of a known speed: no clock, no work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_server.forecast import Forecast, blended

Speeds = dict[str, tuple[float, float]]


@dataclass
class Machine:
    """Does jobs at fixed speeds, and learns of itself what a server would.

    seconds for a million: of pixels measured, propagated or written; of pixels times passes styled
    reading: seconds for reading a model
    """

    measures: float = 0.02
    styles: float = 0.5
    propagates: float = 0.3
    writes: float = 0.1
    reading: float = 8.0
    now: float = 0.0
    warm: str = ""
    speeds: Speeds = field(default_factory=dict[str, tuple[float, float]])

    def job(self, frames: int = 100, keyframes: int = 8, short: int = 512, passes: int = 30,
            until: str = "done", model: str = "sd15", place: str = "cpu:2") -> Job:  # fmt: skip
        work = {"frames": frames, "pixels": short * short, "size": 1080 * 1920, "model": model,
                "passes": passes, "until": until, "place": place,
                "warm": self.warm == model}  # fmt: skip
        return Job(self, work, keyframes)

    def wait(self, seconds: float) -> None:
        self.now += seconds


class Job:
    """One job on it; `course` holds what was foretold at each moment, and when."""

    def __init__(self, machine: Machine, work: Mapping[str, Any], keyframes: int) -> None:
        self.machine, self.work, self.keyframes = machine, work, keyframes
        self.forecast = Forecast(work, dict(machine.speeds), lambda: machine.now)
        self.course: list[tuple[float, float | None]] = []
        self.begun, self.took = machine.now, 0.0
        self.ahead: dict[str, Any] = {}
        self.rest: dict[str, Any] = {}
        self.planned = 0.0

    def run(self, styled: int = 0) -> Job:
        """Do it all. styled: keyframes that are in the store already."""
        machine, frames = self.machine, int(self.work["frames"])
        pixels = self.work["pixels"] / 1e6
        self.stage("analyse", 0, frames, machine.measures * pixels)
        self.expect(styled)
        self.planned = machine.now
        self.forecast.move("translate", styled, self.keyframes)
        if styled < self.keyframes and not self.work["warm"]:
            self.watched(machine.reading)
            machine.warm = str(self.work["model"])
        a_pass = machine.styles * pixels
        self.stage("translate", styled, self.keyframes, a_pass * self.work["passes"], 10)
        if self.work["until"] == "done":
            self.stage("propagate", 0, frames - self.keyframes, machine.propagates * pixels)
            self.stage("encode", 0, frames, machine.writes * self.work["size"] / 1e6)
        self.took = machine.now - self.begun
        self.forecast.end()
        for what, new in self.forecast.learnt.items():
            machine.speeds[what] = blended(machine.speeds.get(what), new)
        return self

    def expect(self, styled: int) -> None:
        frames = int(self.work["frames"])
        now = {"translate": self.keyframes - styled}
        later = {"propagate": frames - self.keyframes, "encode": frames}
        done = self.work["until"] == "done"
        self.forecast.expected = {
            "todo": now | later if done else now, "rest": {} if done else later,
            "memory": 5, "rest_memory": 7, "disk": 11, "rest_disk": 13,
        }  # fmt: skip
        self.ahead, self.rest = self.forecast.ahead(), self.forecast.rest()

    def stage(self, name: str, done: float, total: float, each: float, parts: int = 1) -> None:
        self.forecast.move(name, done, total)
        while done < total:
            self.watched(each / parts)
            done = min(total, done + 1 / parts)
            self.forecast.move(name, total if total - done < 1e-9 else done, total)
            if total - done < 1e-9:
                return

    def watched(self, seconds: float) -> None:
        self.machine.wait(seconds)
        self.course.append((self.machine.now - self.begun, self.forecast.left()))


def test_nothing_is_foretold_by_a_machine_that_has_done_nothing() -> None:
    job = Machine().job().run()
    assert job.course[0][1] is None
    assert job.ahead == {"memory": 5, "disk": 11}
    assert job.rest == {"seconds": 0.0, "memory": 7, "disk": 13}


@pytest.mark.parametrize("change", [
    {}, {"frames": 400, "keyframes": 30}, {"short": 768}, {"passes": 8}, {"keyframes": 20},
    {"frames": 24, "keyframes": 3},
])  # fmt: skip
def test_after_one_job_the_next_is_foretold(change: dict[str, Any]) -> None:
    machine = Machine()
    machine.job().run()
    job = machine.job(**change).run()
    since = job.planned - job.begun
    assert job.ahead["seconds"] == pytest.approx(job.took - since, rel=0.2)
    for when, left in job.course:
        if when > since:
            assert left == pytest.approx(job.took - when, rel=0.2, abs=1.5), when


def test_before_the_keyframes_are_known_the_forecast_is_of_the_right_size() -> None:
    machine = Machine()
    machine.job().run()
    job = machine.job(keyframes=9).run()
    when, left = job.course[0]
    assert left == pytest.approx(job.took - when, rel=0.5)


def test_a_model_that_must_be_read_takes_longer_than_a_warm_one() -> None:
    machine = Machine(reading=60)
    machine.job().run()
    machine.job().run()
    warm = machine.job().run()
    machine.warm = ""
    cold = machine.job().run()
    assert cold.ahead["seconds"] - warm.ahead["seconds"] == pytest.approx(60, rel=0.1)


def test_what_is_in_the_store_takes_no_time() -> None:
    machine = Machine()
    machine.job().run()
    whole = machine.job().run()
    half = machine.job().run(styled=4)
    a_keyframe = machine.styles * 512 * 512 / 1e6 * 30
    assert whole.ahead["seconds"] - half.ahead["seconds"] == pytest.approx(4 * a_keyframe, rel=0.1)


def test_at_a_gate_the_rest_is_foretold_and_no_more_than_it() -> None:
    machine = Machine()
    machine.job().run()
    gate = machine.job(until="keyframes").run()
    rest = 92 * 0.3 * 512 * 512 / 1e6 + 100 * 0.1 * 1080 * 1920 / 1e6
    assert gate.rest["seconds"] == pytest.approx(rest, rel=0.1)
    assert gate.ahead["seconds"] == pytest.approx(gate.took - (gate.planned - gate.begun), rel=0.2)
    assert gate.course[-1][1] == pytest.approx(0, abs=2)


def test_another_model_or_device_is_not_foretold_from_this_one() -> None:
    machine = Machine()
    machine.job().run()
    assert "seconds" not in machine.job(model="sdxl").run().ahead
    assert "seconds" not in machine.job(place="cuda:0").run().ahead


def test_a_faster_machine_is_noticed_within_a_few_jobs() -> None:
    machine = Machine()
    for _ in range(10):
        machine.job().run()
    machine.styles /= 3
    jobs = [machine.job().run() for _ in range(6)]
    missed = [job.ahead["seconds"] / (job.took - (job.planned - job.begun)) for job in jobs]
    assert missed[0] > 1.5
    assert missed == sorted(missed, reverse=True)
    assert missed[-1] < 1.2


def test_a_stage_that_was_stopped_teaches_nothing() -> None:
    machine = Machine()
    job = machine.job()
    job.forecast.move("analyse", 0, 100)
    machine.wait(1)
    job.forecast.move("analyse", 40, 100)
    machine.wait(100)
    job.forecast.end()
    assert job.forecast.learnt == {}


def test_a_stage_without_work_takes_and_teaches_nothing() -> None:
    machine = Machine()
    job = machine.job()
    job.forecast.move("analyse", 100, 100)
    machine.wait(5)
    job.forecast.move("translate", 0, 0)
    machine.wait(5)
    assert job.forecast.left() is None  # the later stages are not known
    job.forecast.end()
    assert job.forecast.learnt == {}


Figure = st.tuples(st.floats(0.01, 1e4), st.floats(0.01, 1e9))


@given(Figure, Figure)
def test_what_is_blended_lies_between(old: tuple[float, float], new: tuple[float, float]) -> None:
    pace = [seconds / amount for seconds, amount in (old, new)]
    seconds, amount = blended(old, new)
    assert min(pace) * 0.999 <= seconds / amount <= max(pace) * 1.001
    assert blended(None, new) == new
