"""FRESCO-guided feature optimisation (paper, section 3.3) and the background fuse.

The inputs of the U-Net's decoder blocks are moved so that neighbouring frames agree along the flow
(temporal loss) and every frame keeps the input frame's self-similarity (spatial loss, on cosine
Gram matrices). Each loss comes with its own gradient, computed in the same pass:

* the Gram matrices are visited in row blocks of their upper triangle and never stored; a block's
  sign is all that the gradient needs, and symmetry gives the lower triangle;
* the warps are sparse maps with a deterministic transpose (`fresco.warping`);
* the halves of classifier-free guidance do not interact, so they are optimised one after the other.

Inside, features are "tokens": (N, h * w, C), one row per pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fresco.blocks import block_input, up_blocks
from fresco.correspondence import Correspondence, warp
from fresco.errors import InvalidInput
from fresco.warping import Warp

#: Entries of a Gram block held at once (4 MB in float32: it stays in a processor's cache).
GRAM_BLOCK = 2**20
#: Normalisation epsilon of the features that AdaIN starts from.
_ADAIN_EPSILON = 1e-5
#: Side of the square by which occlusions are widened when pixels, not features, are fused.
_PIXEL_DILATION = 13


def _nothing() -> None:
    pass


@dataclass(slots=True)
class FeatureGuidance:
    """What guides the features of one batch; `enabled` may change between steps.

    correspondence: of the batch, at image resolution
    reference: up block index → (2N, C, h, w), the block's input for the input frames
        (`fresco.reference.record`); a block without reference gets the temporal loss only
    outsiders, half: as `fresco.attention.AttentionGuidance`; outsiders are left as they are
    temporal, spatial_weight, iterations, lr, adain_epsilon, gram_block: see `optimise`
    on_iteration: called before every iteration; may raise to stop
    """

    correspondence: Correspondence
    reference: Mapping[int, Tensor] = field(default_factory=dict[int, Tensor])
    outsiders: int = 0
    half: int | None = None
    enabled: bool = True
    temporal: bool = True
    spatial_weight: float = 100.0
    iterations: int = 20
    lr: float = 0.2
    adain_epsilon: float = 1.0
    gram_block: int = GRAM_BLOCK
    on_iteration: Callable[[], None] = _nothing

    def optimise(self, x: Tensor, block: int) -> Tensor:
        """Optimise the input of up block `block`, (2N, C, h, w), or half of it."""
        if not self.outsiders:
            return self._optimise(x, block)
        frames = self.correspondence.frames
        halves = x.unflatten(0, (-1, frames + self.outsiders))
        inside = self._optimise(halves[:, :frames].flatten(0, 1), block).unflatten(0, (-1, frames))
        return torch.cat((inside, halves[:, frames:]), dim=1).flatten(0, 1)

    def _optimise(self, x: Tensor, block: int) -> Tensor:
        reference = self.reference.get(block)
        if reference is not None and self.half is not None:
            reference = reference.unflatten(0, (-1, self.correspondence.frames))[self.half]
        return optimise(
            x,
            self.correspondence,
            reference,
            temporal=self.temporal,
            spatial_weight=self.spatial_weight,
            iterations=self.iterations,
            lr=self.lr,
            adain_epsilon=self.adain_epsilon,
            gram_block=self.gram_block,
            on_iteration=self.on_iteration,
        )


@contextmanager
def guided_features(unet: nn.Module, guidance: FeatureGuidance) -> Generator[FeatureGuidance]:
    """Optimise the inputs of `unet`'s decoder blocks inside the ``with`` block, by hooks.

    On leaving, however that happens, the hooks are gone.

    Raises:
        UnsupportedModel: the model lacks these blocks.
    """
    with ExitStack() as hooks:
        for index, block in up_blocks(unet).items():
            hook = block.register_forward_pre_hook(_input_hook(guidance, index), with_kwargs=True)
            hooks.callback(hook.remove)
        yield guidance


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
    on_iteration: Callable[[], None] = _nothing,
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
        optimised[half] = _image(_adain(tokens, x[half], adain_epsilon), x.shape)
    return optimised


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
    """
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
        moved[half] = _image(tokens, x.shape)
        losses += half_losses
    return moved, losses


def temporal_loss(x: Tensor, correspondence: Correspondence) -> Tensor:
    """How far neighbouring frames are from agreeing along the flow (paper, 3.3); differentiable.

    ``2 mean(|x_{i+1} - warp(x_i, backward)| (1 - occ_backward) + the same forward)`` over the
    cyclic pairs; the mean divides by all entries, occluded ones too.

    x: (2N, C, h, w) float32, or any whole number of halves

    Raises:
        InvalidInput: shapes that do not belong together.
    """
    halves = _halves(x, correspondence)
    pairs = _Pairs(correspondence, x.shape[-2:])
    weight = 2 / x.numel()

    def evaluate(tokens: Tensor, gradient: Tensor) -> Tensor:
        parts = zip(tokens.chunk(halves), gradient.chunk(halves), strict=True)
        return torch.stack([pairs.add_gradient(*part, weight) for part in parts]).sum()

    return _with_gradient(x, evaluate)


def gram_loss(x: Tensor, reference: Tensor, gram_block: int = GRAM_BLOCK) -> Tensor:
    """Mean absolute difference of the cosine Gram matrices of `x` and `reference`; differentiable.

    Equal to the loss on whole Gram matrices up to rounding (paper, section 3.3, without its
    weight), in memory that does not grow with the square of the tokens.

    x: (B, C, h, w) float32; reference: (B, C', h, w)

    Raises:
        InvalidInput: shapes that do not belong together.
    """
    target = _goal(x, reference)
    weight = 1 / (len(x) * target.shape[2] ** 2)

    def evaluate(tokens: Tensor, gradient: Tensor) -> Tensor:
        return _add_gram_gradient(tokens, target, gradient, weight, gram_block)

    return _with_gradient(x, evaluate)


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
    halves = _halves(x, correspondence)
    if background.ndim != 4 or background.shape[:2] != (frames, 1):
        raise InvalidInput(
            f"the background matte has shape {tuple(background.shape)}; "
            f"expected ({frames}, 1, height, width), one per frame."
        )
    pairs, visible = _fuse_pairs(correspondence, x.shape[-2:])
    matte = F.interpolate(background.to(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
    fused = x.clone()
    for half in fused.split(len(fused) // halves):
        for source, target, flow, seen in zip(*pairs, visible, strict=True):
            carried = warp(torch.cat((half[source], matte[source]))[None], flow[None])[0]
            mask = seen * matte[target] * carried[-1:]
            half[target] = half[target] * (1 - mask) + carried[:-1] * mask
    return fused


def _fuse_pairs(
    correspondence: Correspondence, size: torch.Size
) -> tuple[tuple[list[int], list[int], Tensor], Tensor]:
    """The fuses in order (sources, targets, flows (N, 2, h, w)) and where each is seen (N, h, w).

    The first N - 1 go along the backward flow; the last, from frame 0 to frame N - 1, along the
    wrap-around pair's forward flow.
    """
    frames = correspondence.frames
    reduced = correspondence.reduced_to(*size)
    occluded = torch.cat((reduced.occ_backward[:-1], reduced.occ_forward[-1:]))
    if size == correspondence.size:
        occluded = F.max_pool2d(occluded, _PIXEL_DILATION, stride=1, padding=_PIXEL_DILATION // 2)
    flows = torch.cat((reduced.backward[:-1], reduced.forward[-1:]))
    sources = [*range(frames - 1), 0]
    targets = [*range(1, frames), frames - 1]
    return (sources, targets, flows), 1 - occluded


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
    on_iteration: Callable[[], None] = _nothing,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield for each half its place in the batch, its moved tokens and its losses.

    The weights divide by the entries of the whole batch, as if all halves were one.
    """
    frames, halves = correspondence.frames, _halves(x, correspondence)
    pairs = _Pairs(correspondence, x.shape[-2:]) if temporal else None
    temporal_weight = 2 / x.numel()
    gram_weight = spatial_weight / (len(x) * x[0, 0].numel() ** 2)
    target = None if reference is None else _goal(x, reference)

    for half in (slice(start * frames, (start + 1) * frames) for start in range(halves)):

        def add_gradients(tokens: Tensor, gradient: Tensor, half: slice = half) -> Tensor:
            loss = tokens.new_zeros(())
            if pairs is not None:
                loss += pairs.add_gradient(tokens, gradient, temporal_weight)
            if target is not None and spatial_weight:
                loss += _add_gram_gradient(tokens, target[half], gradient, gram_weight, gram_block)
            return loss

        tokens = _tokens(x[half])
        yield half, tokens, _adam(tokens, add_gradients, iterations, lr, on_iteration)


def _adam(
    tokens: Tensor,
    add_gradients: Callable[[Tensor, Tensor], Tensor],
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
        gradient.zero_()
        losses.append(add_gradients(tokens, gradient))
        adam.step()
    tokens.grad = None
    return torch.stack(losses)


class _Pairs:
    """The cyclic pairs of a batch at the size of a feature map."""

    def __init__(self, correspondence: Correspondence, size: torch.Size) -> None:
        reduced = correspondence.reduced_to(*size)
        self._backward = [Warp(flow) for flow in reduced.backward]
        self._forward = [Warp(flow) for flow in reduced.forward]
        self._seen_backward = 1 - reduced.occ_backward.flatten(1)[:, :, None]
        self._seen_forward = 1 - reduced.occ_forward.flatten(1)[:, :, None]

    def add_gradient(self, tokens: Tensor, gradient: Tensor, weight: float) -> Tensor:
        """Add the gradient of ``weight * sum`` of the temporal residuals; return that sum.

        tokens, gradient: (N, h * w, C), of one half
        """
        losses: list[Tensor] = []
        for pair, (backward, forward) in enumerate(zip(self._backward, self._forward, strict=True)):
            here, following = pair, (pair + 1) % len(self._backward)
            for target, source, warp_, seen in (
                (following, here, backward, self._seen_backward[pair]),
                (here, following, forward, self._seen_forward[pair]),
            ):
                residual = (tokens[target] - warp_.gather(tokens[source])).mul_(seen)
                losses.append(_total(residual))
                slope = residual.sign_().mul_(weight)
                gradient[target] += slope
                gradient[source] -= warp_.scatter(slope)
        return torch.stack(losses).sum() * weight


def _add_gram_gradient(
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
    """`_add_gram_gradient` for a few samples, `rows` rows of the upper triangle at a time."""
    length = _length(tokens, dim=2)
    unit = tokens / length
    goal = target.float() / _length(target.float(), dim=1)
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
    """The norm along `dim`; never 0, so that an empty token stays empty instead of NaN."""
    return x.norm(dim=dim, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


class _FusedLoss(torch.autograd.Function):
    """A loss whose gradient was computed along with it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * gradients[0], None, None


def _with_gradient(x: Tensor, evaluate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    with torch.no_grad():
        tokens = _tokens(x)
        gradient = torch.zeros_like(tokens)
        loss = evaluate(tokens, gradient)
        gradient = _image(gradient, x.shape).to(x.dtype)
    return _FusedLoss.apply(x, loss, gradient)  # pyright: ignore[reportReturnType]


def _input_hook(guidance: FeatureGuidance, index: int) -> Callable[..., Any]:
    def replace_input(
        _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not guidance.enabled:
            return None
        features = guidance.optimise(block_input(args, kwargs), index)
        if "hidden_states" in kwargs:
            return args, {**kwargs, "hidden_states": features}
        return (features, *args[1:]), kwargs

    return replace_input


def _adain(tokens: Tensor, style: Tensor, epsilon: float) -> Tensor:
    """Give `tokens` (N, T, C), in place, the mean and deviation of `style` (N, C, h, w)."""
    correction = min(1, tokens.shape[1] - 1)  # one token alone has no spread to correct
    variance, mean = torch.var_mean(tokens, dim=1, correction=correction, keepdim=True)
    goal_variance, goal_mean = torch.var_mean(
        style.float().flatten(2), dim=2, correction=correction
    )
    scale = (goal_variance + epsilon).sqrt()[:, None] / (variance + _ADAIN_EPSILON).sqrt()
    return tokens.sub_(mean).mul_(scale).add_(goal_mean[:, None])


def _tokens(x: Tensor) -> Tensor:
    """(N, C, h, w) → a float32 copy (N, h * w, C)."""
    return (
        x.detach().flatten(2).transpose(1, 2).float().clone(memory_format=torch.contiguous_format)
    )


def _image(tokens: Tensor, shape: torch.Size) -> Tensor:
    """(N, h * w, C) → (N, C, h, w), a view."""
    return tokens.transpose(1, 2).unflatten(2, shape[-2:])


def _halves(x: Tensor, correspondence: Correspondence) -> int:
    """How often the batch holds the correspondence's frames."""
    if x.ndim != 4 or x.numel() == 0 or len(x) % correspondence.frames:
        raise InvalidInput(
            f"features of shape {tuple(x.shape)} do not hold {correspondence.frames} frames; "
            "expected (halves * frames, C, h, w)."
        )
    return len(x) // correspondence.frames


def _goal(x: Tensor, reference: Tensor) -> Tensor:
    """The reference as (B, C', tokens), once it is known to belong to `x`."""
    if reference.ndim != 4 or len(reference) != len(x) or reference.shape[-2:] != x.shape[-2:]:
        raise InvalidInput(
            f"reference features of {tuple(reference.shape)} do not belong to features of "
            f"{tuple(x.shape)}; record them at the size and guidance of this run."
        )
    return reference.flatten(2)
