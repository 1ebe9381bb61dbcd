from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bridge_server import curve, lettering, pictures
from bridge_server.media.errors import NotWritten
from bridge_server.pictures import contact_sheet, error_curve, save
from fresco.errors import InvalidInput

RED, GREEN = (255, 0, 0), (0, 255, 0)
RATE = Fraction(24)


def plain(colour: tuple[int, int, int], height: int = 90, width: int = 160) -> Tensor:
    return (torch.tensor(colour).float() / 255)[:, None, None].expand(3, height, width).clone()


def pairs(count: int, height: int = 90, width: int = 160) -> list[tuple[str, Tensor, Tensor]]:
    source, styled = plain(RED, height, width), plain(GREEN, height // 2, width // 2)
    return [(f"frame {number}, 00:00.000", source, styled) for number in range(count)]


def share(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(image).astype(int) - colour == 0).all(axis=2)


# ------------------------------------------------------------------------------- contact sheet


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 13, 60, 200])
@pytest.mark.parametrize("size", [(90, 160), (160, 90), (100, 100), (40, 200)])
def test_every_pair_is_shown_in_full_and_the_sheet_stays_readable(
    count: int, size: tuple[int, int]
) -> None:
    sheet = contact_sheet(pairs(count, *size), "a prompt\nmodel fresco-draft (draft)")
    assert pictures.NARROWEST <= sheet.width <= pictures.WIDTH
    red, green = share(sheet, RED), share(sheet, GREEN)
    # Source above styled, in the same columns, of the same size.
    assert red.sum() == green.sum() > 0
    assert (red.any(axis=0) == green.any(axis=0)).all()
    assert np.flatnonzero(red.any(axis=1))[0] < np.flatnonzero(green.any(axis=1))[0]
    assert (red.sum() // count) ** 0.5 >= 70
    columns = runs(red.any(axis=0))
    rows = runs(red.any(axis=1))
    assert {stop - start for start, stop in columns} == {columns[0][1] - columns[0][0]}
    assert (len(rows) - 1) * len(columns) < count <= len(rows) * len(columns)
    thumbnail = columns[0][1] - columns[0][0], rows[0][1] - rows[0][0]
    assert max(thumbnail) <= pictures.LARGEST
    assert thumbnail[0] / thumbnail[1] == pytest.approx(size[1] / size[0], rel=0.03)


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Where runs of True begin and end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def test_a_thumbnail_shows_the_picture_the_right_way_round() -> None:
    picture = torch.zeros(3, 90, 160)
    picture[0, :45, :80] = 1  # red, left above
    picture[2, 45:, 80:] = 1  # blue, right below
    sheet = contact_sheet([("frame 0", picture, plain(GREEN))], "x")
    red, blue = share(sheet, RED), share(sheet, (0, 0, 255))
    assert red.any()
    assert np.argwhere(red).mean(axis=0)[0] < np.argwhere(blue).mean(axis=0)[0]
    assert np.argwhere(red).mean(axis=0)[1] < np.argwhere(blue).mean(axis=0)[1]


def test_pictures_of_other_shapes_are_fitted_not_stretched() -> None:
    sheet = contact_sheet([("a", plain(RED, 90, 160), plain(GREEN, 160, 90))], "x")
    tall = share(sheet, GREEN)
    height, width = tall.any(axis=1).sum(), tall.any(axis=0).sum()
    assert width / height == pytest.approx(90 / 160, rel=0.02)


def test_rows_may_be_made_one_after_the_other() -> None:
    alive: list[int] = []

    def made() -> Iterator[tuple[str, Tensor, Tensor]]:
        for row in pairs(5):
            alive.append(1)
            yield row

    assert contact_sheet(made(), "x").width > 0
    assert len(alive) == 5


def test_long_titles_and_labels_stay_on_the_sheet() -> None:
    long = "an endless prompt with many words " * 60
    label = "frame 1000000 of a very long clip, 10:00:00.000 " * 3
    with_words = contact_sheet([(label, plain(RED), plain(GREEN))] * 40, f"{long}\n{long}")
    edge = np.asarray(with_words)
    ground = Image.new("RGB", (1, 1), lettering.BACKGROUND).getpixel((0, 0))
    assert (edge[:, :20] == ground).all()
    assert (edge[:, -20:] == ground).all()
    empty = contact_sheet([("", plain(RED), plain(GREEN))] * 40, "")
    assert 50 < with_words.height - empty.height < 400


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("a", torch.zeros(3, 8, 8), torch.zeros(1, 8, 8))],
        [("a", torch.full((3, 8, 8), 255.0), torch.zeros(3, 8, 8))],
        [("a", torch.zeros(3, 8, 8), torch.full((3, 8, 8), float("nan")))],
    ],
)
def test_what_is_no_sheet(rows: list[tuple[str, Tensor, Tensor]]) -> None:
    with pytest.raises(InvalidInput):
        contact_sheet(rows, "x")


# ------------------------------------------------------------------------------------- letters


@pytest.mark.parametrize("width", [60, 200, 900])
def test_wrapped_lines_fit_and_lose_nothing_but_what_is_cut(width: int) -> None:
    text = "watercolour on rough paper, soft light\nand a note"
    lines = lettering.wrapped(text, width, 20, 99)
    assert all(lettering.font(line, 20).getlength(line) <= width for line in lines)
    if width >= 200:
        assert " ".join(lines).split() == text.split()
    cut = lettering.wrapped(text, width, 20, 1)
    assert len(cut) == 1
    assert cut[0].endswith("...")
    assert lettering.font(cut[0], 20).getlength(cut[0]) <= width


def test_a_font_that_has_the_letters_is_taken_where_there_is_one() -> None:
    own = lettering.font("plain", 20)
    assert own.getname()[0] == "Aileron"
    found = lettering.font("Ölgemälde", 20)
    if found is own:
        pytest.skip("this system has none of the fonts that are looked for")
    shapes = {lettering._shape(found, letter) for letter in "Öl\uffff"}
    assert len(shapes) == 3


# ----------------------------------------------------------------------------------- the curve

KEY, CUT, LINE = (240, 185, 77), (239, 107, 102), (111, 183, 238)
PANEL = slice(curve._TOP, curve._BOTTOM), slice(curve._LEFT, curve._RIGHT + 1)


def near(image: Image.Image, colour: tuple[int, int, int], apart: int = 12) -> np.ndarray:
    return (np.abs(np.asarray(image).astype(int) - colour) <= apart).min(axis=2)


def marks(image: Image.Image) -> list[float]:
    """Frames' places of the keyframe marks, in pixels: those above the panel."""
    strip = near(image, KEY)[curve._TOP - 15 : curve._TOP - 2]
    return [(start + stop - 1) / 2 for start, stop in runs(strip.any(axis=0))]


def test_keyframes_and_cuts_are_marked_at_their_frames() -> None:
    errors = [0.0, *[0.01] * 100]
    image = error_curve(errors, [0, 25, 100], [50], RATE)
    step = (curve._RIGHT - curve._LEFT) / 100
    expected = [curve._LEFT + frame * step for frame in (0, 25, 100)]
    assert marks(image) == pytest.approx(expected, abs=1)
    (cut,) = runs(near(image, CUT)[PANEL].any(axis=0))
    assert sum(cut) / 2 + curve._LEFT == pytest.approx(curve._LEFT + 50 * step, abs=2)


def test_the_curve_is_as_high_as_the_errors() -> None:
    errors = np.linspace(0, 0.1, 500)
    drawn = near(error_curve(list(errors), [], [], RATE), LINE, 30)[PANEL]
    height = curve._BOTTOM - curve._TOP
    for column in (200, 900, 1500):
        frame = column / (curve._RIGHT - curve._LEFT) * 499
        expected = height * (1 - errors[round(frame)] / (0.1 * 1.08))
        assert np.flatnonzero(drawn[:, column]).mean() == pytest.approx(expected, abs=2)


def test_the_peak_of_a_cut_does_not_flatten_the_rest() -> None:
    errors = [0.0, *[0.01] * 200]
    errors[100] = 1.0
    drawn = near(error_curve(errors, [], [100], RATE), LINE, 30)[PANEL]
    assert np.flatnonzero(drawn[:, 400]).mean() < 50
    unmarked = near(error_curve(errors, [], [], RATE), LINE, 30)[PANEL]
    assert np.flatnonzero(unmarked[:, 400]).mean() > 350


def test_of_many_frames_no_peak_is_lost_and_it_is_quick() -> None:
    errors = np.full(100_000, 0.001)
    errors[[12_345, 77_777]] = 0.1
    start = time.perf_counter()
    image = error_curve(list(errors), list(range(0, 100_000, 40)), [], RATE)
    assert time.perf_counter() - start < 5
    drawn = near(image, LINE, 60)[PANEL]
    peaks = [
        (start + stop) / 2 / (curve._RIGHT - curve._LEFT) * 100_000
        for start, stop in runs(drawn[30:300].any(axis=0))
    ]
    assert peaks == pytest.approx([12_345, 77_777], abs=120)


@pytest.mark.parametrize("count", [1, 2, 3, 24, 1000, 100_000])
@pytest.mark.parametrize("rate", [RATE, Fraction(30000, 1001), Fraction(1, 2), Fraction(1000)])
def test_any_length_and_rate_has_ticks_that_do_not_overlap(count: int, rate: Fraction) -> None:
    plot = curve._Plot(count, 0.02, rate)
    frames, (times, step) = plot.frames(), plot.seconds()
    assert frames[0] == times[0] == 0
    assert len(frames) <= 14
    assert len(times) <= 14
    assert frames[-1] <= count - 1
    assert times[-1] * rate <= count - 1
    assert len({curve._clock(each, step) for each in times}) == len(times)
    assert error_curve([0.0] * count, [0], [], rate).size == (curve.WIDTH, curve.HEIGHT)


@pytest.mark.parametrize(
    ("seconds", "step", "text"),
    [
        (Fraction(0), Fraction(1), "0:00"),
        (Fraction(125), Fraction(5), "2:05"),
        (Fraction(3725), Fraction(600), "1:02:05"),
        (Fraction(3, 2), Fraction(1, 2), "0:01.5"),
        (Fraction(61) + Fraction(1, 50), Fraction(1, 50), "1:01.02"),
    ],
)
def test_clock(seconds: Fraction, step: Fraction, text: str) -> None:
    assert curve._clock(seconds, step) == text


@pytest.mark.parametrize(
    ("errors", "keyframes", "cuts", "rate"),
    [
        ([], [], [], RATE),
        ([0.0, float("nan")], [], [], RATE),
        ([0.0, -1.0], [], [], RATE),
        ([0.0, 1.0], [2], [], RATE),
        ([0.0, 1.0], [], [-1], RATE),
        ([0.0, 1.0], [], [], Fraction(0)),
    ],
)
def test_what_is_no_curve(
    errors: list[float], keyframes: list[int], cuts: list[int], rate: Fraction
) -> None:
    with pytest.raises(InvalidInput):
        error_curve(errors, keyframes, cuts, rate)


# -------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("b ü.JPG", "JPEG"), ("c.jpeg", "JPEG")]
)
def test_saved_pictures_are_what_their_suffix_says(tmp_path: Path, name: str, kind: str) -> None:
    image = Image.new("RGB", (40, 30), RED)
    save(image, tmp_path / name)
    with Image.open(tmp_path / name) as read:
        assert (read.format, read.size) == (kind, (40, 30))
        assert np.abs(np.asarray(read).astype(int) - RED).max() <= 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    file = tmp_path / "sheet.png"
    file.write_bytes(b"precious")
    with pytest.raises(NotWritten, match="--overwrite"):
        save(Image.new("RGB", (4, 4)), file)
    assert file.read_bytes() == b"precious"
    save(Image.new("RGB", (4, 4)), file, overwrite=True)
    with Image.open(file) as read:
        assert read.size == (4, 4)


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4))
    with pytest.raises(InvalidInput, match=r"\.png or \.jpg"):
        save(image, tmp_path / "sheet.gif")
    with pytest.raises(NotWritten, match="not there"):
        save(image, tmp_path / "nowhere" / "sheet.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(NotWritten, match="cannot be written"):
        save(image, tmp_path / "folder.png", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]
