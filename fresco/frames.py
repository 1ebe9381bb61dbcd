"""Frames as one tensor, checked once where they enter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco.errors import InvalidInput

#: A batch (N, 3, H, W), or as many images (3, H, W) of one size: float RGB in [0, 1].
Frames: TypeAlias = Tensor | Sequence[Tensor]

#: How far outside [0, 1] rounding of a resampled image may go.
_RANGE_SLACK = 1e-3


def stack(frames: Frames) -> Tensor:
    """Return `frames` as one checked batch (N, 3, H, W), float RGB in [0, 1].

    Raises:
        InvalidInput: no frames, frames of different sizes, not three channels, not float,
            NaN or infinite values, or values outside [0, 1].
    """
    batch = arrange(frames)
    check_values(batch)
    return batch


def arrange(frames: Frames) -> Tensor:
    """Return `frames` as one batch whose shape is checked, but not its values.

    Raises:
        InvalidInput: no frames, frames of different sizes, or not three channels.
    """
    batch = frames if isinstance(frames, Tensor) else _stack_images(frames)
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise InvalidInput(
            f"frames have shape {tuple(batch.shape)}; expected (N, 3, height, width), RGB."
        )
    if batch.numel() == 0:
        raise InvalidInput("there are no frames; give at least one.")
    return batch


def to_bytes(frames: Frames) -> list[NDArray[np.uint8]]:
    """Return checked `frames` as 8-bit RGB images (H, W, 3), as OpenCV takes them.

    Raises:
        InvalidInput: see `stack`.
    """
    rounded = stack(frames).detach().clamp(0, 1).mul(255).add_(0.5).to(torch.uint8)
    return list(rounded.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _stack_images(images: Sequence[Tensor]) -> Tensor:
    if not images:
        raise InvalidInput("there are no frames; give at least one.")
    first = tuple(images[0].shape)
    for index, image in enumerate(images):
        if tuple(image.shape) != first:
            raise InvalidInput(
                f"frame {index} has shape {tuple(image.shape)} but frame 0 has {first}; "
                "resize all frames of a batch to one size."
            )
    return torch.stack(tuple(images))


def check_values(batch: Tensor) -> None:
    """Check that a batch is float, finite and in [0, 1].

    Raises:
        InvalidInput: it is not.
    """
    if not batch.is_floating_point():
        raise InvalidInput(
            f"frames are {batch.dtype}; convert them to float in [0, 1] (divide 8-bit by 255)."
        )
    # One pass over the pixels: a NaN makes both bounds NaN.
    low, high = (float(bound) for bound in batch.detach().aminmax())
    if low >= -_RANGE_SLACK and high <= 1 + _RANGE_SLACK:
        return
    finite = torch.isfinite(batch).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise InvalidInput(
            f"frame {int(finite.logical_not().nonzero()[0])} has NaN or infinite values; "
            "decode it again or leave it out."
        )
    raise InvalidInput(
        f"frame values run from {low:.3g} to {high:.3g}; scale them to [0, 1] "
        "(divide 8-bit by 255, add 1 and halve for [-1, 1])."
    )
