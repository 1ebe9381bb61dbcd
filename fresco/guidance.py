"""The feature optimisation inside a model: hooks on the U-Net's decoder blocks (paper, 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fresco.blocks import block_input, up_blocks
from fresco.callbacks import never_stop
from fresco.correspondence import Correspondence
from fresco.errors import InvalidInput
from fresco.features import optimise
from fresco.losses import GRAM_BLOCK


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
    reference: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    outsiders: int = 0
    half: int | None = None
    enabled: bool = True
    temporal: bool = True
    spatial_weight: float = 100.0
    iterations: int = 20
    lr: float = 0.2
    adain_epsilon: float = 1.0
    gram_block: int = GRAM_BLOCK
    on_iteration: Callable[[], None] = never_stop

    def optimise(self, x: Tensor, block: int) -> Tensor:
        """Optimise the input of up block `block`, (2N, C, h, w), or half of it."""
        if not self.outsiders:
            return self._optimise(x, block)
        frames = self.correspondence.frames
        halves = x.unflatten(0, (-1, frames + self.outsiders))
        inside = self._optimise(halves[:, :frames].flatten(0, 1), block).unflatten(0, (-1, frames))
        return torch.cat((inside, halves[:, frames:]), dim=1).flatten(0, 1)

    def _optimise(self, x: Tensor, block: int) -> Tensor:
        self._check_scale(x)
        reference = self.reference.get(block)
        if reference is not None and self.half is not None:
            reference = reference.unflatten(0, (-1, self.correspondence.frames))[self.half]
        if self.correspondence.forward.device != x.device:
            self.correspondence = self.correspondence.to(x.device)
        return optimise(
            x,
            self.correspondence,
            None if reference is None else reference.to(x.device),
            temporal=self.temporal,
            spatial_weight=self.spatial_weight,
            iterations=self.iterations,
            lr=self.lr,
            adain_epsilon=self.adain_epsilon,
            gram_block=self.gram_block,
            on_iteration=self.on_iteration,
        )

    def _check_scale(self, x: Tensor) -> None:
        """A U-Net halves its features; any other ratio means that it had to pad or to drop some."""
        scale = self.correspondence.size[0] // max(1, x.shape[-2])
        if scale & (scale - 1):
            height, width = self.correspondence.size
            raise InvalidInput(
                f"frames of {width} x {height} do not fit this model's features of "
                f"{x.shape[-1]} x {x.shape[-2]}; use frames whose sides are multiples of 64."
            )


@contextmanager
def guided_features(
    unet: nn.Module, guidance: FeatureGuidance, blocks: Sequence[int] | None = None
) -> Generator[FeatureGuidance]:
    """Optimise the inputs of `unet`'s decoder `blocks` (default: all) in the ``with`` block.

    On leaving, however that happens, the hooks are gone.

    Raises:
        UnsupportedModel: the model lacks these blocks.
    """
    with ExitStack() as hooks:
        for index, block in up_blocks(unet, blocks).items():
            hook = block.register_forward_pre_hook(_input_hook(guidance, index), with_kwargs=True)
            hooks.callback(hook.remove)
        yield guidance


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
