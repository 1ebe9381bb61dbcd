"""Timecodes: which frame they name, and which one is so many frames later."""

from __future__ import annotations

import re
from fractions import Fraction

from fresco.errors import InvalidInput

_FORM = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d)")


def advance(timecode: str, frames: int, rate: Fraction) -> str:
    """Return the timecode `frames` after `timecode`; past midnight it starts again at zero.

    rate: of the clip; 30000/1001 counts 30 frames in a second
    A ";" or "." before the frames says that numbers are dropped (SMPTE ST 12-1).

    Raises:
        InvalidInput: not a timecode.
    """
    found = _FORM.fullmatch(timecode)
    if not found:
        raise InvalidInput(f"{timecode!r} is no timecode; expected hh:mm:ss:ff.")
    hours, minutes, seconds, count = (int(found[group]) for group in (1, 2, 3, 5))
    base, separator = max(1, round(rate)), found[4]
    dropped = base // 15 if separator in ";." else 0
    number = ((hours * 60 + minutes) * 60 + seconds) * base + count
    number -= dropped * (hours * 60 + minutes - (hours * 60 + minutes) // 10)
    return _write(number + frames, base, dropped, separator)


def _write(number: int, base: int, dropped: int, separator: str) -> str:
    ten_minutes = 600 * base - 9 * dropped
    tens, rest = divmod(number % (144 * ten_minutes), ten_minutes)
    if rest >= 60 * base:
        rest += dropped * (1 + (rest - 60 * base) // (60 * base - dropped))
    number = tens * 600 * base + rest
    seconds, count = divmod(number, base)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{separator}{count:02}"
