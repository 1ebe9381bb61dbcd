"""FRESCO-guided feature optimisation (paper, section 3.3) and the background fuse.

The inputs of the U-Net's decoder blocks are moved so that neighbouring frames agree along the flow
(temporal loss) and every frame keeps the input frame's self-similarity (spatial loss, on cosine
Gram matrices). The halves of classifier-free guidance do not interact, so they are optimised one
after the other. `fresco.guidance` does this inside a model; `fresco.losses` has the losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.callbacks import never_stop
from fresco.correspondence import Correspondence, warp
from fresco.errors import InvalidInput
from fresco.losses import (
    GRAM_BLOCK,
    Pairs,
    add_gram_gradient,
    check_goal,
    count_halves,
    gram_loss,
    temporal_loss,
    to_image,
    to_tokens,
)

__all__ = ["descend", "fuse_background", "gram_loss", "optimise", "temporal_loss"]

#: Normalisation epsilon of the features that AdaIN starts from.
_ADAIN_EPSILON = 1e-5
#: Side of the square by which occlusions are widened when pixels, not features, are fused.
_PIXEL_DILATION = 13


@torch.no_grad()
def optimise(
    x: Tensor,
    correspondence: Correspondence,
    reference: Tensor | None = None,
    temporal: bool = True,
    spatial_weight: float = 100.0,
    iterations: int = 20,
    lr: float = 0.2,
    adain_epsilon: float = 1.0,
    *,
    gram_block: int = GRAM_BLOCK,
    on_iteration: Callable[[], None] = never_stop,
) -> Tensor:
    """Minimise the temporal and spatial loss over `x` by Adam, then restore its statistics.

    x: (2N, C, h, w), or any whole number of halves of N frames
    correspondence: of the N frames, at h and w times a whole number
    reference: (2N, C', h, w), the features whose cosine Gram matrix is the target; without it, or
        with `spatial_weight` 0, there is no spatial loss
    temporal: whether the temporal loss takes part
    adain_epsilon: added to the variance that is restored. The published results were made with 1,
        by a slip; 1e-5 was meant.
    gram_block: entries of a Gram matrix held at once
    on_iteration: called before every iteration of every half; may raise to stop
    returns: (2N, C, h, w) in `x`'s dtype; `x` itself if nothing is to be minimised

    Raises:
        InvalidInput: shapes that do not belong together.
    """
    count_halves(x, correspondence)
    if iterations <= 0 or not (temporal or (reference is not None and spatial_weight)):
        return x
    optimised = torch.empty_like(x)
    for half, tokens, _ in _minimise(
        x,
        correspondence,
        reference,
        temporal=temporal,
        spatial_weight=spatial_weight,
        iterations=iterations,
        lr=lr,
        gram_block=gram_block,
        on_iteration=on_iteration,
    ):
        optimised[half] = to_image(_adain(tokens, x[half], adain_epsilon), x.shape)
    return optimised


@torch.no_grad()
def descend(
    x: Tensor,
    correspondence: Correspondence,
    reference: Tensor | None = None,
    temporal: bool = True,
    spatial_weight: float = 100.0,
    iterations: int = 20,
    lr: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """Only the minimisation of `optimise`, to be looked at.

    returns: the features (2N, C, h, w) float32 before AdaIN, and the loss (iterations,) before each
        update

    Raises:
        InvalidInput: shapes that do not belong together, or no iteration.
    """
    if iterations < 1:
        raise InvalidInput(f"{iterations} iterations; use at least 1.")
    moved = torch.empty_like(x, dtype=torch.float32)
    losses = x.new_zeros(iterations, dtype=torch.float32)
    for half, tokens, half_losses in _minimise(
        x,
        correspondence,
        reference,
        temporal=temporal,
        spatial_weight=spatial_weight,
        iterations=iterations,
        lr=lr,
    ):
        moved[half] = to_image(tokens, x.shape)
        losses += half_losses
    return moved, losses


@torch.no_grad()
def fuse_background(x: Tensor, correspondence: Correspondence, background: Tensor) -> Tensor:
    """Replace each frame's background by the one warped from the frame before.

    In order for each frame after the first, then the last from the first along the wrap-around
    pair. At image resolution occlusions are widened by 13 x 13 pixels first.

    x: (N, C, h, w), or any whole number of halves; not modified
    background: (N, 1, any height, any width), 1 = background, 0 = subject
    returns: (N, C, h, w)

    Raises:
        InvalidInput: shapes that do not belong together.
    """
    frames = correspondence.frames
    halves = count_halves(x, correspondence)
    if background.shape[:2] != (frames, 1) or background.ndim != 4 or not background.numel():
        raise InvalidInput(
            f"the background matte has shape {tuple(background.shape)}; "
            f"expected ({frames}, 1, height, width), one per frame."
        )
    matte = F.interpolate(background.to(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
    fused = x.clone()
    steps = _fuse_steps(correspondence, x.shape[-2:])
    for half in fused.split(len(fused) // halves):
        for source, target, flow, seen in steps:
            carried = warp(torch.cat((half[source], matte[source]))[None], flow[None])[0]
            mask = seen * matte[target] * carried[-1:]
            half[target] = half[target] * (1 - mask) + carried[:-1] * mask
    return fused


def _fuse_steps(
    correspondence: Correspondence, size: torch.Size
) -> list[tuple[int, int, Tensor, Tensor]]:
    """The fuses in order: source frame, target frame, flow (2, h, w), where it is seen (h, w).

    The first N - 1 go along the backward flow; the last, from frame 0 to frame N - 1, along the
    wrap-around pair's forward flow.
    """
    frames = correspondence.frames
    reduced = correspondence.reduced_to(*size)
    occluded = torch.cat((reduced.occ_backward[:-1], reduced.occ_forward[-1:]))
    if size == correspondence.size:
        occluded = F.max_pool2d(occluded, _PIXEL_DILATION, stride=1, padding=_PIXEL_DILATION // 2)
    flows = torch.cat((reduced.backward[:-1], reduced.forward[-1:]))
    sources, targets = [*range(frames - 1), 0], [*range(1, frames), frames - 1]
    return list(zip(sources, targets, flows, 1 - occluded, strict=True))


def _minimise(
    x: Tensor,
    correspondence: Correspondence,
    reference: Tensor | None,
    *,
    temporal: bool,
    spatial_weight: float,
    iterations: int,
    lr: float,
    gram_block: int = GRAM_BLOCK,
    on_iteration: Callable[[], None] = never_stop,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield for each half its place in the batch, its moved tokens and its losses.

    The weights divide by the entries of the whole batch, as if all halves were one.
    """
    frames, halves = correspondence.frames, count_halves(x, correspondence)
    pairs = Pairs(correspondence, x.shape[-2:]) if temporal else None
    temporal_weight = 2 / x.numel()
    gram_weight = spatial_weight / (len(x) * x[0, 0].numel() ** 2)
    target = None if reference is None else check_goal(x, reference)

    for half in (slice(start * frames, (start + 1) * frames) for start in range(halves)):

        def put_gradients(tokens: Tensor, gradient: Tensor, half: slice = half) -> Tensor:
            loss = tokens.new_zeros(())
            if pairs is None:
                gradient.zero_()
            else:
                loss += pairs.put_gradient(tokens, gradient, temporal_weight)
            if target is not None and spatial_weight:
                loss += add_gram_gradient(tokens, target[half], gradient, gram_weight, gram_block)
            return loss

        tokens = to_tokens(x[half])
        yield half, tokens, _adam(tokens, put_gradients, iterations, lr, on_iteration)


def _adam(
    tokens: Tensor,
    put_gradients: Callable[[Tensor, Tensor], Tensor],
    iterations: int,
    lr: float,
    on_iteration: Callable[[], None],
) -> Tensor:
    """Move `tokens` in place by Adam; return the loss before each update."""
    gradient = tokens.grad = torch.zeros_like(tokens)
    adam = torch.optim.Adam([tokens], lr=lr, fused=True)
    losses: list[Tensor] = []
    for _ in range(iterations):
        on_iteration()
        with torch.autocast(tokens.device.type, enabled=False):
            losses.append(put_gradients(tokens, gradient))
        adam.step()
    tokens.grad = None
    return torch.stack(losses)


def _adain(tokens: Tensor, style: Tensor, epsilon: float) -> Tensor:
    """Give `tokens` (N, T, C), in place, the mean and deviation of `style` (N, C, h, w)."""
    correction = min(1, tokens.shape[1] - 1)  # one token alone has no spread to correct
    variance, mean = torch.var_mean(tokens, dim=1, correction=correction, keepdim=True)
    goal_variance, goal_mean = torch.var_mean(
        style.float().flatten(2), dim=2, correction=correction
    )
    scale = (goal_variance + epsilon).sqrt()[:, None] / (variance + _ADAIN_EPSILON).sqrt()
    return tokens.sub_(mean).mul_(scale).add_(goal_mean[:, None])
