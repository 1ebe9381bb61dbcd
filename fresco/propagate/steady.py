"""Taking the tremble out of flows that follow the camera's noise.

Between two noisy pictures the best fit of small patches is the one that also matches the noise: it
trembles by parts of a pixel, and a style that is read along it is torn. Where a smoother motion
explains the frame as well, but for what noise alone can gain, that motion is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fresco.propagate.guides import source_guide
from fresco.propagate.sampling import box, gaussian
from fresco.propagate.search import mismatch

#: Deviations (pixels) over which a flow is averaged: the smoother ones of two.
_WIDTHS = (4.0, 12.0)
#: By how much frames are blurred for the second look, pixels.
_CALM = 1.0
#: What following the noise, or reading between its pixels, can gain, as a part of what it adds.
_GAIN = 0.5
#: Below this variance there is no noise: a quarter of what rounding to 8 bits makes.
_NONE = 1e-6
#: The radius of the windows that gains are compared in, pixels.
_WINDOW = 4
#: Blocks whose detail is weakest show the noise: their side (pixels), and which part of them.
_BLOCK, _WEAKEST = 8, 0.2
#: Rounds of the fit of one motion to all, and pixels from one of its samples to the next.
_ROUNDS, _EVERY = 8, 4
#: Motions that differ by less than this, squared pixels, are one.
_STILL = 1e-6


def noise(image: Tensor) -> float:
    """Return the variance of the noise in (1, C, H, W), of its channels together.

    Immerkær's operator (1996), which sees neither slopes nor edges, where there is least detail.
    """
    kernel = image.new_tensor(((1, -2, 1), (-2, 4, -2), (1, -2, 1)))
    found = F.conv2d(image[0][:, None], kernel[None, None]).abs()
    block = min(_BLOCK, *found.shape[-2:])
    means = F.avg_pool2d(found, block).flatten(1)
    deviation = means.quantile(_WEAKEST, dim=1) * (math.sqrt(math.pi / 2) / 6)
    return float(deviation.square().sum())


@dataclass(frozen=True, slots=True, eq=False)
class _Sight:
    """A frame and a key frame as motions are compared by them, (1, C, H, W) each.

    level: what noise adds to their squared difference, of the channels together
    """

    frame: Tensor
    key: Tensor
    level: float

    def judge(self, flow: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what says where another flow fits as well as `flow`, but for noise."""
        own = mismatch(self.frame, self.key, flow)
        allowed = _GAIN * min(self.level, float(own.median()))
        return lambda other: box(mismatch(self.frame, self.key, other) - own, _WINDOW) <= allowed


class Steadier:
    """Steadies flows into one key frame, (1, 3, H, W)."""

    def __init__(self, key: Tensor) -> None:
        self._guide, self._calm = source_guide(key), gaussian(key, _CALM)
        self._level = 2 * noise(self._guide)
        self._calm_level = 2 * noise(key) / (4 * math.pi * _CALM**2)

    def __call__(self, frame: Tensor, flow: Tensor) -> Tensor:
        """Return `flow`, or the smoothest motion that fits `frame` as well, place by place.

        It has to do so twice: sharply, for the sake of fine detail, and blurred, where reading
        between pixels averages no noise away, for the sake of what is fainter than the noise.
        """
        if self._level < _NONE:
            return flow
        sharp = _Sight(source_guide(frame), self._guide, self._level)
        calm = _Sight(gaussian(frame, _CALM), self._calm, self._calm_level)
        fits = sharp.judge(flow), calm.judge(flow)
        best = flow
        for smooth in (*(gaussian(flow, width) for width in _WIDTHS), _common(flow)):
            best = torch.where(fits[0](smooth) & fits[1](smooth), smooth, best)
        return best


def _common(flow: Tensor) -> Tensor:
    """Return the affine motion that most of `flow` follows, as a flow.

    Summed without BLAS, whose last digits hang on where in memory the numbers lie.
    """
    height, width = flow.shape[-2:]
    y, x = np.mgrid[0:height:_EVERY, 0:width:_EVERY].reshape(2, -1) / max(height, width)
    samples = np.stack((np.ones_like(x), x, y), axis=-1)
    wanted = flow[0, :, ::_EVERY, ::_EVERY].reshape(2, -1).T.double().cpu().numpy()
    weights, fit = np.ones(len(samples)), np.zeros((3, 2))
    for _ in range(_ROUNDS):
        weighted = samples * weights[:, None]
        fit = np.linalg.solve(_products(weighted, samples), _products(weighted, wanted))
        away = np.square(np.einsum("ni,ij->nj", samples, fit) - wanted).sum(axis=1)
        weights = 1 / (1 + away / max(float(np.median(away)), _STILL))
    begin, across, down = torch.from_numpy(fit).to(flow)[..., None, None] / max(height, width)
    rows = torch.arange(height, device=flow.device)[:, None]
    columns = torch.arange(width, device=flow.device)
    return (begin * max(height, width) + across * columns + down * rows)[None]


def _products(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.einsum("ni,nj->ij", ours, theirs)
