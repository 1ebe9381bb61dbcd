"""What a file holds: its frames are counted by their packets, and one of them is decoded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import SideData, Type
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bridge_server.media import rates, sequences
from bridge_server.media.clip import UNSPECIFIED, AudioTrack, Chapter, Clip, ColourTags
from bridge_server.media.containers import known, opened, picture, sounds
from bridge_server.media.decode import decoded
from bridge_server.media.errors import UnreadableMedia, UnsupportedMedia
from bridge_server.media.layout import parse
from fresco.callbacks import CancelToken

#: Matroska says of PCM only how many channels there are.
_UNPLACED = {"1 channels": "mono", "2 channels": "stereo"}
_NO_TIME = np.iinfo(np.int64).min


def probe(path: Path, rate: Fraction | None = None, cancel: CancelToken | None = None) -> Clip:
    """Return what is known of the clip at `path`.

    path: a container; or an image sequence: a folder with one, its pattern (``name.####.exr``,
        ``name_%04d.png``) or one of its files
    rate: of an image sequence that does not name its own

    Raises:
        UnreadableMedia: missing, empty, damaged, or no clip.
        UnsupportedMedia: a pixel format or a sequence that is not read here.
        Cancelled: `cancel` was set.
    """
    if sequences.is_sequence(path):
        return sequences.probe(path, rate)
    with opened(path) as container:
        packets = _packets(container, picture(container, path), path, cancel or CancelToken())
    with opened(path) as container:
        return _clip(container, picture(container, path), path, packets)


@dataclass(frozen=True, slots=True, eq=False)
class _Times:
    pts: NDArray[np.int64]
    keys: NDArray[np.int64]
    last_duration: int


def _packets(
    container: InputContainer, stream: VideoStream, path: Path, cancel: CancelToken
) -> NDArray[np.int64]:
    """Time, duration and whether it is a key frame of every packet that is shown, as decoded.

    Edit lists are applied by the demuxer: what they leave out is not in its index, or discarded.
    """
    rows: list[NDArray[np.int64]] = []
    block: list[tuple[int, int, int]] = []
    announced, packets = len(stream.index_entries), 0
    try:
        for packet in container.demux(stream):
            cancel.check()
            packets += packet.size > 0
            if packet.size == 0 or packet.is_discard:
                continue
            pts = _NO_TIME if packet.pts is None else packet.pts
            block.append((pts, packet.duration or 0, packet.is_keyframe))
            if len(block) == 4096:
                rows, block = [*rows, np.array(block, np.int64)], []
    except FFmpegError as error:
        raise UnreadableMedia(
            f"{path.name} cannot be read past frame {packets}: {error.strerror}."
        ) from error
    if packets < announced:
        raise UnreadableMedia(
            f"{path.name} is cut off: its index names {announced} frames, {packets} are there. "
            "Render or copy it again."
        )
    return np.concatenate([*rows, np.array(block, np.int64).reshape(-1, 3)])


def _times(packets: NDArray[np.int64], first: int, path: Path) -> _Times:
    """The times of the frames in the order of showing; `first` is the first that is decoded."""
    table = packets[~_orphans(packets, first)]
    if (table[:, 0] == _NO_TIME).any():
        raise UnsupportedMedia(f"{path.name} has frames without a time; copy it to MOV first.")
    table = table[np.argsort(table[:, 0], kind="stable")]
    pts = np.ascontiguousarray(table[:, 0])
    twice = np.flatnonzero(np.diff(pts) == 0)
    if len(twice):
        raise UnreadableMedia(
            f"frames {int(twice[0])} and {int(twice[0]) + 1} of {path.name} have the same time; "
            "render the clip again."
        )
    duration = int(table[-1, 1]) or (int(pts[-1] - pts[-2]) if len(pts) > 1 else 1)
    return _Times(pts, np.flatnonzero(table[:, 2]).astype(np.int64), duration)


def _orphans(packets: NDArray[np.int64], first: int) -> NDArray[np.bool_]:
    """Which packets come before `first` because a cut left behind what they refer to.

    They follow the first key frame and are shown before it (an open group of pictures). No player
    shows them; Matroska may even have lost their times.
    """
    after = np.flatnonzero(packets[:, 0] > packets[0, 0])
    leading = np.arange(len(packets)) < (after[0] if len(after) else len(packets))
    leading[0] = False
    return leading & (packets[:, 0] < first)


def _clip(
    container: InputContainer, stream: VideoStream, path: Path, packets: NDArray[np.int64]
) -> Clip:
    base = stream.time_base
    if base is None:
        raise UnreadableMedia(f"the picture of {path.name} has no time base.")
    if not len(packets):
        raise UnreadableMedia(f"{path.name} holds a picture stream without a frame.")
    # Decoders write their own word over the container's: it is read first.
    named = _named_tags(stream)
    first = _first(container, stream, path)
    times = _times(packets, _NO_TIME if first.pts is None else first.pts, path)
    declared = (stream.guessed_rate, stream.average_rate)
    rate, variable = rates.exact(times.pts, base, times.last_duration, declared)
    return Clip(
        path=path,
        files=(),
        container=_container(container, path),
        codec=stream.codec_context.codec.canonical_name,
        profile=stream.profile,
        layout=parse(first.format.name),
        rate=rate,
        time_base=base,
        pts=times.pts,
        keys=times.keys,
        last_duration=times.last_duration,
        variable=variable,
        width=first.width,
        height=first.height,
        pixel_aspect=stream.sample_aspect_ratio or Fraction(1),
        matrix=_matrix(first),
        timecode=_timecode(container, stream),
        tags=_tags(first, named),
        interlaced=first.interlaced_frame or _field_order(stream) > 1,
        audio=tuple(_track(track) for track in sounds(container)),
        others=_others(container, stream),
        chapters=_chapters(container, int(times.pts[0]) * base),
    )


def _field_order(stream: VideoStream) -> int:
    """FFmpeg's AVFieldOrder. PyAV 17 does not hand it out; its frames say what they are."""
    return getattr(stream.codec_context, "field_order", 0)


def _first(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    for frame in decoded(container, stream, path):
        return frame
    raise UnreadableMedia(f"no frame of {path.name} can be decoded; render or copy it again.")


def _container(container: InputContainer, path: Path) -> str:
    if "matroska" in container.format.name:
        return "webm" if path.suffix.lower() == ".webm" else "matroska"
    return "mov" if container.metadata.get("major_brand", "qt  ").strip() == "qt" else "mp4"


def _named_tags(stream: VideoStream) -> tuple[int, int, int, int]:
    context = stream.codec_context
    return context.color_primaries, context.color_trc, context.colorspace, context.color_range


def _tags(frame: VideoFrame, named: tuple[int, int, int, int]) -> ColourTags:
    """The container's word where it has one, else the bitstream's."""
    own = frame.color_primaries, frame.color_trc, frame.colorspace
    codes = [
        ours if ours != UNSPECIFIED else theirs for ours, theirs in zip(named, own, strict=False)
    ]
    span = named[3] or frame.color_range
    full = True if frame.format.name.startswith("yuvj") else {1: False, 2: True}.get(span)
    primaries, transfer, matrix = codes
    return ColourTags(primaries, transfer, matrix, full)


def _matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    for data in cast("Iterable[SideData]", frame.side_data):
        if data.type == Type.DISPLAYMATRIX:
            matrix = tuple(int(value) for value in np.frombuffer(cast("Any", data), np.int32)[:9])
            return None if matrix == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30) else matrix
    return None


def _timecode(container: InputContainer, stream: VideoStream) -> str | None:
    for holder in (stream, *container.streams.data, container):
        for name, value in holder.metadata.items():
            if name.lower() == "timecode":
                return value
    return None


def _track(stream: AudioStream) -> AudioTrack:
    context = stream.codec_context
    language = stream.metadata.get("language")
    return AudioTrack(
        stream.index,
        context.codec.canonical_name,
        context.sample_rate,
        _UNPLACED.get(context.layout.name, context.layout.name),
        None if language == "und" else language,
    )


def _chapters(container: InputContainer, zero: Fraction) -> tuple[Chapter, ...]:
    """The chapters, by seconds after `zero`."""
    return tuple(
        Chapter(
            each["start"] * (each["time_base"] or 1) - zero,
            each["end"] * (each["time_base"] or 1) - zero,
            each["metadata"].get("title", ""),
        )
        for each in container.chapters()
    )


def _others(container: InputContainer, chosen: Stream) -> tuple[str, ...]:
    """Streams that are not carried over.

    A timecode track is, as the timecode, and the text of chapters, which has no codec, as those.
    """
    kept = {chosen.index, *(track.index for track in sounds(container))}
    return tuple(
        stream.type if known(stream) or stream.type != "audio" else "audio of an unknown codec"
        for stream in container.streams
        if stream.index not in kept
        and not (stream.type == "data" and "timecode" in stream.metadata)
        and not (stream.type == "data" and container.chapters() and not known(stream))
    )
