"""Timecodes: which one is so many frames later."""

from __future__ import annotations

import re
from fractions import Fraction

from fresco.errors import InvalidInput
from host_plugins.link import timing

#: FFmpeg writes as many digits of frames as the rate has, and reads hours of one.
_FORM = re.compile(r"(\d\d?)(:\d\d:\d\d)([:;.,])(\d{1,5})")
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
    separator = ";" if found[3] != ":" and timing.drops(rate) else ":"
    try:
        plain = f"{found[1]:0>2}{found[2]}{separator}{found[4]:0>2}"
        return timing.later(plain, frames, rate)
    except ValueError as error:
        raise InvalidInput(f"{error}.") from error


def holds(container: str, rate: Fraction) -> bool:
    """Whether files of `container` (see `Clip.container`) hold a timecode at this rate."""
    largest = _LARGEST.get(container)
    return largest is None or 1 <= round(rate) <= largest
