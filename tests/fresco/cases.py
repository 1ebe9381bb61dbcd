"""Small made-up batches with motion and occlusion, for tests without recordings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fresco.correspondence import Correspondence, consistency_occlusion


def frames(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """A bright square moving over a smooth background: (count, 3, height, width) in [0, 1]."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 4, 4), np.float32))
    background = torch.nn.functional.interpolate(
        coarse, size=(height, width), mode="bicubic", align_corners=False
    ).clamp(0, 1)
    batch = background.repeat(count, 1, 1, 1)
    side = max(4, min(height, width) // 4)
    for index in range(count):
        x = (index * side // 3) % max(1, width - side)
        batch[index, :, side : 2 * side, x : x + side] = torch.tensor([0.95, 0.2, 0.1])[
            :, None, None
        ]
    return batch


def flows(count: int, height: int, width: int, reach: float = 4.0, seed: int = 0) -> Tensor:
    """Smooth random flow (count, 2, height, width), up to about `reach` pixels."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(0, reach / 2, (count, 2, 3, 3)).astype(np.float32))
    return torch.nn.functional.interpolate(
        coarse, size=(height, width), mode="bilinear", align_corners=True
    )


def correspondence(count: int, height: int, width: int, seed: int = 0) -> Correspondence:
    """Random, roughly opposite flows, with the occlusion that follows from them."""
    forward = flows(count, height, width, seed=seed)
    backward = -forward + flows(count, height, width, reach=1.0, seed=seed + 1)
    return Correspondence(forward, backward, *consistency_occlusion(forward, backward))


def still(count: int, height: int, width: int) -> Correspondence:
    """Nothing moves, nothing is hidden."""
    flow, seen = torch.zeros(count, 2, height, width), torch.zeros(count, height, width)
    return Correspondence(flow, flow, seen, seen)


def features(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Random features (count, channels, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, height, width, generator=generator)
