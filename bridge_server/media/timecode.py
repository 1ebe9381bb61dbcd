"""Timecodes: which frame they name, and which one is so many frames later."""

from __future__ import annotations

import re
from fractions import Fraction

from fresco.errors import InvalidInput

#: FFmpeg writes as many digits of frames as the rate has, and reads hours of one.
_FORM = re.compile(r"(\d\d?):(\d\d):(\d\d)([:;.,])(\d{1,5})")
#: The largest rate that containers count: a byte in MOV, two bits of tens in SMPTE's own form.
_LARGEST = {"mov": 255, "mp4": 255, "exr": 39, "png": 0, "tiff": 0}


def advance(timecode: str, frames: int, rate: Fraction) -> str:
    """Return the timecode `frames` after `timecode`; past midnight it starts again at zero.

    rate: of the clip; 30000/1001 counts 30 frames in a second
    A ";", "." or "," before the frames says that numbers are dropped (SMPTE ST 12-1), which only
    multiples of 30 frames per second do; at others it is written as ":".

    Raises:
        InvalidInput: not a timecode.
    """
    found = _FORM.fullmatch(timecode)
    if not found:
        raise InvalidInput(f"{timecode!r} is no timecode; expected hh:mm:ss:ff.")
    hours, minutes, seconds, count = (int(found[group]) for group in (1, 2, 3, 5))
    base = max(1, round(rate))
    drops = found[4] != ":" and base % 30 == 0
    dropped, separator = (base // 15, ";") if drops else (0, ":")
    number = ((hours * 60 + minutes) * 60 + seconds) * base + count
    number -= dropped * (hours * 60 + minutes - (hours * 60 + minutes) // 10)
    return _write(number + frames, base, dropped, separator)


def holds(container: str, rate: Fraction) -> bool:
    """Whether files of `container` (see `Clip.container`) hold a timecode at this rate."""
    largest = _LARGEST.get(container)
    return largest is None or 1 <= round(rate) <= largest


def _write(number: int, base: int, dropped: int, separator: str) -> str:
    ten_minutes = 600 * base - 9 * dropped
    tens, rest = divmod(number % (144 * ten_minutes), ten_minutes)
    if rest >= 60 * base:
        rest += dropped * (1 + (rest - 60 * base) // (60 * base - dropped))
    number = tens * 600 * base + rest
    seconds, count = divmod(number, base)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{separator}{count:02}"
