"""Cuts, found by PySceneDetect on frames that somebody else decoded."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import cv2
from scenedetect import ContentDetector, FrameTimecode
from torch import Tensor

from fresco.errors import InvalidInput
from fresco.frames import to_bytes

#: PySceneDetect's own default: how much hue, saturation and brightness change at a cut, 0 to 255.
THRESHOLD = 27.0
#: The detector judges frames of about this width (its own default too).
_WIDTH = 256


def find_cuts(
    frames: Iterable[Tensor], rate: Fraction, threshold: float = THRESHOLD, shortest: int = 10
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
    if rate <= 0:
        raise InvalidInput(f"the rate is {rate} frames per second; it must be positive.")
    detector = ContentDetector(threshold=threshold, min_scene_len=shortest)
    cuts: list[FrameTimecode] = []
    time = FrameTimecode(0, fps=rate)
    index, size = -1, None
    for index, frame in enumerate(frames):
        size = size or frame.shape
        if frame.shape != size:
            raise InvalidInput(
                f"frame {index} has shape {tuple(frame.shape)} but frame 0 has {tuple(size)}; "
                "all frames of a clip must have one size."
            )
        time = FrameTimecode(index, fps=rate)
        cuts += detector.process_frame(time, _small_bgr(frame))
    if index < 0:
        raise InvalidInput("there are no frames; give at least one.")
    cuts += detector.post_process(time)
    return [cut.frame_num for cut in cuts]


def _small_bgr(frame: Tensor) -> cv2.typing.MatLike:
    (image,) = to_bytes([frame])
    factor = max(1, image.shape[1] // _WIDTH)
    size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
    return cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
