"""The parts of a U-Net that FRESCO guides, found by their standard names in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from fresco.errors import UnsupportedModel

#: Of the decoder blocks, those that work at the latents' size and at half of it are guided: with
#: Stable Diffusion 1.5, blocks 2 and 3, counted from 0 (paper, section 3.2).
_GUIDED_FROM_THE_END = 2


def guided_blocks(unet: nn.Module) -> tuple[int, ...]:
    """The decoder blocks whose self-attention is guided: 2 and 3 with SD 1.5, 1 with SDXL.

    Raises:
        UnsupportedModel: there is no self-attention of these sizes.
    """
    blocks = up_blocks(unet)
    last = list(blocks)[-_GUIDED_FROM_THE_END:]
    attending = tuple(index for index in last if _attentions(blocks[index]))
    if not attending:
        raise UnsupportedModel(
            f"the last {len(last)} up blocks of {type(unet).__name__} have no self-attention to "
            "guide; use a U-Net with the layout of Stable Diffusion 1.5, 2 or SDXL."
        )
    return attending


def up_blocks(unet: nn.Module, indices: Sequence[int] | None = None) -> dict[int, nn.Module]:
    """Return the decoder blocks `indices` of `unet`; all by default.

    Raises:
        UnsupportedModel: the model has no such blocks.
    """
    blocks = getattr(unet, "up_blocks", None)
    count = len(blocks) if isinstance(blocks, nn.ModuleList) else 0
    indices = range(count) if indices is None else indices
    missing = [index for index in indices if not 0 <= index < count]
    if not isinstance(blocks, nn.ModuleList) or missing or not count:
        raise UnsupportedModel(
            f"{type(unet).__name__} has {count} up blocks, but FRESCO is asked to guide "
            f"{list(indices)}; use a U-Net with the layout of Stable Diffusion 1.5, "
            "or name the blocks that this one has."
        )
    return {index: blocks[index] for index in indices}


def self_attentions(unet: nn.Module, indices: Sequence[int] | None = None) -> dict[str, Attention]:
    """Return the self-attention layers of the decoder blocks `indices`, by name, in running order.

    indices: `guided_blocks` by default

    Raises:
        UnsupportedModel: a block is missing, has no self-attention, or one of another kind than
            Stable Diffusion's.
    """
    layers: dict[str, Attention] = {}
    indices = guided_blocks(unet) if indices is None else indices
    for index, block in up_blocks(unet, indices).items():
        found = {f"up_blocks.{index}.{name}": module for name, module in _attentions(block).items()}
        if not found:
            raise UnsupportedModel(
                f"up block {index} of {type(unet).__name__} has no self-attention to guide; "
                "use a U-Net with the layout of Stable Diffusion 1.5, or name other blocks."
            )
        layers.update(found)
    for name, layer in layers.items():
        _check_plain(name, layer)
    return layers


def block_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the features handed to an up block or an attention, as a hook sees the arguments.

    Raises:
        UnsupportedModel: the block is called in an unknown way.
    """
    features = kwargs.get("hidden_states", args[0] if args else None)
    if not isinstance(features, Tensor):
        raise UnsupportedModel(
            "this U-Net calls its blocks without hidden_states; "
            "use a U-Net of diffusers' UNet2DConditionModel kind."
        )
    return features


def _attentions(block: nn.Module) -> dict[str, Attention]:
    """The self-attention layers of one block by their names in it."""
    return {
        name: module
        for name, module in block.named_modules()
        if name.endswith("attn1") and isinstance(module, Attention)
    }


def _check_plain(name: str, layer: Attention) -> None:
    extras = ("group_norm", "spatial_norm", "norm_q", "norm_k")
    present = [extra for extra in extras if getattr(layer, extra, None) is not None]
    if layer.to_k is None or layer.to_v is None:
        present.append("shared keys and values")
    if layer.residual_connection or layer.rescale_output_factor != 1:
        present.append("residual_connection")
    if present:
        raise UnsupportedModel(
            f"the self-attention {name} uses {', '.join(present)}, which Stable Diffusion's "
            "does not have and FRESCO-guided attention does not define."
        )
