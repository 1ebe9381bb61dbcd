"""What a clip has beside its colours comes through the whole of a job; compared through PyAV."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from bridge_server import config
from bridge_server.cli import app
from tests.bridge_server.media.films import Film, film

BGR = NDArray[np.uint8]
#: When the frames of a phone's clip are shown: 30 per second, some late, one long.
PTS = (0, 20, 41, 60, 80, 140, 160, 181, 200)
BASE = Fraction(1, 600)
#: Above, below, left and right can all be told apart.
UPPER, LOWER = (30, 30, 200), (200, 60, 30)


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.STORE, str(tmp_path / "store"))


def painting(height: int, width: int) -> BGR:
    """Red above and blue below, with a bright corner above on the left."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2], image[height // 2 :] = UPPER, LOWER
    image[: height // 4, : width // 4] = 235
    return image


def carried(source: Path, target: Path, picture: BGR, *words: str) -> Path:
    """Carry `picture`, as the first and last frame, over `source`; returns the file."""
    key = target.with_name("key.png")
    cv2.imwrite(str(key), picture)
    keys = [word for frame in (0, 8) for word in ("--key", f"{frame}={key}")]
    command = ["propagate", str(source), "-o", str(target), *keys, "--cuts", "none"]
    result = CliRunner().invoke(app, [*command, "--propagation", "flow", "--threads", "1", *words])
    assert result.exit_code == 0, result.output
    return target


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times(path: Path) -> list[Fraction]:
    """When each frame is shown, seconds after the first."""
    shown = decoded(path)
    return [_seconds(frame) - _seconds(shown[0]) for frame in shown]


def _seconds(frame: av.VideoFrame) -> Fraction:
    assert frame.pts is not None
    assert frame.time_base is not None
    return frame.pts * frame.time_base


def _ends(path: Path) -> Fraction:
    """When the last frame ends, seconds after the first is shown."""
    with av.open(str(path)) as container:
        packets = [each for each in container.demux(video=0) if each.pts is not None]
    first, last = (pick(packets, key=_pts) for pick in (min, max))
    assert last.duration is not None
    assert last.time_base is not None
    return (_pts(last) - _pts(first) + last.duration) * last.time_base


def _pts(packet: Any) -> int:
    return packet.pts


def alphas(path: Path) -> list[NDArray[np.uint16]]:
    """The alpha plane of each frame, in the file's own numbers."""
    return [_plane(frame, 3) for frame in decoded(path)]


def _plane(frame: av.VideoFrame, number: int) -> NDArray[np.uint16]:
    plane = frame.planes[number]
    every = np.frombuffer(bytes(plane), np.uint16).reshape(plane.height, -1)
    return every[:, : plane.width]


@pytest.mark.parametrize("name", ["phone.mov", "phone.mp4", "phone.mkv"])
def test_every_frame_is_shown_when_the_sources_is(tmp_path: Path, name: str) -> None:
    what = Film(width=96, height=64, count=9, pts=PTS, base=BASE, sound=("aac",))
    source = film(tmp_path / name, what)
    target = carried(source, tmp_path / f"out {name}", painting(64, 96))

    assert times(target) == times(source)
    assert len({after - before for before, after in pairwise(times(source))}) > 2, "it varies"
    assert _ends(target) == _ends(source)


def test_a_range_of_a_variable_rate_begins_with_its_own_first_frame(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mov", Film(width=96, height=64, count=9, pts=PTS, base=BASE))
    cv2.imwrite(str(tmp_path / "key.png"), painting(64, 96))
    words = ["propagate", str(source), "-o", str(tmp_path / "out.mov"), "--cuts", "none"]
    words += ["--range", "3:8", "--key", f"4={tmp_path / 'key.png'}", "--threads", "1"]
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 0, result.output
    shown = times(source)
    assert times(tmp_path / "out.mov") == [when - shown[3] for when in shown[3:8]]


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix", "options"),
    [
        ("prores_ks", "yuva444p10le", ".mov", {"profile": "4444", "alpha_bits": "16"}),
        ("ffv1", "gbrap16le", ".mkv", {}),
        ("ffv1", "yuva420p10le", ".mkv", {}),
    ],
)
def test_the_alpha_plane_is_the_sources_to_the_bit(
    tmp_path: Path, codec: str, pix_fmt: str, suffix: str, options: dict[str, str]
) -> None:
    what = Film(codec, pix_fmt, 96, 64, 9, options=options)
    source = film(tmp_path / f"a{suffix}", what)
    target = carried(source, tmp_path / f"out{suffix}", painting(64, 96))

    before, after = alphas(source), alphas(target)
    assert len(after) == 9
    assert before[0].min() < before[0].max(), "it has something to keep"
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    shown = decoded(target)[0].to_ndarray(format="bgr24")
    assert np.abs(shown[56:, 80:].astype(int) - LOWER).max() < 12, "the colours are the painting's"


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_clip_is_painted_as_it_is_shown_and_stays_turned(
    tmp_path: Path, degrees: int
) -> None:
    source = film(tmp_path / "a.mov", Film(width=96, height=64, count=9, degrees=degrees))
    upright = painting(64, 96) if degrees == 180 else painting(96, 64)
    target = carried(source, tmp_path / "out.mov", upright)

    before, after = decoded(source), decoded(target)
    assert {frame.rotation for frame in after} == {frame.rotation for frame in before}
    assert {(frame.width, frame.height) for frame in after} == {(96, 64)}
    for key in (after[0], after[8]):
        stored = key.to_ndarray(format="bgr24")
        # PyAV says by how much a player turns a frame counter-clockwise.
        shown = np.rot90(stored, key.rotation // 90).astype(int)
        assert np.abs(shown - upright).mean() < 6, "as it was painted, but for halved chroma"


@pytest.mark.parametrize("width", [96, 128])
def test_a_clip_of_wide_pixels_is_painted_as_it_is_shown_or_as_it_is_stored(
    tmp_path: Path, width: int
) -> None:
    what = Film(width=96, height=64, count=9, aspect=Fraction(4, 3))
    source = film(tmp_path / "a.mov", what)
    target = carried(source, tmp_path / "out.mov", painting(64, width))

    with av.open(str(target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    for key in (decoded(target)[0], decoded(target)[8]):
        stored = key.to_ndarray(format="bgr24").astype(int)
        assert np.abs(stored - painting(64, 96)).mean() < 8, "as it was painted, but for the edges"


def test_a_picture_of_neither_shape_is_refused_with_the_right_size(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mov", Film(width=96, height=64, count=9, aspect=Fraction(4, 3)))
    cv2.imwrite(str(tmp_path / "key.png"), painting(64, 64))
    words = ["propagate", str(source), "--key", f"0={tmp_path / 'key.png'}"]
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 1
    assert "shown as 128 x 64" in result.stderr


def test_a_phones_portrait_clip_keeps_its_times_its_turn_and_its_sound(tmp_path: Path) -> None:
    what = Film(
        width=96, height=64, count=9, pts=PTS, base=BASE, degrees=270, sound=("aac",),
        seconds=Fraction(1, 3),
    )  # fmt: skip
    source = film(tmp_path / "a.mov", what)
    target = carried(source, tmp_path / "out.mov", painting(96, 64))

    assert times(target) == times(source)
    assert {frame.rotation for frame in decoded(target)} == {
        frame.rotation for frame in decoded(source)
    }
    assert _sound(target) == _sound(source)


def _sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]
