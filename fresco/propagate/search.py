"""Guided patch matching: a dense local search around the flow, coarse to fine.

At every level every shift of a small window is tried for the whole image at once: the key is read
at the shifted places, the squared difference of the guides is averaged over 3 x 3 patches, and each
pixel keeps the shift of its best patch. Nothing is drawn at random, and no pixel hands its match on
to its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.callbacks import never_stop
from fresco.propagate.guides import POSITION
from fresco.propagate.sampling import box, halved, resized_flow, sample

#: The coarsest level's shorter side is at least this, below twice this.
_COARSEST = 12
#: Radius of the window in pixels, from the coarsest level on; the last one goes on to the finest.
_WINDOWS = (4, 4, 2, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A frame and the key frame it is matched to.

    target, key: (1, C, h, w) guides, weighted
    carried: (1, 2, h, w) where the positions carried by flow lie, as a flow into the key
    poll: called before every look at how a flow fits
    """

    target: Tensor
    key: Tensor
    carried: Tensor
    poll: Callable[[], None] = never_stop

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.target.shape[-2], self.target.shape[-1]

    def cost(self, flow: Tensor, mode: str = "bilinear") -> Tensor:
        """Return the guides' squared difference under `flow`, over patches: (1, 1, h, w)."""
        self.poll()
        astray = (flow - self.carried).square_() * (POSITION / max(self.size) ** 2)
        difference = _difference(self.target, self.key, flow, mode)
        return box(difference + astray.sum(dim=1, keepdim=True))

    def halved(self) -> Pair:
        """Return the pair at half its size."""
        target = halved(self.target)
        carried = resized_flow(self.carried, *target.shape[-2:])
        return Pair(target, halved(self.key), carried, self.poll)


def mismatch(target: Tensor, key: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Return the squared difference of two guides under `flow`, over patches: (1, 1, h, w)."""
    return box(_difference(target, key, flow, mode))


def best_of(pair: Pair, flows: Sequence[Tensor], mode: str = "bilinear") -> Tensor:
    """Return for each pixel that flow under which its patch fits best; of equals, the first."""
    best, lowest = flows[0], pair.cost(flows[0], mode)
    for flow in flows[1:]:
        best, lowest = _better(pair, best, lowest, flow, mode)
    return best


def match(pair: Pair) -> Tensor:
    """Return the flow into the key, (1, 2, h, w), that fits every patch of the target best.

    At every level the search starts from the level before or from the positions carried by flow.
    """
    levels = [pair]
    while min(levels[-1].size) // 2 >= _COARSEST:
        levels.append(levels[-1].halved())
    flow = torch.zeros_like(levels[-1].carried)
    for index, level in enumerate(reversed(levels)):
        starts = resized_flow(flow, *level.size), level.carried
        radius = _WINDOWS[min(index, len(_WINDOWS) - 1)]
        flow = _search(level, best_of(level, starts), radius)
    return flow


def smoothed(pair: Pair, flow: Tensor) -> Tensor:
    """Return `flow` averaged over neighbours that look alike, move alike and fit well.

    Matches of small patches follow noise, which tears a style that is no function of the colour;
    surfaces move smoothly. The average stops at edges of the guides and of the motion.
    """
    cost = pair.cost(flow)
    trust = 1 / (cost + _TRUST_MEDIAN * cost.median() + 1e-5)
    total, weights = torch.zeros_like(flow), torch.zeros_like(cost)
    for near, look, trusted in _neighbours(flow, pair.target, trust):
        unlike = (look - pair.target).square_().sum(dim=1, keepdim=True) / (4 * _LOOK**2)
        astray = (near - flow).square_().sum(dim=1, keepdim=True) / (2 * _MOVE**2)
        weight = trusted * torch.exp(-(unlike + astray))
        total += weight * near
        weights += weight
    return total / weights


#: How far guides and motions (pixels) of neighbours may differ, and the part of the median cost
#: below which a fit is no longer better.
_LOOK, _MOVE, _TRUST_MEDIAN = 0.08, 2.0, 0.3
#: The neighbours: this many to each side, so many pixels apart.
_REACH, _APART = 2, 2


def _neighbours(*images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    margin = _REACH * _APART
    padded = [F.pad(image, (margin,) * 4, mode="replicate") for image in images]
    height, width = images[0].shape[-2:]
    for row in range(0, 2 * margin + 1, _APART):
        for column in range(0, 2 * margin + 1, _APART):
            yield tuple(p[..., row : row + height, column : column + width] for p in padded)


def _search(pair: Pair, flow: Tensor, radius: int) -> Tensor:
    """Try all whole shifts of `flow` within the window, twice: round the best of the first."""
    for _ in range(2):
        best, lowest = flow, pair.cost(flow)
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                shifted = flow + flow.new_tensor((dx, dy))[:, None, None]
                best, lowest = _better(pair, best, lowest, shifted)
        flow = best
    return flow


def _difference(target: Tensor, key: Tensor, flow: Tensor, mode: str) -> Tensor:
    return (target - sample(key, flow, mode)).square_().sum(dim=1, keepdim=True)


def _better(
    pair: Pair, best: Tensor, lowest: Tensor, flow: Tensor, mode: str = "bilinear"
) -> tuple[Tensor, Tensor]:
    cost = pair.cost(flow, mode)
    return torch.where(cost < lowest, flow, best), torch.minimum(cost, lowest)
