from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bridge_server.media.clip import ColourTags
from bridge_server.media.decode import frames
from bridge_server.media.errors import UnreadableMedia
from bridge_server.media.frame import Frame
from bridge_server.media.probe import probe
from bridge_server.media.verify import State
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled, InvalidInput
from tests.bridge_server.media.conftest import copied, same
from tests.bridge_server.media.films import (
    FILM_RATE,
    FILMS,
    Film,
    Films,
    Write,
    edited,
    film,
    from_key,
    repacked,
)


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
    assert [(track.codec, track.sample_rate, track.layout) for track in tracks] == [
        ("flac", 48000, "stereo"), ("aac", 48000, "stereo"),
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


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_picture_without_a_frame(write: Write, tmp_path: Path, suffix: str) -> None:
    path = write(f"w.{suffix}", sound=("aac",))
    empty = repacked(path, tmp_path / f"e.{suffix}", lambda packet: packet.stream.type == "audio")
    with pytest.raises(UnreadableMedia, match=r"without a frame|no moving picture"):
        probe(empty)


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
@pytest.mark.parametrize("suffix", ["mp4", "fast.mp4", "fragments.mp4", "mkv"])
def test_cut_off(tmp_path: Path, share: float, suffix: str) -> None:
    whole = tmp_path / "whole.mkv" if suffix == "mkv" else tmp_path / "whole.mp4"
    film(whole, Film(count=90, rate=Fraction(15), options={"g": "15", "qp": "4"}))
    if suffix == "fast.mp4":
        whole = repacked(whole, tmp_path / "fast.mp4", movflags="faststart")
    if suffix == "fragments.mp4":
        whole = repacked(whole, tmp_path / suffix, movflags="frag_keyframe+empty_moov")
    data = whole.read_bytes()
    path = tmp_path / f"cut{whole.suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableMedia, match=r"cut off|cannot be read past"):
        probe(path)


def test_a_recording_that_was_never_finished(write: Write, tmp_path: Path) -> None:
    """Matroska of a live stream names no size: what is there is the clip."""
    whole = write("whole.mkv", codec="ffv1", count=20)
    live = repacked(whole, tmp_path / "live.mkv", live="1")
    assert probe(live).count == 20


@pytest.mark.parametrize(
    "edits",
    [
        [(13, 11)],  # trimmed at its head, in the midst of a group
        [(12, 0)],  # at its tail
        [(6, 17)],  # at both ends
        [(10, None), (12, 0)],  # moved to later
        [(4, 20), (5, 0)],  # put together anew
    ],
)
def test_edit_lists(write: Write, tmp_path: Path, edits: list[tuple[int, int | None]]) -> None:
    """A phone and QuickTime trim by a list of edits, and leave the frames in the file.

    edits: (how many frames are shown, from which one on)
    """
    whole = write(
        "whole.mp4", rate=Fraction(25), count=24, options={"g": "8", "bf": "2", "qp": "0"}
    )
    everything = list(frames(probe(whole)))
    tick = int(Fraction(1, 25) / probe(whole).time_base)
    listed = [(40 * count, None if first is None else first * tick) for count, first in edits]
    clip = probe(edited(whole, tmp_path / "edited.mp4", *listed))
    shown = [first + i for count, first in edits if first is not None for i in range(count)]
    assert [same_as(frame, everything) for frame in frames(clip)] == shown
    assert copied(clip, tmp_path / "back.mp4", 1, 4).ok


def same_as(frame: Frame, others: list[Frame]) -> int:
    return next(other.index for other in others if same(frame, other))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_frames_that_a_cut_left_without_their_reference(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    """A copying cutter starts at a key frame, in front of which frames of the last group lie."""
    name = codec.removeprefix("lib")
    options = {f"{name}-params": "open-gop=1:bframes=3:keyint=8:min-keyint=8:log-level=none"}
    whole = film(tmp_path / "whole.mkv", Film(codec, count=40, options=options))
    clip = probe(repacked(whole, tmp_path / f"cut.{suffix}", from_key(1)))
    everything = list(frames(probe(whole)))
    first = same_as(next(frames(clip)), everything)
    assert first == 8
    assert [same_as(frame, everything) for frame in frames(clip)] == list(range(8, 40))
    assert copied(clip, tmp_path / f"back.{suffix}").ok


def test_codecs_that_nobody_knows(write: Write, tmp_path: Path) -> None:
    """Phones write a second sound in codecs that FFmpeg does not know."""
    path = write("s.mov", sound=("pcm_s16le",))
    path.write_bytes(path.read_bytes().replace(b"sowt", b"xxxx"))
    clip = probe(path)
    assert (clip.audio, clip.others) == ((), ("audio of an unknown codec",))
    assert copied(clip, tmp_path / "back.mov")["other streams"].state is State.CHANGED
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xxxx"))
    with pytest.raises(UnreadableMedia, match="not known"):
        probe(path)


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "x" * 300 + ".png", "nul\0.mp4"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableMedia, match="not there"):
        probe(tmp_path / name)


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
