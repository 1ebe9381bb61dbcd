"""What happens around a server that nobody meant: folders that vanish, files that others hold."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

import bridge_server
from bridge_server import config
from bridge_server.journal import Journal
from host_plugins.link import endpoint, messages
from host_plugins.link.client import Client
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import JobInfo
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import Serving, at_rest, event, info, lives, until
from tests.bridge_server.test_faults import (
    ask,
    at_stage,
    change,
    filled,
    left_over,
    no_space,
    running,
    small_disk,
)

LONG = "FRESCO_BRIDGE_LONG" in os.environ
SAMPLE = Path(bridge_server.__file__).parent / "data" / "demo.mp4"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and mounts of POSIX")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("clips") / "one shot.mp4", (9,))


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with running(Serving(tmp_path_factory.mktemp("a server"))) as serving:
        yield serving


@pytest.fixture
def client(serving: Serving) -> Iterator[Client]:
    with serving.client() as client:
        client.subscribe((), ["progress"])
        yield client


def at_work(client: Client, job: str, clip: Path, output: Path) -> None:
    """Begin a job that nothing is known of, and wait until it is in the middle of its work."""
    ask(client, job, clip, output, prompt=job)
    event(client, lambda each: each.job == job and at_stage("translate")(each))


def failed(client: Client, job: str) -> JobInfo:
    told = at_rest(client, job)
    assert told.state == "failed"
    # What may be done stands in the hint, or at the end of the error.
    assert told.failure.get("hint") or "; make it" in told.failure["error"], told.failure
    return told


def ends_well(client: Client, job: str, output: Path) -> None:
    change(client, messages.RETRY, job)
    last = at_rest(client, job)
    assert last.state == "done", last.failure
    assert output.exists()
    assert left_over(output.parent) == []


def test_a_folder_for_the_result_that_vanishes(client: Client, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "films" / "styled.mp4"
    output.parent.mkdir()
    at_work(client, "homeless", clip, output)
    output.parent.rmdir()
    told = failed(client, "homeless").failure
    assert told["code"] == "media"
    assert f"the folder {output.parent} is not there" in told["error"]
    assert not output.parent.exists()
    output.parent.mkdir()
    ends_well(client, "homeless", output)


def test_a_disk_that_fills_while_the_file_is_written(
    client: Client, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "films" / "styled.mp4"
    with small_disk(output.parent, 1) as films:
        ballast = filled(films)
        os.truncate(ballast, ballast.stat().st_size - 8192)  # the beginning of the file fits
        ask(client, "large", clip, output)
        no_space(at_rest(client, "large"), "styled.mp4")
        assert list(films.iterdir()) == [ballast]
        ballast.unlink()
        ends_well(client, "large", output)


def test_a_store_that_is_removed_during_the_work(
    client: Client, serving: Serving, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "styled.mp4"
    at_work(client, "bereft", clip, output)
    shutil.rmtree(serving.folder / "store")
    told = failed(client, "bereft").failure
    assert told["code"] == "not_found"
    assert "removed" in told["error"]
    assert "made anew" in told["hint"]
    ends_well(client, "bereft", output)


def test_a_journal_that_another_program_holds(
    client: Client, serving: Serving, clip: Path, tmp_path: Path
) -> None:
    output, file = tmp_path / "styled.mp4", serving.state / "journal.sqlite"
    at_work(client, "patient", clip, output)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(BridgeError, match="another program holds the journal") as told:
            client.ask(messages.RETRY, messages.OfJob(job="patient"), timeout=30)
        assert (told.value.code, told.value.retryable) == (Code.BUSY, True)
        log = serving.folder / "server.log"
        until(lambda: "another program holds the journal" in log.read_text(), 600)
        assert client.ask(messages.PING, timeout=30).running == 1
        other.execute("rollback")
    assert at_rest(client, "patient").state == "done"


def test_a_held_journal_is_not_called_damaged(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(BridgeError, match="another program holds the journal") as told:
            Journal(file, patience=0.1)
    assert told.value.code is Code.BUSY
    Journal(file).close()


def test_an_endpoint_file_that_is_damaged_or_removed_is_written_anew(serving: Serving) -> None:
    file = serving.runtime / endpoint.NAME
    before = file.read_bytes()
    for meddle in (lambda: file.write_bytes(b"{"), file.unlink, lambda: file.chmod(0o644)):
        meddle()
        until(
            lambda: file.exists() and file.read_bytes() == before and not file.stat().st_mode & 63
        )
        with serving.client() as client:
            assert client.ask(messages.PING, timeout=30).time


def test_a_worker_that_stands_still_for_a_while(
    client: Client, serving: Serving, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "styled.mp4"
    at_work(client, "frozen", clip, output)
    (worker,) = serving.workers
    worker.suspend()
    time.sleep(3)  # nobody looks sooner
    assert client.ask(messages.PING, timeout=30).running == 1
    worker.resume()
    last = at_rest(client, "frozen")
    told = client.ask(messages.REPLAY, messages.Replay(job="frozen"))
    assert last.state == "done"
    assert not any(each.data.get("why") for each in told.events if each.event == "state")
    assert lives(worker)


def test_kills_while_everything_is_made_for_the_first_time(tmp_path: Path) -> None:
    chance = random.Random(3)
    for place in range(3):
        serving = Serving(tmp_path / f"server {place}")
        with running(serving):
            serving.kill()
            shutil.rmtree(serving.folder / "home")
            for _ in range(3):
                serving.launch()
                time.sleep(chance.uniform(0.1, 1.0))
                serving.kill()
            serving.start()
            with serving.client() as client:
                assert client.ask(messages.JOBS).jobs == ()
            assert sorted(path.name for path in serving.state.iterdir() if "key" in path.name) == [
                "keys.json"
            ]


def test_two_servers_that_start_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "a server"
    folder.mkdir()
    both = [Serving(folder), Serving(folder)]
    for each in both:
        each.launch()
    try:
        until(lambda: any(each.process_ended() for each in both))
        (stays,) = [each for each in both if not each.process_ended()]
        (leaves,) = [each for each in both if each.process_ended()]
        assert leaves.process is not None
        assert leaves.process.returncode == 1
        assert "a server is running already" in (folder / "server.log").read_text()
        until(lambda: stays.at() is not None)
        with stays.client() as client:
            assert client.ask(messages.PING, timeout=30).time
    finally:
        for each in both:
            each.kill()


def test_two_servers_need_two_homes(tmp_path: Path) -> None:
    runtime, home = str(tmp_path / "other run"), str(tmp_path / "other home")
    with running(Serving(tmp_path)) as first, first.client() as client:
        same_home = Serving(tmp_path, environ={endpoint.FOLDER: runtime})
        assert refused(same_home) == 1
        assert f"a server is running already in {first.state}" in said(tmp_path)
        assert "set both FRESCO_BRIDGE_RUNTIME and FRESCO_BRIDGE_HOME" in said(tmp_path)
        same_runtime = Serving(tmp_path, environ={config.HOME: home})
        assert refused(same_runtime) == 1
        assert f"a server is running already in {first.runtime}" in said(tmp_path)
        with running(Serving(tmp_path / "second")) as second, second.client() as other:
            assert other.ask(messages.PING, timeout=30).time
            assert client.ask(messages.PING, timeout=30).time


def refused(serving: Serving) -> int:
    """Start a server that must not stay; returns its exit code."""
    serving.launch()
    assert serving.process is not None
    return serving.process.wait(60)


def said(folder: Path) -> str:
    """What servers in a folder printed, without the breaks of lines."""
    return " ".join((folder / "server.log").read_text().split())


# ----------------------------------------------------------------------------------------- memory


def leave(process: psutil.Process, megabytes: int | None) -> None:
    """Let a process have so much more memory than it has; None: as much as it wants."""
    room = psutil.RLIM_INFINITY
    if megabytes is not None:
        room = process.memory_info().vms + (megabytes << 20)
    process.rlimit(psutil.RLIMIT_AS, (room, psutil.RLIM_INFINITY))


@pytest.fixture
def warm_worker(client: Client, serving: Serving, clip: Path, tmp_path: Path) -> psutil.Process:
    """The worker, with the model in memory."""
    if not hasattr(psutil, "RLIMIT_AS"):
        pytest.skip("no limit can be set here")
    ask(client, "warm", clip, tmp_path / "warm.mp4", until="keyframes", prompt="warm", steps=1)
    assert at_rest(client, "warm").state == "waiting"
    (worker,) = serving.workers
    return worker


def test_a_worker_without_memory_says_so_and_lives(
    client: Client, warm_worker: psutil.Process, tmp_path: Path
) -> None:
    output = tmp_path / "styled.mp4"
    leave(warm_worker, 16)
    ask(client, "greedy", SAMPLE, output, size=256, steps=1, stop=9, keyframes="every:4")
    told = failed(client, "greedy").failure
    assert told["code"] == "out_of_memory", told
    leave(warm_worker, None)
    ends_well(client, "greedy", output)
    assert lives(warm_worker)


@pytest.mark.skipif(not LONG, reason="minutes: make test-long")
def test_blocks_are_made_smaller_where_they_would_fit(
    client: Client, warm_worker: psutil.Process, tmp_path: Path
) -> None:
    """Between what is too little and what is enough, something fits that is made smaller."""
    room, tried = 16, list[str]()
    wishes: dict[str, Any] = {"steps": 1, "stop": 43, "keyframes": "every:6", "until": "keyframes"}
    leave(warm_worker, room)
    ask(client, "tight", SAMPLE, tmp_path / "styled.mp4", size=256, **wishes)
    while (last := at_rest(client, "tight")).state != "waiting":
        tried.append(f"{room} MB: {last.failure}")
        assert last.failure["code"] == "out_of_memory", tried
        room = round(room * 1.3)
        leave(warm_worker, room)
        change(client, messages.RETRY, "tight")
    leave(warm_worker, None)
    assert tried
    assert any("made smaller: " in note for note in last.notes), (tried, room)
    assert len(info(client, "tight").keyframes) == 8
