"""Taking the tremble out of flows that follow the camera's noise.

Between two noisy pictures the best fit of small patches is the one that also matches the noise: it
trembles by parts of a pixel, and a style that is read along it is torn. Where a smoother motion
explains the frame as well, but for what noise alone can gain, that motion is taken.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.propagate.sampling import box, gaussian
from fresco.propagate.search import mismatch

#: Deviations (pixels) over which a flow is averaged: the smoother ones of two.
_WIDTHS = (4.0, 12.0)
#: Motions are compared by frames blurred by this (pixels), in which reading between pixels averages
#: hardly any noise away; and what following the noise can still gain there, as a part of it.
_CALM, _GAIN = 1.0, 0.5
#: The radius of the windows that gains are compared in, pixels.
_WINDOW = 4
#: Blocks whose detail is weakest show the noise: their side (pixels), and which part of them.
_BLOCK, _WEAKEST = 8, 0.2
#: Rounds of the fit of one motion to all, and pixels from one of its samples to the next.
_ROUNDS, _EVERY = 8, 4


def noise(frame: Tensor) -> float:
    """Return the variance of the noise in (1, 3, H, W), of its channels together.

    Immerkær's operator (1996), which sees neither slopes nor edges, where there is least detail.
    """
    kernel = frame.new_tensor(((1, -2, 1), (-2, 4, -2), (1, -2, 1)))
    found = F.conv2d(frame[0][:, None], kernel[None, None]).abs()
    block = min(_BLOCK, *found.shape[-2:])
    means = F.avg_pool2d(found, block).flatten(1)
    deviation = means.quantile(_WEAKEST, dim=1) * (math.sqrt(math.pi / 2) / 6)
    return float(deviation.square().sum())


def calmed(frame: Tensor) -> Tensor:
    """Return (1, 3, H, W) with most of its noise averaged away: what motions are compared by."""
    return gaussian(frame, _CALM)


def steadied(frame: Tensor, key: Tensor, flow: Tensor, level: float) -> Tensor:
    """Return (1, 2, H, W) `flow` with a smoother motion where that fits as well, but for noise.

    frame, key: (1, 3, H, W), `calmed`
    level: of the noise, see `noise`; 0 leaves the flow alone
    """
    own = mismatch(frame, key, flow)
    left = 2 * level / (4 * math.pi * _CALM**2)
    allowed = _GAIN * min(left, float(own.median()))
    if allowed == 0:
        return flow
    best = flow
    for smooth in (*(gaussian(flow, width) for width in _WIDTHS), _common(flow)):
        worse = box(mismatch(frame, key, smooth) - own, _WINDOW)
        best = torch.where(worse <= allowed, smooth, best)
    return best


def _common(flow: Tensor) -> Tensor:
    """Return the affine motion that most of `flow` follows, as a flow."""
    height, width = flow.shape[-2:]
    y = torch.linspace(-1, 1, height, device=flow.device)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width, device=flow.device).expand(height, width)
    places = torch.stack((torch.ones_like(x), x, y), dim=-1)
    samples = places[::_EVERY, ::_EVERY].reshape(-1, 3)
    wanted = flow[0, :, ::_EVERY, ::_EVERY].reshape(2, -1).T
    weights = torch.ones_like(wanted[:, :1])
    fit = samples.new_zeros(3, 2)
    for _ in range(_ROUNDS):
        fit = torch.linalg.lstsq(samples * weights, wanted * weights).solution
        away = (samples @ fit - wanted).square().sum(dim=1, keepdim=True)
        weights = (1 / (1 + away / away.median().clamp(min=1e-6))).sqrt()
    return (places @ fit).permute(2, 0, 1)[None]
