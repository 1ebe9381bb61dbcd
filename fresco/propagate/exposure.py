"""Bringing the frames of an interval to one exposure, since matching compares colours."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from fresco.callbacks import never_stop
from fresco.flow import FlowEstimator
from fresco.propagate.sampling import halved, sample

#: The gain is measured on frames whose shorter side is below twice this.
_SIDE = 64
#: Values outside are near the limits of the camera and say nothing of the gain.
_USABLE = 0.05, 0.95
#: With a smaller part of usable pixels the gain is left alone.
_ENOUGH = 0.05


def levelled(frames: Tensor, flow: FlowEstimator, poll: Callable[[], None] = never_stop) -> Tensor:
    """Return (M, 3, H, W) with the exposure of its middle frame; what that blows out is clipped.

    Flicker and fades are taken for one gain per frame and channel; shadows that move are not.

    poll: called before each frame is compared with the one before
    """
    small = frames
    while min(small.shape[-2:]) >= 2 * _SIDE:
        small = halved(small)
    steps: list[Tensor] = []
    for before, frame in pairwise(small.split(1)):
        poll()
        steps.append(_step(before, frame, flow))
    gains = torch.stack((frames.new_zeros(3), *steps)).cumsum(dim=0)
    gains = (gains.median(dim=0).values - gains).exp()
    return (frames * gains[..., None, None]).clamp_(0, 1)


def _step(before: Tensor, after: Tensor, flow: FlowEstimator) -> Tensor:
    """Return the logarithm of what the gain changes by, (3,)."""
    # Reading along a flow blurs, which tilts the ratio; there and back the tilt is the opposite.
    return (_ratio(before, after, flow) - _ratio(after, before, flow)) / 2


def _ratio(before: Tensor, after: Tensor, flow: FlowEstimator) -> Tensor:
    moved = sample(before, flow(after, before))
    low, high = _USABLE
    usable = ((torch.minimum(moved, after) > low) & (torch.maximum(moved, after) < high)).all(dim=1)
    if float(usable.float().mean()) < _ENOUGH:
        return after.new_zeros(3)
    ratio = after.movedim(1, 0)[:, usable].log() - moved.movedim(1, 0)[:, usable].log()
    # The median: what moved otherwise than the flow says must not count.
    return ratio.median(dim=1).values
