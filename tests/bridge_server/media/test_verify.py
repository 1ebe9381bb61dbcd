from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bridge_server.media import formats, profiles
from bridge_server.media.clip import Clip, ColourTags
from bridge_server.media.probe import probe
from bridge_server.media.verify import Report, State, verify
from tests.bridge_server.media.films import Film, film

CLIP = Film(timecode="01:00:00:00", tags=(1, 1, 1, 1), aspect=Fraction(4, 3), sound=("aac",))


def check(clip: Clip, path: Path, profile: str = "h264") -> Report:
    chosen = formats.named(profile)
    return verify(clip, path, clip.span(), profiles.form(clip, chosen).layout, chosen)


def test_a_copy_is_kept_in_every_property(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", CLIP)
    report = check(probe(path), path)
    assert report.ok
    assert {row.state for row in report.rows} == {State.KEPT}
    assert {row.name for row in report.rows} >= {
        "frames", "rate", "times", "size", "pixel aspect", "rotation", "timecode", "colour tags",
        "bit depth", "alpha", "sound", "sound 0", "decodes",
    }  # fmt: skip


CHANGES: dict[str, Callable[[Clip], Clip]] = {
    "frames": lambda c: replace(c, pts=c.pts[:-1]),
    "rate": lambda c: replace(c, rate=Fraction(30)),
    "times": lambda c: replace(c, pts=c.pts * np.int64(2)),
    "size": lambda c: replace(c, width=66),
    "pixel aspect": lambda c: replace(c, pixel_aspect=Fraction(1)),
    "rotation": lambda c: replace(c, matrix=(0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)),
    "timecode": lambda c: replace(c, timecode="01:00:00:01"),
    "colour tags": lambda c: replace(c, tags=ColourTags(9, 1, 9, False)),
    "alpha": lambda c: replace(c, layout=replace(c.layout, alpha=True)),
    "sound": lambda c: replace(c, audio=()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_difference_is_seen(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / "a.mp4", CLIP)
    report = check(CHANGES[name](probe(path)), path)
    assert not report.ok
    assert report[name].state is State.WRONG


def test_other_sound_of_the_same_length_is_seen(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", CLIP)
    other = film(tmp_path / "b.mp4", replace(CLIP, sound=("libmp3lame",)))
    assert check(probe(path), other)["sound 0"].state is State.WRONG


def test_a_file_that_does_not_decode_is_seen(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", Film("ffv1", options={"level": "3", "slicecrc": "1"}))
    clip = probe(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = bytes(20)
    (tmp_path / "b.mkv").write_bytes(data)
    report = check(clip, tmp_path / "b.mkv", "ffv1")
    assert report["decodes"].state is State.WRONG


def test_a_loss_can_be_accepted_by_name(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", CLIP)
    clip = replace(probe(path), timecode="01:00:00:01")
    chosen = formats.named("h264")
    report = verify(clip, path, clip.span(), clip.layout, chosen, frozenset({"timecode"}))
    assert report.ok
    assert report["timecode"].state is State.CHANGED


def test_other_streams_are_named(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", CLIP)
    report = check(replace(probe(path), others=("subtitle",)), path)
    assert report["other streams"].state is State.CHANGED
    assert "not carried over" in str(report)
