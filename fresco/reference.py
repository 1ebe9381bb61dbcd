"""Features of the input frames, which the run is guided by (paper, section 3.2).

One pass of the U-Net over the nearly clean input frames, without ControlNet and without guidance,
keeps what the self-attentions and the decoder blocks were given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fresco.blocks import (
    block_input,
    self_attentions,
    up_blocks,
)
from fresco.errors import InvalidInput


@dataclass(slots=True)
class Reference:
    """The features of one batch's input frames.

    attention: layer name → (2N, tokens, D), the input of each guided self-attention
    features: up block index → (2N, C, h, w), the input of each decoder block
    """

    attention: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    features: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    @classmethod
    def joined(cls, parts: Sequence[Reference]) -> Reference:
        """Join the references of guidance halves that were recorded one by one."""
        first = parts[0]
        if len(parts) == 1:
            return first
        return cls(
            {name: torch.cat([part.attention[name] for part in parts]) for name in first.attention},
            {
                index: torch.cat([part.features[index] for part in parts])
                for index in first.features
            },
        )


@torch.no_grad()
def record(
    unet: nn.Module,
    latents: Tensor,
    timestep: Tensor | int,
    prompt_embeds: Tensor,
    attention_blocks: Sequence[int] | None = None,
    feature_blocks: Sequence[int] | None = None,
    **conditions: Any,
) -> Reference:
    """Run `unet` once over the input frames and keep the features that guide the run.

    latents: (N, c, h, w), the encoded frames noised to `timestep`
    timestep: the last of the schedule (nearly clean)
    prompt_embeds: (2N, length, D), unconditional half first; or (N, ...) without guidance
    attention_blocks, feature_blocks: the up blocks that are guided; by default
        `fresco.blocks.guided_blocks` and all
    conditions: passed to the U-Net as they are (SDXL's ``added_cond_kwargs``, for example)

    Raises:
        InvalidInput: embeddings that do not belong to the frames.
        UnsupportedModel: the model lacks the layers.
    """
    halves, rest = divmod(len(prompt_embeds), max(1, len(latents)))
    if len(latents) == 0 or halves == 0 or rest:
        raise InvalidInput(
            f"{len(prompt_embeds)} prompt embeddings do not belong to {len(latents)} frames; "
            "give one per frame and guidance half."
        )
    reference = Reference()
    with ExitStack() as hooks:
        for name, layer in self_attentions(unet, attention_blocks).items():
            hook = layer.register_forward_pre_hook(
                _keep_attention(reference, name), with_kwargs=True
            )
            hooks.callback(hook.remove)
        for index, block in up_blocks(unet, feature_blocks).items():
            hook = block.register_forward_pre_hook(_keep_block(reference, index), with_kwargs=True)
            hooks.callback(hook.remove)
        unet(
            torch.cat([latents] * halves),
            timestep,
            encoder_hidden_states=prompt_embeds,
            **conditions,
        )
    return reference


def _keep_attention(reference: Reference, name: str) -> Callable[..., None]:
    def keep(_layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        reference.attention[name] = block_input(args, kwargs)

    return keep


def _keep_block(reference: Reference, index: int) -> Callable[..., None]:
    def keep(_block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        # A copy: FreeU, where it is on, changes this very tensor inside the block.
        reference.features[index] = block_input(args, kwargs).clone()

    return keep
