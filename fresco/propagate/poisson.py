"""Screened Poisson equation on an image, solved exactly by the cosine transform."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


def solve(screen: Tensor, across: Tensor, down: Tensor, weights: Tensor) -> Tensor:
    """Return the x that makes ``|x - screen|² + weight · |∇x - (across, down)|²`` smallest.

    Forward differences, nothing crosses the border (Neumann). The cosine transform turns the normal
    equations ``(1 + weight · DᵀD) x = screen + weight · Dᵀg`` into one division per frequency.

    screen: (N, C, H, W) float
    across: (N, C, H, W - 1), down: (N, C, H - 1, W), the wanted differences
    weights: (C,), of the differences
    """
    height, width = screen.shape[-2:]
    weight = weights[:, None, None]
    right = screen + weight * _transposed(across, down)
    rows, columns = _cosines(height, screen.device), _cosines(width, screen.device)
    frequencies = rows @ right @ columns.T
    frequencies /= 1 + weight * (
        _eigenvalues(height, screen)[:, None] + _eigenvalues(width, screen)
    )
    return rows.T @ frequencies @ columns


def differences(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the forward differences across (N, C, H, W - 1) and down (N, C, H - 1, W)."""
    return image.diff(dim=-1), image.diff(dim=-2)


def _transposed(across: Tensor, down: Tensor) -> Tensor:
    """Apply the transpose of `differences`."""
    pad = torch.nn.functional.pad
    return -pad(across, (1, 1)).diff(dim=-1) - pad(down, (0, 0, 1, 1)).diff(dim=-2)


@functools.lru_cache(maxsize=8)
def _cosines(size: int, device: torch.device) -> Tensor:
    """The orthonormal DCT-II as a matrix: a matrix product is fast, for any size, everywhere."""
    place = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.to(torch.float32).to(device)


def _eigenvalues(size: int, like: Tensor) -> Tensor:
    return 2 - 2 * torch.cos(math.pi / size * torch.arange(size, device=like.device))
