from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bridge_server.media.clip import ColourTags
from bridge_server.media.errors import UnreadableMedia
from bridge_server.media.probe import probe
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled, InvalidInput
from tests.bridge_server.media.films import FILM_RATE, FILMS, Film, Films, Write, film


@pytest.mark.parametrize("name", FILMS)
def test_every_kind_of_film(films: Films, name: str) -> None:
    what, clip = FILMS[name], probe(films(name))
    assert clip.count == what.count
    assert clip.rate == what.rate
    assert not clip.variable
    assert (clip.width, clip.height) == (what.width, what.height)
    assert clip.alpha == what.pix_fmt.startswith(("yuva", "gbrap"))
    assert len(clip.audio) == len(what.sound)
    assert clip.others == ()
    assert not clip.interlaced


def test_formats_and_depths(films: Films) -> None:
    names = ("h264.mp4", "h264-422.mov", "prores-4444.mov", "vp9-alpha.webm", "ffv1-rgb16.mkv")
    layouts = [probe(films(name)).layout.name for name in names]
    assert layouts == ["yuv420p", "yuv422p10le", "yuva444p12le", "yuva420p", "gbrap16le"]


def test_containers(films: Films) -> None:
    names = ("h264.mp4", "prores.mov", "ffv1.mkv", "vp9.webm")
    assert [probe(films(name)).container for name in names] == ["mp4", "mov", "matroska", "webm"]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_what_an_editor_cares_for(write: Write, suffix: str) -> None:
    path = write(
        f"all.{suffix}", aspect=Fraction(4, 3), degrees=90, timecode="01:00:00;00",
        tags=(9, 16, 9, 1),
    )  # fmt: skip
    clip = probe(path)
    assert clip.pixel_aspect == Fraction(4, 3)
    assert clip.matrix == (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)
    assert clip.timecode == "01:00:00;00"
    assert clip.tags == ColourTags(9, 16, 9, False)


def test_tags_of_the_container_stay_though_the_bitstream_has_none(films: Films) -> None:
    assert probe(films("prores.mov")).tags == ColourTags(1, 1, 1, False)


def test_no_tags_are_no_tags(films: Films) -> None:
    assert probe(films("h264.mp4")).tags == ColourTags(2, 2, 2, None)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate(write: Write, suffix: str) -> None:
    pts = [0, 20, 50, 60, 90, 100, 140, 160, 170, 200, 210, 260]
    clip = probe(write(f"v.{suffix}", pts=pts, base=Fraction(1, 600)))
    assert clip.variable
    seconds = [round(float(clip.seconds(frame)), 3) for frame in range(clip.count)]
    assert seconds == [round(value / 600, 3) for value in pts]


def test_several_tracks_of_sound(films: Films) -> None:
    tracks = probe(films("ffv1.mkv")).audio
    assert [(track.codec, track.sample_rate, track.channels) for track in tracks] == [
        ("flac", 48000, 2), ("aac", 48000, 2),
    ]  # fmt: skip


def test_one_frame(write: Write) -> None:
    clip = probe(write("one.mp4", count=1))
    assert (clip.count, clip.rate, clip.variable) == (1, FILM_RATE, False)
    assert clip.seconds(1) == 1 / FILM_RATE


def test_interlaced_is_seen(write: Write) -> None:
    assert probe(write("i.mp4", options={"flags": "+ildct+ilme"})).interlaced


def test_missing_empty_and_no_media(tmp_path: Path) -> None:
    with pytest.raises(UnreadableMedia, match="not there"):
        probe(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(UnreadableMedia, match="empty"):
        probe(tmp_path / "empty.mp4")
    (tmp_path / "noise.mov").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(UnreadableMedia, match="not read as MP4"):
        probe(tmp_path / "noise.mov")


def test_a_playlist_opens_nothing(tmp_path: Path, films: Films) -> None:
    path = tmp_path / "list.mp4"
    path.write_text(f"ffconcat version 1.0\nfile '{films('h264.mp4')}'\n")
    with pytest.raises(UnreadableMedia):
        probe(path)


def test_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        track = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        out.mux(track.encode(frame))
        out.mux(track.encode())
    with pytest.raises(UnreadableMedia, match="no moving picture, only: audio"):
        probe(path)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.985])
@pytest.mark.parametrize("suffix", ["mp4", "fast.mp4", "mkv"])
def test_cut_off(tmp_path: Path, share: float, suffix: str) -> None:
    whole = tmp_path / "whole.mkv" if suffix == "mkv" else tmp_path / "whole.mp4"
    film(whole, Film(count=90, rate=Fraction(15), options={"g": "15", "qp": "4"}))
    if suffix == "fast.mp4":
        whole = _index_first(whole, tmp_path / "fast.mp4")
    data = whole.read_bytes()
    path = tmp_path / f"cut{whole.suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableMedia, match=r"cut off|cannot be read past"):
        probe(path)


def _index_first(path: Path, target: Path) -> Path:
    front = {"movflags": "faststart"}
    with av.open(str(path)) as source, av.open(str(target), "w", options=front) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return target


def test_cancelled(films: Films) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        probe(films("h264.mp4"), cancel=token)


def test_ranges(films: Films) -> None:
    clip = probe(films("h264.mp4"))
    assert clip.span(2, 5) == range(2, 5)
    assert clip.span() == range(12)
    for bad in ((5, 5), (0, 13), (-1, 3), (12, None)):
        with pytest.raises(InvalidInput, match="12"):
            clip.span(*bad)
