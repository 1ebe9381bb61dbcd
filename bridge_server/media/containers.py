"""Opening containers: only files of this machine, only of the formats that are read here."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from bridge_server.media import confine
from bridge_server.media.errors import UnreadableMedia
from bridge_server.media.extent import broken_off

#: No playlists and no addresses: a file must not make this machine open others.
_GUARDS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm",
}


@contextmanager
def opened(path: Path) -> Generator[InputContainer]:
    """Open a container for reading.

    Raises:
        UnreadableMedia: no such file, empty, or not a container that is read here.
    """
    if not os.path.isfile(path):  # pathlib's raises where a name is too long
        raise UnreadableMedia(f"{path} is not there, or is no file.")
    with confine.file(path) as name, _open(path, name) as container:
        yield container


def _open(path: Path, name: Path) -> InputContainer:
    """Open a container. name: by which it is opened, which says nothing to people."""
    if name.stat().st_size == 0:
        raise UnreadableMedia(f"{path.name} is empty; render or copy it again.")
    try:
        if broken_off(name):
            raise UnreadableMedia(
                f"{path.name} is cut off: it is shorter than it says. Render or copy it again."
            )
        return av.open(str(name.absolute()), "r", options=_GUARDS, metadata_errors="replace")
    except (FFmpegError, ValueError, OSError) as error:
        raise UnreadableMedia(
            f"{path.name} is not read as MP4, MOV, MKV or WebM ({_reason(error)}); it is of "
            "another kind, or cut off or damaged at its head or index. Render or copy it again."
        ) from error


def picture(container: InputContainer, path: Path) -> VideoStream:
    """Return the container's first moving picture.

    Raises:
        UnreadableMedia: there is none.
    """
    for stream in container.streams.video:
        if int(stream.disposition) & int(Disposition.attached_pic):
            continue
        if not known(stream):
            raise UnreadableMedia(f"the picture of {path.name} is of a codec that is not known.")
        return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise UnreadableMedia(f"{path.name} holds no moving picture, only: {kinds}.")


def sounds(container: InputContainer) -> list[AudioStream]:
    """Return the container's audio streams, without those of a codec that FFmpeg does not know."""
    return [stream for stream in container.streams.audio if known(stream)]


def known(stream: Stream) -> bool:
    """Whether FFmpeg knows the stream's codec; PyAV has no context for others."""
    return getattr(stream, "codec_context", None) is not None


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
