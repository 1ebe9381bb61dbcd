"""Cuts, found by PySceneDetect on frames that somebody else decoded."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import cv2
from scenedetect import ContentDetector, FrameTimecode
from scenedetect.detector import FlashFilter
from torch import Tensor

from fresco.errors import InvalidInput
from fresco.frames import to_bytes

#: PySceneDetect's own default: how much hue, saturation and brightness change at a cut, 0 to 255.
THRESHOLD = 27.0
#: Frames that a shot has at least.
SHORTEST = 10
#: The detector judges frames of about this width (its own default too).
_WIDTH = 256


def find_cuts(
    frames: Iterable[Tensor], rate: Fraction, threshold: float = THRESHOLD, shortest: int = SHORTEST
) -> list[int]:
    """Return the first frame of every shot but the first.

    One frame is held at a time, so `frames` may be a stream of any length.

    frames: (N, 3, H, W), or any iterable of (3, H, W); float RGB in [0, 1]
    rate: frames per second
    threshold: of the content detector; lower finds more cuts
    shortest: frames that a shot has at least

    Raises:
        InvalidInput: no frames, frames of different sizes, or values that are no image.
    """
    _check_rate(rate)
    found = jumps(frames, threshold)
    if not found:
        raise InvalidInput("there are no frames; give at least one.")
    return cuts(found, rate, shortest)


def jumps(frames: Iterable[Tensor], threshold: float = THRESHOLD) -> list[bool]:
    """Whether each frame differs from the one before as much as at a cut; the first does not.

    A long clip can be looked at in pieces that have one frame in common, and `cuts` found in all.

    Raises:
        InvalidInput: as `find_cuts`; not where there are no frames.
    """
    # Without a length for shots it says each jump by itself.
    detector = ContentDetector(threshold=threshold, min_scene_len=0)
    found: list[bool] = []
    size: tuple[int, ...] = ()
    for index, frame in enumerate(frames):
        size = size or tuple(frame.shape)
        if tuple(frame.shape) != size:
            raise InvalidInput(
                f"frame {index} has shape {tuple(frame.shape)} but frame 0 has {size}; "
                "all frames of a clip must have one size."
            )
        found.append(bool(detector.process_frame(_time(index), _small_bgr(frame))))
    return found


def cuts(jumps: Iterable[bool], rate: Fraction, shortest: int = SHORTEST) -> list[int]:
    """Return which of a clip's `jumps` begin a shot: of several at once, as of a flash, the last.

    Raises:
        InvalidInput: the rate is not positive.
    """
    _check_rate(rate)
    merged = FlashFilter(FlashFilter.Mode.MERGE, shortest)
    return [
        cut.frame_num
        for index, jump in enumerate(jumps)
        for cut in merged.filter(_time(index, rate), jump)
    ]


def _time(index: int, rate: Fraction = Fraction(25)) -> FrameTimecode:
    return FrameTimecode(index, fps=rate)


def _check_rate(rate: Fraction) -> None:
    if rate <= 0:
        raise InvalidInput(f"the rate is {rate} frames per second; it must be positive.")


def _small_bgr(frame: Tensor) -> cv2.typing.MatLike:
    (image,) = to_bytes([frame])
    factor = max(1, image.shape[1] // _WIDTH)
    size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
    return cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
