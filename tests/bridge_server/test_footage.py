"""A clip beside the source: which of its frames belongs to which of the source's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bridge_server.footage import Matte, beside
from bridge_server.media.clip import Clip
from bridge_server.media.probe import probe
from fresco.callbacks import CancelToken
from fresco.errors import InvalidInput
from tests.bridge_server.reels import RATE, reel

COUNT = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return probe(reel(tmp_path_factory.mktemp("source") / "a.mp4", (COUNT,)))


def greys(folder: Path, count: int) -> Path:
    """A sequence whose frame k has the value 10 + k."""
    folder.mkdir()
    for number in range(count):
        cv2.imwrite(str(folder / f"m.{number:03}.png"), np.full((32, 48), 10 + number, np.uint8))
    return folder / "m.###.png"


def told(mask: Path, source: Clip, wanted: range, span: range) -> list[int]:
    """The mask's own numbers for the frames of `span`, one after the other and by themselves."""
    matte = Matte(beside(mask, source, wanted, "mask", CancelToken()), CancelToken())
    values = [float(frame.mean()) * 255 for frame in matte.frames(span.start, span.stop)]
    assert values == [float(matte.at(number).mean()) * 255 for number in span]
    return [round(value) - 10 for value in values]


@pytest.mark.parametrize(
    ("count", "wanted", "span", "expected"),
    [
        (1, range(3, 6), range(2, 7), [0, 0, 0, 0, 0]),
        (COUNT, range(3, 6), range(2, 7), [2, 3, 4, 5, 6]),
        (COUNT, range(COUNT), range(0, 3), [0, 1, 2]),
        (3, range(3, 6), range(3, 6), [0, 1, 2]),
        (3, range(3, 6), range(0, 9), [0, 0, 0, 0, 1, 2, 2, 2, 2]),
        (3, range(0, 3), range(0, 6), [0, 1, 2, 2, 2, 2]),
        (3, range(9, 12), range(6, 12), [0, 0, 0, 0, 1, 2]),
        (3, range(3, 6), range(0, 2), [0, 0]),
        (3, range(3, 6), range(7, 9), [2, 2]),
        (1, range(3, 4), range(2, 5), [0, 0, 0]),
    ],
)
def test_a_mask_is_a_picture_or_as_long_as_the_source_or_as_the_range(
    tmp_path: Path, source: Clip, count: int, wanted: range, span: range, expected: list[int]
) -> None:
    assert told(greys(tmp_path / "mask", count), source, wanted, span) == expected


def test_a_video_as_long_as_the_range(tmp_path: Path, source: Clip) -> None:
    film = reel(tmp_path / "mask.mkv", (4,), codec="ffv1", pix_fmt="yuv444p", sound=False)
    assert probe(film).rate == RATE
    matte = Matte(beside(film, source, range(5, 9), "mask", CancelToken()), CancelToken())
    own = [frame.mean(dim=(1, 2)) for frame in Matte(
        beside(film, probe(film), range(4), "mask", CancelToken()), CancelToken()
    ).frames(0, 4)]  # fmt: skip
    held = [0, 0, 0, 1, 2, 3, 3, 3]
    for frame, number in zip(matte.frames(3, 11), held, strict=True):
        assert (frame.mean(dim=(1, 2)) == own[number]).all()


@pytest.mark.parametrize("count", [2, 4, 5, COUNT + 1])
def test_any_other_length_is_refused_with_the_three_that_can_be(
    tmp_path: Path, source: Clip, count: int
) -> None:
    mask = greys(tmp_path / "mask", count)
    reason = (
        rf"subject: .* has {count} frames and a.mp4 has {COUNT}, of which 3 are wanted; give an "
        r"image, a clip as long as the source, or one as long as what is wanted"
    )
    with pytest.raises(InvalidInput, match=reason):
        beside(mask, source, range(3, 6), "subject", CancelToken())
