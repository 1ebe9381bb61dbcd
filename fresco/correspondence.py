"""Spatial-temporal correspondence of one batch: flow, occlusion, warping (paper, section 3.1).

Pairs are cyclic: pair i is (frame i, frame i+1 mod N), so N frames have N pairs. ``forward[i]``
lives on the grid of frame i and points into frame i+1; ``backward[i]`` lives on the grid of frame
i+1 and points into frame i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.callbacks import never_stop
from fresco.errors import InvalidInput
from fresco.flow import FlowEstimator, estimator
from fresco.frames import Frames, stack
from fresco.warping import Warp, length

#: Tolerance of the forward-backward consistency (Sundaram et al., ECCV 2010): relative, pixels.
CONSISTENCY_RELATIVE, CONSISTENCY_PIXELS = 0.01, 0.5
#: A colour that differs by more than this share of the range is another surface.
COLOUR_DIFFERENCE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Correspondence:
    """The cyclic pairs of one batch.

    forward, backward: (N, 2, H, W) float32, pixels of this resolution
    occ_forward, occ_backward: (N, H, W), 1 or True = occluded; kept as float32

    Raises:
        InvalidInput: shapes that do not belong together, or flows that are not finite.
    """

    forward: Tensor
    backward: Tensor
    occ_forward: Tensor
    occ_backward: Tensor

    def __post_init__(self) -> None:
        _check_flows(self.forward, self.backward)
        for name in ("occ_forward", "occ_backward"):
            check_occlusion(getattr(self, name), self.forward, name)
        for name in self.__slots__:
            object.__setattr__(self, name, getattr(self, name).detach().to(torch.float32))

    @property
    def frames(self) -> int:
        """The number of frames, which is the number of pairs."""
        return len(self.forward)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.forward.shape[-2], self.forward.shape[-1]

    def to(self, device: torch.device | str) -> Correspondence:
        """Return the same correspondence on `device`."""
        return self.unchecked(*(getattr(self, name).to(device) for name in self.__slots__))

    def reduced(self, scale: int) -> Correspondence:
        """Return it at 1/`scale`: flows reduced bilinearly and divided, occlusions by maximum."""
        if scale == 1:
            return self
        return self.unchecked(
            reduce_bilinear(self.forward, scale) / scale,
            reduce_bilinear(self.backward, scale) / scale,
            F.max_pool2d(self.occ_forward, scale),
            F.max_pool2d(self.occ_backward, scale),
        )

    @classmethod
    def unchecked(cls, *parts: Tensor) -> Correspondence:
        """Make one of parts known to be right; checking them would wait for the device."""
        made = object.__new__(cls)
        for name, part in zip(cls.__slots__, parts, strict=True):
            object.__setattr__(made, name, part)
        return made

    def reduced_to(self, height: int, width: int) -> Correspondence:
        """Return it at the size of a feature map.

        Raises:
            InvalidInput: the size is not a whole fraction of this one.
        """
        scale = max(1, self.size[0] // max(1, height))
        if (height * scale, width * scale) != self.size:
            raise InvalidInput(
                f"features of {width} x {height} are no whole fraction of the correspondence's "
                f"{self.size[1]} x {self.size[0]}; compute it on the frames that are translated, "
                "whose sides are multiples of 64."
            )
        return self.reduced(scale)


def estimate(
    frames: Frames, flow: FlowEstimator | str = "dis", poll: Callable[[], None] = never_stop
) -> Correspondence:
    """Estimate the correspondence of a batch.

    frames: (N, 3, H, W) float RGB in [0, 1]
    flow: an estimator, or the name of one
    poll: called between its parts; may raise to stop

    Raises:
        InvalidInput: frames that cannot be worked on, or an unknown estimator.
    """
    batch = stack(frames)
    if len(batch) == 1:
        # The only pair is the frame with itself: nothing moves and nothing is hidden.
        still = batch.new_zeros(1, 2, *batch.shape[-2:], dtype=torch.float32)
        return Correspondence(still, still.clone(), still[:, 0], still[:, 1])
    estimate_flow = estimator(flow) if isinstance(flow, str) else flow
    following = batch.roll(-1, dims=0)
    forward = estimate_flow(batch, following)
    poll()
    backward = estimate_flow(following, batch)
    poll()
    return Correspondence(forward, backward, *photometric_occlusion(batch, forward, backward))


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Backward bilinear warp: ``out(p) = x(p + flow(p))``, zeros outside; differentiable in `x`.

    The gradient is summed in a fixed order on every device (see `fresco.warping`).

    x: (N, C, H, W) float
    flow: (N, 2, H, W) float, pixels, [0] = dx, [1] = dy; treated as data, without gradient

    Raises:
        InvalidInput: shapes that do not belong together.
    """
    if x.ndim != 4 or x.numel() == 0 or flow.shape != (len(x), 2, *x.shape[-2:]):
        raise InvalidInput(
            f"cannot warp {tuple(x.shape)} by a flow of {tuple(flow.shape)}; "
            "expected (N, C, H, W) and (N, 2, H, W)."
        )
    if not x.is_floating_point():
        raise InvalidInput(f"cannot warp {x.dtype}; convert it to float.")
    table = x.flatten(2).transpose(1, 2).flatten(0, 1)
    warped: Tensor = _WarpRows.apply(table, Warp(flow.detach().float()))  # pyright: ignore
    return warped.unflatten(0, (len(x), -1)).transpose(1, 2).reshape(x.shape)


def consistency_occlusion(forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
    """Occlusion by forward-backward consistency.

    A pixel is occluded where ``|f + warp(b, f)| > 0.01 (|f| + |b|) + 0.5``, all at that pixel.

    forward, backward: (N, 2, H, W) float32, pixels
    returns: occ_forward, occ_backward (N, H, W) float32, 1 = occluded

    Raises:
        InvalidInput: flows of different shapes, or not finite.
    """
    _check_flows(forward, backward)
    return _inconsistent(forward, backward), _inconsistent(backward, forward)


def photometric_occlusion(
    frames: Frames, forward: Tensor, backward: Tensor
) -> tuple[Tensor, Tensor]:
    """Occlusion by consistency or by colour: warped neighbours that differ by over a quarter.

    frames: (N, 3, H, W) float RGB in [0, 1]
    forward, backward: (N, 2, H, W) float32, pixels, cyclic
    returns: occ_forward, occ_backward (N, H, W) float32, 1 = occluded

    Raises:
        InvalidInput: frames or flows that cannot be worked on or do not belong together.
    """
    batch = stack(frames).float()
    following = batch.roll(-1, dims=0)
    occ_forward, occ_backward = consistency_occlusion(forward, backward)
    return (
        torch.maximum(occ_forward, _recoloured(batch, following, forward)),
        torch.maximum(occ_backward, _recoloured(following, batch, backward)),
    )


def reduce_bilinear(x: Tensor, scale: int) -> Tensor:
    """Reduce (..., H, W) by `scale` bilinearly: half-pixel centres, no antialiasing.

    That is the mean of the middle 2 x 2 of every scale x scale pixels, or the middle one of an odd
    scale; nothing else is read.
    """
    height, width = x.shape[-2] // scale * scale, x.shape[-1] // scale * scale
    whole, middle = x[..., :height, :width], ((scale - 1) // 2, scale // 2)
    corners = [whole[..., row::scale, column::scale] for row in middle for column in middle]
    return (corners[0] + corners[1] + corners[2] + corners[3]) / 4


class _WarpRows(torch.autograd.Function):
    """`Warp.gather` with its transpose as gradient."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, warp: Warp) -> Tensor:
        ctx.warp = warp
        return warp.gather(table.contiguous())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.warp.scatter(gradients[0].contiguous()), None


def _inconsistent(flow: Tensor, opposite: Tensor) -> Tensor:
    residual = length(flow + warp(opposite, flow))
    motion = length(flow) + length(opposite)
    return (residual > CONSISTENCY_RELATIVE * motion + CONSISTENCY_PIXELS).float()


def _recoloured(frame: Tensor, neighbour: Tensor, flow: Tensor) -> Tensor:
    difference = (frame - warp(neighbour, flow)).abs().mean(dim=1)
    return (difference > COLOUR_DIFFERENCE).float()


def check_occlusion(occlusion: Tensor, flow: Tensor, name: str) -> None:
    """Check that an occlusion mask belongs to a flow (N, 2, H, W) and is 0 or 1.

    Raises:
        InvalidInput: it does not, or is not.
    """
    expected = (len(flow), *flow.shape[-2:])
    if tuple(occlusion.shape) != expected:
        raise InvalidInput(
            f"{name} has shape {tuple(occlusion.shape)} but the flow asks for {expected}."
        )
    if not bool(((occlusion == 0) | (occlusion == 1)).all()):
        raise InvalidInput(f"{name} has values other than 0 (seen) and 1 (occluded).")


def _check_flows(forward: Tensor, backward: Tensor) -> None:
    if forward.ndim != 4 or forward.shape[1] != 2 or forward.numel() == 0:
        raise InvalidInput(
            f"the forward flow has shape {tuple(forward.shape)}; expected (N, 2, height, width)."
        )
    if forward.shape != backward.shape:
        raise InvalidInput(
            f"the forward flow has shape {tuple(forward.shape)} but the backward flow "
            f"{tuple(backward.shape)}; both are cyclic, one field per frame."
        )
    for name, flow in (("forward", forward), ("backward", backward)):
        check_flow(flow, name)


def check_flow(flow: Tensor, name: str) -> None:
    """Check that a flow is float and finite.

    Raises:
        InvalidInput: it is not.
    """
    if not flow.is_floating_point():
        raise InvalidInput(f"the {name} flow is {flow.dtype}; convert it to float.")
    if not bool(torch.isfinite(flow).all()):
        raise InvalidInput(f"the {name} flow has NaN or infinite values; estimate it again.")
