"""Which tokens are new in a frame, and which lie on one path through the frames (paper, 3.1).

Everything here is sorting and reducing over whole frames at once; no loop runs over tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fresco.correspondence import check_flow, reduce_bilinear
from fresco.errors import InvalidInput
from fresco.frames import Frames, arrange, check_values


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Paths of tokens through a batch; path p is the p-th token of frame 0.

    order: (N, tokens) int64, the token of each frame that lies on path p
    inverse: (N, tokens) int64, the path on which each token lies
    mask: (tokens, N, N) bool, the frames between which path p is unbroken: block-diagonal
    """

    order: Tensor
    inverse: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Paths:
        """Return the same paths on `device`."""
        return Paths(self.order.to(device), self.inverse.to(device), self.mask.to(device))


def unique_tokens(occ_backward: Tensor, scale: int) -> Tensor:
    """Tokens whose content the previous frame has not shown, at 1/`scale`.

    Every token of frame 0; of frame i > 0 those whose reduced backward occlusion exceeds one half.

    occ_backward: (N, H, W), 1 = occluded, cyclic pairs
    returns: (N, tokens) bool, row-major

    Raises:
        InvalidInput: not three dimensions, or smaller than one token.
    """
    if len(occ_backward) == 0:
        raise InvalidInput("there is no occlusion mask; give one per frame.")
    new = _reduced_occlusion(occ_backward, scale).roll(1, dims=0)
    new[0] = True
    return new


def link(backward: Tensor, occ_backward: Tensor, frames: Frames, scale: int) -> Paths:
    """Link the tokens of each frame to those of the frame before, at 1/`scale`.

    A token goes to the rounded (half to even) target of its reduced backward flow, unless that is
    outside or occluded. Of several tokens with one target the nearest in colour takes it, on a tie
    the first in row-major order. Tokens left without partner on either side are paired in ascending
    order; there the path is broken.

    backward: (N, 2, H, W) float32, pixels, cyclic; the wrap-around pair is not linked
    occ_backward: (N, H, W), 1 = occluded
    frames: (N, 3, H, W) float RGB in [0, 1]

    Raises:
        InvalidInput: inputs that do not belong together.
    """
    batch = arrange(frames)
    if not batch.is_floating_point():
        raise InvalidInput(f"frames are {batch.dtype}; convert them to float in [0, 1].")
    if backward.shape != (len(batch), 2, *batch.shape[-2:]):
        raise InvalidInput(
            f"a backward flow of {tuple(backward.shape)} does not belong to frames of "
            f"{tuple(batch.shape)}."
        )
    if occ_backward.shape != (len(batch), *batch.shape[-2:]):
        raise InvalidInput(
            f"a backward occlusion of {tuple(occ_backward.shape)} does not belong to frames of "
            f"{tuple(batch.shape)}."
        )
    _check_scale(batch.shape[-2:], scale)
    # Reduced before they are looked at: only a few of the pixels are ever read.
    colours = reduce_bilinear(batch, scale)
    check_values(colours)
    target, lost = _targets(backward[:-1], occ_backward[:-1], scale)
    partner, broken = _match(target, lost, _colour_errors(colours.float().flatten(2), target))
    return _chain(partner, broken)


def _targets(backward: Tensor, occ_backward: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """The token of frame i that each token of frame i+1 comes from; `lost` where there is none.

    Returns (pairs, tokens) int64, valid where not lost, and (pairs, tokens) bool.
    """
    flow = reduce_bilinear(backward.float(), scale) / scale
    check_flow(flow, "backward")
    height, width = flow.shape[-2:]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y, x = y.round().flatten(1), x.round().flatten(1)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    target = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
    return target, ~inside | _reduced_occlusion(occ_backward, scale)


def _colour_errors(colours: Tensor, target: Tensor) -> Tensor:
    """Mean squared RGB difference of each token of frame i+1 to its target in frame i.

    colours: (N, 3, tokens); target: (N - 1, tokens); returns (N - 1, tokens)
    """
    aimed_at = colours[:-1].gather(2, target[:, None].expand(-1, 3, -1))
    return (colours[1:] - aimed_at).square().mean(dim=1)


def _match(target: Tensor, lost: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Make a bijection of the links of each pair.

    Of all tokens with one target the one with the smallest error owns it, then the first: what a
    walk in row-major order finds, without the walk. All arguments are (pairs, tokens).

    Returns `partner`, the token of frame i+1 for each of frame i, and `broken`, where that is only
    a filling.
    """
    tokens = target.shape[1]
    # As float, exact for any number of tokens: not every device has an integer minimum.
    numbers = torch.arange(tokens, device=target.device, dtype=error.dtype).expand_as(target)
    infinite = torch.full_like(error, torch.inf)
    claim = torch.where(lost, infinite, error)
    lowest = infinite.scatter_reduce(1, target, claim, "amin")
    contender = ~lost & (claim == lowest.gather(1, target))
    nobody = torch.full_like(error, tokens)
    owner = nobody.scatter_reduce(1, target, torch.where(contender, numbers, nobody), "amin")

    broken = owner == tokens
    homeless = ~(contender & (owner.gather(1, target) == numbers))
    # Each pair has as many of the one as of the other, so row by row the k-th takes the k-th.
    owner[broken] = numbers[homeless]
    return owner.long(), broken


def _chain(partner: Tensor, broken: Tensor) -> Paths:
    """Follow the links of all pairs (pairs, tokens) from frame 0 on."""
    pairs, tokens = partner.shape
    start = torch.arange(tokens, device=partner.device)
    order = torch.empty(pairs + 1, tokens, dtype=torch.int64, device=partner.device)
    segment = torch.zeros_like(order)
    order[0] = start
    for pair in range(pairs):
        here = order[pair]
        order[pair + 1] = partner[pair, here]
        segment[pair + 1] = segment[pair] + broken[pair, here]
    inverse = torch.empty_like(order).scatter_(1, order, start.expand_as(order))
    mask = segment.T[:, :, None] == segment.T[:, None, :]
    return Paths(order, inverse, mask)


def _reduced_occlusion(occlusion: Tensor, scale: int) -> Tensor:
    """Reduce (N, H, W) to (N, tokens) bool: more than half occluded."""
    if occlusion.ndim != 3:
        raise InvalidInput(
            f"occlusion has shape {tuple(occlusion.shape)}; expected (N, height, width)."
        )
    _check_scale(occlusion.shape[-2:], scale)
    return (reduce_bilinear(occlusion.float()[:, None], scale) > 0.5).flatten(1)


def _check_scale(size: torch.Size, scale: int) -> None:
    if not 1 <= scale <= min(size):
        raise InvalidInput(
            f"{size[1]} x {size[0]} pixels cannot be reduced by {scale}: that leaves no token."
        )
