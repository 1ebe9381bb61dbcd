"""The option "preserve colour": one colour transform per shot, never one per frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco.errors import InvalidInput

#: Added to variances, so that a flat picture has an inverse: a third of an 8-bit step, squared.
_FLOOR = 1.7e-6


@dataclass(slots=True)
class ColourStatistics:
    """Mean and covariance of the colours of a shot, gathered frame by frame in constant memory."""

    pixels: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    products: Tensor = field(default_factory=lambda: torch.zeros(3, 3, dtype=torch.float64))

    @classmethod
    def of(cls, rows: NDArray[np.float64]) -> ColourStatistics:
        """Return what several `row`s (N, 13) count together."""
        total = torch.from_numpy(rows.sum(axis=0))
        return cls(int(total[0]), total[1:4], total[4:].view(3, 3))

    def row(self) -> NDArray[np.float64]:
        """Return what was counted as plain numbers, (13,): pixels, sums, sums of products."""
        return np.concatenate([[self.pixels], self.total, self.products.flatten()])

    def add(self, rgb: Tensor) -> None:
        """Count the pixels of one frame, (3, H, W) float sRGB."""
        flat = rgb.detach().double().cpu().flatten(1)
        self.pixels += flat.shape[1]
        self.total = self.total + flat.sum(dim=1)
        self.products = self.products + flat @ flat.T

    @property
    def mean(self) -> Tensor:
        """(3,) float64.

        Raises:
            InvalidInput: no frame was added.
        """
        if not self.pixels:
            raise InvalidInput("a shot's colours are asked for before one of its frames was seen.")
        return self.total / self.pixels

    @property
    def covariance(self) -> Tensor:
        """(3, 3) float64, with a floor on its diagonal."""
        mean = self.mean
        spread = self.products / self.pixels - torch.outer(mean, mean)
        return spread + _FLOOR * torch.eye(3, dtype=torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class ColourMatch:
    """rgb -> matrix (rgb - before) + after; matrix (3, 3), the others (3,)."""

    matrix: Tensor
    before: Tensor
    after: Tensor

    def __call__(self, rgb: Tensor) -> Tensor:
        """Return a frame (3, H, W) in the matched colours, clipped to [0, 1]."""
        weights = self.matrix.to(rgb)
        offset = (self.after - self.matrix @ self.before).to(rgb)
        moved = torch.einsum("ij,jhw->ihw", weights, rgb) + offset[:, None, None]
        return moved.clamp(0, 1)


def match(source: ColourStatistics, styled: ColourStatistics) -> ColourMatch:
    """Return the map that gives the restyled shot the source's mean and covariance.

    Of all linear maps that do, the one that moves colours least: the Monge-Kantorovich map of
    Pitié and Kokaram (2007), A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2 from covariance A to B.
    """
    root = _power(styled.covariance, 0.5)
    back = _power(styled.covariance, -0.5)
    middle = _power(root @ source.covariance @ root, 0.5)
    return ColourMatch(back @ middle @ back, styled.mean, source.mean)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=1e-12) ** exponent) @ vectors.T
