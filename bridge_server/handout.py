"""Results for clients that share no disk with the server: bytes of files, and single frames.

Only what a job has made is opened, by the name that the job gave it; no path comes from a client.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

from bridge_server import raster
from bridge_server.errors import OutsideFolders
from bridge_server.media import confine, decode, formats, sequences
from bridge_server.media.clip import Clip
from bridge_server.media.colour import as_seen
from bridge_server.media.frame import Frame
from bridge_server.media.probe import probe
from bridge_server.media.transfer import light_of
from host_plugins.link import wire
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Chunk, DownloadChunk, DownloadFrame, File, Picture

#: What an image sequence is read with; only its frames are wanted.
_ANY_RATE = Fraction(24)
#: What opening a file again costs, in decoded frames.
_OPENING = 8
#: Device, number, size and time of a file: another one where it was written anew.
_Stamp: TypeAlias = "tuple[int, int, int, int]"


def chunk(files: Iterable[File], asked: DownloadChunk, limit: int) -> tuple[Chunk, bytes]:
    """Read a part of one of a job's files.

    files: of the job
    limit: bytes, at most

    Returns:
        the reply, and its bytes: fewer than asked for at the file's end, none behind it

    Raises:
        BridgeError: not_found (no such file, or it is gone), too_large, invalid (an offset below 0,
            or no length).
    """
    if asked.length > limit:
        raise BridgeError(Code.TOO_LARGE, f"length: a chunk has at most {limit} bytes")
    if asked.offset < 0 or asked.length < 1:
        raise BridgeError(
            Code.INVALID, f"{asked.length} bytes from {asked.offset} are no part of a file"
        )
    path = _named(files, asked.name)
    try:
        handle = confine.descriptor(path)
    except (OSError, OutsideFolders) as error:
        raise _gone(asked.name) from error
    try:
        known = os.fstat(handle)
        if not stat.S_ISREG(known.st_mode):
            raise _gone(asked.name)
        reply = Chunk(offset=asked.offset, size=known.st_size)
        if asked.offset >= known.st_size:
            return reply, b""
        os.lseek(handle, asked.offset, os.SEEK_SET)
        return reply, _read(handle, asked.length)
    finally:
        os.close(handle)


def _read(handle: int, length: int) -> bytes:
    """Read until there is as much as wanted, or the end."""
    found = list[bytes]()
    while length and (data := os.read(handle, length)):
        found.append(data)
        length -= len(data)
    return b"".join(found)


def _named(files: Iterable[File], name: str) -> Path:
    for file in files:
        if file.name == name and file.path:
            return Path(file.path)
    raise BridgeError(Code.NOT_FOUND, f"the job has no file {name!r}", "see result")


def _gone(name: str) -> BridgeError:
    return BridgeError(
        Code.NOT_FOUND, f"{name} is not there any more", "submit the request under a new id"
    )


class Frames:
    """Frames of results, one at a time. All functions block, and may be called from any thread.

    Editors ask for them in order, so a few files stay open where the last frame was.
    """

    def __init__(
        self,
        decoders: int = 4,
        idle_s: float = 20.0,
        payload: int = wire.LIMITS.payload,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet.

        decoders: files that are open at most
        idle_s: seconds after which one that nobody reads is closed by `tend`
        payload: bytes of a frame at most
        clock: seconds
        """
        self._most, self._idle_s, self._payload, self._clock = decoders, idle_s, payload, clock
        self._open: dict[Path, _Decoder] = {}
        self._guard = threading.Lock()

    def frame(
        self, files: Sequence[File], span: range, asked: DownloadFrame
    ) -> tuple[Picture, bytes | None]:
        """Return a styled frame and its rows, the top one first; no rows where it is not ready.

        It is read from the job's output; while there is none, from the styled keyframe.

        files: of the job. Images of an output have their `frame`
        span: the source's frames that the job makes, handles among them; empty until it has begun,
            and then every frame may yet come

        Raises:
            BridgeError: invalid (a frame that is not the job's, no such depth, components or
                colour), not_found (the file is gone), too_large (more than a payload).
            UnreadableMedia, UnsupportedMedia, InvalidInput: the file cannot be read.
        """
        form = raster.Form(1, 1, asked.depth, asked.components, asked.colour)
        if not span:
            return Picture(ready=False), None
        if asked.frame not in span:
            raise BridgeError(
                Code.INVALID,
                f"frame: {asked.frame} is not among the frames {span.start} to {span.stop - 1} of "
                "the job",
            )
        found = _holding(files, asked.frame)
        if found is None:
            return Picture(ready=False), None
        index = None if found.frame is not None else asked.frame - span.start
        return self._picture(Path(found.path), found.name, index, len(span), form)

    def _picture(
        self, path: Path, name: str, index: int | None, count: int, form: raster.Form
    ) -> tuple[Picture, bytes]:
        """A frame of a clip of `count`, or where `index` is None an image."""
        if index is None and path.suffix.lower() not in formats.IMAGES:
            # Painted by hand, as a JPEG. Only here: records bring the models' libraries along.
            from bridge_server.records import read_picture

            _stamp(path, name)
            rgb, alpha = read_picture(path).numpy(), None
            rgb = light_of(rgb) if form.linear else rgb
        else:
            clip, frame = self._decoded(path, name, index, count)
            seen = as_seen(frame, clip, form.linear)
            rgb = seen.rgb.numpy()
            alpha = None if seen.alpha is None else seen.alpha[0].numpy()
        height, width = rgb.shape[1:]
        size = raster.Form(width, height, form.depth, form.components, form.colour).size
        if size > self._payload:
            raise BridgeError(
                Code.TOO_LARGE,
                f"the frame has {size} bytes, and a payload at most {self._payload}",
                "ask for another depth, or for rgb",
            )
        reply = Picture(
            ready=True, width=width, height=height, depth=form.depth, components=form.components
        )
        return reply, raster.rows(rgb, alpha, form.depth, form.components)

    def _decoded(self, path: Path, name: str, index: int | None, count: int) -> tuple[Clip, Frame]:
        if index is None:
            _stamp(path, name)
            clip = sequences.still(path)
            return clip, next(iter(decode.frames(clip)))
        decoder = self._decoder(path, name)
        with decoder.lock:
            clip = decoder.clip()
            if clip.count != count:
                raise BridgeError(
                    Code.NOT_FOUND, f"{name} has {clip.count} frames, and the job made {count}"
                )
            return clip, decoder.at(index)

    def _decoder(self, path: Path, name: str) -> _Decoder:
        """The decoder of a file as it is now; those that are too many are closed."""
        stamp, closed = _stamp(path, name), list[_Decoder]()
        with self._guard:
            found = self._open.pop(path, None)
            if found is not None and found.stamp != stamp:
                closed.append(found)
                found = None
            found = found or _Decoder(path, stamp)
            found.used = self._clock()
            self._open[path] = found  # the newest is the last
            while len(self._open) > self._most:
                closed.append(self._open.pop(next(iter(self._open))))
        _close(closed)
        return found

    def tend(self) -> None:
        """Close what nobody has read for a while; to be called now and then."""
        before = self._clock() - self._idle_s
        self._close_if(lambda decoder: decoder.used < before)

    def forget(self, path: Path) -> None:
        """Close a file that is to be written anew: Windows replaces none that is open."""
        self._close_if(lambda decoder: decoder.path == path)

    def close(self) -> None:
        """Close all."""
        self._close_if(lambda _: True)

    def _close_if(self, wanted: Callable[[_Decoder], bool]) -> None:
        with self._guard:
            closed = [decoder for decoder in self._open.values() if wanted(decoder)]
            for decoder in closed:
                del self._open[decoder.path]
        _close(closed)


@dataclass(slots=True, eq=False)
class _Decoder:
    """An open clip. What it does is done under its lock."""

    path: Path
    stamp: _Stamp
    used: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    _clip: Clip | None = None
    _frames: Iterator[Frame] | None = None
    _next: int = 0
    _last: Frame | None = None

    def clip(self) -> Clip:
        if self._clip is None:
            self._clip = probe(self.path, _ANY_RATE)
        return self._clip

    def at(self, index: int) -> Frame:
        """Decode a frame, from where the last one was if that is the shorter way."""
        if self._last is not None and self._last.index == index:
            return self._last
        if self._frames is None or not self._leads_to(index):
            self.close()
            self._frames, self._next = decode.frames(self.clip(), index), index
        try:
            for frame in self._frames:
                self._next = frame.index + 1
                if frame.index == index:
                    self._last = frame
                    return frame
        except BaseException:
            self.close()
            raise
        raise AssertionError("it yields every frame of its range, or raises")

    def _leads_to(self, index: int) -> bool:
        """Whether going on decodes hardly more frames than opening the file again would."""
        if index < self._next:
            return False
        keys = self.clip().keys
        before = keys[keys <= index]
        key = int(before[-1]) if len(before) else 0
        return index - self._next <= index - key + _OPENING

    def close(self) -> None:
        # A generator: closing it closes the file.
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()
        self._frames = self._last = None


def _close(decoders: Iterable[_Decoder]) -> None:
    for decoder in decoders:
        with decoder.lock:
            decoder.close()


def _holding(files: Sequence[File], frame: int) -> File | None:
    """The file that a frame is in: the output or an image of it, else the newest keyframe."""
    there = [file for file in files if file.path]
    outputs = [file for file in there if file.role == "output" and file.frame in (None, frame)]
    keys = [file for file in there if file.role == "keyframe" and file.frame == frame]
    return next(iter([*outputs, *reversed(keys)]), None)


def _stamp(path: Path, name: str) -> _Stamp:
    """What tells a file from another one of its name; of a sequence's pattern its folder's.

    Raises:
        BridgeError: it is not there, or is a link (not_found).
    """
    with suppress(OSError):
        pattern = sequences.is_sequence(path) and not os.path.lexists(path)
        known = path.parent.stat() if pattern else path.lstat()
        if pattern or stat.S_ISREG(known.st_mode):
            return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns
    raise _gone(name)
