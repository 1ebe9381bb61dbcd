"""Image files of a strip, against what the server makes of the names that it is told."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_server.media import decode, sequences
from host_plugins.blender import pictures
from host_plugins.blender.frames import Unclear
from tests.host_plugins.blender import media


@given(first=st.integers(0, 120), before=st.integers(0, 5), count=st.integers(1, 6))
def test_the_server_counts_the_same_frames(
    first: int, before: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    numbers = range(first, first + before + count + 2)
    for number in numbers:
        (folder / f"v2_{number:03}.png").touch()
    names = [f"v2_{number:03}.png" for number in numbers[before : before + count]]
    found = pictures.sequence(str(folder), names)
    files = sequences.find(Path(found.clip))
    assert [files[frame].name for frame in found.frames] == names


def test_frames_are_the_pictures_that_the_names_say(tmp_path: Path) -> None:
    media.images(tmp_path, "a.{:04}.png", range(3, 12))
    found = pictures.sequence(str(tmp_path), [f"a.{number:04}.png" for number in (6, 7, 8)])
    assert (found.clip, found.frames) == (str(tmp_path / "a.####.png"), (3, 4, 5))
    clip = sequences.probe(Path(found.clip), Fraction(25))
    shown = [frame.planes[0][..., None] / 255 for frame in decode.frames(clip, 3, 6)]
    assert [media.number(pixels) for pixels in shown] == [6, 7, 8]


@pytest.mark.parametrize(
    ("there", "asked", "why"),
    [
        ("a1 a2 a3", "a1 a3", "no unbroken run"),
        ("a1 a2 a3", "a3 a2 a1", "no unbroken run"),
        ("a1 a2 a2", "a2 a2", "no unbroken run"),
        ("a1 a2 a5", "a1 a2", "in its folder"),
        ("a1 a2 a02", "a1 a2", "in its folder"),
        ("a1 b2", "a1 b2", "not numbered alike"),
        ("a1 title", "a1 title", "not numbered alike"),
        ("a%d1 a%d2", "a%d1 a%d2", "cannot be told"),
        ("a#1 a#2", "a#1 a#2", "cannot be told"),
    ],
)
def test_what_is_no_sequence_says_why(there: str, asked: str, why: str, tmp_path: Path) -> None:
    for name in there.split():
        (tmp_path / f"{name}.png").touch()
    with pytest.raises(Unclear, match=why):
        pictures.sequence(str(tmp_path), [f"{name}.png" for name in asked.split()])


def test_other_kinds_are_rendered(tmp_path: Path) -> None:
    with pytest.raises(Unclear, match=r"\.jpg"):
        pictures.sequence(str(tmp_path), ["a1.jpg"])


def test_a_still_without_a_number_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    media.images(tmp_path, "title.png", [5])
    media.images(tmp_path, "other{}.png", [5])
    found = pictures.sequence(str(tmp_path), ["title.png"] * 3)
    assert (found.clip, found.frames) == (str(tmp_path / "title.png"), (0, 0, 0))
    assert sequences.find(Path(found.clip)) == (tmp_path / "title.png",)


@pytest.mark.parametrize("suffix", ["png", "tif", "exr"])
@pytest.mark.parametrize("alpha", [False, True])
def test_alpha_is_read_from_the_head(suffix: str, alpha: bool, tmp_path: Path) -> None:
    pixels = np.full((4, 6, 4 if alpha else 3), 0.5)
    path = media.image(tmp_path / f"a.{suffix}", pixels, "half" if suffix == "exr" else "uint8")
    assert pictures.has_alpha(str(path)) is alpha


def test_layers_are_told(tmp_path: Path) -> None:
    names = ("A.R", "A.G", "A.B", "B.R", "B.G", "B.B")
    path = media.image(tmp_path / "a.exr", np.zeros((4, 6, 6)), "half", names)
    with pytest.raises(Unclear, match="several layers"):
        pictures.has_alpha(str(path))


def test_depth_of_a_png(tmp_path: Path) -> None:
    for kind, fine in (("uint8", False), ("uint16", True)):
        path = media.image(tmp_path / f"{kind}.png", np.zeros((4, 6, 3)), kind)
        assert pictures.is_png16(str(path)) is fine


@pytest.mark.parametrize("suffix", ["png", "tif", "exr"])
@pytest.mark.parametrize("size", [0, 4, 20, 40])
def test_a_head_that_is_cut_off_is_unclear(suffix: str, size: int, tmp_path: Path) -> None:
    kind = "half" if suffix == "exr" else "uint8"
    path = media.image(tmp_path / f"a.{suffix}", np.zeros((4, 6, 3)), kind)
    path.write_bytes(path.read_bytes()[:size])
    if suffix == "png" and size == 40:  # what is asked for is in the first 26 bytes
        assert pictures.has_alpha(str(path)) is False
        return
    with pytest.raises(Unclear):
        pictures.has_alpha(str(path))
