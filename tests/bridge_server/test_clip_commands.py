"""The commands that work on clips, as processes of their own and in this one.

Without a server: `render` with it is in `test_remote`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bridge_server import clip_commands, config
from bridge_server.cli import app
from bridge_server.media.probe import probe
from bridge_server.request import Request
from tests.bridge_server.reels import pictures, reel

SMALL = ("--size", "64", "--steps", "3", "--keyframes", "every:4", "--cuts", "none")
WISHES = ("-p", "oil painting", *SMALL, "--device", "cpu", "--threads", "1")
RENDER = ("render", "--local", *WISHES)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("a clip ü") / "one shot.mp4", (9,))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """A folder with a store and what came of the clip in it, undisturbed."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(config.STORE, str(folder / "store"))
        result = CliRunner().invoke(app, [*RENDER, str(clip), "-o", str(folder / "out.mp4")])
    assert result.exit_code == 0, result.output
    return folder


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def start(store: Path, *words: object) -> subprocess.Popen[str]:
    environ = {**os.environ, config.STORE: str(store), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bridge_server", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )


def until(
    process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Read the process's events up to the one that is wanted."""
    assert process.stdout is not None
    told: list[dict[str, Any]] = []
    for line in process.stdout:
        told.append(json.loads(line))
        if wanted(told[-1]):
            return told
    raise AssertionError(f"it ended before: {process.stderr and process.stderr.read()}")


def stage(name: str, done: float) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event.get("stage") == name and event["done"] >= done


def test_a_clip_is_restyled_and_the_report_is_shown(done: Path, clip: Path) -> None:
    assert probe(done / "out.mp4").count == probe(clip).count
    assert not np.array_equal(pictures(done / "out.mp4")[2], pictures(clip)[2])


def test_after_kills_in_every_stage_the_same_command_ends_with_the_same_bytes(
    done: Path, clip: Path, tmp_path: Path
) -> None:
    words = (*RENDER, clip, "-o", tmp_path / "out.mp4", "--json")
    told: list[list[dict[str, Any]]] = []
    for name, reached in (("analyse", 3), ("translate", 1), ("propagate", 3), ("encode", 2)):
        process = start(tmp_path / "store", *words)
        told.append(until(process, stage(name, reached)))
        process.kill()
        process.communicate()
        assert not (tmp_path / "out.mp4").exists()

    last = start(tmp_path / "store", *words)
    output, errors = last.communicate()
    assert last.returncode == 0, errors
    told.append([json.loads(line) for line in output.splitlines()])
    # The keyframes that each run found when it came to them.
    found = [[own["done"] for own in run if own.get("stage") == "translate"][:1] for run in told]
    assert found == [[], [0], [0], [3], [3]]
    assert (tmp_path / "out.mp4").read_bytes() == (done / "out.mp4").read_bytes()


def test_ctrl_c_stops_at_once_keeps_what_is_done_and_says_so(clip: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "store", *RENDER, clip, "-o", tmp_path / "out.mp4", "--json")
    until(process, stage("translate", 0.5))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 130
    assert errors.strip().endswith("the same command goes on.")
    assert "Traceback" not in errors
    home = Path(os.environ[config.HOME])  # where the command writes down where it is
    assert set(tmp_path.iterdir()) - {home} == {tmp_path / "store"}


def test_events_are_json_lines_and_the_last_one_is_the_report(
    done: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(config.STORE, str(done / "store"))
    result = run(*RENDER, clip, "-o", tmp_path / "out.mp4", "--json")

    events = [json.loads(line) for line in result.stdout.splitlines()]
    last = events[-1]
    assert (last["event"], last["output"]) == ("done", str(tmp_path / "out.mp4"))
    assert {row["state"] for row in last["report"]} <= {"kept", "changed"}
    assert (last["model"], last["draft"]) == ("fresco-draft", True)
    keys = [event["number"] for event in events if event["event"] == "keyframedone"]
    assert keys == [0, 4, 8]


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (("render", "--local"), "a.mp4"),
        (("render", "--local", "--until", "keyframes"), "keys"),
        (("contact-sheet",), "sheet.png"),
    ],
)
def test_what_the_draft_model_made_is_called_a_draft(
    done: Path,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    output: str,
) -> None:
    monkeypatch.setenv(config.STORE, str(done / "store"))
    result = run(*command, *WISHES, clip, "-o", tmp_path / output)
    assert result.exit_code == 0, result.output
    assert "styled by fresco-draft (draft)" in result.stdout

    result = run(*command, *WISHES, clip, "-o", tmp_path / f"b {output}", "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["model"], last["draft"]) == ("fresco-draft", True)


def test_until_keyframes_leaves_pictures_beside_the_clip_and_a_painted_one_comes_back(
    done: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(config.STORE, str(done / "store"))
    folder = tmp_path / "keys"
    result = run(*RENDER, clip, "--until", "keyframes", "-o", folder)
    assert result.exit_code == 0, result.output
    files = sorted(folder.iterdir())
    assert [file.name.split(" ")[1] for file in files] == ["000000", "000004", "000008"]

    picture = cv2.imread(str(files[1]))
    assert picture is not None
    picture[:, :] = (0, 255, 0)
    cv2.imwrite(str(tmp_path / "green.png"), picture)
    change = f"painted@4={tmp_path / 'green.png'}"
    result = run(*RENDER, clip, "-o", tmp_path / "out.mp4", "--set", change)
    assert result.exit_code == 0, result.output
    frame = pictures(tmp_path / "out.mp4")[4].astype(int)
    assert np.abs(frame - (0, 255, 0)).mean() < 12
    assert np.array_equal(pictures(tmp_path / "out.mp4")[0], pictures(done / "out.mp4")[0])


def test_a_job_file_says_the_same_and_options_go_before_it(
    done: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(config.STORE, str(done / "store"))
    (tmp_path / "job.toml").write_text(
        f'clip = {json.dumps(str(clip))}\nprompt = "neon night"\nsize = 64\nsteps = 3\n'
        'keyframes = "every:4"\ncuts = "none"\noutput = "out.mp4"\n'
    )
    place = ("--device", "cpu", "--threads", "1")
    result = run("render", "--local", tmp_path / "job.toml", "-p", "oil painting", *place, "--json")

    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.mp4").read_bytes() == (done / "out.mp4").read_bytes()


def test_options_may_empty_what_a_job_file_says(clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        f'clip = {json.dumps(str(clip))}\nprompt = "oil"\nstart = 3\nstop = 5\noverwrite = true\n'
    )
    wanted = clip_commands._request(file, {"prompt": "", "span": "6:"})  # pyright: ignore

    assert (wanted.prompt, wanted.start, wanted.stop) == ("", 6, None)
    assert wanted.overwrite


def test_a_job_files_output_is_no_folder_of_keyframes(
    done: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(config.STORE, str(done / "store"))
    out = tmp_path / "out.mp4"
    result = run(*RENDER, clip, "--until", "keyframes", "-o", out)

    assert result.exit_code == 0, result.output
    assert not out.exists()
    assert len(list((tmp_path / "out keyframes").iterdir())) == 3


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("", "one shot keyframes"),
        ("out.mp4", "out keyframes"),
        ("OUT.MOV", "OUT keyframes"),
        ("f.####.png", "f.#### keyframes"),
        ("keys", "keys"),
        ("v1.2", "v1.2"),
        ("there.xyz", "there.xyz"),
    ],
)
def test_keyframes_go_into_the_folder_that_is_named_or_beside_the_clip(
    tmp_path: Path, output: str, folder: str
) -> None:
    (tmp_path / "there.xyz").mkdir()
    named = str(tmp_path / output) if output else ""
    wanted = Request(str(tmp_path / "one shot.mp4"), output=named, until="keyframes")
    clip_commands._make_ready(wanted)  # pyright: ignore
    assert clip_commands._keyframe_folder(wanted) == tmp_path / folder  # pyright: ignore
    assert (tmp_path / folder).is_dir() == (output in ("keys", "v1.2", "there.xyz"))


def test_of_a_job_file_keyframes_wants_only_the_clip_and_its_cuts(
    clip: Path, tmp_path: Path
) -> None:
    """Its model may be on another machine."""
    (tmp_path / "job.toml").write_text(
        f'clip = {json.dumps(str(clip))}\nmodel = "sd15"\ncontrols = ["depth:0.8"]\n'
        'keyframes = "every:3"\ncuts = "4"\nstop = 8\nchanges = ["seed@2=3"]\n'
    )
    result = run("keyframes", tmp_path / "job.toml", "-o", tmp_path / "curve.png", "--json")

    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert (said["cuts"], said["frames"]) == ([4], [0, 8])
    assert said["keyframes"] == [0, 3, 4, 7]


def test_two_processes_at_once_make_the_same_clip(done: Path, clip: Path, tmp_path: Path) -> None:
    names = ("a.mp4", "b.mp4")
    both = [start(tmp_path / "store", *RENDER, clip, "-o", tmp_path / name) for name in names]
    for process in both:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    for name in names:
        assert (tmp_path / name).read_bytes() == (done / "out.mp4").read_bytes()


def test_keyframes_are_proposed_with_a_plot(clip: Path, tmp_path: Path) -> None:
    plot = tmp_path / "curve.png"
    result = run("keyframes", clip, "--keyframes", "auto:2-4", "-o", plot, "--json")

    said = json.loads(result.stdout.splitlines()[-1])
    assert said["keyframes"][0] == 0
    assert said["keyframes"][-1] == 8
    assert max(np.diff(said["keyframes"])) <= 4
    assert cv2.imread(str(plot)) is not None
    again = run("keyframes", clip, "-o", plot)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr


def test_found_keyframes_are_where_a_prompt_begins(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        f'clip = {json.dumps(str(clip))}\nprompt = "oil"\ntracks = ["prompt@3=oil"]\n'
    )

    def said(*words: object) -> list[int]:
        result = run("keyframes", tmp_path / "job.toml", *words, "--overwrite", "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])["keyframes"]

    assert said() == [0, 8]
    assert said("--track", "prompt@5=snow", "--track", "strength@3=0.5") == [0, 5, 8]


def test_a_contact_sheet(
    done: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(config.STORE, str(done / "store"))
    result = run("contact-sheet", *WISHES, clip, "-o", tmp_path / "sheet.png")

    assert result.exit_code == 0, result.output
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None


def test_painted_keys_are_carried_over_the_clip(clip: Path, tmp_path: Path) -> None:
    frames = pictures(clip)
    for number in (2, 6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), 255 - frames[number][..., ::-1])
    result = run(
        "propagate", clip, "--key", f"2={tmp_path / '2.png'}", "--key", f"6={tmp_path / '6.png'}",
        "--cuts", "none", "-o", tmp_path / "out.mp4",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert "styled by" not in result.stdout, "no model had a part in it"
    made = pictures(tmp_path / "out.mp4")
    assert len(made) == 9
    errors = [np.abs(255 - a.astype(int) - b).mean() for a, b in zip(frames, made, strict=True)]
    assert max(errors[1:8]) < 8, "the negative of the clip, but where no key shows it"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("render", "{clip}", "--steps", "0"), "steps: 0 cannot be; use 1 to 1000."),
        (("render", "{clip}", "--model", "nothing"), "no model is called 'nothing'"),
        (("render", "{clip}", "--model", "sd15"), "fresco-bridge models download sd15"),
        (("render", "{clip}", "--lora", "nothing"), "no model is called 'nothing'"),
        (("render", "{clip}", "--control", "magic"), "no control is called 'magic'"),
        (("render", "{clip}", "--range", "5"), "range '5' cannot be read"),
        (("render", "{clip}", "--range", "5:99"), "which has 9"),
        (("render", "{clip}", "--set", "colour@3=red"), "WHAT@FRAME=VALUE"),
        (("render", "{clip}", "--set", "seed@4=-1"), "use a whole number from 0"),
        (("render", "{clip}", "--track", "strength@4=2"), "use a number from 0 to 1"),
        (("render", "{clip}", "--track", "painted@4=a.png"), "put it into changes (--set)"),
        (("render", "{clip}", "--device", "toaster"), "there is no device 'toaster'"),
        (("render", "{clip}", "-o", "{clip}"), "is the source itself"),
        (("render", "{clip}", "-o", "/no/such/folder/a.mp4"), "the folder /no/such/folder"),
        (("render", "{clip}", "--mask", "missing.png"), "missing.png"),
        (("render", "{clip}", "--codec", "gif"), "there is no profile 'gif'"),
        (("render", "{clip}", "--threads", "-1"), "threads: -1 cannot be"),
        (("render", "{clip}", "--range", "\u00b2:"), "cannot be read"),
        (("render", "{clip}", "--keyframes", "0,99"), "keyframes [99] are not among the frames 0"),
        (("render", "{clip}", "--cuts", "99"), "cuts [99] are not between the frames 0 and 8"),
        (("render", "{clip}", "--set", "prompt@99=a"), "changes at [99] are not among the frames"),
        (("render", "{clip}", "--control", "depth:1:tile"), "depth-anything-v2-small"),
        (("render", "{clip}", "--until", "keyframes", "-o", "{clip}/x"), "no keyframes can be put"),
        (("render", "{clip}", "--until", "keyframes", "-o", "black.png"), "as in black.####.png"),
        (("render", "{clip}", "--until", "first_frame", "-o", "out.xyz"), "no clip is written to"),
        (("contact-sheet", "{clip}", "-o", "sheet.tif"), "end it in .png or .jpg"),
        (("keyframes", "{clip}", "-o", "curve.tif"), "end it in .png or .jpg"),
        (("propagate", "{clip}", "--key", "2=a.png", "--key", "2=b.png"), "each thing at a frame"),
        (("render", "missing.mp4"), "missing.mp4"),
        (("render", "missing.toml"), "missing.toml cannot be read"),
        (("propagate", "{clip}", "--key", "a.png"), "write FRAME=PICTURE"),
        (("propagate", "{clip}", "--key", "2=missing.png"), "missing.png is not there"),
    ],
)
def test_a_mistake_is_one_clear_line(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    local = ("--local",) if words[0] == "render" else ()
    result = run(*(word.replace("{clip}", str(clip)) for word in words), *local)

    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("fresco-bridge: ")
    assert said in lines[0]
    assert list(tmp_path.glob("*")) in ([], [tmp_path / "home ü"])
