"""How soon a job stops that is cancelled: the draft model on the sample clip, at every point.

Counted in seconds of the processor, which are the same on a busy machine; on an idle one they are
the clock's.
"""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import bridge_server
from bridge_server import config
from bridge_server.environment import here
from bridge_server.events import Event as Fact
from bridge_server.events import Progress
from bridge_server.job import settle
from bridge_server.render import render
from bridge_server.request import Request
from bridge_server.store import Store
from fresco.callbacks import CancelToken
from fresco.warm import WarmModels
from host_plugins.link import messages
from host_plugins.link.client import Client
from host_plugins.link.messages import Event, OfJob
from tests.bridge_server.serving import Serving, event, submit

LONG = "FRESCO_BRIDGE_LONG" in os.environ
SAMPLE = Path(bridge_server.__file__).parent / "data" / "demo.mp4"
#: Seconds in which a job must stop.
SOON = 1.0
STAGES = ("analyse", "translate", "propagate", "encode")


class Polls(CancelToken):
    """Measures how long a run goes without looking whether it was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = "settle"
        self.count = 0
        self.longest = (0.0, "", "")
        self._before = time.process_time()

    def check(self) -> None:
        passed = time.process_time() - self._before
        if passed > self.longest[0]:
            self.longest = (passed, self.stage, "".join(traceback.format_stack(limit=6)))
        self.count += 1
        super().check()
        self._before = time.process_time()

    def watch(self, fact: Fact) -> None:
        if isinstance(fact, Progress):
            self.stage = fact.stage


def test_a_run_looks_often_whether_it_was_cancelled(tmp_path: Path) -> None:
    """At the sizes and with the steps that a user of the draft model has, on fewer frames."""
    polls, place = Polls(), here("cpu", 1)
    wanted = Request(
        str(SAMPLE), prompt="watercolour painting", output=str(tmp_path / "styled.mp4"),
        stop=13, keyframes="every:6", steps=3, cuts="none",
    )  # fmt: skip
    job = settle(wanted, place, config.load(), polls)
    render(job, Store(tmp_path / "store"), WarmModels(0), polls.watch, polls)
    polls.check()
    seconds, stage, where = polls.longest
    print(
        f"{polls.count} looks; the longest time without one: {seconds:.2f} s, in {stage}\n{where}"
    )
    assert polls.count > 100
    assert seconds < SOON, f"{seconds:.2f} s without a look, in {stage}, until:\n{where}"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("a server")).start()
    yield serving
    serving.kill()


def stopped_after(
    serving: Serving, client: Client, job: str, stage: str, wait: float, seed: int
) -> float:
    """Cancel a job `wait` seconds after it came to a stage; what its worker worked until it ended.

    The rest of the processor's seconds: one thread computes.
    """
    client.subscribe([job], ["progress"])
    submit(client, job, SAMPLE, size=256, stop=25, keyframes="every:6",
           steps=10 if stage == "translate" else 2, seed=seed,
           output=str(serving.folder / f"{job}.mp4"))  # fmt: skip
    event(client, lambda each: _at(each, stage), 600)
    time.sleep(wait)
    (worker,) = serving.workers
    before = worker.cpu_times()
    client.ask(messages.CANCEL, OfJob(job=job))
    event(
        client, lambda each: each.event == "state" and each.data["state"] in ("cancelled", "done")
    )
    after = worker.cpu_times()
    return after.user + after.system - before.user - before.system


def _at(each: Event, stage: str) -> bool:
    if each.event == "state":
        return each.data["state"] == "done"
    return each.event == "progress" and each.data["stage"] == stage


def test_a_job_stops_within_a_second_in_each_stage(serving: Serving) -> None:
    with serving.client() as client:
        for seed, stage in enumerate(STAGES):
            took = stopped_after(serving, client, f"stop-{stage}", stage, 0.05, seed)
            assert took < SOON, f"{took:.2f} s in {stage}"


@pytest.mark.skipif(not LONG, reason="minutes: make test-long")
def test_a_job_stops_within_a_second_at_any_moment(serving: Serving) -> None:
    chance = random.Random(7)
    took: dict[str, float] = {}
    with serving.client() as client:
        for number in range(40):
            stage, wait = chance.choice(STAGES), chance.uniform(0, 4)
            seconds = stopped_after(serving, client, f"sweep-{number}", stage, wait, 100 + number)
            took[f"{stage} + {wait:.2f} s"] = seconds
    worst = max(took, key=lambda moment: took[moment])
    print(f"{len(took)} moments; the longest: {took[worst]:.2f} s, {worst}")
    assert took[worst] < SOON, took
