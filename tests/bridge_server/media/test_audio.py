from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bridge_server.media import audio
from bridge_server.media.colour import convert
from bridge_server.media.decode import frames
from bridge_server.media.encode import Writer
from bridge_server.media.probe import probe
from bridge_server.media.verify import State
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled
from tests.bridge_server.media.conftest import copied
from tests.bridge_server.media.films import Films, Write

SOUNDS = [("mp4", "aac"), ("mov", "pcm_s16le"), ("mkv", "flac"), ("mkv", "libopus"),
          ("mp4", "libmp3lame")]  # fmt: skip


def samples(path: Path) -> np.ndarray:
    """The sound as FFmpeg plays it, with priming cut away, first channel."""
    with av.open(str(path)) as container:
        heard = [frame.to_ndarray() for frame in container.decode(audio=0)]
    planar = heard[0].shape[0] == 2
    return np.concatenate([part[0] if planar else part[0, ::2] for part in heard])


@pytest.mark.parametrize(("suffix", "codec"), SOUNDS)
def test_the_whole_is_copied_bit_by_bit(
    write: Write, tmp_path: Path, suffix: str, codec: str
) -> None:
    path = write(f"s.{suffix}", count=30, sound=(codec,))
    clip = probe(path)
    copied(clip, tmp_path / f"back.{suffix}")
    back = probe(tmp_path / f"back.{suffix}")
    (before,), (after,) = audio.prints(clip).values(), audio.prints(back).values()
    assert (before.digest, before.packets) == (after.digest, after.packets)
    assert np.array_equal(samples(path), samples(back.path))


@pytest.mark.parametrize(("suffix", "codec"), SOUNDS)
def test_a_range_is_cut_on_packet_borders(
    write: Write, tmp_path: Path, suffix: str, codec: str
) -> None:
    clip = probe(write(f"s.{suffix}", count=60, sound=(codec,)))
    copied(clip, tmp_path / f"back.{suffix}", 20, 40)
    (whole,) = audio.prints(clip).values()
    kept = list(audio.packets(clip, range(20, 40)))
    longest = max(Fraction(packet.duration) * packet.time_base for packet, _ in kept)
    length = 20 / clip.rate
    assert 0 < len(kept) < whole.packets
    assert abs(kept[0][1]) <= longest / 2
    last, start = kept[-1]
    assert abs(start + last.duration * last.time_base - length) <= longest / 2 + Fraction(1, 1000)


def test_a_cut_keeps_sound_at_its_place_in_the_picture(write: Write, tmp_path: Path) -> None:
    """A click in uncompressed sound is at the same time after the same frame."""
    path = write("s.mov", count=60, rate=Fraction(25), sound=("pcm_s16le",))
    clip = probe(path)
    copied(clip, tmp_path / "back.mov", 13, 50)
    back = probe(tmp_path / "back.mov")
    (packet, start), *_ = audio.packets(back, back.span())
    original = samples(path)
    begin = round((Fraction(13, 25) + start) * 48000)
    cut = np.frombuffer(bytes(packet), np.int16)[::2]
    assert np.array_equal(original[begin : begin + len(cut)], cut)


def test_several_tracks_keep_their_languages(films: Films, tmp_path: Path) -> None:
    with av.open(str(films("h264.mp4"))) as source, av.open(str(tmp_path / "two.mkv"), "w") as out:
        streams = [
            out.add_stream_from_template(s) for s in (*source.streams.video, *source.streams.audio)
        ]
        streams[1].metadata["language"] = "deu"
        streams += [out.add_stream_from_template(source.streams.audio[0])]
        streams[2].metadata["language"] = "fra"
        for packet in source.demux():
            if packet.size:
                if packet.dts is None:
                    packet.dts = packet.pts
                again = packet.stream.index
                packet.stream = streams[again]
                out.mux(packet)
    clip = probe(tmp_path / "two.mkv")
    assert [track.language for track in clip.audio] == ["deu", "fra"]
    copied(clip, tmp_path / "back.mkv")
    assert [track.language for track in probe(tmp_path / "back.mkv").audio] == ["deu", "fra"]


def test_sound_that_starts_before_the_picture(films: Films, tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    with av.open(str(films("h264.mp4"))) as source, av.open(str(path), "w") as out:
        streams = [out.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.size:
                if packet.stream.type == "video":
                    later = round(Fraction(1, 2) / packet.time_base)
                    packet.pts += later
                    packet.dts += later
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    clip = probe(path)
    assert 0.4 < audio.lead(clip) < 0.6
    report = copied(clip, tmp_path / "back.mp4")
    assert report.ok
    back = probe(tmp_path / "back.mp4")
    assert abs(audio.lead(back) - audio.lead(clip)) < Fraction(3, 100)


def test_cancelled(films: Films) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        audio.prints(probe(films("h264.mp4")), cancel=token)


def test_no_sound_is_no_error(films: Films, tmp_path: Path) -> None:
    clip = probe(films("hevc.mp4"))
    assert audio.prints(clip) == {}
    assert audio.lead(clip) == 0
    assert copied(clip, tmp_path / "x.mp4").ok


@pytest.mark.parametrize("channels", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "aac"), ("mp4", "ac3"), ("mov", "pcm_s16le"), ("mkv", "flac")]
)
def test_mono_and_surround(
    write: Write, tmp_path: Path, suffix: str, codec: str, channels: str
) -> None:
    clip = probe(write(f"s.{suffix}", count=30, sound=(codec,), channels=channels))
    assert copied(clip, tmp_path / f"back.{suffix}", 7, 23)["sound 0"].state is State.KEPT
    (before,), (after,) = clip.audio, probe(tmp_path / f"back.{suffix}").audio
    assert before.layout.startswith(channels)
    assert (before.layout, before.sample_rate) == (after.layout, after.sample_rate)


def test_what_a_container_does_not_say_of_sound_is_reported(write: Write, tmp_path: Path) -> None:
    clip = probe(write("s.mov", sound=("pcm_s16le",), channels="5.1"))
    row = copied(clip, tmp_path / "back.mkv")["sound 0"]
    assert row.state is State.CHANGED
    assert "5.1" in row.source
    assert "6 channels" in row.result


def test_sound_without_durations(write: Write, tmp_path: Path) -> None:
    """Matroska names none for ALAC; MOV drops a last packet that lasts no time."""
    clip = probe(write("s.mkv", count=30, sound=("alac",)))
    for start, stop in ((0, None), (9, 25)):
        name = f"back{start}.mov"
        assert copied(clip, tmp_path / name, start, stop)["sound 0"].state is State.KEPT


@pytest.mark.parametrize(("suffix", "left"), [("mov", 1), ("mkv", 2)])
@pytest.mark.parametrize("codec", ["aac", "ac3"])
def test_a_range_without_sound(
    write: Write, tmp_path: Path, suffix: str, left: int, codec: str
) -> None:
    """One stream has ended by then, the other has not: MOV has no place for an empty stream."""
    short = write(f"short.{suffix}", count=60, sound=(codec,), seconds=Fraction(1, 2))
    long = write(f"long.{suffix}", count=60, sound=("aac",))
    both = tmp_path / f"both.{suffix}"
    with av.open(str(short)) as one, av.open(str(long)) as two, av.open(str(both), "w") as out:
        streams = [*one.streams.video, *one.streams.audio, *two.streams.audio]
        copies = [out.add_stream_from_template(stream) for stream in streams]
        for stream, copy in zip(streams, copies, strict=True):
            stream.container.seek(0)
            for packet in stream.container.demux(stream):
                if packet.size:
                    packet.stream = copy
                    out.mux(packet)
    report = copied(probe(both), tmp_path / f"back.{suffix}", 40, 55)
    assert report.ok
    assert len(probe(tmp_path / f"back.{suffix}").audio) == left
    assert report["sound"].state is (State.CHANGED if left == 1 else State.KEPT)


@pytest.mark.parametrize("sound_rate", [8000, 11025, 44100, 96000])
def test_every_sample_rate(write: Write, tmp_path: Path, sound_rate: int) -> None:
    clip = probe(write("s.mov", count=40, sound=("pcm_s16le",), sound_rate=sound_rate))
    for start, stop in ((0, None), (7, 31)):
        name = f"back{start}.mov"
        assert copied(clip, tmp_path / name, start, stop)["sound 0"].state is State.KEPT


def test_sound_longer_than_the_picture(write: Write, tmp_path: Path) -> None:
    clip = probe(write("s.mp4", count=10, sound=("aac",), seconds=Fraction(3)))
    report = copied(clip, tmp_path / "back.mp4")
    assert report["sound 0"].state is State.KEPT
    (track,) = audio.prints(probe(tmp_path / "back.mp4")).values()
    assert track.packets > 130


def test_sound_that_has_ended_does_not_hold_back_the_picture(write: Write, tmp_path: Path) -> None:
    """The muxer waits for the next packet of every stream, by default for ten seconds."""
    clip = probe(write("s.mov", count=150, sound=("aac",), seconds=Fraction(1)))
    with Writer(tmp_path / "back.mov", clip, profile="prores-422-hq") as writer:
        for frame in frames(clip):
            writer.write(convert(frame, clip, writer.form))
        (part,) = tmp_path.glob(".*")
        begun = part.stat().st_size
    assert begun > (tmp_path / "back.mov").stat().st_size / 2
