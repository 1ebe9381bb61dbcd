"""Joining what the left and the right key say about one frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.propagate import poisson
from fresco.propagate.lab import to_lab, to_rgb

#: Weights of the gradients of L, a and b against their values.
GRADIENT_WEIGHTS = (2.5, 0.5, 0.5)
#: Matching costs well below this are all called good: keys that agree, keys that disagree.
TOLERANCES = 3e-4, 6e-3
#: Keys that differ by less than the first agree, by the second they do not; see `disagreement`.
AGREEMENT = 1.5 / 255, 4 / 255
#: Side of the blocks, pixels, that disagreement is the median of.
_BLOCK = 8
#: Two unrelated textures mixed by halves lose this factor of contrast. Where more is lost they are
#: opposites, and to bring that back would only raise what noise they have not in common.
_MOST_GAIN = math.sqrt(2)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One key's word about a frame.

    image: (1, 3, H, W) the styled key read along the flow
    cost: (1, 1, H, W) the matching cost of the source
    """

    image: Tensor
    cost: Tensor


def share_of_right(left: Side, right: Side, position: float, strength: float) -> Tensor:
    """Return the right side's share at every pixel, (1, 1, H, W).

    By nearness to the key, and by the inverse square of the matching cost. The tolerance keeps two
    good matches at the shares of their distances: the more keys disagree, the more it has to, lest
    the picture change from one key's to the other's within few frames.

    position: of the frame between the keys, 0 = left, 1 = right
    strength: how much the keys disagree, see `disagreement`
    """
    tolerance = TOLERANCES[0] ** (1 - strength) * TOLERANCES[1] ** strength
    ours = (1 - position) / (left.cost + tolerance).square()
    theirs = position / (right.cost + tolerance).square()
    return theirs / (ours + theirs)


def disagreement(left: Side, right: Side) -> float:
    """Return how much two keys disagree in colour, light or texture, from 0 (not at all) to 1.

    Compared are places that match well, each side with the nearest value that the other has within
    a pixel: strokes misplaced by less, as matching leaves them, do not count. The median over
    blocks leaves out what only seems to match: keys that disagree do so nearly everywhere.
    """
    trust = 1 / (1 + ((left.cost + right.cost) / TOLERANCES[0]).square())
    apart = (_outside(left.image, right.image) + _outside(right.image, left.image)) / 2
    weights = F.avg_pool2d(trust, _BLOCK)
    typical = _median(F.avg_pool2d(trust * apart, _BLOCK) / weights, weights)
    low, high = AGREEMENT
    ramp = min(1.0, max(0.0, (typical - low) / (high - low)))
    return ramp * ramp * (3 - 2 * ramp)


def _median(values: Tensor, weights: Tensor) -> float:
    """The value that half of the weight lies below."""
    ordered, order = values.flatten().sort()
    below = weights.flatten()[order].cumsum(dim=0)
    return float(ordered[int((below < below[-1] / 2).sum())])


def _outside(image: Tensor, other: Tensor) -> Tensor:
    """How far an image lies outside of what the other spans within a pixel, (1, 1, H, W)."""
    above = F.max_pool2d(other, 3, stride=1, padding=1)
    below = -F.max_pool2d(-other, 3, stride=1, padding=1)
    return (image - image.clamp(below, above)).abs().mean(dim=1, keepdim=True)


def blend(left: Side, right: Side, position: float, strength: float) -> Tensor:
    """Return the joined frame (1, 3, H, W), in [0, 1].

    strength: 0 mixes the sides plainly; 1 joins them in Lab with their contrast and no seams
    """
    share = share_of_right(left, right, position, strength)
    plain = torch.lerp(left.image, right.image, share)
    if strength == 0:
        return plain
    joined = to_rgb(_joined(to_lab(left.image), to_lab(right.image), share, position))
    return torch.lerp(plain, joined, strength)


def _joined(left: Tensor, right: Tensor, share: Tensor, position: float) -> Tensor:
    """Mix at common statistics, restore the deviation, and remove the seams of the shares."""
    (left_mean, left_spread), (right_mean, right_spread) = _statistics(left), _statistics(right)
    mean = torch.lerp(left_mean, right_mean, position)
    spread = torch.lerp(left_spread, right_spread, position)
    left = (left - left_mean) * (spread / left_spread) + mean
    right = (right - right_mean) * (spread / right_spread) + mean
    mixed = torch.lerp(left, right, share)
    mixed_mean, mixed_spread = _statistics(mixed)
    gain = (spread / mixed_spread).clamp(max=_MOST_GAIN)
    screen = (mixed - mixed_mean) * gain + mean
    return poisson.solve(screen, *_gradients(left, right, share, gain), _weights(left))


def _gradients(left: Tensor, right: Tensor, share: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """The sides' own gradients, mixed: all of the mix's but what the change of shares adds."""
    ours, theirs = poisson.differences(left), poisson.differences(right)
    across, down = (
        (share[..., 1:] + share[..., :-1]) / 2,
        (share[..., 1:, :] + share[..., :-1, :]) / 2,
    )
    return torch.lerp(ours[0], theirs[0], across) * gain, torch.lerp(
        ours[1], theirs[1], down
    ) * gain


def _statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    deviation, mean = torch.std_mean(image, dim=(-2, -1), keepdim=True, correction=0)
    return mean, deviation.clamp(1e-3)


def _weights(like: Tensor) -> Tensor:
    return like.new_tensor(GRADIENT_WEIGHTS)
