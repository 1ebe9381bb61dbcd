from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bridge_server.media.clip import Clip
from bridge_server.media.decode import frames
from bridge_server.media.errors import UnreadableMedia, UnsupportedMedia
from bridge_server.media.frame import from_av, to_av
from bridge_server.media.layout import parse
from bridge_server.media.probe import probe
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled, InvalidInput
from tests.bridge_server.media.conftest import same
from tests.bridge_server.media.films import FILMS, Film, Films, Write, film


@pytest.mark.parametrize("name", FILMS)
def test_every_kind_gives_every_frame_in_order(films: Films, name: str) -> None:
    clip = probe(films(name))
    shown = list(frames(clip))
    assert [frame.index for frame in shown] == list(range(clip.count))
    assert [frame.pts for frame in shown] == clip.pts.tolist()
    assert not any(same(a, b) for a, b in itertools.pairwise(shown))
    for part, plane in enumerate(shown[0].planes):
        assert plane.shape == clip.layout.plane_size(part, clip.width, clip.height)
        assert plane.dtype == clip.layout.dtype


@pytest.mark.parametrize("name", ["ffv1.mkv", "ffv1-rgb16.mkv", "odd.mkv"])
def test_lossless_samples_are_those_that_were_written(films: Films, name: str) -> None:
    what, clip = FILMS[name], probe(films(name))
    from tests.bridge_server.media.films import _samples

    for frame in frames(clip):
        made = av.VideoFrame(what.width, what.height, what.pix_fmt)
        for plane in made.planes:
            plane.update(_samples(made, plane, frame.index))
        assert same(frame, from_av(made, 0, 0))


@pytest.mark.parametrize(
    "options",
    [{"g": "250"}, {"g": "8", "bf": "3"}, {"g": "8", "x264-params": "open-gop=1:bframes=3"},
     {"g": "1"}],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_any_range_is_as_cut_from_the_whole(
    write: Write, options: dict[str, str], suffix: str
) -> None:
    clip = probe(write(f"long.{suffix}", count=60, options=options))
    whole = list(frames(clip))
    for start, stop in ((0, 1), (1, 4), (7, 9), (8, 17), (15, 16), (23, 40), (58, 60), (59, None)):
        part = list(frames(clip, start, stop))
        assert [frame.index for frame in part] == list(range(start, stop or 60))
        assert all(same(frame, whole[frame.index]) for frame in part)


@pytest.mark.parametrize(
    "options", [{"g": "10", "bf": "0"}, {"g": "10", "x264-params": "open-gop=1:bframes=3"}]
)
def test_seeking_reads_no_more_than_it_must(
    write: Write, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    from bridge_server.media import decode

    clip = probe(write("keys.mp4", count=60, options=options))
    shown = 0
    original = decode.decoded

    def counted(*arguments: Any) -> Iterator[Any]:
        nonlocal shown
        for frame in original(*arguments):
            shown += 1
            yield frame

    monkeypatch.setattr(decode, "decoded", counted)
    list(frames(clip, 45, 50))
    assert shown <= 20


def test_a_wrong_list_of_key_frames_costs_time_only(write: Write) -> None:
    clip = probe(write("lie.mp4", count=40, options={"g": "20"}))
    expected = list(frames(clip, 30, 33))
    lied = replace(clip, keys=np.arange(40, dtype=np.int64))
    assert all(same(a, b) for a, b in zip(frames(lied, 30, 33), expected, strict=True))


def damaged(clip: Clip, path: Path, where: float) -> Path:
    data = bytearray(clip.path.read_bytes())
    begin = int(len(data) * where)
    data[begin : begin + 60] = np.random.default_rng(1).bytes(60)
    path.write_bytes(data)
    return path


#: How many of twelve wounds must be noticed: FFV1 has checksums, H.264 only its syntax, ProRes
#: nearly nothing.
WOUNDS = {
    "d.mkv": (Film("ffv1", count=20, options={"level": "3", "slicecrc": "1"}), 12),
    "d.mp4": (Film(count=40, width=128, height=96, options={"qp": "10"}), 6),
    "d.mov": (Film("prores_ks", "yuv422p10le", count=20), 1),
}


@pytest.mark.parametrize("name", WOUNDS)
def test_damage_is_an_error(tmp_path: Path, name: str) -> None:
    what, least = WOUNDS[name]
    clip = probe(film(tmp_path / name, what))
    noticed = 0
    for step in range(12):
        path = damaged(clip, tmp_path / f"x{step}-{name}", 0.15 + 0.06 * step)
        with suppress(UnreadableMedia, UnsupportedMedia):
            assert len(list(frames(probe(path)))) == clip.count
            continue
        noticed += 1
    assert noticed >= least


def test_ffv1_without_checksums_is_read(tmp_path: Path) -> None:
    options = {"level": "3", "slicecrc": "0"}
    clip = probe(film(tmp_path / "plain.mkv", Film("ffv1", options=options)))
    assert len(list(frames(clip))) == clip.count


def test_a_change_of_size_or_format_half_way(tmp_path: Path, write: Write) -> None:
    small = write("small.mp4", count=5)
    clip = probe(small)
    for was in (replace(clip, width=32), replace(clip, layout=parse("yuv422p"))):
        with pytest.raises(UnsupportedMedia, match="changes"):
            list(frames(was))


def test_a_frame_that_is_not_there(films: Films) -> None:
    clip = probe(films("ffv1.mkv"))
    longer = replace(clip, pts=np.append(clip.pts, clip.pts[-1] + 500))
    with pytest.raises(UnreadableMedia, match="frame 12 of"):
        list(frames(longer))
    between = np.insert(clip.pts, 5, (clip.pts[4] + clip.pts[5]) // 2)
    with pytest.raises(UnreadableMedia, match="frame 5 of"):
        list(frames(replace(clip, pts=between)))


def test_cancelled_between_two_frames(films: Films) -> None:
    token, seen = CancelToken(), 0
    with pytest.raises(Cancelled):
        for _ in frames(probe(films("h264.mp4")), cancel=token):
            seen += 1
            token.cancel()
    assert seen == 1


def test_a_range_outside(films: Films) -> None:
    with pytest.raises(InvalidInput):
        next(frames(probe(films("h264.mp4")), 4, 99))


@pytest.mark.parametrize(
    "name",
    [
        "yuv420p",
        "yuva444p10le",
        "gbrp",
        "gbrap16le",
        "gray",
        "gray16le",
        "rgb24",
        "bgra",
        "rgb0",
        "rgba64le",
        "ya8",
        "yuv411p",
    ],
)
def test_samples_go_into_pyav_and_out_again(name: str) -> None:
    from bridge_server.media.clip import ColourTags
    from tests.bridge_server.media.test_blend import noise

    _, frame = noise(name, 7)
    picture = to_av(frame, ColourTags(9, 16, 9, True))
    assert (picture.color_primaries, picture.color_trc, picture.colorspace) == (9, 16, 9)
    assert same(from_av(picture, 0, 0), frame)


def test_a_portrait_with_rotation_is_stored_as_it_lies(write: Write) -> None:
    clip = probe(write("p.mp4", degrees=-90))
    assert next(frames(clip)).planes[0].shape == (48, 64)
    assert clip.rate == Fraction(30000, 1001)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="priority classes are of Linux")
def test_making_films_takes_the_processor_from_nobody(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    film(tmp_path / "a.mkv", FILMS["av1.mkv"])
    assert os.sched_getscheduler(0) == before
