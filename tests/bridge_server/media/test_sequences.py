from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO
import pytest
import torch

from bridge_server.media import profiles, sequences
from bridge_server.media.colour import from_rgb, to_rgb
from bridge_server.media.decode import frames
from bridge_server.media.encode import Writer
from bridge_server.media.errors import NotWritten, UnreadableMedia, UnsupportedMedia
from bridge_server.media.probe import probe
from bridge_server.media.verify import State
from fresco.errors import InvalidInput
from tests.bridge_server.media.conftest import copied, image, images, same
from tests.bridge_server.media.films import Films, Write

RATE = Fraction(24000, 1001)
KINDS = [(".png", "uint8", 3), (".png", "uint8", 4), (".png", "uint16", 3), (".png", "uint16", 4),
         (".png", "uint8", 1), (".tif", "uint8", 3), (".tif", "uint16", 4), (".tif", "float", 3),
         (".exr", "half", 3), (".exr", "half", 4), (".exr", "float", 4)]  # fmt: skip


@pytest.mark.parametrize(("suffix", "kind", "channels"), KINDS)
def test_samples_pass_through_bit_by_bit(
    tmp_path: Path, suffix: str, kind: str, channels: int
) -> None:
    clip = probe(images(tmp_path, suffix, kind, channels), RATE)
    assert (clip.count, clip.rate, clip.alpha) == (3, RATE, channels == 4)
    folder = tmp_path / "out"
    folder.mkdir()
    report = copied(clip, folder / f"back.####{suffix}")
    assert report.ok
    assert sorted(file.name for file in folder.iterdir()) == [
        f"back.{number:04}{suffix}" for number in (7, 8, 9)
    ]
    back = probe(folder, RATE)
    assert all(same(a, b) for a, b in zip(frames(clip), frames(back), strict=True))


def test_as_another_reader_sees_them(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = images(tmp_path, ".png", "uint16", 3)
    frame = next(frames(probe(path, RATE)))
    theirs = cv2.imread(str(probe(path, RATE).files[0]), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert np.array_equal(np.stack(frame.planes, axis=-1), theirs)


def test_from_the_model_and_back_in_place(tmp_path: Path) -> None:
    clip = probe(images(tmp_path, ".png", "uint16", 3), RATE)
    frame = next(frames(clip))
    assert same(from_rgb(to_rgb(frame, clip).rgb, frame, clip), frame)


@pytest.mark.parametrize("name", ["shot ä_%04d.png", "shot ä_####.png", "shot ä_0008.png", ""])
def test_ways_to_name_a_sequence(tmp_path: Path, name: str) -> None:
    images(tmp_path, ".png", "uint8", 3)
    assert [file.name[-8:-4] for file in probe(tmp_path / name, RATE).files] == [
        "0007", "0008", "0009",
    ]  # fmt: skip


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    images(tmp_path, ".png", "uint8", 3)
    (tmp_path / "shot ä_0008.png").unlink()
    with pytest.raises(UnreadableMedia, match="no frame 8"):
        probe(tmp_path, RATE)


def test_two_sequences_in_one_folder(tmp_path: Path) -> None:
    images(tmp_path, ".png", "uint8", 3)
    images(tmp_path, ".exr", "half", 3)
    with pytest.raises(UnreadableMedia, match=r"ä_#\.exr, shot ä_#\.png"):
        probe(tmp_path, RATE)
    assert probe(tmp_path / "shot ä_####.exr", RATE).count == 3


def test_nothing_there(tmp_path: Path) -> None:
    for name in ("none.png", "a_####.exr", "."):
        with pytest.raises(UnreadableMedia):
            probe(tmp_path / name, RATE)


def test_a_rate_must_be_known(tmp_path: Path) -> None:
    path = images(tmp_path, ".png", "uint8", 3)
    with pytest.raises(UnsupportedMedia, match="frame rate"):
        probe(path)


def test_damaged_and_differing_images(tmp_path: Path) -> None:
    clip = probe(images(tmp_path, ".png", "uint8", 3), RATE)
    data = clip.files[1].read_bytes()
    clip.files[1].write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableMedia, match="0008"):
        list(frames(clip))
    clip.files[1].write_bytes(b"")
    with pytest.raises(UnreadableMedia, match="0008"):
        list(frames(clip))
    image(clip.files[1], np.zeros((5, 5, 3), np.uint8), "uint8")
    with pytest.raises(UnsupportedMedia, match="5x5"):
        list(frames(clip))


def test_exr_keeps_its_header_and_its_other_channels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((6, 8, 5)).astype(np.float16)
    image(
        tmp_path / "a.0001.exr", pixels, "half", channelnames=("R", "G", "B", "A", "Z"),
        compression="piz", studio="somebody", PixelAspectRatio=2.0,
        FramesPerSecond=("rational", (24000, 1001)),
        **{"smpte:TimeCode": ("timecode", (0x01000000, 0))},
    )  # fmt: skip
    clip = probe(tmp_path / "a.0001.exr")
    assert (clip.rate, clip.timecode, clip.pixel_aspect) == (RATE, "01:00:00:00", 2)
    folder = tmp_path / "out"
    folder.mkdir()
    with Writer(folder / "b.####.exr", clip) as writer:
        for frame in frames(clip):
            writer.write(from_rgb(torch.full((3, 6, 8), 0.5), frame, clip))
    assert writer.report is not None
    assert {row.state for row in writer.report.rows} == {State.KEPT}
    back: Any = OpenImageIO.ImageInput.open(str(folder / "b.0001.exr"))
    spec, written = back.spec(), back.read_image("half")
    assert spec.get_string_attribute("compression") == "piz"
    assert spec.get_string_attribute("studio") == "somebody"
    assert spec.channelnames == ("R", "G", "B", "A", "Z")
    assert np.array_equal(written[..., 3:], pixels[..., 3:])
    assert not np.array_equal(written[..., :3], pixels[..., :3])


def test_a_timecode_that_exr_cannot_count_is_none(write: Write, tmp_path: Path) -> None:
    """Two bits of tens: frame 45 would be read as frame 5 with numbers dropped."""
    path = write("t.mkv", codec="ffv1", rate=Fraction(50), count=3)
    clip = replace(probe(path), timecode="00:00:00:44")
    report = copied(clip, tmp_path / "e.####.exr", profile="exr")
    assert report["timecode"].state is State.CHANGED
    assert probe(tmp_path / "e.####.exr").timecode is None


@pytest.mark.parametrize(("points", "primaries"), [
    ((0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290), 9),
    ((0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767), None),
])  # fmt: skip
def test_primaries_of_exr(tmp_path: Path, points: tuple[float, ...], primaries: int | None) -> None:
    image(tmp_path / "a.1.exr", np.ones((4, 4, 3), np.float16), "half",
          chromaticities=("float[8]", points))  # fmt: skip
    if primaries is None:
        with pytest.raises(UnsupportedMedia, match="primaries"):
            probe(tmp_path / "a.1.exr", RATE)
        return
    assert probe(tmp_path / "a.1.exr", RATE).tags.primaries == primaries


@pytest.mark.parametrize(
    ("profile", "suffix"), [("png", ".png"), ("tiff", ".tiff"), ("exr", ".exr")]
)
@pytest.mark.parametrize("name", ["h264.mp4", "prores-4444.mov"])
def test_a_film_into_images_and_back(
    films: Films, tmp_path: Path, profile: str, suffix: str, name: str
) -> None:
    clip = probe(films(name))
    report = copied(clip, tmp_path / f"i.####{suffix}", 2, 7, profile=profile)
    assert report.ok
    back = probe(tmp_path / f"i.####{suffix}", clip.rate)
    assert [sequences.number(file) for file in back.files] == [2, 3, 4, 5, 6]
    for a, b in zip(frames(clip, 2, 7), frames(back), strict=True):
        one, two = to_rgb(a, clip), to_rgb(b, back)
        if one.alpha is not None and two.alpha is not None:
            assert (one.alpha - two.alpha).abs().max() < 2e-3
        shown = torch.ones(clip.height, clip.width) if one.alpha is None else one.alpha[0]
        assert (one.rgb - two.rgb).abs()[:, shown > 0.1].max() < 5e-3


def test_images_into_a_film(tmp_path: Path) -> None:
    clip = probe(images(tmp_path, ".png", "uint8", 4), RATE)
    assert profiles.default(clip).name == "png"
    report = copied(clip, tmp_path / "film.mov", profile="prores-4444")
    assert report["rate"].state is State.KEPT
    back = probe(tmp_path / "film.mov")
    assert (back.count, back.rate, back.alpha) == (3, RATE, True)
    one, two = to_rgb(next(frames(clip)), clip), to_rgb(next(frames(back)), back)
    assert (one.rgb - two.rgb).abs().mean() < 0.02


def test_lossless_film_of_images(tmp_path: Path) -> None:
    clip = probe(images(tmp_path, ".png", "uint16", 3), RATE)
    assert copied(clip, tmp_path / "film.mkv", profile="ffv1").ok
    pairs = zip(frames(clip), frames(probe(tmp_path / "film.mkv")), strict=True)
    assert all(same(a, b) for a, b in pairs)


def test_existing_images_are_left_alone(tmp_path: Path) -> None:
    clip = probe(images(tmp_path, ".png", "uint8", 3), RATE)
    other = tmp_path / "other_0008.png"
    other.write_bytes(b"mine")
    with pytest.raises(NotWritten, match="exists; choose"):
        Writer(tmp_path / "other_####.png", clip)
    assert other.read_bytes() == b"mine"
    with pytest.raises(NotWritten, match="source itself"):
        Writer(tmp_path / "shot ä_####.png", clip, overwrite=True)


@pytest.mark.parametrize("name", ["x.png", "x_##_##.png", "x_##.bmp"])
def test_a_pattern_needs_one_place_for_the_number(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="####"):
        sequences.pattern(tmp_path / name)


@pytest.mark.parametrize(
    ("timecode", "number"), [("01:02:03:04", 0x01020304), ("01:02:03;04", 0x01020344)]
)
def test_smpte_timecode(timecode: str, number: int) -> None:
    assert sequences._packed(timecode) == number
