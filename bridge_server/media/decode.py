"""Frames out of containers: in order, each at its own time, one at a time in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from av.codec.context import CodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from bridge_server.media import sequences
from bridge_server.media.checksums import ffv1_intact
from bridge_server.media.clip import Clip
from bridge_server.media.containers import opened, picture
from bridge_server.media.errors import UnreadableMedia, UnsupportedMedia
from bridge_server.media.frame import Frame, from_av
from bridge_server.media.layout import parse
from fresco.callbacks import CancelToken

#: Damage is an error, not something to paint over.
_STRICT = {"err_detect": "explode"}


def frames(
    clip: Clip, start: int = 0, stop: int | None = None, cancel: CancelToken | None = None
) -> Iterator[Frame]:
    """Yield the source's frames [start, stop).

    Raises:
        InvalidInput: a range outside the clip.
        UnreadableMedia: a frame is damaged or missing; the message says which.
        UnsupportedMedia: the clip changes its size or pixel format half-way.
        Cancelled: `cancel` was set.
    """
    span = clip.span(start, stop)
    if clip.files:
        yield from sequences.frames(clip, span, cancel or CancelToken())
        return
    expected = span.start
    for frame in _from_key(clip, span, cancel or CancelToken()):
        if frame.index != expected:
            raise _missing(clip, expected)
        yield frame
        expected += 1
        if expected == span.stop:
            return
    raise _missing(clip, expected)


def _missing(clip: Clip, index: int) -> UnreadableMedia:
    return UnreadableMedia(
        f"frame {index} of {clip.path.name} cannot be decoded: the file is damaged there. "
        "Render or copy it again, or choose a range without that frame."
    )


def _from_key(clip: Clip, span: range, cancel: CancelToken) -> Iterator[Frame]:
    """Frames from `span.start` on, decoded from the key frame before it."""
    keys = clip.keys[clip.keys <= span.start]
    key = int(keys[-1]) if len(keys) else 0
    for begin in (key, 0):
        with opened(clip.path) as container:
            stream = picture(container, clip.path)
            stream.thread_type = "AUTO"
            if begin:
                container.seek(int(clip.pts[begin]), stream=stream)
            since = int(clip.pts[begin]) if begin else None
            shown = _numbered(clip, decoded(container, stream, clip.path, since), cancel)
            first = _landed(shown, begin)
            # A seek that went too far (a wrong index in the file): from the beginning then.
            if begin and first is None:
                continue
            if first is not None:
                yield from _wanted(clip, span, first, shown)
            return


def _landed(shown: Iterator[tuple[int, VideoFrame]], begin: int) -> tuple[int, VideoFrame] | None:
    """The first frame, if it is the one that was sought."""
    try:
        first = next(shown, None)
    except UnreadableMedia:
        if begin:
            return None
        raise
    return first if first is not None and (not begin or first[0] == begin) else None


def _wanted(
    clip: Clip,
    span: range,
    first: tuple[int, VideoFrame],
    rest: Iterator[tuple[int, VideoFrame]],
) -> Iterator[Frame]:
    index, shown = first
    while True:
        if index >= span.start:
            _check_same(clip, shown, index)
            yield from_av(shown, index, int(clip.pts[index]))
        following = next(rest, None)
        if following is None:
            return
        index, shown = following


def _numbered(
    clip: Clip, pictures: Iterator[VideoFrame], cancel: CancelToken
) -> Iterator[tuple[int, VideoFrame]]:
    for shown in pictures:
        cancel.check()
        if shown.pts is None:
            continue
        index = int(clip.pts.searchsorted(shown.pts))
        if index < clip.count and clip.pts[index] == shown.pts:
            yield index, shown


def _check_same(clip: Clip, shown: VideoFrame, index: int) -> None:
    layout = parse(shown.format.name)
    if (shown.width, shown.height, layout) != (clip.width, clip.height, clip.layout):
        raise UnsupportedMedia(
            f"{clip.path.name} changes from {clip.width}x{clip.height} {clip.layout.name} to "
            f"{shown.width}x{shown.height} {layout.name} at frame {index}; split it there."
        )
    if shown.is_corrupt:
        raise _missing(clip, index)


def decoded(
    container: InputContainer, stream: VideoStream, path: Path, since: int | None = None
) -> Iterator[VideoFrame]:
    """Yield the frames of `stream` from where `container` stands, in the order of showing.

    since: leave out packets that are shown before this time: after a seek to a key frame they need
        frames in front of it (an open group of pictures)

    Raises:
        UnreadableMedia: the bitstream is damaged.
    """
    decoder = _decoder(stream)
    checked = stream.codec_context.codec.canonical_name == "ffv1"
    try:
        for packet in container.demux(stream):
            if since is not None and packet.pts is not None and packet.pts < since:
                continue
            if checked and packet.size and not ffv1_intact(bytes(packet)):
                raise _damaged(path, "a checksum does not fit")
            yield from _pictures(decoder, packet)
    except FFmpegError as error:
        raise _damaged(path, str(error.strerror)) from error


def _damaged(path: Path, what: str) -> UnreadableMedia:
    return UnreadableMedia(f"{path.name} is damaged: {what}. Render or copy it again.")


def _pictures(decoder: VideoCodecContext | None, packet: Packet[VideoStream]) -> list[VideoFrame]:
    if decoder is None:
        return packet.decode()
    return decoder.decode(packet if packet.size else None)


def _decoder(stream: VideoStream) -> VideoCodecContext | None:
    """The decoder to use instead of the stream's own.

    FFmpeg's own VP8 and VP9 decoders drop the alpha that WebM keeps beside the picture.
    """
    names = {"vp9": "libvpx-vp9", "vp8": "libvpx"}
    codec = stream.codec_context.codec.canonical_name
    if stream.metadata.get("alpha_mode") == "1" and codec in names:
        decoder = CodecContext.create(names[codec], "r")
        assert isinstance(decoder, VideoCodecContext)
        return decoder
    stream.codec_context.options = _STRICT
    return None
