"""Strips rendered by another Blender, from timelines that make it hard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.host_plugins.blender import media
from tests.host_plugins.blender.conftest import Inside

Told = tuple[dict[str, Any], Path]
COUNT = 16


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def told(blender: Inside, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What the script tells, and the folder with what is rendered."""
    out = tmp_path_factory.mktemp("rendering")
    blender.run("rendering.py", clips, out, "all", seconds=1800)
    return json.loads((out / "found.json").read_text(encoding="utf-8")), out


def numbers(told: Told, name: str) -> list[int]:
    found = told[0][name]
    assert found["error"] == ""
    assert found["done"] == found["total"]
    files = [found["clip"].replace("####", f"{place:04}") for place in range(found["total"])]
    return [media.number(media.read(Path(file))) for file in files]


@pytest.mark.parametrize("name", ["hard", "nested"])
def test_a_strip_is_rendered_as_it_is_by_itself(name: str, told: Told) -> None:
    assert numbers(told, name) == list(range(1, COUNT + 1))


def test_pictures_have_the_scenes_size_and_alpha_where_asked(told: Told) -> None:
    shapes = {name: media.read(told[1] / name / "f_0000.png").shape for name in ("hard", "nested")}
    assert shapes == {
        "hard": (media.HEIGHT, media.WIDTH, 3),
        "nested": (media.HEIGHT, media.WIDTH, 4),
    }


def test_fine_pictures_stay_fine(told: Told) -> None:
    levels = media.read(told[1] / "fine" / "f_0001.png")[0, :, 0] * 65535
    np.testing.assert_allclose(levels, np.arange(media.WIDTH) * 3 + 1000, atol=1)


def test_an_adjustment_is_of_what_is_beneath(told: Told) -> None:
    mirrored = [int(f"{number:08b}"[::-1], 2) for number in range(1, COUNT + 1)]
    assert numbers(told, "adjusted") == mirrored


def test_the_file_that_is_open_is_left_as_it_was(told: Told) -> None:
    assert told[0]["after"] == told[0]["before"]
    assert told[0]["blends"] == [str(told[1] / "open.blend")]


def test_few_work_side_by_side_and_the_others_wait(told: Told) -> None:
    found = told[0]["several"]
    assert found["begun"] == [True, True, False, False]
    assert found["frames"] == [2, 2, 2, 0]
    assert found["errors"] == ["", "", "", "It was cancelled."]
    assert found["left"] == [], "the copies of the film are gone"


def test_cancelling_ends_it_and_keeps_frames(told: Told) -> None:
    found = told[0]["cancelled"]
    assert found["error"] == "It was cancelled."
    assert found["code"] is not None
    assert 2 < found["done"] < found["total"]
    assert found["left"] == ["f_0000.png", "f_0001.png", "f_0002.png"]


def test_what_goes_wrong_is_said(told: Told) -> None:
    found = told[0]["spoilt"]
    assert found["done"] < found["total"]
    assert "f_0002.png" in found["error"]
    assert "Traceback" not in found["error"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lost", "no strip nobody"),
        ("used", "holds another rendering"),
        ("nowhere", "cannot be rendered"),
    ],
)
def test_what_cannot_be_started_is_refused(name: str, said: str, told: Told) -> None:
    assert said in told[0][name]["message"]
    assert told[0][name]["hint"]


def test_it_ends_with_the_blender_that_asked(blender: Inside, clips: Path, tmp_path: Path) -> None:
    blender.run("rendering.py", clips, tmp_path, "leave", seconds=1800)
    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    deadline = time.monotonic() + 120
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it renders on"
        time.sleep(0.1)
