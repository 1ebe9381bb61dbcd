"""What goes wrong: kills at any moment, full disks, clips that change, workers that hang.

Every job that was acknowledged goes on, and its file has the bytes of an undisturbed run; or it
fails with words that a user can act on.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bridge_server import stages
from bridge_server.environment import here
from bridge_server.errors import NotEnoughSpace, SourceChanged
from bridge_server.events import Event as Fact
from bridge_server.events import Progress
from bridge_server.job import settle
from bridge_server.journal import Journal
from bridge_server.render import render
from bridge_server.request import Request
from bridge_server.store import Store
from fresco.warm import WarmModels
from host_plugins.link import messages
from host_plugins.link.client import Client
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Edit, Event, JobInfo, OfJob, Op, Shutdown
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import Serving, at_rest, event, info, lives, submit, until

LONG = "FRESCO_BRIDGE_LONG" in os.environ
#: Long enough that a stop in the middle of the translation hits it.
STEPS = 12
#: As short as a job can be.
SHORT: dict[str, Any] = {"prompt": "oil painting", "size": 64, "steps": 1, "keyframes": "every:4",
                         "cuts": "none"}  # fmt: skip
STAGES = ("analyse", "translate", "propagate", "encode")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and mounts of POSIX")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("clips") / "one shot.mp4", (9,))


@pytest.fixture(scope="module")
def calm(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file that an undisturbed run writes, in a store of its own."""
    folder = tmp_path_factory.mktemp("calm")
    with running(Serving(folder)) as serving, serving.client() as client:
        ask(client, "calm", clip, folder / "calm.mp4")
        assert at_rest(client, "calm").state == "done"
    return (folder / "calm.mp4").read_bytes()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with running(Serving(tmp_path / "a server")) as serving:
        yield serving


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that is warm from test to test."""
    with running(Serving(tmp_path_factory.mktemp("a shared server"))) as serving:
        yield serving


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The same, which does not wait long for its worker."""
    folder = tmp_path_factory.mktemp("an impatient server")
    with running(Serving(folder, ["--hang", "3"])) as serving:
        yield serving


@contextmanager
def running(serving: Serving) -> Generator[Serving]:
    serving.folder.mkdir(parents=True, exist_ok=True)
    try:
        yield serving.start()
    finally:
        if serving.process is not None and not serving.process_ended():
            serving.process.send_signal(signal.SIGCONT)
        serving.kill()


def ask(client: Client, job: str, clip: Path, output: Path, **more: Any) -> JobInfo:
    return submit(client, job, clip, output=str(output), **{"steps": STEPS, **more})


def at_stage(stage: str, done: float = 0) -> Callable[[Event], bool]:
    def is_there(each: Event) -> bool:
        told = each.data
        return each.event == "progress" and told["stage"] == stage and told["done"] >= done

    return is_there


def became(state: str) -> Callable[[Event], bool]:
    return lambda each: each.event == "state" and each.data["state"] == state


def again_queued(each: Event) -> bool:
    return became("queued")(each) and each.data["before"] == "running"


def change(client: Client, op: Op[JobInfo], job: str) -> JobInfo:
    return client.ask(op, OfJob(job=job))


def left_over(folder: Path) -> list[Path]:
    """What was begun and neither finished nor removed."""
    return [path for path in folder.rglob("*") if path.name.startswith(".fresco-")]


# ------------------------------------------------------------------------------------------ kills


class Course:
    """A job's way to its end, with kills at moments that a seed chooses."""

    def __init__(self, serving: Serving, clip: Path, job: str, chance: random.Random) -> None:
        self.serving, self.clip, self.job, self.chance = serving, clip, job, chance
        self.output = serving.folder / f"{job}.mp4"
        self.hit: list[str] = []

    def kill_at_submit(self) -> None:
        """Between a request and its reply; the client repeats it."""
        with self.serving.client() as client:
            request = {"clip": str(self.clip), "output": str(self.output)}
            client.post("submit", {"job": f"{self.job}-first", "request": request})
            time.sleep(self.chance.uniform(0, 0.03))
            self._kill_server("submit")
        with self.serving.client() as client:
            again = messages.Submit(job=f"{self.job}-first", request=request)
            client.ask(messages.SUBMIT, again)
            change(client, messages.CANCEL, f"{self.job}-first")

    def kill_at_start(self) -> None:
        """While the server itself begins."""
        self.serving.kill()
        self.serving.launch()
        time.sleep(self.chance.uniform(0.1, 2.0))
        self._kill_server("start")

    def kill_at_stage(self, stage: str) -> None:
        with self.serving.client() as client:
            self._ask(client)
            event(client, lambda each: at_stage(stage)(each) or became("done")(each))
            time.sleep(self.chance.uniform(0, 0.1))
            if self.chance.random() < 0.5:
                self._kill_server(stage)
            else:
                self._kill_worker(stage, client)

    def kill_at_publishing(self) -> None:
        """The file has its name, and the journal does not know it yet."""
        with self.serving.client() as client:
            self._ask(client)
            event(client, lambda each: at_stage("encode")(each) or became("done")(each))
            assert self.serving.process is not None
            self.serving.process.send_signal(signal.SIGSTOP)
            until(self.output.exists)
        self._kill_server("publish")

    def _ask(self, client: Client) -> None:
        """Ask for the job; for another one where a kill came later than it was meant to."""
        client.subscribe([self.job], ["progress"])
        if ask(client, self.job, self.clip, self.output).state == "done":
            self.output.unlink()
            self.job = f"{self.job}-again"
            self._ask(client)

    def end(self) -> bytes:
        with self.serving.client() as client:
            ask(client, self.job, self.clip, self.output)
            last = at_rest(client, self.job)
            assert last.state == "done", last.failure
            told = client.ask(messages.REPLAY, messages.Replay(job=self.job))
            assert [own.seq for own in told.events] == list(range(1, told.newest + 1))
        assert left_over(self.serving.folder) == []
        assert list((self.serving.folder / "store" / "unfinished").iterdir()) == []
        return self.output.read_bytes()

    def _kill_server(self, moment: str) -> None:
        self.serving.kill()
        self.hit.append(f"server at {moment}")
        self.serving.start()

    def _kill_worker(self, moment: str, client: Client) -> None:
        (worker,) = self.serving.workers
        worker.kill()
        self.hit.append(f"worker at {moment}")
        told = event(client, lambda each: became("queued")(each) or became("done")(each))
        if told.data["state"] == "queued":
            assert "killed" in told.data["why"]


def test_six_kills_leave_no_trace_in_the_file(serving: Serving, clip: Path, calm: bytes) -> None:
    course = Course(serving, clip, "six", random.Random(6))
    course.kill_at_submit()
    for stage in STAGES:
        course.kill_at_stage(stage)
    course.kill_at_publishing()
    assert len(course.hit) == 6
    assert course.end() == calm


@pytest.mark.skipif(not LONG, reason="minutes: make test-long")
def test_fifty_kills_leave_no_trace_in_the_files(tmp_path: Path, clip: Path, calm: bytes) -> None:
    hit: list[str] = []
    seed = 0
    while len(hit) < 50:
        seed += 1
        chance = random.Random(seed)
        with running(Serving(tmp_path / f"server {seed}")) as serving:
            course = Course(serving, clip, f"job-{seed}", chance)
            course.kill_at_start()
            course.kill_at_submit()
            for stage in STAGES:
                for _ in range(chance.choice((1, 2))):
                    course.kill_at_stage(stage)
            if not course.output.exists():
                course.kill_at_publishing()
            assert course.end() == calm, (seed, course.hit)
            hit += course.hit
    assert {own.split(" at ")[1] for own in hit} == {"start", "submit", *STAGES, "publish"}


# ----------------------------------------------------------------------------------------- source


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fate", ["replaced", "vanished"])
def test_results_of_another_clip_are_not_kept(
    stage: str, fate: str, clip: Path, tmp_path: Path
) -> None:
    source, output = Path(shutil.copy2(clip, tmp_path)), tmp_path / "styled.mp4"
    store = Store(tmp_path / "store")
    fresh: list[str] = []

    def meddle(each: Fact) -> None:
        if isinstance(each, Progress) and each.stage == stage and not fresh:
            fresh.append(stage)
            before.extend(kept(store))
            source.unlink()
            if fate == "replaced":
                reel(source, (9,), codec="mpeg4")

    before: list[Path] = []
    job = settle(Request(str(source), output=str(output), **SHORT), here("cpu", 1))
    with pytest.raises(SourceChanged, match=fate):
        render(job, store, WarmModels(0), meddle)
    assert fresh
    assert kept(store) == before
    assert not output.exists()
    assert left_over(tmp_path) == []


def kept(store: Store) -> list[Path]:
    return sorted(path.parent for path in store.folder.glob("??/*/inventory.json"))


def test_a_job_whose_clip_is_replaced_fails_and_goes_on_with_the_new_one(
    shared: Serving, clip: Path, calm: bytes, tmp_path: Path
) -> None:
    source, aside = Path(shutil.copy2(clip, tmp_path / "moving.mp4")), tmp_path / "aside.mp4"
    output, again = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with shared.client() as client:
        client.subscribe(["moving"])
        ask(client, "moving", source, output)
        event(client, at_stage("translate"))
        shutil.copy2(source, aside)
        reel(tmp_path / "new.mp4", (4, 5)).replace(source)
        failed = at_rest(client, "moving")
        assert (failed.state, failed.failure["code"]) == ("failed", "media")
        assert "moving.mp4 was replaced" in failed.failure["error"]
        assert failed.failure["hint"]
        change(client, messages.RETRY, "moving")
        done = at_rest(client, "moving")
        assert done.state == "done", done.failure
        assert output.read_bytes() != calm
        aside.replace(source)  # the old one, as it was: its results are still its own
        ask(client, "original", source, again)
        assert at_rest(client, "original").state == "done"
        assert again.read_bytes() == calm


# ------------------------------------------------------------------------------------------ disks


@contextmanager
def small_disk(folder: Path, megabytes: int = 8, *options: str) -> Generator[Path]:
    """A disk of its own at `folder`; skips where none can be made."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={megabytes}m", *options])]
    try:
        done = subprocess.run([*words, "tmpfs", str(folder)], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def filled(folder: Path) -> Path:
    """Fill a disk to the last byte; returns what takes the room."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0")
    return ballast


def test_full_disks(clip: Path, calm: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "a server"
    output = tmp_path / "films" / "styled.mp4"
    with (
        small_disk(folder / "store") as store,
        small_disk(output.parent) as films,
        small_disk(folder / "home") as home,
        running(Serving(folder)) as serving,
        serving.client() as client,
    ):
        client.subscribe(["full"])
        ask(client, "full", clip, output)
        event(client, at_stage("translate"))
        ballast = filled(store)
        no_space(at_rest(client, "full"), str(store))
        assert list((store / "unfinished").iterdir()) == []
        ballast.unlink()

        ballast = filled(films)
        change(client, messages.RETRY, "full")
        no_space(at_rest(client, "full"), "styled.mp4")
        assert list(films.iterdir()) == [ballast]
        ballast.unlink()

        ballast = filled(home)
        with pytest.raises(BridgeError) as told:
            change_until_full(client, "full")
        assert told.value.code is Code.NO_SPACE
        assert info(client, "full").state == "failed"  # what needs no room is still answered
        ballast.unlink()

        change(client, messages.RETRY, "full")
        assert at_rest(client, "full").state == "done"
        assert output.read_bytes() == calm


def change_until_full(client: Client, job: str) -> None:
    """Use up the room that the journal has left; what is changed stays as it was in effect."""
    for _ in range(5000):
        now = info(client, job)
        again = Edit(job=job, base=now.revision, frame=4, what="seed", value=None)
        client.ask(messages.EDIT, again)


def no_space(failed: JobInfo, where: str) -> None:
    assert (failed.state, failed.failure["code"]) == ("failed", "no_space")
    assert where in failed.failure["error"]
    assert "room" in failed.failure["hint"]


def test_news_of_a_worker_wait_for_room_in_the_journal(
    clip: Path, calm: bytes, tmp_path: Path
) -> None:
    folder, output = tmp_path / "a server", tmp_path / "styled.mp4"
    with (
        small_disk(folder / "home") as home,
        running(Serving(folder)) as serving,
        serving.client() as client,
    ):
        client.subscribe(["late"])
        ask(client, "aside", clip, tmp_path / "aside.mp4", until="keyframes", seed=9)
        assert at_rest(client, "aside").state == "waiting"
        ask(client, "late", clip, output)
        event(client, at_stage("translate"))
        ballast = filled(home)
        with pytest.raises(BridgeError):
            change_until_full(client, "aside")
        until(lambda: "cannot be written" in (folder / "server.log").read_text())
        assert client.ask(messages.PING).running == 1
        time.sleep(2)
        ballast.unlink()
        last = at_rest(client, "late")
        if last.state == "failed":  # what must be remembered before the file has its name
            no_space(last, str(home))
            change(client, messages.RETRY, "late")
            last = at_rest(client, "late")
        assert last.state == "done", last.failure
        assert output.read_bytes() == calm


def test_a_server_does_not_call_a_full_disk_a_damaged_journal(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", 1) as state:
        filled(state)
        with pytest.raises(BridgeError, match="full") as told:
            Journal(state / "journal.sqlite")
        assert told.value.code is Code.NO_SPACE


def test_a_result_that_does_not_fit_is_not_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        store = Store(disk / "store")
        with (
            pytest.raises(NotEnoughSpace, match="full"),
            store.writing("0" * 64) as desk,
        ):
            stages.save(desk / "frames.npy", np.zeros((2, 1 << 20)))
        assert store.find("0" * 64) is None
        with pytest.raises(OSError, match="space"):
            stages.save(Path("/dev/full"), np.zeros(3))


def test_a_folder_that_may_not_be_written_to(shared: Serving, clip: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "shelf", 1, "ro") as shelf, shared.client() as client:
        ask(client, "shelf", clip, shelf / "styled.mp4")
        failed = at_rest(client, "shelf")
        assert (failed.state, failed.failure["code"]) == ("failed", "media")
        assert "may not be written to; choose another folder" in failed.failure["error"]


# ---------------------------------------------------------------------------------------- workers


def ask_endless(
    serving: Serving, client: Client, job: str, clip: Path, output: Path, picture: Path
) -> None:
    """Ask for a job with a painted keyframe that becomes a pipe: reading it never ends."""
    until(lambda: client.ask(messages.PING).doing != "starting")
    (worker,) = serving.workers
    paint(picture)
    worker.suspend()
    painted = {"frame": 4, "what": "painted", "value": str(picture)}
    ask(client, job, clip, output, changes=[painted])
    picture.unlink()
    os.mkfifo(picture)
    worker.resume()


def paint(picture: Path) -> None:
    picture.unlink(missing_ok=True)
    cv2.imwrite(str(picture), np.full((64, 96, 3), 99, np.uint8))


def test_a_job_that_hangs_is_started_anew(impatient: Serving, clip: Path, tmp_path: Path) -> None:
    picture, output = tmp_path / "painted.png", tmp_path / "styled.mp4"
    with impatient.client() as client:
        client.subscribe(["pipe"])
        ask_endless(impatient, client, "pipe", clip, output, picture)
        event(client, became("running"))
        told = event(client, again_queued)
        assert told.data["why"] == "the worker did not come forward for 3 seconds"
        paint(picture)
        assert at_rest(client, "pipe").state == "done"


def test_a_worker_that_is_silent_holds_nobody_up(
    impatient: Serving, clip: Path, tmp_path: Path
) -> None:
    with impatient.client() as client:
        client.subscribe(["silent"])
        until(lambda: client.ask(messages.PING).doing != "starting")
        (worker,) = impatient.workers
        worker.suspend()
        # More than the pipe to the worker holds.
        more = {"prompt": "oil " * 12_000, "negative": "blur " * 9_000}
        ask(client, "silent", clip, tmp_path / "styled.mp4", **more)
        event(client, became("running"))
        begun = time.monotonic()
        assert client.ask(messages.PING).running == 1
        assert time.monotonic() - begun < 1
        told = event(client, again_queued)
        assert "no sign of life" in told.data["why"]
        assert not lives(worker)
        assert change(client, messages.CANCEL, "silent").state in ("queued", "cancelled", "running")
        assert at_rest(client, "silent").state == "cancelled"


def test_a_worker_that_cannot_start_is_told_and_does_not_spin(clip: Path, tmp_path: Path) -> None:
    serving = Serving(tmp_path / "a server", device="cuda:77")
    with running(serving), serving.client() as client:
        client.subscribe(["poor"])
        ask(client, "poor", clip, tmp_path / "styled.mp4")
        told = event(client, lambda each: each.event == "note", 180)
        assert "there is no device 'cuda:77' here" in told.data["text"]
        assert "no worker can be started" in client.ask(messages.PING).doing
        log = (serving.folder / "server.log").read_text()
        assert log.count("ended at no job") == 2
        assert change(client, messages.CANCEL, "poor").state == "cancelled"


@pytest.mark.skipif(not LONG, reason="two minutes: make test-long")
def test_a_job_that_ends_every_worker_fails_in_the_end(
    serving: Serving, clip: Path, tmp_path: Path
) -> None:
    """As it is where the machine's memory runs out at the same place again and again."""
    picture = tmp_path / "painted.png"
    with serving.client() as client:
        client.subscribe(["heavy"])
        ask_endless(serving, client, "heavy", clip, tmp_path / "styled.mp4", picture)
        for _ in range(5):
            event(client, became("running"), 180)
            serving.workers[0].kill()
        failed = at_rest(client, "heavy")
        assert (failed.state, failed.failure["code"]) == ("failed", "out_of_memory")
        assert "memory ran out, 5 times with nothing done between" in failed.failure["error"]
        assert "smaller size" in failed.failure["hint"]
        assert any("4 workers ended at this" in note for note in failed.notes), failed.notes
        paint(picture)
        change(client, messages.RETRY, "heavy")
        assert at_rest(client, "heavy").state == "done"


# ---------------------------------------------------------------------------------------- the end


def test_a_server_that_is_told_to_end_leaves_nothing_undone(
    serving: Serving, clip: Path, calm: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "styled.mp4"
    ends: list[Callable[[Client], object]] = [
        lambda _client: sent(serving, signal.SIGTERM),
        lambda _client: sent(serving, signal.SIGINT),
        lambda client: client.ask(messages.SHUTDOWN, Shutdown()),
    ]
    with serving.client() as client:
        ask(client, "early", clip, output)
        assert change(client, messages.CANCEL, "early").state == "cancelled"  # no worker is ready
    for place, end in enumerate(ends):
        with serving.client() as client:
            client.subscribe(["long"], ["progress"])
            ask(client, "long", clip, output)
            event(client, at_stage("translate"))
            assert serving.process is not None
            others, begun = serving.others, time.monotonic()
            end(client)
            told = event(client, again_queued)
            assert told.data["why"] == "the server was ended"
            assert serving.process.wait(20) == 0
            assert time.monotonic() - begun < 5, place
        assert not any(map(lives, others))
        assert sorted(path.name for path in serving.runtime.iterdir()) == ["server.lock"]
        serving.start()
    with serving.client() as client:
        assert at_rest(client, "long").state == "done"
    assert output.read_bytes() == calm


def sent(serving: Serving, number: signal.Signals) -> None:
    assert serving.process is not None
    serving.process.send_signal(number)


def test_what_is_wished_as_a_job_ends_is_not_lost(
    shared: Serving, clip: Path, tmp_path: Path
) -> None:
    """The server stands still while the worker ends; then it hears of both at once."""
    with shared.client() as client:
        client.subscribe((), ["progress"])
        ask(client, "first", clip, tmp_path / "1.mp4", until="keyframes")
        assert at_rest(client, "first").state == "waiting"
        for op in ("cancel", "pause", "edit"):
            at_the_same_moment(shared, client, clip, tmp_path / f"{op}.mp4", op)


def at_the_same_moment(serving: Serving, client: Client, clip: Path, output: Path, op: str) -> None:
    """Ask for something of a job, all of whose keyframes are in the store, while it ends."""
    job = f"{op}-it"
    ask(client, job, clip, output, until="keyframes")
    log = serving.state / "jobs" / job / "log.jsonl"
    until(lambda: log.exists() and '"begun"' in log.read_text())
    sent(serving, signal.SIGSTOP)
    until(lambda: '"ended"' in log.read_text())
    fields = {"base": 1, "frame": 4, "what": "seed", "value": "5"} if op == "edit" else {}
    client.post(op, {"job": job, **fields})
    time.sleep(0.1)
    sent(serving, signal.SIGCONT)
    last = at_rest(client, job)
    told = client.ask(messages.REPLAY, messages.Replay(job=job))
    states = [each.data["state"] for each in told.events if each.event == "state"]
    if op == "cancel":
        assert last.state == "cancelled", states
    elif op == "pause":
        # Resting at its gate it has nothing to pause; that is refused, and told so.
        assert last.state in ("paused", "waiting"), states
    else:
        assert (last.state, last.revision) == ("waiting", 2), states
        assert [own.final for own in last.keyframes] == [True] * 3
