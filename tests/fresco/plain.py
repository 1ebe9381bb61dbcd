"""A second implementation of the method, as plain as the formulas: loops and whole matrices.

What the tests compare with and the benchmarks measure against; written from the formulas, with
other means than `fresco` (numpy loops, torch's grid_sample and autograd).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Backward warp (N, C, H, W) by (N, 2, H, W) with torch's own sampler."""
    height, width = x.shape[-2:]
    y, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    # Pixel centres in the sampler's units; this form holds for a side of one pixel too.
    grid_x = (2 * (columns + flow[:, 0]) + 1) / width - 1
    grid_y = (2 * (y + flow[:, 1]) + 1) / height - 1
    grid = torch.stack((grid_x, grid_y), dim=-1)
    return F.grid_sample(x, grid.to(x), mode="bilinear", align_corners=False)


def warp_pixel(x: Array, flow: Array, row: int, column: int) -> Array:
    """One pixel of the warp of (C, H, W) by (2, H, W), by hand."""
    height, width = x.shape[1:]
    at_x, at_y = column + flow[0, row, column], row + flow[1, row, column]
    total = np.zeros(len(x), np.float32)
    for line in (int(np.floor(at_y)), int(np.floor(at_y)) + 1):
        for place in (int(np.floor(at_x)), int(np.floor(at_x)) + 1):
            weight = (1 - abs(at_y - line)) * (1 - abs(at_x - place))
            if 0 <= line < height and 0 <= place < width:
                total += weight * x[:, line, place]
    return total


def occlusion(flow: Array, opposite: Array) -> NDArray[np.bool_]:
    """Inconsistent pixels of one pair (2, H, W), one by one."""
    height, width = flow.shape[1:]
    occluded = np.zeros((height, width), np.bool_)
    for row in range(height):
        for column in range(width):
            here = flow[:, row, column]
            residual = np.linalg.norm(here + warp_pixel(opposite, flow, row, column))
            length = np.linalg.norm(here) + np.linalg.norm(opposite[:, row, column])
            occluded[row, column] = residual > 0.01 * length + 0.5
    return occluded


def reduce(x: Array, scale: int) -> Array:
    """Bilinear reduction of (C, H, W) by an even `scale`: the mean of the middle 2 x 2."""
    height, width = x.shape[1] // scale, x.shape[2] // scale
    out = np.zeros((len(x), height, width), np.float32)
    low = scale // 2 - 1
    for row in range(height):
        for column in range(width):
            y, at = row * scale + low, column * scale + low
            out[:, row, column] = x[:, y : y + 2, at : at + 2].mean(axis=(1, 2))
    return out


def match(
    flow: Array, occluded: Array, before: Array, after: Array
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Walk the tokens of one reduced pair in row-major order, as the method tells it.

    flow (2, h, w) in tokens, occluded (h, w) bool, colours (3, h, w) of frames i and i+1. Returns
    the partner in frame i+1 of each token of frame i, and where that is only a filling.
    """
    height, width = flow.shape[1:]
    owner: dict[int, int] = {}
    lost: list[int] = []
    old, new = before.reshape(3, -1), after.reshape(3, -1)
    for token in range(height * width):
        row, column = divmod(token, width)
        y = int(np.rint(np.float32(row) + flow[1, row, column]))
        x = int(np.rint(np.float32(column) + flow[0, row, column]))
        if occluded[row, column] or not (0 <= y < height and 0 <= x < width):
            lost.append(token)
            continue
        target = y * width + x
        present = owner.get(target)
        if present is None:
            owner[target] = token
        elif np.mean((new[:, present] - old[:, target]) ** 2) > np.mean(
            (new[:, token] - old[:, target]) ** 2
        ):
            lost.append(present)
            owner[target] = token
        else:
            lost.append(token)
    unlinked = [target for target in range(height * width) if target not in owner]
    owner.update(zip(unlinked, sorted(lost), strict=True))
    broken = np.zeros(height * width, np.bool_)
    broken[unlinked] = True
    return np.array([owner[target] for target in range(height * width)]), broken


def link(
    backward: Tensor, occluded: Tensor, frames: Tensor, scale: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Order, inverse and mask of the paths, token by token."""
    colours = [reduce(frame, scale) for frame in (frames * 2 - 1).numpy()]
    count, tokens = len(frames), colours[0][0].size
    order = [np.arange(tokens)]
    mask = np.ones((tokens, count, count), np.bool_)
    for pair in range(count - 1):
        flow = reduce(backward[pair].numpy(), scale) / np.float32(scale)
        hidden = reduce(occluded[pair][None].float().numpy(), scale)[0] > 0.5
        partner, broken = match(flow, hidden, colours[pair], colours[pair + 1])
        for path in range(tokens):
            if broken[order[-1][path]]:
                mask[path, : pair + 1, pair + 1 :] = False
                mask[path, pair + 1 :, : pair + 1] = False
        order.append(partner[order[-1]])
    stacked = np.stack(order)
    return (
        torch.from_numpy(stacked),
        torch.from_numpy(np.argsort(stacked, axis=1)),
        torch.from_numpy(mask),
    )


def gram(x: Tensor) -> Tensor:
    """The whole cosine Gram matrix of (B, C, h, w): (B, tokens, tokens)."""
    unit = x.flatten(2)
    unit = unit / unit.norm(dim=1, keepdim=True)
    return unit.transpose(1, 2) @ unit


def gram_loss(x: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of Gram matrices, whole."""
    return (gram(x) - target).abs().mean()


def temporal_loss(
    x: Tensor, forward: Tensor, backward: Tensor, occ_forward: Tensor, occ_backward: Tensor
) -> Tensor:
    """The temporal loss of (2N, C, h, w) with pairs given at that size."""
    total = x.new_zeros(())
    for half in x.split(len(forward)):
        following = half.roll(-1, 0)
        total = total + ((following - warp(half, backward)).abs() * (1 - occ_backward)).sum()
        total = total + ((half - warp(following, forward)).abs() * (1 - occ_forward)).sum()
    return 2 * total / x.numel()


def optimise(
    x: Tensor,
    pairs: tuple[Tensor, Tensor, Tensor, Tensor],
    target: Tensor | None,
    iterations: int = 20,
    spatial_weight: float = 100.0,
    adain_epsilon: float = 1.0,
) -> Tensor:
    """The feature optimisation with whole Gram matrices and autograd throughout.

    pairs: the arguments of `temporal_loss`, at image resolution
    """
    height, width = x.shape[-2:]
    forward, backward, occ_forward, occ_backward = pairs
    scale = forward.shape[-1] // width
    flows = [
        F.interpolate(flow, size=(height, width), mode="bilinear") / scale
        for flow in (forward, backward)
    ]
    hidden = [F.max_pool2d(occ[:, None], scale) for occ in (occ_forward, occ_backward)]
    moved = x.clone().requires_grad_()
    adam = torch.optim.Adam([moved], lr=0.2)
    for _ in range(iterations):
        adam.zero_grad()
        loss = temporal_loss(moved, *flows, *hidden)
        if target is not None:
            loss = loss + spatial_weight * gram_loss(moved, target)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        adam.step()
    moved = moved.detach()
    mean, var = moved.mean((2, 3), keepdim=True), moved.var((2, 3), keepdim=True)
    goal_mean, goal_var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True)
    return (moved - mean) / (var + 1e-5).sqrt() * (goal_var + adain_epsilon).sqrt() + goal_mean


def attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None
) -> Tensor:
    """softmax(scale q k^T) v with the whole map, (..., tokens, d)."""
    logits = scale * query @ key.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(dim=-1) @ value
