"""Timecodes: which one is so many frames later."""

from __future__ import annotations

from fractions import Fraction

from fresco.errors import InvalidInput
from host_plugins.link import timing


def advance(timecode: str, frames: int, rate: Fraction) -> str:
    """Return the timecode `frames` after `timecode`; past midnight it starts again at zero.

    rate: of the clip; 30000/1001 counts 30 frames in a second
    A ";" or "." before the frames says that numbers are dropped (SMPTE ST 12-1).

    Raises:
        InvalidInput: not a timecode.
    """
    try:
        return timing.later(timecode, frames, rate)
    except ValueError as error:
        raise InvalidInput(f"{error}.") from error
