"""Frames, rates and timecodes between a host's timeline and a source; exact, and nothing else.

Frames count from 0, spans exclude their end, rates are frames per second as Fractions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

#: Few digits: a rate may come from anywhere, and "1e999999999" is a number too.
_RATE = re.compile(r"\d{1,9}(/\d{1,9}|\.\d{1,20})?")
_TIMECODE = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;.])(\d{2,5})")
#: How far from an NTSC rate a rounded one may be: 23.98 and 23.976 are 24000/1001, and 24 is not.
_ROUNDING = Fraction(6, 1000)


def parse_rate(told: str | float | Fraction) -> Fraction:
    """Read a rate as hosts tell it: 25, 25.0, "23.976", "29.97 DF", "30000/1001".

    A decimal number next to an NTSC rate means that rate.

    Raises:
        ValueError: it is no number above 0.
    """
    text = str(told).upper().removesuffix("DF").strip()
    rate = Fraction(text) if _RATE.fullmatch(text) and text.rpartition("/")[2].strip("0") else 0
    if not rate:
        raise ValueError(f"{told!r} is no number of frames per second")
    ntsc = Fraction(nominal(rate) * 1000, 1001)
    decimal = rate.denominator != 1 and "/" not in text
    return ntsc if decimal and abs(rate - ntsc) <= _ROUNDING else rate


def nominal(rate: Fraction) -> int:
    """Return the frames that a second of timecode counts: 30 for 30000/1001."""
    return max(1, int(rate + Fraction(1, 2)))


def drops(rate: Fraction) -> int:
    """Return how many numbers drop-frame timecode leaves out in a minute; 0: it has no such."""
    return nominal(rate) // 15 if nominal(rate) % 30 == 0 else 0


def frame_of(timecode: str, rate: Fraction) -> int:
    """Return the frame that "hh:mm:ss:ff" names, counted from 00:00:00:00.

    A ";" or "." before the frames says that numbers are dropped (SMPTE ST 12-1), where the rate
    has such timecode.

    Raises:
        ValueError: it is no timecode, or one that is left out.
    """
    frame = _counted(timecode, rate)
    if timecode_of(frame, rate, timecode[8]) != timecode:
        raise ValueError(f"{timecode!r} is no frame at {float(rate):.6g} frames per second")
    return frame


def _counted(timecode: str, rate: Fraction) -> int:
    """As `frame_of`; a number that the rate does not have counts on from those that it has."""
    found = _TIMECODE.fullmatch(timecode)
    if not found:
        raise ValueError(f"{timecode!r} is no timecode; expected hh:mm:ss:ff")
    hours, minutes, seconds, count = (int(found[group]) for group in (1, 2, 3, 5))
    dropped = drops(rate) if found[4] in ";." else 0
    minute = hours * 60 + minutes
    return (minute * 60 + seconds) * nominal(rate) + count - dropped * (minute - minute // 10)


def timecode_of(frame: int, rate: Fraction, separator: str = ":") -> str:
    """Return the timecode of a frame; after 24 hours it starts again.

    separator: ";" or "." before the frames drops numbers, where the rate has such timecode
    """
    base, dropped = nominal(rate), drops(rate) if separator in ";." else 0
    ten_minutes = 600 * base - 9 * dropped
    tens, rest = divmod(frame % (144 * ten_minutes), ten_minutes)
    if rest >= 60 * base:  # behind the first of ten minutes, which drops nothing
        rest += dropped * (1 + (rest - 60 * base) // (60 * base - dropped))
    seconds, count = divmod(tens * 600 * base + rest, base)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{separator}{count:02}"


def later(timecode: str, frames: int, rate: Fraction) -> str:
    """Return the timecode `frames` after `timecode`, written alike.

    Lenient where `frame_of` is not: files hold timecodes that their rate does not have.

    Raises:
        ValueError: it is no timecode.
    """
    return timecode_of(_counted(timecode, rate) + frames, rate, timecode[8])


def source_frame(frame: int, host: Fraction, source: Fraction, nearest: bool = False) -> int:
    """Return the source frame that is seen while host frame `frame` begins, both from 0.

    nearest: the one that begins nearest to it, as Blender does, halves upwards
    """
    return int((frame * source / host + (Fraction(1, 2) if nearest else 0)) // 1)


def host_frame(frame: int, source: Fraction, host: Fraction) -> int:
    """Return the first host frame that begins with or after source frame `frame`."""
    return -int(-frame * host / source // 1)


@dataclass(frozen=True)
class Span:
    """Frames of a source [start, stop), of which `before` and `after` are handles at the ends."""

    start: int
    stop: int
    before: int = 0
    after: int = 0

    def with_handles(self, handles: int, count: int) -> Span:
        """Return the span with up to `handles` frames more at both ends, of a source of `count`."""
        before = min(handles, max(0, self.start))
        after = min(handles, max(0, count - self.stop))
        return Span(self.start - before, self.stop + after, before, after)


@dataclass(frozen=True)
class Placement:
    """A clip on a timeline, at speed 1 unless said.

    start, stop: absolute frames of the timeline: its first frame is not 0, but for example 86400
    source_in: the source frame at `start`
    """

    start: int
    stop: int
    source_in: int
    rate: Fraction
    source_rate: Fraction
    speed: Fraction = Fraction(1)

    @property
    def plain(self) -> bool:
        """Whether each timeline frame is one source frame; other clips must be rendered first."""
        return self.speed == 1 and self.rate == self.source_rate

    def source_at(self, record: int) -> int:
        """Return the source frame at the absolute timeline frame `record`."""
        return self.source_in + source_frame(
            record - self.start, self.rate, self.source_rate * self.speed
        )

    def record_at(self, frame: int) -> int:
        """Return the first absolute timeline frame that shows source frame `frame` or a later one.

        Of a speed above 0 only.
        """
        seen = host_frame(frame - self.source_in, self.source_rate * self.speed, self.rate)
        return self.start + seen

    def source_span(self) -> Span:
        """Return the source frames that are seen."""
        ends = sorted((self.source_at(self.start), self.source_at(self.stop - 1)))
        return Span(ends[0], ends[1] + 1)

    def landing(self, result: Span) -> tuple[int, int, int]:
        """Return which frames [first, last) of a result go to which timeline frame.

        result: the source frames that were restyled. Its handles stay outside the cut.
        For Resolve's AppendToTimeline: startFrame, endFrame, recordFrame.
        """
        return result.before, result.stop - result.start - result.after, self.start
