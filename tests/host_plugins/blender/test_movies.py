"""Frames told without decoding, against what the server finds in the same files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_server.media.probe import probe
from host_plugins.blender import movies
from host_plugins.blender.frames import Movie, Unclear
from tests.host_plugins.blender import media

COUNT = 40
BFRAMES = {"x264-params": "bframes=3"}
FILM, TV = Fraction(24000, 1001), Fraction(30000, 1001)
EVEN: dict[str, dict[str, object]] = {
    "b.mp4": {"rate": 24, "options": BFRAMES},
    "ntsc.mp4": {"rate": TV, "options": BFRAMES},
    "film.mkv": {"rate": FILM, "options": BFRAMES},
    "fast.mkv": {"rate": 60},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "prores.mov": {"codec": "prores_ks", "layout": "yuv422p10le"},
    "open.mov": {"rate": 50, "options": {"x264-params": "open-gop=1:keyint=10:bframes=3"}},
    "sound.mp4": {"seconds": 3.0, "options": BFRAMES},
    "sound.mkv": {"seconds": 3.0, "options": BFRAMES},
    "sound.webm": {"seconds": 3.0, "codec": "libvpx-vp9"},
    "hevc.mp4": {"codec": "libx265", "layout": "yuv420p10le"},
}


@pytest.mark.parametrize("name", EVEN)
def test_even_movies_are_counted_as_the_server_does(name: str, tmp_path: Path) -> None:
    path = media.movie(tmp_path / name, range(COUNT), **EVEN[name])  # pyright: ignore
    found, clip = movies.movie(str(path)), probe(path)
    assert found.count == clip.count == COUNT
    seconds = np.sort(found.times - found.times.min()) / found.units
    theirs = [float(clip.seconds(frame) - clip.seconds(0)) for frame in range(COUNT)]
    np.testing.assert_allclose(seconds, theirs, atol=1e-9)
    movies.check_even(found, float(np.float32(clip.rate)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_uneven_movies_are_rendered(suffix: str, tmp_path: Path) -> None:
    times = [40 * frame + 60 * (frame // 7) for frame in range(COUNT)]
    plain = {"x264-params": "bframes=0"}
    path = media.movie(tmp_path / f"a.{suffix}", range(COUNT), times=times, options=plain)
    assert probe(path).variable
    found = movies.movie(str(path))
    assert found.count == COUNT
    with pytest.raises(Unclear, match="variable frame rate"):
        movies.check_even(found, 25.0)


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("a.mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}, "in pieces"),
        ("a.avi", {"codec": "mpeg4"}, "neither MP4"),
    ],
)
def test_what_is_not_counted_says_why(
    name: str, options: dict[str, object], why: str, tmp_path: Path
) -> None:
    path = media.movie(tmp_path / name, range(4), **options)  # pyright: ignore
    with pytest.raises(Unclear, match=why):
        movies.movie(str(path))


@pytest.mark.parametrize(
    ("name", "codec", "layout", "alpha", "fine"),
    [
        ("a.mp4", "libx264", "yuv420p", False, False),
        ("a.mp4", "libx264", "yuv420p10le", False, True),
        ("a.mkv", "libx264", "yuv420p10le", False, True),
        ("a.mp4", "libx265", "yuv420p", False, False),
        ("a.mp4", "libx265", "yuv420p10le", False, True),
        ("a.mkv", "libx265", "yuv420p10le", False, True),
        ("a.mov", "prores_ks", "yuv422p10le", False, True),
        ("a.mov", "prores_ks", "yuva444p10le", True, True),
        ("a.mkv", "prores_ks", "yuv422p10le", False, True),
        ("a.mov", "qtrle", "argb", True, False),
        ("a.webm", "libvpx-vp9", "yuv420p", False, False),
        ("a.webm", "libvpx-vp9", "yuva420p", True, False),
    ],
)
def test_alpha_and_depth(
    name: str, codec: str, layout: str, alpha: bool, fine: bool, tmp_path: Path
) -> None:
    path = media.movie(tmp_path / name, range(3), codec=codec, layout=layout)
    found = movies.movie(str(path))
    assert (found.alpha, found.fine) == (alpha, fine)


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = media.movie(tmp_path / "a.mp4", range(3))
    assert movies.movie(str(path)).count == 3
    media.movie(path, range(5))
    assert movies.movie(str(path)).count == 5


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@given(data=st.data())
def test_damaged_heads_are_unclear_or_read(
    suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = folder / f"whole.{suffix}"
    if not whole.exists():
        media.movie(whole, range(8), options=BFRAMES)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = folder / f"damaged.{suffix}"
    damaged.write_bytes(content[: data.draw(st.integers(16, len(content)))])
    assert told(damaged) not in ("", "0")


def told(file: Path) -> str:
    """How many frames a file has, or why that is not clear."""
    try:
        return str(movies.movie(str(file)).count)
    except Unclear as reason:
        return str(reason)


def even(count: int, units: float, rate: Fraction) -> Movie:
    times = np.array([round(frame * Fraction(units) / rate) for frame in range(count)])
    return Movie(times, units, False, False)


@given(st.integers(1, 500), st.sampled_from([FILM, TV, Fraction(25), Fraction(50)]))
def test_a_clock_of_milliseconds_is_even(count: int, rate: Fraction) -> None:
    movies.check_even(even(count, 1000, rate), float(np.float32(rate)))


@given(st.integers(3, 200), st.data())
def test_one_frame_half_a_step_away_is_uneven(count: int, data: st.DataObject) -> None:
    found = even(count, 1000, Fraction(25))
    moved = data.draw(st.integers(1, count - 1))
    found.times[moved] += data.draw(st.sampled_from([-41, -40, 1, 20, 39]))
    with pytest.raises(Unclear):
        movies.check_even(found, 25.0)


def test_a_file_cut_within_a_group_is_rendered() -> None:
    with pytest.raises(Unclear, match="group of pictures"):
        movies.check_even(Movie(np.array([80, 0, 40, 120]), 1000, False, False), 25.0)
