"""The losses of the feature optimisation, each with its own gradient (paper, section 3.3).

* The Gram matrices are visited in row blocks of their upper triangle and never stored: a block's
  sign is all that the gradient needs, and symmetry gives the lower triangle.
* The warps are sparse maps with a deterministic transpose (`fresco.warping`).

Inside, features are "tokens": (N, h * w, C), one row per pixel, so that every read is contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fresco.correspondence import Correspondence
from fresco.errors import InvalidInput
from fresco.warping import Warp

#: Entries of a Gram block held at once (4 MB in float32: it stays in a processor's cache).
GRAM_BLOCK = 2**20


def temporal_loss(x: Tensor, correspondence: Correspondence) -> Tensor:
    """How far neighbouring frames are from agreeing along the flow (paper, 3.3); differentiable.

    ``2 mean(|x_{i+1} - warp(x_i, backward)| (1 - occ_backward) + the same forward)`` over the
    cyclic pairs; the mean divides by all entries, occluded ones too.

    x: (2N, C, h, w) float32, or any whole number of halves

    Raises:
        InvalidInput: shapes that do not belong together.
    """
    halves = count_halves(x, correspondence)
    pairs = Pairs(correspondence, x.shape[-2:])
    weight = 2 / x.numel()

    def evaluate(tokens: Tensor, gradient: Tensor) -> Tensor:
        parts = zip(tokens.chunk(halves), gradient.chunk(halves), strict=True)
        return torch.stack([pairs.put_gradient(*part, weight) for part in parts]).sum()

    return _with_gradient(x, evaluate)


def gram_loss(x: Tensor, reference: Tensor, gram_block: int = GRAM_BLOCK) -> Tensor:
    """Mean absolute difference of the cosine Gram matrices of `x` and `reference`; differentiable.

    Equal to the loss on whole Gram matrices up to rounding (paper, section 3.3, without its
    weight), in memory that does not grow with the square of the tokens.

    x: (B, C, h, w) float32
    reference: (B, C', h, w), a target: it gets no gradient

    Raises:
        InvalidInput: shapes that do not belong together.
    """
    target = check_goal(x, reference)
    weight = 1 / (len(x) * target.shape[2] ** 2)

    def evaluate(tokens: Tensor, gradient: Tensor) -> Tensor:
        return add_gram_gradient(tokens, target, gradient, weight, gram_block)

    return _with_gradient(x, evaluate)


class Pairs:
    """The cyclic pairs of a batch at the size of a feature map: two warps of all frames."""

    def __init__(self, correspondence: Correspondence, size: torch.Size) -> None:
        reduced = correspondence.reduced_to(*size)
        frame = torch.arange(correspondence.frames, device=reduced.forward.device)
        # The backward fields in the order of the frames they live on: pair i is on frame i + 1.
        self._directions = (
            (Warp(reduced.backward.roll(1, 0), frame.roll(1)), reduced.occ_backward.roll(1, 0)),
            (Warp(reduced.forward, frame.roll(-1)), reduced.occ_forward),
        )

    def put_gradient(self, tokens: Tensor, gradient: Tensor, weight: float) -> Tensor:
        """Set `gradient` to that of ``weight * sum`` of the temporal residuals; return that sum.

        tokens, gradient: (N, h * w, C), of one half
        """
        rows, slope = tokens.flatten(0, 1), gradient.flatten(0, 1)
        loss = tokens.new_zeros(())
        slope.zero_()
        for warp, occluded in self._directions:
            residual = warp.gather(rows).neg_().add_(rows)
            residual *= 1 - occluded.flatten()[:, None]
            loss += _total(residual)
            # Signs are summed before they are weighted: where they cancel, they do so exactly.
            slope += residual.sign_()
            slope -= warp.scatter(residual)
        slope *= weight
        return loss * weight


def add_gram_gradient(
    tokens: Tensor, target: Tensor, gradient: Tensor, weight: float, gram_block: int
) -> Tensor:
    """Add the gradient of ``weight * sum |Gram(tokens) - Gram(target)|``; return that value.

    tokens, gradient: (B, T, C); target: (B, C', T)
    """
    samples, count = tokens.shape[:2]
    # Few tokens: several samples at once. Many tokens: some rows of one sample at a time.
    group = max(1, gram_block // count**2)
    rows = min(count, max(1, gram_block // count))
    losses = [
        _add_group_gradient(
            tokens[start : start + group],
            target[start : start + group],
            gradient[start : start + group],
            weight,
            rows,
        )
        for start in range(0, samples, group)
    ]
    return torch.stack(losses).sum() * weight


def _add_group_gradient(
    tokens: Tensor, target: Tensor, gradient: Tensor, weight: float, rows: int
) -> Tensor:
    """`add_gram_gradient` for a few samples, `rows` rows of the upper triangle at a time."""
    length = _length(tokens, dim=2)
    unit = tokens / length
    goal = target.float()
    goal = goal / _length(goal, dim=1)
    slope = torch.zeros_like(unit)
    losses: list[Tensor] = []
    for start in range(0, tokens.shape[1], rows):
        stop = min(start + rows, tokens.shape[1])
        block = torch.bmm(unit[:, start:stop], unit[:, start:].mT)
        block.baddbmm_(goal[:, :, start:stop].mT, goal[:, :, start:], alpha=-1)
        # The square on the diagonal counts once, all to its right twice (once below).
        diagonal, right = block[:, :, : stop - start], block[:, :, stop - start :]
        losses.append(2 * _total(block) - _total(diagonal))
        block.sign_()
        slope[:, start:stop].baddbmm_(block, unit[:, start:])
        slope[:, stop:].baddbmm_(right.mT, unit[:, start:stop])
    # d|G_ij| reaches row i as G_ij and as G_ji, hence 2; then through the normalisation.
    along = (slope * unit).sum(dim=2, keepdim=True)
    gradient += slope.addcmul_(unit, along, value=-1).div_(length).mul_(2 * weight)
    return torch.stack(losses).sum()


def _total(x: Tensor) -> Tensor:
    """Sum |x|, rows first: no copy, and no long chain of additions to lose digits in."""
    return torch.linalg.vector_norm(x, 1, dim=-1).sum()


def _length(x: Tensor, dim: int) -> Tensor:
    """The norm along `dim`; never so small that an empty token becomes NaN or huge."""
    return x.norm(dim=dim, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)


class _FusedLoss(torch.autograd.Function):
    """A loss whose gradient was computed along with it; it has no second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * gradients[0], None, None


def _with_gradient(x: Tensor, evaluate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        tokens = to_tokens(x)
        gradient = torch.zeros_like(tokens)
        loss = evaluate(tokens, gradient)
        gradient = to_image(gradient, x.shape).to(x.dtype)
    return _FusedLoss.apply(x, loss, gradient)  # pyright: ignore[reportReturnType]


def to_tokens(x: Tensor) -> Tensor:
    """Copy (N, C, h, w) to (N, h * w, C) float32."""
    return (
        x.detach().flatten(2).transpose(1, 2).float().clone(memory_format=torch.contiguous_format)
    )


def to_image(tokens: Tensor, shape: torch.Size) -> Tensor:
    """View (N, h * w, C) as (N, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, shape[-2:])


def count_halves(x: Tensor, correspondence: Correspondence) -> int:
    """How often the batch holds the correspondence's frames.

    Raises:
        InvalidInput: not a whole number of times.
    """
    if x.ndim != 4 or x.numel() == 0 or len(x) % correspondence.frames:
        raise InvalidInput(
            f"features of shape {tuple(x.shape)} do not hold {correspondence.frames} frames; "
            "expected (halves * frames, C, h, w)."
        )
    return len(x) // correspondence.frames


def check_goal(x: Tensor, reference: Tensor) -> Tensor:
    """Return the reference as (B, C', tokens), without gradient, if it belongs to `x`.

    Raises:
        InvalidInput: it does not.
    """
    if x.ndim != 4 or x.numel() == 0:
        raise InvalidInput(f"features have shape {tuple(x.shape)}; expected (B, C, h, w).")
    if reference.ndim != 4 or len(reference) != len(x) or reference.shape[-2:] != x.shape[-2:]:
        raise InvalidInput(
            f"reference features of {tuple(reference.shape)} do not belong to features of "
            f"{tuple(x.shape)}; record them at the size and guidance of this run."
        )
    return reference.detach().flatten(2)
