"""Strips become restyled strips, in a real Blender with a real server."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from bridge_server import config
from host_plugins.link import endpoint
from tests.bridge_server.reels import pictures, reel
from tests.bridge_server.serving import Serving

from .conftest import Inside


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("films") / "long shot.mp4", (9,))


@pytest.fixture(scope="module")
def told(
    blender: Inside,
    extension: Path,
    serving: Serving,
    long_clip: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What one sitting in Blender tells."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "frames").mkdir()
    (folder / "cut out").mkdir()
    for number, picture in enumerate(pictures(long_clip), 41):
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / "frames" / f"f.{number:03d}.png"), bgr)
        seen_through = cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA)
        seen_through[:, :48, 3] = 0
        cv2.imwrite(str(folder / "cut out" / f"c.{number:03d}.png"), seen_through)
    places = {
        endpoint.FOLDER: str(serving.runtime),
        config.HOME: str(serving.folder / "home"),
    }
    said = blender.run("jobs.py", extension, folder, long_clip, **places)
    return {"folder": folder, **json.loads(said.split("TOLD ")[1])}


def seen(files: list[str]) -> list[np.ndarray]:
    return [np.asarray(cv2.imread(file, cv2.IMREAD_COLOR_RGB)) for file in files]


def test_a_trimmed_movie_strip_gets_its_result_above_it(told: dict[str, Any]) -> None:
    movie = told["movie"]
    assert (movie["start"], movie["stop"]) == (103, 109), "as the strip is trimmed"
    assert movie["channel"] == 4, "the first free one: something is on 3"
    assert movie["again"] == 5
    assert movie["added meanwhile"] == 0, "nothing is put onto a timeline that is being rendered"
    assert movie["name"] == "oil painting"
    assert not movie["original muted"]
    assert Path(movie["file"]).parent.parent == told["folder"] / "styled"
    assert movie["path kept"].startswith("//styled"), "the project may move"
    assert movie["words"] == ["Done", "Styled by fresco-draft (draft)"]
    assert movie["pictures"], "keyframes were shown"


def test_blender_shows_the_results_frames_at_every_frame_of_the_timeline(
    told: dict[str, Any],
) -> None:
    movie = told["movie"]
    made = pictures(Path(movie["file"]))
    shown = seen(movie["rendered"])
    assert len(made) == len(shown) == 6
    for place, picture in enumerate(shown):
        errors = [np.abs(picture.astype(float) - each).mean() for each in made]
        assert int(np.argmin(errors)) == place
        assert errors[place] < 3, "Blender decodes H.264 by its own arithmetic"


def test_the_result_is_a_restyled_source(told: dict[str, Any], long_clip: Path) -> None:
    made, source = pictures(Path(told["movie"]["file"])), pictures(long_clip)[2:8]
    for styled, frame in zip(made, source, strict=True):
        assert 4 < np.abs(styled.astype(float) - frame).mean() < 90
    with av.open(told["movie"]["file"]) as container:
        assert container.streams.video[0].average_rate == Fraction(24000, 1001)


def test_how_it_was_made_stays_with_it(told: dict[str, Any]) -> None:
    movie = told["movie"]
    facts = movie["facts"]
    assert facts["request"]["prompt"] == "oil painting"
    assert facts["source"] == {"start": 2, "stop": 8}
    assert facts["timeline"] == {"start": 103, "frames": 6}
    assert facts["report"]
    beside = Path(movie["file"]).with_suffix(".json")
    assert json.loads(beside.read_text(encoding="utf-8")) == facts


def test_keyframes_are_looked_at_one_is_done_again_and_the_rest_follows(
    told: dict[str, Any],
) -> None:
    keyframes = told["keyframes"]
    assert keyframes["others as before"]
    assert keyframes["added"] == 1
    changes = {(each["frame"], each["what"]) for each in keyframes["facts"]["request"]["changes"]}
    assert changes == {(4, "seed"), (4, "prompt")}


def test_a_keyframe_of_a_done_job_makes_another_version(told: dict[str, Any]) -> None:
    first, version = told["keyframes"], told["version"]
    assert version["parent"] == first["facts"]["job"]
    assert version["channel"] > first["channel"], "nothing is written over"
    assert (version["start"], version["stop"]) == (first["start"], first["stop"])
    assert Path(version["file"]).parent != Path(first["file"]).parent
    a, b = pictures(Path(first["file"])), pictures(Path(version["file"]))
    assert not np.array_equal(a[4], b[4])
    assert np.array_equal(a[0], b[0])


def test_a_job_is_found_again_when_its_file_is_opened(told: dict[str, Any]) -> None:
    assert told["reopened"]["found"]
    assert (told["reopened"]["start"], told["reopened"]["stop"]) == (300, 309)


def test_undo_does_not_lose_a_job(told: dict[str, Any]) -> None:
    assert (told["undone"]["start"], told["undone"]["stop"]) == (400, 409)


def test_what_is_animated_is_sampled_and_a_strip_is_a_mask(told: dict[str, Any]) -> None:
    request = told["animated"]["request"]
    tracks = [each.split("@", 1) for each in request["tracks"]]
    prompts = [told for what, told in tracks if what == "prompt"]
    assert prompts == ["0=autumn", "3=snowy winter"], "halves are rounded to even, as numbers are"
    strengths = [float(told.split("=")[1]) for what, told in tracks if what == "strength"]
    assert (strengths[0], strengths[-1], len(strengths)) == (0.2, 1.0, 9)
    assert strengths == sorted(strengths)
    mask = Path(request["mask"])
    assert mask.name == "f_####.png"
    assert len(list(mask.parent.glob("f_*.png"))) == told["animated"]["frames"]


def test_a_curve_that_is_muted_counts_for_nothing(told: dict[str, Any]) -> None:
    assert not [each for each in told["animated"]["request"]["tracks"] if "seed" in each]


def test_a_driver_is_told_of(told: dict[str, Any]) -> None:
    assert told["driven"] == [["Strength"], []]


def test_every_parameter_is_read_back_as_it_was_set(told: dict[str, Any]) -> None:
    assert told["usual values"] == {}
    back = [tuple(each) for each in told["read back"]]
    assert len({name for name, *_ in back}) > 50
    assert [each for each in back if each[1] != pytest.approx(each[2])] == []


def test_only_the_picture_of_a_keyframe_that_was_made_anew_is_another(
    told: dict[str, Any],
) -> None:
    before, after, kept = told["thumbnails"]
    changed = [frame for frame in before if before[frame] != after[frame]]
    assert changed == ["4"]
    assert kept == len(after) == 3, "the old one is not kept"


def test_a_meta_strip_is_rendered_and_its_result_lines_up(told: dict[str, Any]) -> None:
    rendered = told["rendered"]
    assert rendered["type"] == "IMAGE"
    assert (rendered["start"], rendered["stop"]) == (600, 609)
    files = [Path(rendered["file"]).with_name(name) for name in rendered["images"]]
    made = seen([str(file) for file in files])
    for shown, picture in zip(seen(rendered["rendered"]), made, strict=True):
        assert np.abs(shown.astype(int) - picture).max() <= 1


def test_strips_are_styled_together_and_held_frames_are_held(told: dict[str, Any]) -> None:
    held, images = told["together"]
    assert (held["start"], held["stop"], held["type"]) == (900, 913, "IMAGE")
    assert held["images"][8:] == held["images"][8:9] * 5
    assert len(set(held["images"])) == 9, "no frame is styled twice"
    assert (images["start"], images["stop"]) == (900, 909)
    assert told["muted"] == [True, True]
    for each in (held, images):
        made = seen([str(Path(each["file"]).with_name(name)) for name in each["images"]])
        for shown, picture in zip(seen(each["rendered"]), made, strict=True):
            assert np.abs(shown.astype(int) - picture).max() <= 1


def test_what_is_transparent_stays_as_it_is(told: dict[str, Any]) -> None:
    result = told["cut out"]
    assert Path(result["mask"]).name == "c.###.png"
    sources = sorted((told["folder"] / "cut out").iterdir())
    for name, source in zip(result["images"], sources, strict=True):
        before = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
        after = cv2.imread(str(Path(result["file"]).with_name(name)), cv2.IMREAD_UNCHANGED)
        assert before is not None
        assert after is not None
        assert np.array_equal(before[:, :48], after[:, :48]), "bit for bit, with its alpha"
        assert np.array_equal(before[..., 3], after[..., 3])
        assert np.abs(before[:, 48:, :3].astype(int) - after[:, 48:, :3]).mean() > 4


def test_escape_stops_over_the_sequencer_while_jobs_run(told: dict[str, Any]) -> None:
    escape = told["escape"]
    assert escape["taken"] == [False, True, False], "not without jobs, nor while the film plays"
    assert (escape["keys"], escape["where"]) == (["ESC"], "SEQUENCE_EDITOR")


def test_a_panel_that_cannot_open_says_so_in_blender(told: dict[str, Any]) -> None:
    assert "the panel cannot be opened" in told["panel"]


def test_what_cannot_be_styled_is_said_and_leaves_nothing(told: dict[str, Any]) -> None:
    missing, mask, no_job = told["refused"]
    assert "gone.mp4" in missing
    assert "nothing of that name" in mask
    assert "press Stylise first" in no_job
    assert told["left"] == 0
    assert not any("Traceback" in each for each in told["refused"])


def test_a_result_goes_to_its_own_strip_in_its_own_file_once(told: dict[str, Any]) -> None:
    elsewhere = told["elsewhere"]
    assert elsewhere["same scene"], "so another file could be taken for it"
    assert elsewhere["there"] == 0, "a strip of the same name in another file is another strip"
    assert (elsewhere["start"], elsewhere["stop"]) == (1025, 1034), "to where the strip was moved"
    assert elsewhere["again"] == 1, "the other half of the strip knows too that it was placed"


def test_what_fails_in_the_timer_does_not_end_it(told: dict[str, Any]) -> None:
    assert told["timer failed"]


def test_what_the_server_is_at_is_said_in_words(told: dict[str, Any]) -> None:
    several = "Styling keyframes, Writing the file"
    assert told["doing"] == ["", "Loading model", several, "the model of another version"]


def test_without_strips_the_buttons_say_so(told: dict[str, Any]) -> None:
    assert all("no strip is active" in each for each in told["without strips"])
    assert not any("Traceback" in each for each in told["without strips"])
