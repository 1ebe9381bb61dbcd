"""Results become strips: what Blender then shows is the result, at every frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.host_plugins.blender import media
from tests.host_plugins.blender.conftest import Inside

START, RESULT = 10, list(range(101, 117))
REPEATED = [101, 101, 102, 103, 103, 104, 106, 106, 107, 108, 108, 109, 111, 111, 112, 113]
SHOWN = {
    "movie": RESULT,
    "faster_movie": RESULT,
    "images": RESULT,
    "repeated": REPEATED,
    "crowded": RESULT,
    "on_channel": RESULT,
    "in_meta": RESULT,
    "saved": RESULT,
}
CHANNELS = {"crowded": 7, "on_channel": 5}


@pytest.fixture(scope="module")
def told(blender: Inside, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the script tells, and the folder with what is seen."""
    out = tmp_path_factory.mktemp("placing")
    blender.run("placing.py", media.clips(tmp_path_factory.mktemp("clips")), out, seconds=1800)
    return json.loads((out / "found.json").read_text(encoding="utf-8")), out


@pytest.mark.parametrize("name", SHOWN)
def test_every_frame_is_the_results(name: str, told: tuple[dict[str, Any], Path]) -> None:
    for place, number in enumerate(SHOWN[name]):
        pixels = media.read(told[1] / name / f"f_{START + place:04}.png")
        assert media.number(pixels) == number


@pytest.mark.parametrize("name", [*SHOWN, "laid"])
def test_it_lies_over_its_source(name: str, told: tuple[dict[str, Any], Path]) -> None:
    found = told[0]["good"][name]
    assert (found["left"], found["right"]) == (START, START + len(RESULT))
    # A strip that is made into a meta strip keeps its channel: the source's is 2.
    assert found["channel"] == CHANNELS.get(name, 3)
    assert found["in"] == ("meta" if name == "in_meta" else "")
    assert found["name"] == "a naïve painting"
    assert json.loads(found["facts"]) == {"job": "a1", "prompt": "naïve"}
    assert found["active"]
    assert set(found["selected"]) - {"meta"} == {"a naïve painting"}


def test_it_lies_as_its_source_does(told: tuple[dict[str, Any], Path]) -> None:
    for frame in range(START, START + len(RESULT)):
        name = f"f_{frame:04}.png"
        source, result = (media.read(told[1] / each / name) for each in ("laid source", "laid"))
        np.testing.assert_allclose(source, result, atol=1.01 / 255)


def test_paths_are_relative_where_the_file_is_saved(told: tuple[dict[str, Any], Path]) -> None:
    good = told[0]["good"]
    assert good["saved"]["path"].startswith("//")
    assert Path(good["movie"]["path"]).is_absolute()


def test_long_lists_are_placed(told: tuple[dict[str, Any], Path]) -> None:
    assert told[0]["good"]["long"] == {"duration": 5000, "elements": 5000}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "nowhere.mov is not there"),
        ("one missing", "none.png is not there"),
        ("short", "has 16 frames, not 17"),
        ("no movie", "cannot be read as a movie"),
        ("scattered", "must be in one folder"),
        ("full", "No channel over 99 is free"),
    ],
)
def test_what_cannot_be_placed_changes_nothing(
    name: str, said: str, told: tuple[dict[str, Any], Path]
) -> None:
    refused = told[0]["bad"][name]
    assert said in refused["message"]
    assert refused["hint"]
    assert refused["same"]
