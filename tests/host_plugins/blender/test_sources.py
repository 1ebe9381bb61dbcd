"""Strips of every kind: what is told of them is what Blender shows, at every frame."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bridge_server.media import decode
from bridge_server.media.clip import Clip
from bridge_server.media.probe import probe
from tests.host_plugins.blender import media
from tests.host_plugins.blender.conftest import Inside
from tests.hosts import environments

#: Why strips are rendered; all others are read from their files.
WHY = {
    "uneven": "variable frame rate",
    "fragments": "in pieces",
    "avi": "neither MP4",
    "backwards": "no unbroken run",
    "every second": "no unbroken run",
    "broken run": "in its folder",
    "jpeg": r".jpg",
    "layers": "several layers",
    "reversed": "plays backwards",
    "strobed": "strobed",
    "modifier": "modifiers",
    "saturated": "colours are adjusted",
    "colour space": "colour space",
    "moving": "transform.offset_x is animated",
    "retimed": "retimed",
    "under speed": "speed effect",
    "blur": "an effect",
    "cross": "an effect",
    "meta": "a meta strip",
    "scene": "a scene",
    "clip": "of the tracker",
    "mask": "a mask",
    "text": "text",
    "colour": "a colour",
}
#: Frames per second of movies that are dropped.
RATES = {
    "film": Fraction(24000, 1001),
    "pal": Fraction(25),
    "ntsc": Fraction(30000, 1001),
    "fast": Fraction(50),
    "slow": Fraction(25, 2),
}
#: Strips that not all of the screen is covered by.
ALPHA = {"layers", "moving", "clip", "text"}
#: Frames that are styled, where they are not all of the file's.
SPANS = {
    "soft trim": (3, 12),
    "soft left": (0, 8),
    "hard left": (0, 8),
    "hard right": (8, 16),
    "hard right held": (8, 16),
    "images": (4, 14),
    "images trimmed": (6, 14),
    "numbered still": (6, 7),
}


@pytest.fixture(scope="module")
def told(blender: Inside, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the script tells, and the folder with what is seen."""
    out = tmp_path_factory.mktemp("sources")
    blender.run("strips.py", media.clips(tmp_path_factory.mktemp("clips")), out, seconds=1800)
    return json.loads((out / "found.json").read_text(encoding="utf-8")), out


def seen(found: dict[str, Any], out: Path) -> list[NDArray[np.float32]]:
    """What Blender shows at each frame of a strip."""
    frames = range(found["start"], found["start"] + len(found["frames"]))
    return [media.read(out / "seen" / f"f_{frame:04}.png") for frame in frames]


def test_the_kinds_are_as_they_are_meant(told: tuple[dict[str, Any], Path]) -> None:
    found = told[0]["found"]
    assert {name for name, each in found.items() if each["why"]} == WHY.keys()
    for name, why in WHY.items():
        assert why in found[name]["why"]
    assert {name for name, each in found.items() if each["alpha"]} == ALPHA
    assert not any(each["strips"] for each in found.values() if not each["why"])


def test_files_show_what_blender_shows(told: tuple[dict[str, Any], Path]) -> None:
    for name, each in told[0]["found"].items():
        if each["why"] or each["geometry"]:
            continue
        clip = probe(Path(each["clip"]), Fraction(each["rate"]) if each["rate"] else None)
        numbers = decoded(clip, each["first"], each["stop"])
        shown = [numbers[frame - each["first"]] for frame in each["frames"]]
        assert shown == [media.number(pixels) for pixels in seen(each, told[1])], name


def decoded(clip: Clip, start: int, stop: int) -> list[int]:
    """The numbers that the server sees on frames [start, stop)."""
    white = 1.0 if clip.layout.floating else 2**clip.layout.bits - 1
    frames = decode.frames(clip, start, stop)
    return [media.number(frame.planes[0][..., None].astype(float) / white) for frame in frames]


def test_only_what_is_shown_is_styled(told: tuple[dict[str, Any], Path]) -> None:
    found = told[0]["found"]
    assert {name: (found[name]["first"], found[name]["stop"]) for name in SPANS} == SPANS
    held = {name for name, each in found.items() if not each["plain"]}
    stills = {"still", "numbered still", "layers", "text", "colour"}
    assert held == stills | {"longer sound", "held", "hard right held", "images trimmed"}


def test_renderings_show_what_blender_shows(told: tuple[dict[str, Any], Path]) -> None:
    for name in WHY:
        each = told[0]["found"][name]
        assert each["error"] == "", name
        for frame, pixels in zip(each["frames"], seen(each, told[1]), strict=True):
            place = each["start"] + frame - each["begin"]
            rendered = media.read(Path(each["clip"].replace("####", f"{place:04}")))
            wanted = pixels[..., : rendered.shape[2]]
            # Blender 4.2 leaves a sample in the corner of a mask unset.
            unlike = np.abs(rendered - wanted) > 1.01 / 255
            assert unlike.sum() <= (name == "mask"), name


def test_how_a_strip_lies_is_told_and_not_styled(told: tuple[dict[str, Any], Path]) -> None:
    laid = {name: each["geometry"] for name, each in told[0]["found"].items() if each["geometry"]}
    scaled = {"transform.scale_x": 0.5, "transform.scale_y": 0.5}
    assert laid == {"moved": scaled | {"crop.min_x": 8}}


def test_what_shows_nothing_is_refused_with_a_way_out(told: tuple[dict[str, Any], Path]) -> None:
    refused = told[0]["refused"]
    assert {"no movie", "no picture", "empty", "in a meta", "input"} <= refused.keys()
    for name, each in refused.items():
        assert each.get("hint"), name
    assert "nowhere.mp4 is not there" in refused["no movie"]["message"]
    assert "none.png is not there" in refused["no picture"]["message"]
    assert "empty is empty" in refused["empty"]["message"]
    assert "sound" not in refused or "is sound" in refused["sound"]["message"]


def test_a_movie_dropped_at_another_rate_shows_what_is_told(
    blender: Inside, tmp_path: Path
) -> None:
    """The hidden playback rate, whole, trimmed, held and split, at the rates that there are."""
    for name, rate in RATES.items():
        media.movie(tmp_path / f"rate{name}.mp4", range(1, 61), rate)
    drop(blender, tmp_path)
    blender.run("dropped.py", "look", tmp_path / "dropped.blend", tmp_path, seconds=1800)
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert len(found) == 4 * 3 * len(RATES)
    slower = {name for name, each in found.items() if "slower than the timeline" in each["why"]}
    assert bool(slower) == (blender.release > "5")
    for name, each in found.items():
        if name in slower:
            continue
        assert each["why"] == "", name
        frames = range(each["start"], each["start"] + len(each["frames"]))
        shown = [
            media.number(media.read(tmp_path / name / f"f_{frame:04}.png")) for frame in frames
        ]
        assert [frame + 1 for frame in each["frames"]] == shown, name


def drop(blender: Inside, folder: Path) -> None:
    """Make the timelines in a Blender whose operator scripts can use: up to 4.5."""
    if blender.release > "4.5":
        older = environments.BLENDERS["4.5"]
        if not older.ready:
            pytest.skip("only Blender 4.5 and older make such strips in the background")
        blender = Inside(older.python, older.release, folder)
    blender.run("dropped.py", "make", folder, folder / "dropped.blend", seconds=1800)
