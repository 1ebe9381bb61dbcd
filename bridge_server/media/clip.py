"""What is known of a clip before a frame of it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridge_server.media.layout import Layout
from bridge_server.media.timecode import advance
from fresco.errors import InvalidInput

#: Code points of ITU-T H.273 for "not said".
UNSPECIFIED = 2


@dataclass(frozen=True, slots=True)
class ColourTags:
    """What the file says of its colours: code points of ITU-T H.273, 2 where it says nothing.

    full: whether black is code 0; None where the file does not say
    """

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    full: bool | None = None

    def __str__(self) -> str:
        span = {None: "?", True: "full", False: "limited"}[self.full]
        return f"{self.primaries}-{self.transfer}-{self.matrix} {span}"


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """One audio stream: its place among the file's streams, and what it is.

    layout: FFmpeg's name: mono, stereo, 5.1(side), or "6 channels" where no places are said
    """

    index: int
    codec: str
    sample_rate: int
    layout: str
    language: str | None

    def __str__(self) -> str:
        return f"{self.codec} {self.sample_rate} Hz {self.layout} {self.language or ''}".rstrip()


@dataclass(frozen=True, slots=True)
class Chapter:
    """A chapter; start and end in seconds after the picture's first frame."""

    start: Fraction
    end: Fraction
    title: str

    def __str__(self) -> str:
        return f"{float(self.start):.3f} {self.title}".rstrip()


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A readable clip.

    files: of an image sequence, one per frame; empty for a container
    container: FFmpeg's name of the muxer (mp4, mov, matroska, webm), or the suffix of a sequence
    rate: frames per second, exact; the average where `variable`
    pts: (frames,) int64, rising, in units of `time_base`, on the container's own clock
    keys: (keys,) int64, rising: the frames that can be decoded without others
    last_duration: of the last frame, in units of `time_base`
    variable: the frames are not evenly spaced
    width, height: as stored, before rotation
    matrix: the container's display matrix, 9 integers of FFmpeg's, or None
    timecode: what the file names for its first frame; see `timecode_at`
    others: streams that are neither the picture nor sound, by type
    associated: colours are multiplied by alpha
    """

    path: Path
    files: tuple[Path, ...]
    container: str
    codec: str
    profile: str | None
    layout: Layout
    rate: Fraction
    time_base: Fraction
    pts: NDArray[np.int64]
    keys: NDArray[np.int64]
    last_duration: int
    variable: bool
    width: int
    height: int
    pixel_aspect: Fraction
    matrix: tuple[int, ...] | None
    timecode: str | None
    tags: ColourTags
    interlaced: bool
    audio: tuple[AudioTrack, ...]
    others: tuple[str, ...]
    associated: bool = False
    chapters: tuple[Chapter, ...] = ()

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self.pts)

    @property
    def alpha(self) -> bool:
        """Whether the pictures have an alpha channel."""
        return self.layout.alpha

    def span(self, start: int = 0, stop: int | None = None) -> range:
        """Return the source frames [start, stop), checked.

        Raises:
            InvalidInput: no frame is in it, or it reaches outside the clip.
        """
        end = self.count if stop is None else stop
        if not 0 <= start < end <= self.count:
            raise InvalidInput(
                f"frames {start} to {end} of {self.path.name} are asked for, which has "
                f"{self.count}; give 0 <= start < stop <= {self.count}."
            )
        return range(start, end)

    def timecode_at(self, frame: int) -> str | None:
        """Return the timecode of `frame`, "hh:mm:ss:ff" or with numbers dropped "hh:mm:ss;ff".

        None where the file has none that can be read, or counted on to `frame`.
        """
        if self.timecode is None or (self.variable and frame):
            return None
        try:
            return advance(self.timecode, frame, self.rate)
        except InvalidInput:
            return None

    def chapters_in(self, span: range) -> tuple[Chapter, ...]:
        """Return the chapters of the frames `span`, by seconds after the first of them."""
        begin, end = (self.seconds(frame) - self.seconds(0) for frame in (span.start, span.stop))
        return tuple(
            Chapter(max(each.start, begin) - begin, min(each.end, end) - begin, each.title)
            for each in self.chapters
            if each.start < end and each.end > begin
        )

    def seconds(self, frame: int) -> Fraction:
        """Return when `frame` is shown, or, for the frame behind the last, when that one ends."""
        if frame == self.count:
            return (int(self.pts[-1]) + self.last_duration) * self.time_base
        return int(self.pts[frame]) * self.time_base
