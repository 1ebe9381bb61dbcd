"""Which frames to translate: proposed from how much the picture changes (method, section 1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fresco.errors import InvalidInput
from fresco.frames import to_bytes

#: The error curve is measured on frames of this short side, rounded to the multiple, and blurred.
SHORT_SIDE, MULTIPLE, BLUR = 512, 64, 9


def frame_errors(frames: Iterable[Tensor]) -> list[float]:
    """How much each frame differs from the one before: mean squared error, values in [-1, 1].

    Two frames are held at a time, so `frames` may be a stream of any length.

    frames: (N, 3, H, W), or any iterable of (3, H, W); float RGB in [0, 1]
    returns: N errors, the first 0

    Raises:
        InvalidInput: no frames, frames of different sizes, or values that are no image.
    """
    errors: list[float] = []
    deque(measured(frames, errors), maxlen=0)
    if not errors:
        raise InvalidInput("there are no frames; give at least one.")
    return errors


def measured(frames: Iterable[Tensor], errors: list[float]) -> Iterator[Tensor]:
    """Pass on a stream of frames; `errors` gets what `frame_errors` says of each.

    Raises:
        InvalidInput: as `frame_errors`; not where there are no frames.
    """
    size: tuple[int, ...] = ()
    before = np.empty(0)
    for index, frame in enumerate(frames):
        size = size or tuple(frame.shape)
        if tuple(frame.shape) != size:
            raise InvalidInput(
                f"frame {index} has shape {tuple(frame.shape)} but frame 0 has {size}; "
                "all frames of a clip must have one size."
            )
        current = _softened(frame)
        errors.append(float(np.mean(np.square(current - before))) if index else 0.0)
        before = current
        yield frame


def propose(
    errors: Sequence[float], s_min: int, s_max: int, *, reach_end: bool = False
) -> list[int]:
    """Propose keyframes: the first, the last, and the frames of largest change between.

    The largest change left becomes a key, and its neighbourhood of `s_min` is closed, until no gap
    exceeds `s_max` or nothing is left to choose; so a gap may stay longer. With equal intervals the
    keys are 0, s, 2s, ... and, as published, need not reach the last frame.

    errors: one per frame (`frame_errors`)
    s_min, s_max: the shortest and longest interval, frames
    reach_end: with equal intervals make the last frame a key too, so that no tail is left
    returns: ascending frame numbers, the first is 0

    Raises:
        InvalidInput: no errors, NaN among them, or intervals that are not 1 <= s_min <= s_max.
    """
    curve = np.asarray(errors, np.float64)
    if curve.ndim != 1 or not len(curve):
        raise InvalidInput("there are no frame errors to choose keyframes from.")
    if not np.isfinite(curve).all():
        raise InvalidInput("the frame errors have NaN or infinite values; measure them again.")
    if not 1 <= s_min <= s_max:
        raise InvalidInput(
            f"keyframe intervals are {s_min} to {s_max}; expected 1 <= shortest <= longest."
        )
    last = len(curve) - 1
    if s_min == s_max:
        regular = list(range(0, last + 1, s_min))
        return regular if not reach_end or regular[-1] == last else [*regular, last]
    return _greedy(curve, s_min, s_max)


def propose_per_shot(
    errors: Sequence[float], cuts: Sequence[int], s_min: int, s_max: int, turns: Sequence[int] = ()
) -> list[list[int]]:
    """Propose keyframes for each shot by itself, so that no interval crosses a cut.

    cuts: the first frame of every shot but the first (`fresco.shots.find_cuts`)
    turns: frames, ascending, from which on something else is asked for: keys as a shot's ends are,
        but those that follow another one sooner than `s_min`
    returns: for each shot its keyframes, in frames of the clip; the last frame of a shot is a key

    Raises:
        InvalidInput: as `propose`; or cuts that are not ascending frames of the clip.
    """
    starts = [0, *cuts, len(errors)]
    if any(start >= stop for start, stop in pairwise(starts)):
        raise InvalidInput(
            f"cuts {list(cuts)} are not ascending frames between 1 and {len(errors) - 1}."
        )
    return [
        _between(errors, [start, *_spaced(turns, start, stop, s_min), stop - 1], s_min, s_max)
        for start, stop in pairwise(starts)
    ]


def _spaced(turns: Sequence[int], start: int, stop: int, distance: int) -> list[int]:
    """The turns inside a shot, without those too near to the one before."""
    kept: list[int] = []
    for turn in turns:
        if start < turn < stop and (not kept or turn - kept[-1] >= distance):
            kept.append(turn)
    return kept


def _between(errors: Sequence[float], ends: list[int], s_min: int, s_max: int) -> list[int]:
    """Propose keys between frames that are keys, in frames of the clip."""
    keys = {
        first + key
        for first, last in pairwise(ends)
        for key in propose(errors[first : last + 1], s_min, s_max, reach_end=True)
    }
    return sorted(keys)


def check(keyframes: Iterable[int], frame_count: int) -> list[int]:
    """Return a user's keyframes, ascending and each once.

    Raises:
        InvalidInput: none at all, or one outside the clip.
    """
    keys = sorted(set(keyframes))
    if not keys:
        raise InvalidInput("there are no keyframes; choose at least one.")
    outside = [key for key in keys if not 0 <= key < frame_count]
    if outside:
        raise InvalidInput(
            f"keyframes {outside} are outside the clip, whose frames are 0 to {frame_count - 1}."
        )
    return keys


def _softened(frame: Tensor) -> NDArray[np.float32]:
    """One frame as the curve sees it: 8 bit, resized, blurred, in [-1, 1]."""
    (image,) = to_bytes([frame])
    factor = SHORT_SIDE / min(image.shape[:2])
    height, width = (int(np.round(side * factor / MULTIPLE)) * MULTIPLE for side in image.shape[:2])
    interpolation = cv2.INTER_LANCZOS4 if factor > 1 else cv2.INTER_AREA
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    blurred = cv2.GaussianBlur(resized, (BLUR, BLUR), 0)
    return np.asarray(blurred, np.float32) * np.float32(1 / 127.5) - np.float32(1)


def _greedy(curve: NDArray[np.float64], s_min: int, s_max: int) -> list[int]:
    """Take the largest error left (the first, on a tie) until the gaps are short enough."""
    open_errors = curve.copy()
    # The first error is 0 by definition: frame 0 has nothing before it, and is a key anyway.
    open_errors[:s_min] = open_errors[-s_min:] = -1
    keys = sorted({0, len(curve) - 1})
    while len(keys) > 1 and int(np.max(np.diff(keys))) > s_max:
        key = int(np.argmax(open_errors))
        if open_errors[key] < 0:
            break
        open_errors[max(0, key - s_min) : key + s_min] = -1
        keys = sorted({*keys, key})
    return keys
