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
from bridge_server.media.blend import blend
from bridge_server.media.colour import from_rgb, to_rgb
from bridge_server.media.decode import frames
from bridge_server.media.encode import Writer
from bridge_server.media.errors import NotWritten, UnreadableMedia, UnsupportedMedia
from bridge_server.media.probe import probe
from bridge_server.media.transfer import Hdr
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


def test_files_that_macos_puts_beside_others_are_no_frames(tmp_path: Path) -> None:
    images(tmp_path, ".png", "uint8", 3)
    (tmp_path / "._shot ä_0007.png").write_bytes(b"resource fork")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert probe(tmp_path, RATE).count == 3


def test_one_frame_twice(tmp_path: Path) -> None:
    images(tmp_path, ".png", "uint8", 3)
    (tmp_path / "shot ä_7.png").write_bytes((tmp_path / "shot ä_0007.png").read_bytes())
    with pytest.raises(UnreadableMedia, match="one frame"):
        probe(tmp_path, RATE)
    images(tmp_path, ".tif", "uint8", 3)
    assert probe(tmp_path / "shot ä_0007.tif", RATE).count == 3


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


def windowed(path: Path, stored: tuple[int, int, int, int], pixels: np.ndarray) -> None:
    """Write an EXR of 16 x 12, of which `stored` (x, y, width, height) is in the file."""
    spec: Any = OpenImageIO.ImageSpec(*stored[2:], 3, "half")
    spec.x, spec.y = stored[:2]
    spec.full_width, spec.full_height = 16, 12
    out: Any = OpenImageIO.ImageOutput.create(str(path))
    assert out.open(str(path), spec)
    assert out.write_image(pixels)
    out.close()


def test_exr_that_stores_only_what_is_not_empty(tmp_path: Path) -> None:
    """Renderers do, and every frame another part: the picture is the display window."""
    windows = [(2, 3, 6, 4), (5, 0, 11, 12), (0, 0, 16, 12)]
    whole = np.zeros((3, 12, 16, 3), np.float16)
    for number, (x, y, width, height) in enumerate(windows):
        pixels = np.random.default_rng(number).random((height, width, 3)).astype(np.float16)
        whole[number, y : y + height, x : x + width] = pixels
        windowed(tmp_path / f"w.{number}.exr", windows[number], pixels)
    clip = probe(tmp_path / "w.#.exr", RATE)
    assert (clip.width, clip.height) == (16, 12)
    shown = [np.stack(frame.planes, axis=-1) for frame in frames(clip)]
    assert np.array_equal(shown, whole)
    assert copied(clip, tmp_path / "back.#.exr").ok
    back = probe(tmp_path / "back.#.exr", RATE)
    assert all(same(a, b) for a, b in zip(frames(clip), frames(back), strict=True))


def test_exr_with_overscan_keeps_all_of_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((16, 20, 3)).astype(np.float16)
    windowed(tmp_path / "o.1.exr", (-2, -2, 20, 16), pixels)
    clip = probe(tmp_path / "o.1.exr", RATE)
    assert (clip.width, clip.height) == (20, 16)
    assert copied(clip, tmp_path / "back.#.exr").ok
    spec = sequences._header(tmp_path / "back.1.exr")
    assert (spec.x, spec.y, spec.full_width, spec.full_height) == (-2, -2, 16, 12)


@pytest.mark.parametrize(
    ("channels", "layout", "order"),
    [
        (("B", "G", "R", "diffuse.A", "diffuse.R"), "rgb-half", (2, 1, 0)),
        (("main.R", "main.G", "main.B", "main.A", "Z"), "rgba-half", (0, 1, 2, 3)),
        (("N.X", "N.Y", "N.Z", "Y"), "gray-half", (3,)),
        (("N.X", "N.Y", "N.Z"), None, ()),
    ],
)
def test_the_picture_is_one_layer(
    tmp_path: Path, channels: tuple[str, ...], layout: str | None, order: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(0).random((4, 5, len(channels))).astype(np.float16)
    image(tmp_path / "l.1.exr", pixels, "half", channelnames=channels)
    if layout is None:
        with pytest.raises(UnsupportedMedia, match="no R, G, B"):
            probe(tmp_path / "l.1.exr", RATE)
        return
    clip = probe(tmp_path / "l.1.exr", RATE)
    assert clip.layout.name == layout
    shown = next(frames(clip)).planes
    assert all(np.array_equal(a, pixels[..., b]) for a, b in zip(shown, order, strict=True))


def test_holes_of_a_renderer_do_not_reach_the_model(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 3), 0.5, np.float16)
    pixels[0, 0], pixels[1, 1], pixels[2, 2, 0] = np.nan, np.inf, -np.inf
    image(tmp_path / "n.1.exr", pixels, "half")
    clip = probe(tmp_path / "n.1.exr", RATE)
    frame = next(frames(clip))
    shown = to_rgb(frame, clip).rgb
    assert torch.isfinite(shown).all()
    painted = from_rgb(shown, frame, clip)
    assert all(np.isfinite(plane).all() for plane in painted.planes)
    kept = blend(frame, painted, torch.zeros(4, 4), clip)
    assert np.array_equal(np.stack(kept.planes, axis=-1), pixels, equal_nan=True)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_tiff_with_colours_multiplied_by_alpha(tmp_path: Path, kind: str) -> None:
    half = {"uint8": 128, "uint16": 32896}[kind]
    pixels = np.full((4, 4, 4), half // 2, kind)
    pixels[..., 3] = half
    image(tmp_path / "t.1.tif", pixels, kind, **{"oiio:UnassociatedAlpha": 0})
    clip = probe(tmp_path / "t.1.tif", RATE)
    frame = next(frames(clip))
    assert clip.associated
    shown = to_rgb(frame, clip)
    assert abs(float(shown.rgb.mean()) - 0.5) < 1e-4
    assert same(from_rgb(shown.rgb, frame, clip), frame)
    assert copied(clip, tmp_path / "back.#.tif").ok
    back = probe(tmp_path / "back.#.tif", RATE)
    assert back.associated
    assert same(next(frames(back)), frame)
    assert copied(clip, tmp_path / "png.#.png", profile="png").ok
    straight = probe(tmp_path / "png.#.png", RATE)
    assert not straight.associated
    assert abs(float(to_rgb(next(frames(straight)), straight).rgb.mean()) - 0.5) < 3e-3


@pytest.mark.parametrize("tags", [(9, 16, 9, 1), (9, 18, 9, 1), (9, 14, 9, 1)])
@pytest.mark.parametrize("profile", ["png", "tiff", "exr"])
def test_images_of_wide_and_hdr_clips_show_what_they_show(
    write: Write, tmp_path: Path, tags: tuple[int, ...], profile: str
) -> None:
    """Images have no tags: without conversion BT.2020's and PQ's codes would be taken for sRGB."""
    clip = probe(write("h.mkv", codec="ffv1", pix_fmt="yuv444p10le", count=2, tags=tags))
    report = copied(clip, tmp_path / f"i.#.{profile}", profile=profile)
    assert report["colour tags"].state is State.CHANGED
    assert ("tone-mapped" in report["colour tags"].why) == (tags[1] in (16, 18))
    back = probe(tmp_path / f"i.#.{profile}", clip.rate)
    for ours, theirs in zip(frames(clip), frames(back), strict=True):
        shown = to_rgb(ours, clip, Hdr.TONE_MAP).rgb
        assert (shown - to_rgb(theirs, back).rgb).abs().max() < 2e-3


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
