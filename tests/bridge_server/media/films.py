"""Clips made by the tests themselves, straight through PyAV: a second way of writing."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np

FILM_RATE = Fraction(30000, 1001)

#: A film of `FILMS` by its name; and one with properties of its own.
Films: TypeAlias = Callable[[str], Path]
Write: TypeAlias = Callable[..., Path]


@dataclass(frozen=True)
class Film:
    """What to write. `pts` in `base`; both make a variable rate. `seconds`: of the sound."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    width: int = 64
    height: int = 48
    count: int = 12
    rate: Fraction = FILM_RATE
    options: dict[str, str] = field(default_factory=dict)
    pts: Sequence[int] | None = None
    base: Fraction | None = None
    aspect: Fraction | None = None
    degrees: int | None = None
    timecode: str | None = None
    tags: tuple[int, int, int, int] | None = None
    sound: tuple[str, ...] = ()
    sound_rate: int = 48000
    channels: str = "stereo"
    seconds: Fraction | None = None
    matrix: tuple[int, ...] | None = None
    chapters: Sequence[tuple[int, int, str]] = ()
    field_order: int | None = None


def film(path: Path, what: Film) -> Path:
    """Write `what`, each frame another picture, and return the path."""
    with _priority_kept(), av.open(str(path), "w") as out:
        stream = _picture(out, what)
        tracks = [out.add_stream(codec, rate=what.sound_rate) for codec in what.sound]
        for track in tracks:
            track.codec_context.layout = what.channels
        out.set_chapters([
            {"id": number, "start": start, "end": end, "time_base": Fraction(1, 1000),
             "metadata": {"title": title}}
            for number, (start, end, title) in enumerate(what.chapters)
        ])  # fmt: skip
        for index in range(what.count):
            frame = av.VideoFrame(what.width, what.height, what.pix_fmt)
            for plane in frame.planes:
                plane.update(_samples(frame, plane, index))
            frame.pts = what.pts[index] if what.pts else index
            frame.time_base = what.base or 1 / what.rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        for number, track in enumerate(tracks):
            tone(out, track, number, what.seconds or what.count / what.rate)
    return path


@contextmanager
def _priority_kept() -> Generator[None]:
    """SVT-AV1 takes the real-time class for its caller, where that is root.

    Everything that the tests start later would have it too, and whatever waits busily would leave
    the rest of the machine no processor.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    os.sched_setscheduler(0, *before)


def _picture(out: Any, what: Film) -> Any:
    stream = out.add_stream(what.codec, rate=what.rate, options=dict(what.options))
    stream.width, stream.height, stream.pix_fmt = what.width, what.height, what.pix_fmt
    context = stream.codec_context
    context.time_base = what.base or 1 / what.rate
    if what.aspect:
        context.sample_aspect_ratio = what.aspect
    if what.degrees is not None:
        stream.set_display_rotation(what.degrees)
    if what.matrix:
        stream.set_display_matrix(what.matrix)
    if what.timecode:
        stream.metadata["timecode"] = what.timecode
    if what.field_order is not None:
        context.options = {**context.options, "x264-params": "interlaced=1"}
    if what.tags:
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = (
            what.tags
        )
    return stream


def _samples(frame: av.VideoFrame, plane: Any, index: int) -> bytes:
    """A slope that moves, within limited range."""
    bits = frame.format.components[0].bits
    size = 1 if bits == 8 else 2
    rows, columns = plane.buffer_size // plane.line_size, plane.line_size // size
    slope = np.add.outer(np.arange(rows) * 2, np.arange(columns)) + index * 5
    values = 16 + slope % 200 if bits == 8 else (16 + slope % 200) << (bits - 8)
    return values.astype("u1" if bits == 8 else "<u2").tobytes()


def tone(out: Any, track: Any, number: int, seconds: Fraction) -> None:
    """Write a sound of its own for every track."""
    context = track.codec_context
    out.start_encoding()
    size, place = context.frame_size or 1024, 0
    kind, channels = context.format.name, context.channels
    types = {"flt": np.float32, "s16": np.int16, "s32": np.int32}
    dtype: Any = types[kind.removesuffix("p")]
    loud = 0.5 if dtype is np.float32 else np.iinfo(dtype).max // 2
    while place < seconds * context.sample_rate:
        wave = np.sin(np.arange(place, place + size) * 0.05 * (number + 1)) * loud
        wave = (
            np.stack([wave] * channels) if kind.endswith("p") else np.repeat(wave, channels)[None]
        )
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(wave.astype(dtype)), format=kind, layout=context.layout
        )
        frame.sample_rate, frame.pts = context.sample_rate, place
        frame.time_base = Fraction(1, context.sample_rate)
        out.mux(track.encode(frame))
        place += size
    out.mux(track.encode())


def repacked(
    path: Path, target: Path, keep: Callable[[Any], bool] = lambda _packet: True, **options: str
) -> Path:
    """Write the packets of `path` that `keep` wants to `target`, as a cutter does that copies."""
    with av.open(str(path)) as source, av.open(str(target), "w", options=options) as out:
        streams = {
            stream.index: out.add_stream_from_template(stream)
            for stream in (*source.streams.video, *source.streams.audio)
        }
        for packet in source.demux():
            if packet.size and keep(packet):
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return target


def from_key(number: int) -> Callable[[Any], bool]:
    """For `repacked`: the picture from its key frame `number` on, counted from 0."""
    seen = -1

    def keep(packet: Any) -> bool:
        nonlocal seen
        seen += packet.stream.type == "video" and packet.is_keyframe
        return seen >= number

    return keep


def edited(path: Path, target: Path, *edits: tuple[int, int | None]) -> Path:
    """Give the first track of the MP4 at `path` another edit list.

    edits: (milliseconds, ticks of the track after its first frame; None: nothing is shown)
    """
    data = path.read_bytes()
    old = data.index(b"elst") + 16
    zero = int.from_bytes(data[old : old + 4], "big")
    entries = b"".join(
        struct.pack(">IiI", length, -1 if after is None else zero + after, 1 << 16)
        for length, after in edits
    )
    body = b"elst" + bytes(4) + struct.pack(">I", len(edits)) + entries
    box = struct.pack(">I", len(body) + 12) + b"edts" + struct.pack(">I", len(body) + 4) + body
    movie = data.rindex(b"moov") - 4
    track = data.index(b"trak", movie) - 4
    begin = data.index(b"edts", track) - 4
    end = begin + int.from_bytes(data[begin : begin + 4], "big")
    out = bytearray(data[:begin] + box + data[end:])
    for place in (movie, track):
        size = int.from_bytes(out[place : place + 4], "big") + len(box) - (end - begin)
        out[place : place + 4] = struct.pack(">I", size)
    target.write_bytes(out)
    return target


#: Every codec that is read, in a container that holds it.
FILMS: dict[str, Film] = {
    "h264.mp4": Film(sound=("aac",)),
    "h264-422.mov": Film(pix_fmt="yuv422p10le", tags=(1, 1, 1, 1)),
    "hevc.mp4": Film("libx265", "yuv420p10le", options={"x265-params": "log-level=none"}),
    "vp9.webm": Film("libvpx-vp9", sound=("libopus",)),
    "vp9-alpha.webm": Film("libvpx-vp9", "yuva420p", options={"auto-alt-ref": "0"}),
    "av1.mkv": Film("libsvtav1", options={"svtav1-params": "preset=12"}, count=4),
    "prores.mov": Film("prores_ks", "yuv422p10le", tags=(1, 1, 1, 1), sound=("pcm_s16le",)),
    "prores-4444.mov": Film(
        "prores_ks", "yuva444p10le", options={"profile": "4444", "alpha_bits": "16"}
    ),
    "dnxhr.mov": Film("dnxhd", "yuv422p", 256, 120, options={"profile": "dnxhr_hq"}, count=3),
    "dnxhr-10.mov": Film(
        "dnxhd", "yuv422p10le", 257, 121, options={"profile": "dnxhr_hqx"}, count=3
    ),
    "dnxhr-444.mov": Film("dnxhd", "gbrp10le", 256, 120, options={"profile": "dnxhr_444"}, count=3),
    "ffv1.mkv": Film("ffv1", "yuv420p", tags=(9, 1, 9, 1), sound=("flac", "aac")),
    "ffv1-rgb16.mkv": Film("ffv1", "gbrap16le", tags=(1, 13, 0, 2)),
    "odd.mkv": Film("ffv1", "yuv420p", 65, 49),
}
