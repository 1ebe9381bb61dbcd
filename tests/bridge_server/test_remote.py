"""`render` by a server that it starts on demand: real processes, in folders of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridge_server import config, remote
from bridge_server.request import Request, absolute
from host_plugins.link import endpoint, messages
from host_plugins.link.client import Client
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.messages import JobInfo
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import until

SMALL = ("--size", "64", "--steps", "3", "--keyframes", "every:4", "--cuts", "none")
RENDER = ("render", "-p", "oil painting", *SMALL)


@dataclass
class Desk:
    """A user's folders: settings, the server's, and where commands are given."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])

    @property
    def environ(self) -> dict[str, str]:
        return {
            **os.environ,
            config.HOME: str(self.folder / "home"),
            endpoint.FOLDER: str(self.folder / "run"),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bridge_server", *map(str, words)]
        # A shell's background job ignores Ctrl-C, and would hand that down.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=self.environ, cwd=self.folder,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)
        self.started.append(process)
        return process

    def run(self, *words: object) -> tuple[int, str, str]:
        """Give a command; returns its exit code, and what it printed."""
        process = self.start(*words)
        output, errors = process.communicate(timeout=180)
        return process.returncode, output, errors

    def events(self, *words: object) -> list[dict[str, Any]]:
        code, output, errors = self.run(*words, "--json")
        assert code == 0, errors
        return [json.loads(line) for line in output.splitlines()]

    def at(self) -> Endpoint | None:
        try:
            return endpoint.read([self.folder / "run"])
        except endpoint.BridgeError:
            return None

    def jobs(self) -> list[JobInfo]:
        with Client(lambda: endpoint.read([self.folder / "run"])) as client:
            return list(client.ask(messages.JOBS).jobs)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()
        at = self.at()
        if at is not None:
            os.kill(at.pid, signal.SIGTERM)
            until(lambda: not endpoint.alive(at.pid) or _is_zombie(at.pid))


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended, and only its parent does not know yet."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk whose server is warm from test to test."""
    desk = Desk(tmp_path_factory.mktemp("a user ü"))
    yield desk
    desk.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("a clip ü") / "one shot.mp4", (9,))


def read_until(process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], bool]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if wanted(json.loads(line)):
            return
    raise AssertionError(f"it ended before: {process.stderr and process.stderr.read()}")


def stages(found: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """The stages that were told of, in order, and how much each had to do."""
    told = [(own["stage"], own["total"]) for own in found if own["event"] == "progress"]
    return list(dict.fromkeys(told))


def test_a_server_is_started_and_tells_what_the_command_alone_would(
    shared: Desk, clip: Path, tmp_path: Path
) -> None:
    """The same events, the same report, the same bytes; and the server outlives the command."""
    told = shared.events(*RENDER, clip, "-o", tmp_path / "a.mp4")
    by_server = [event for event in told if event.get("text") != "starting the server"]
    other = Desk(tmp_path / "other")
    other.folder.mkdir()
    alone = other.events(*RENDER, clip, "-o", tmp_path / "b.mp4", "--local")
    assert other.at() is None
    assert shared.at() is not None

    assert stages(by_server) == stages(alone)
    kinds = {event["event"] for event in alone} - {"preview"}
    assert {event["event"] for event in by_server} == kinds
    for kind in kinds:
        forms = [{tuple(own) for own in found if own["event"] == kind}
                 for found in (by_server, alone)]  # fmt: skip
        assert forms[0] == forms[1], kind
    keys = [[own["number"] for own in found if own["event"] == "keyframedone"]
            for found in (by_server, alone)]  # fmt: skip
    assert keys[0] == keys[1] == [0, 4, 8]
    assert by_server[-1]["report"] == alone[-1]["report"]
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_same_command_again_reports_the_file_and_overwrite_makes_it_again(
    shared: Desk, clip: Path, tmp_path: Path
) -> None:
    words = (*RENDER, clip, "-o", tmp_path / "a.mp4")
    assert shared.run(*words)[0] == 0
    made = (tmp_path / "a.mp4").stat().st_mtime_ns

    code, output, errors = shared.run(*words)
    assert (code, "made before" in errors) == (0, True)
    assert output.startswith(
        f"{tmp_path / 'a.mp4'}: 9 frames, styled by fresco-draft (draft), veri"
    )
    assert (tmp_path / "a.mp4").stat().st_mtime_ns == made

    assert shared.run(*words, "--overwrite")[0] == 0
    assert shared.run(*words, "--overwrite")[0] == 0
    assert (tmp_path / "a.mp4").stat().st_mtime_ns > made

    (tmp_path / "a.mp4").write_bytes(b"somebody else's")
    code, _, errors = shared.run(*words)
    assert code == 1
    assert "allow overwriting" in errors
    (tmp_path / "a.mp4").unlink()
    assert shared.run(*words)[0] == 0
    assert (tmp_path / "a.mp4").stat().st_size > 1000


def test_another_clip_of_the_same_name_is_another_job(shared: Desk, tmp_path: Path) -> None:
    own = reel(tmp_path / "own.mp4", (5,))
    settings = config.load()
    wanted = Request(str(own))
    before = remote.job_id(wanted, settings)
    assert remote.job_id(wanted, settings) == before
    assert remote.job_id(wanted, settings, 1) != before
    os.utime(own, (1, 1))
    assert remote.job_id(wanted, settings) != before
    assert remote.job_id(Request(str(own), prompt="x"), settings) != remote.job_id(wanted, settings)


def test_of_a_sequence_every_image_counts(tmp_path: Path) -> None:
    settings = config.load()
    for number in range(3):
        (tmp_path / f"a.{number:04d}.png").write_bytes(b"x")
    (tmp_path / "b.0000.png").write_bytes(b"x")
    for name in ("a.0001.png", "a.####.png", "a.%04d.png", "."):
        wanted = Request(str(tmp_path / name))
        before = remote.job_id(wanted, settings)
        (tmp_path / "a.0002.png").write_bytes(name.encode())
        assert remote.job_id(wanted, settings) != before, name
    wanted = Request(str(tmp_path / "a.####.png"))
    before = remote.job_id(wanted, settings)
    (tmp_path / "b.0000.png").write_bytes(b"other")
    assert remote.job_id(wanted, settings) == before


def test_ctrl_c_stops_the_job_and_the_same_command_goes_on(
    shared: Desk, clip: Path, tmp_path: Path
) -> None:
    words = (*RENDER, "--steps", "30", clip, "-o", tmp_path / "a.mp4", "--json")
    process = shared.start(*words)
    read_until(process, lambda event: event.get("stage") == "translate" and event["done"] > 0.2)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5
    assert errors.strip().endswith("the same command goes on.")
    assert shared.jobs()[0].state == "cancelled"
    count = len(shared.jobs())

    assert shared.events(*words[:-1])[-1]["event"] == "done"
    assert (len(shared.jobs()), shared.jobs()[0].state) == (count, "done")


def test_a_second_ctrl_c_leaves_at_once(shared: Desk, clip: Path, tmp_path: Path) -> None:
    at = shared.at()
    words = (*RENDER, "--steps", "31", clip, "-o", tmp_path / "a.mp4", "--json")
    process = shared.start(*words)
    read_until(process, lambda event: event.get("stage") == "translate" and event["done"] > 0.1)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert shared.at() == at
    until(lambda: shared.jobs()[0].state == "cancelled")


def test_until_keyframes_then_the_rest(shared: Desk, clip: Path, tmp_path: Path) -> None:
    words = (*RENDER, "--seed", "5", clip, "-o", tmp_path / "a.mp4", "--until", "keyframes")
    told = shared.events(*words)[-1]
    alone = shared.events(*words, "--local")[-1]
    assert told["keyframes"] == alone["keyframes"]
    assert set(told["forecast"]) >= {"memory", "disk"}  # seconds, once a whole clip was made
    assert told["forecast"]["disk"] == alone["forecast"]["disk"] > 0
    files = sorted((tmp_path / "a keyframes").iterdir())
    assert [file.name.split(" ")[1] for file in files] == ["000000", "000004", "000008"]
    code, _, errors = shared.run(*words)
    assert code == 0
    assert "the rest takes" in errors or told["forecast"].get("seconds", 0) < 1
    assert shared.run(*words[:-2])[0] == 0


def test_relative_paths_and_job_files(shared: Desk) -> None:
    """Seen from where the command is given."""
    folder = shared.folder
    reel(folder / "own.mp4", (5,))
    (folder / "jobs").mkdir()
    (folder / "jobs" / "job.toml").write_text(
        'clip = "../own.mp4"\nprompt = "oil"\nsize = 64\nsteps = 3\nkeyframes = "every:4"\n'
        'cuts = "none"\n'
    )
    code, output, errors = shared.run("render", "jobs/job.toml", "-o", "out.mp4")
    assert code == 0, errors
    assert output.startswith(f"{folder / 'out.mp4'}: 5 frames")
    assert (folder / "out.mp4").exists()


def test_models_that_are_files_are_found_from_elsewhere(tmp_path: Path) -> None:
    wanted = Request("a.mp4", model="./m.safetensors", vae="x")
    found = absolute(wanted, tmp_path, lambda name: name.startswith("."))
    assert found.clip == str(tmp_path / "a.mp4")
    assert found.model == str(tmp_path / "m.safetensors")
    assert (found.vae, found.output, found.mask) == ("x", "", "")


def test_a_server_that_is_killed_is_started_again_and_the_job_goes_on(
    desk: Desk, clip: Path, tmp_path: Path
) -> None:
    words = (*RENDER, "--steps", "25", clip, "-o", tmp_path / "a.mp4", "--json")
    process = desk.start(*words)
    read_until(process, lambda event: event.get("stage") == "translate" and event["done"] > 0.2)
    at = desk.at()
    assert at is not None
    os.kill(at.pid, signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    told = [json.loads(line) for line in output.splitlines()]
    assert told[-1]["event"] == "done"
    assert any("started again" in own.get("text", "") for own in told)
    again = desk.at()
    assert again is not None
    assert again.pid != at.pid


def test_a_server_that_is_ended_is_not_started_again(
    desk: Desk, clip: Path, tmp_path: Path
) -> None:
    words = (*RENDER, "--steps", "300", clip, "-o", tmp_path / "a.mp4", "--json")
    process = desk.start(*words)
    read_until(process, lambda event: event.get("stage") == "translate" and event["done"] > 0.1)
    assert desk.run("stop")[0] == 0
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the server was ended" in errors
    assert desk.at() is None


def test_two_commands_at_once_start_one_server(desk: Desk, clip: Path, tmp_path: Path) -> None:
    both = [desk.start(*RENDER, clip, "-o", tmp_path / name) for name in ("a.mp4", "b.mp4")]
    for process in both:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert [job.state for job in desk.jobs()] == ["done", "done"]


def test_a_wish_for_another_place_is_refused_by_a_server_that_runs(
    shared: Desk, clip: Path, tmp_path: Path
) -> None:
    words = (*RENDER, clip, "-o", tmp_path / "a.mp4")
    shared.run(*words)
    code, _, errors = shared.run(*words, "--device", "cpu", "--threads", "1")
    assert code == 1
    assert errors.strip().startswith("fresco-bridge: the server that runs works on the best device")
    assert "--local" in errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", "0"), "steps: 0 cannot be; use 1 to 1000."),
        (("--model", "nothing"), "no model is called 'nothing'"),
        (("--range", "5:99"), "which has 9"),
        (("--mask", "missing.png"), "missing.png"),
        (("-o", "/no/such/folder/a.mp4"), "the folder /no/such/folder"),
        (("--device", "toaster"), "there is no device 'toaster'"),
    ],
)
def test_a_mistake_is_one_clear_line(
    shared: Desk, clip: Path, words: tuple[str, ...], said: str
) -> None:
    code, _, errors = shared.run("render", clip, *words)
    assert code == 1
    lines = [line for line in errors.splitlines() if line.startswith("fresco-bridge: ")]
    assert len(lines) == 1, errors
    assert said in lines[0]
    assert "Traceback" not in errors


def test_a_server_that_cannot_start_says_why(desk: Desk, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "server").mkdir(parents=True)
    (tmp_path / "home" / "server" / "journal.sqlite").write_bytes(b"no journal" * 1000)
    code, _, errors = desk.run(*RENDER, clip, "-o", tmp_path / "a.mp4")
    assert code == 1
    assert "the server could not be started: the journal" in errors
    assert "server.log" in errors


def test_a_server_without_work_ends_by_itself(desk: Desk) -> None:
    process = desk.start("serve", "--idle-end", "2", "--device", "cpu")
    until(lambda: desk.at() is not None)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert desk.at() is None


def test_a_client_of_the_server_needs_no_libraries_of_the_work() -> None:
    code = (
        "import sys; from bridge_server import remote; "
        "print([m for m in ('torch', 'numpy', 'av', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
