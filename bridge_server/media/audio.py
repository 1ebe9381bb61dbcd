"""Sound is copied, packet by packet, never decoded.

A range is cut on packet borders: a packet belongs to it if its middle lies in it. An AAC packet is
1024 samples (21 ms at 48 kHz), so sound may begin and end half a packet, 11 ms, beside the
picture's cut; every packet keeps its exact place against the picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard

from bridge_server.media.clip import Clip
from bridge_server.media.containers import opened, sounds
from bridge_server.media.errors import UnreadableMedia, UnsupportedMedia
from fresco.callbacks import CancelToken

#: How much before the cut reading begins, in seconds: packets of sound are interleaved loosely.
_BEFORE = 2


@dataclass(frozen=True, slots=True)
class Print:
    """What a copied stream is recognised by.

    digest: SHA-256 of its packets' bytes, one after the other
    packets: how many there are
    start: of its first packet, in seconds after the picture's first frame
    """

    digest: str
    packets: int
    start: Fraction | None


def lead(clip: Clip) -> Fraction:
    """Return by how many seconds sound starts before the picture; 0 where it does not."""
    if not clip.audio:
        return Fraction(0)
    with opened(clip.path) as container:
        starts = [
            stream.start_time * stream.time_base
            for stream in sounds(container)
            if stream.start_time is not None and stream.time_base is not None
        ]
    return max(Fraction(0), clip.seconds(0) - min(starts, default=clip.seconds(0)))


def packets(
    clip: Clip, span: range, cancel: CancelToken | None = None
) -> Iterator[tuple[Packet[Any], Fraction]]:
    """Yield the packets of all audio streams that belong to `span`, in the file's order.

    Beside each is its start, in seconds after the first frame of the span.

    Raises:
        UnreadableMedia: the file is damaged.
        Cancelled: `cancel` was set.
    """
    if not clip.audio:
        return
    with opened(clip.path) as container:
        for found in _packets(container, clip, span):
            if cancel is not None:
                cancel.check()
            yield found


def _packets(
    container: InputContainer, clip: Clip, span: range
) -> Iterator[tuple[Packet[Any], Fraction]]:
    begin, end = clip.seconds(span.start), clip.seconds(span.stop)
    whole_head, whole_tail = span.start == 0, span.stop == clip.count
    if not whole_head:
        container.seek(int(max(Fraction(0), begin - _BEFORE) * 1_000_000))
    for stream in container.streams.video:
        stream.discard = Discard.all  # the bulk of the file need not be read
    passed: set[int] = set()
    try:
        for packet in _lasting(container.demux(*sounds(container))):
            start, middle = _place(packet, clip)
            if (whole_head or middle >= begin) and (whole_tail or middle < end):
                yield packet, start - begin
            elif middle >= end + _BEFORE:
                passed.add(packet.stream.index)
                if len(passed) == len(clip.audio):
                    return
    except FFmpegError as error:
        raise UnreadableMedia(
            f"the sound of {clip.path.name} is damaged: {error.strerror}. Render the clip again."
        ) from error


def _lasting(packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
    """Packets with a duration: one without is given the distance from the one before it.

    Matroska names none for some codecs, and MOV drops a last packet that lasts no time.
    """
    before: dict[int, int] = {}
    for packet in packets:
        if packet.size == 0:
            continue
        if packet.pts is not None:
            if not packet.duration:
                packet.duration = packet.pts - before.get(packet.stream.index, packet.pts)
            before[packet.stream.index] = packet.pts
        yield packet


def _place(packet: Packet[Any], clip: Clip) -> tuple[Fraction, Fraction]:
    if packet.pts is None:
        raise UnreadableMedia(f"sound of {clip.path.name} has no time; copy the clip to MOV first.")
    start = packet.pts * packet.time_base
    return start, start + (packet.duration or 0) * packet.time_base / 2


def prints(
    clip: Clip, span: range | None = None, cancel: CancelToken | None = None
) -> dict[int, Print]:
    """Return the print of every audio stream of `clip` in `span`, by the stream's index.

    Raises: see `packets`.
    """
    hashes = {track.index: hashlib.sha256() for track in clip.audio}
    counts = dict.fromkeys(hashes, 0)
    starts: dict[int, Fraction] = {}
    for packet, start in packets(clip, span or clip.span(), cancel):
        hashes[packet.stream.index].update(bytes(packet))
        counts[packet.stream.index] += 1
        starts.setdefault(packet.stream.index, start)
    return {
        index: Print(digest.hexdigest(), counts[index], starts.get(index))
        for index, digest in hashes.items()
    }


class Copier:
    """Copies the audio streams of a clip beside a picture that is being written."""

    def __init__(self, clip: Clip, span: range, offset: Fraction, target: OutputContainer) -> None:
        """Add the streams to `target`; its header must not be written yet.

        offset: seconds from the target's zero to the picture's first frame

        Raises:
            UnsupportedMedia: the container does not take a codec.
        """
        self._target, self._offset = target, offset
        self._source = packets(clip, span)
        self._streams = _templates(clip, target)
        self._next = next(self._source, None)

    def until(self, seconds: Fraction | None) -> None:
        """Write the packets that begin before `seconds` of the target; all where None."""
        while self._next is not None:
            packet, start = self._next
            if seconds is not None and start + self._offset >= seconds:
                return
            self._write(packet, start)
            self._next = next(self._source, None)

    def _write(self, packet: Packet[Any], start: Fraction) -> None:
        base = packet.time_base
        moved = round((start + self._offset) / base) - (packet.pts or 0)
        if packet.dts is not None:
            packet.dts += moved
        packet.pts = (packet.pts or 0) + moved
        packet.stream = self._streams[packet.stream.index]
        self._target.mux(packet)

    def close(self) -> None:
        """Close the source."""
        self._next = None
        self._source.close()  # pyright: ignore[reportAttributeAccessIssue]


def _templates(clip: Clip, target: OutputContainer) -> dict[int, AudioStream]:
    if not clip.audio:
        return {}
    streams: dict[int, AudioStream] = {}
    with opened(clip.path) as container:
        for stream in sounds(container):
            streams[stream.index] = _template(stream, target, clip.path)
    return streams


def _template(stream: AudioStream, target: OutputContainer, path: Path) -> AudioStream:
    name = stream.codec_context.codec.canonical_name
    try:
        copy = target.add_stream_from_template(stream)
    except (ValueError, FFmpegError) as error:
        raise UnsupportedMedia(
            f"the sound of {path.name} is {name}, which {target.format.name} does not hold; "
            "write a file ending in .mkv."
        ) from error
    for key in ("language", "title", "handler_name"):
        if key in stream.metadata:
            copy.metadata[key] = stream.metadata[key]
    copy.disposition = stream.disposition
    return copy
