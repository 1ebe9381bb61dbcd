"""The commands about the server, given in this process to a real server, and to none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bridge_server import config, job_logs, serve_commands
from bridge_server.cli import app
from bridge_server.serve_commands import ago, far
from host_plugins.link import endpoint
from host_plugins.link.messages import JobInfo
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import Serving, at_rest, submit, until


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("a server")).start()
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("clips") / "one shot.mp4", (9,))


@pytest.fixture
def desk(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """The server, found by commands in this process."""
    monkeypatch.setenv(config.HOME, str(serving.folder / "home"))
    monkeypatch.setenv(endpoint.FOLDER, str(serving.runtime))
    return serving


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.FOLDER, str(tmp_path / "nowhere"))


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_job_is_looked_at_changed_and_let_go_on(
    desk: Serving, clip: Path, tmp_path: Path
) -> None:
    with desk.client() as client:
        submit(client, "look-1", clip, output=str(tmp_path / "a.mp4"), until="keyframes")
        at_rest(client, "look-1")
    listed = run("jobs")
    assert listed.exit_code == 0
    row = next(line for line in listed.stdout.splitlines() if line.startswith("look-1"))
    assert "waiting" in row
    assert "at keyframes" in row

    changed = run("edit", "look", "prompt@4=pencil")
    assert (changed.exit_code, "look-1 is queued" in changed.stdout) == (0, True), changed.output
    watched = run("watch", "look-1")
    assert watched.exit_code == 0
    assert "look-1 is waiting at keyframes" in watched.stdout
    back = run("edit", "look-1", "prompt@4=")
    assert back.exit_code == 0, back.output
    with desk.client() as client:
        at_rest(client, "look-1")
    assert run("approve", "look-1").exit_code == 0
    assert run("watch", "look-1", "--json").stdout.splitlines()
    assert (tmp_path / "a.mp4").exists()
    assert run("edit", "look-1", "seed@4=3").exit_code == 1

    said = [
        json.loads(line)["what"] for line in run("logs", "look-1", "--json").stdout.splitlines()
    ]
    for what in ("asked to submit", "is queued", "begun", "asked to edit", "edited",
                 "asked to approve", "is done"):  # fmt: skip
        assert what in said, said


def test_a_failed_job_says_why_in_its_log_with_the_trace(desk: Serving, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no film")
    with desk.client() as client:
        submit(client, "broken-1", broken)
        at_rest(client, "broken-1")
    told = run("logs", "broken-1")
    assert "Traceback" in told.stdout
    assert "error   is failed" in told.stdout
    assert "broken.mp4" in run("jobs", "--state", "failed").stdout
    assert run("jobs", "--state", "failed", "--json").stdout.startswith("[")
    assert "broken-1 is queued" in run("retry", "broken-1").stdout


def test_the_beginning_of_an_id_is_enough_unless_it_is_that_of_two(
    desk: Serving, tmp_path: Path
) -> None:
    (tmp_path / "x.mp4").write_bytes(b"x")
    with desk.client() as client:
        for name in ("twin-1", "twin-2"):
            submit(client, name, tmp_path / "x.mp4")
            at_rest(client, name)
    for word, said in (("twin", "twin may be any of twin-"), ("nobody", "there is no job nobody"),
                       ("../x", "there is no job")):  # fmt: skip
        told = run("cancel", word)
        assert told.exit_code == 1
        assert said in told.stderr
        assert len(told.stderr.splitlines()) == 1
    assert "twin-1 is failed" in run("cancel", "twin-1").stdout
    told = run("approve", "twin-1")
    assert "it waits for nothing" in told.stderr


def test_what_cannot_be_is_said(desk: Serving) -> None:
    assert run("jobs", "-n", "0").exit_code == 2
    assert run("jobs", "--state", "tired").exit_code == 2
    told = run("edit", "twin-1", "colour@3=red")
    assert (told.exit_code, "WHAT@FRAME=VALUE" in told.stderr) == (1, True)


@pytest.mark.usefixtures("nobody")
def test_without_a_server_every_command_says_so() -> None:
    for words in (("watch",), ("watch", "a"), ("cancel", "a"), ("approve", "a"), ("pause", "a"),
                  ("edit", "a", "seed@1=2")):  # fmt: skip
        told = run(*words)
        assert told.exit_code == 1
        assert "is not running" in told.stderr
        assert "fresco-bridge serve" in told.stderr
    told = run("stop")
    assert (told.exit_code, "is not running" in told.stderr) == (0, True)
    told = run("jobs")
    assert (told.exit_code, told.stdout) == (0, "")
    assert run("jobs", "--json").stdout.strip() == "[]"
    assert "there is no job" in run("logs", "a").stderr


def test_jobs_and_logs_are_read_from_the_journal_when_the_server_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(tmp_path / "own")
    serving.folder.mkdir()
    serving.start()
    (tmp_path / "x.mp4").write_bytes(b"x")
    with serving.client() as client:
        submit(client, "left-1", tmp_path / "x.mp4")
        at_rest(client, "left-1")
    monkeypatch.setenv(config.HOME, str(serving.folder / "home"))
    monkeypatch.setenv(endpoint.FOLDER, str(serving.runtime))
    assert run("stop").exit_code == 0
    until(serving.process_ended, 20)
    listed = run("jobs", "--state", "failed")
    assert listed.stdout.splitlines()[1].startswith("left-1")
    assert listed.stderr == "", "nothing waits for a server"
    assert "is failed" in run("logs", "left").stdout


def test_columns_fit_into_eighty_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    job = JobInfo(job="0123456789abcdef", state="cancelled", seq=1, title="a clip " * 30)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: type("T", (), {"columns": 80}))
    lines = list(serve_commands._columns([serve_commands._cells(job, time.time())]))
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("01234567  cancelled")


def test_figures_in_words() -> None:
    assert [ago(seconds) for seconds in (-1, 5, 119, 120, 7199, 7200, 3 * 86400)] == [
        "0 s", "5 s", "119 s", "2 min", "119 min", "2 h", "3 d",
    ]  # fmt: skip
    job = JobInfo(job="a", state="running", seq=1, stage="translate", done=1, total=4, eta_s=70)
    assert far(job) == "translate 25 %, 1 min"
    assert far(JobInfo(job="a", state="waiting", seq=1, gate="keyframes")) == "at keyframes"


def test_a_log_that_grows_is_begun_anew_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    logs = job_logs.JobLogs(tmp_path)
    for number in range(30):
        logs.say("a", "x" * 100_000, number=number)
    logs.close()
    sizes = [file.stat().st_size for file in (tmp_path / "a").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 1.3e6
    with (tmp_path / "a" / job_logs.NAME).open("a") as file:
        file.write('{"time": 1, "wha')
    numbers = [line["number"] for line in job_logs.read(tmp_path / "a")]
    assert numbers[-1] == 29
    assert numbers == sorted(numbers)


def test_what_a_process_prints_is_kept_short_while_it_prints(tmp_path: Path) -> None:
    file = tmp_path / "worker.log"
    with file.open("a") as printing:
        printing.write("x" * 5000 + "end")
        printing.flush()
        job_logs.shortened(file, 1000)
        printing.write("more")
    assert file.read_text() == "more"
    assert file.with_name("worker.log.1").read_text() == "x" * 997 + "end"
