# SPDX-License-Identifier: GPL-3.0-or-later
"""What frames a movie file holds, and whether Blender counts them as the server does.

The server's frame i is the i-th that is shown. Blender's is the one shown at i / rate after the
first. In a file of even rate that is the same; this module tells whether it is, without decoding.
"""

from __future__ import annotations

import math
import os
import struct
from fractions import Fraction
from functools import lru_cache

import numpy as np

from . import matroska, quicktime
from .frames import Movie, Unclear

#: Frame rates are whole numbers, or such a number by 1001; what else is said is not exact.
_DENOMINATORS = (1, 1001)
#: Of a unit of the file's clock: what is nearer to a half may then be rounded either way.
_EITHER = Fraction(1, 1000)


def movie(path: str) -> Movie:
    """Return what is known of a movie file; kept until the file changes.

    Raises:
        Unclear: it is of a kind that the server does not read, or its frames cannot be counted.
        OSError: it cannot be read.
    """
    facts = os.stat(path)
    return _movie(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=32)
def _movie(path: str, _size: int, _changed: int) -> Movie:
    with open(path, "rb", buffering=4096) as file:
        head = file.read(16)
        for kind, known in ((quicktime, quicktime.is_quicktime), (matroska, matroska.is_matroska)):
            if known(head):
                try:
                    return kind.movie(file)
                except (ValueError, IndexError, ArithmeticError, struct.error) as error:
                    raise Unclear("the tables of its file are damaged") from error
    raise Unclear("its file is neither MP4, MOV, MKV nor WebM, which the server reads")


def check_even(found: Movie, fps: float) -> None:
    """Raise Unclear unless Blender's frame i is the i-th that is shown, for all of them.

    fps: the file's, as Blender says it

    Raises:
        Unclear: the frames are unevenly spaced, or the first cannot be decoded by themselves.
    """
    if found.times.min() < found.times[0]:
        raise Unclear("its file begins within a group of pictures")
    shown = np.sort(found.times) - found.times.min()
    rate = Fraction(fps).limit_denominator(max(_DENOMINATORS))
    either = 0 if rate.denominator in _DENOMINATORS else _EITHER
    step = Fraction(found.units) / rate
    # Blender shows the last frame that is not later than i steps, to the nearest unit.
    late = shown > _steps(len(shown), step, -either)
    early = shown[1:] <= _steps(len(shown) - 1, step, either)
    if late.any() or early.any():
        raise Unclear("its frames are unevenly spaced in time (a variable frame rate)")


def _steps(count: int, step: Fraction, shift: Fraction | int) -> np.ndarray:
    """Multiples of `step`, shifted, to the nearest unit, a half upwards; with whole numbers."""
    begin = Fraction(1, 2) + shift
    whole = math.lcm(step.denominator, begin.denominator)
    return (np.arange(count) * int(step * whole) + int(begin * whole)) // whole
