# SPDX-License-Identifier: Apache-2.0
"""Gives trained networks the present layout: more layers at the top, fewer channels at the bottom.

Begun with one layer per block, the draft model did all its work at the highest resolution. Added
layers of a width that stayed begin as the identity; layers of another width begin anew.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from training import models

_PLACE = re.compile(r"(up_blocks\.\d+\.(?:resnets|attentions)\.)(\d+)(.*)")


def grown(small: models.Draft) -> models.Draft:
    """Networks of the present layout that do about what `small` does (one layer per block)."""
    unet, controlnet = models.networks()
    _take(unet, _moved(small.unet.state_dict()))
    _take(controlnet, small.controlnet.state_dict())
    for network in (unet, controlnet):
        for block in network.down_blocks:
            _idle(block, 1)
    for block in unet.up_blocks:
        _idle(block, 1)
    _spread(small.controlnet.controlnet_down_blocks, controlnet.controlnet_down_blocks)
    return models.Draft(unet, controlnet, small.text_encoder, small.tokenizer)


def _moved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The last layer of an up block stays the last: it reads the block's shallowest skip."""
    moved = {}
    for name, value in weights.items():
        place = _PLACE.fullmatch(name)
        if place and place[2] == "1":
            name = f"{place[1]}2{place[3]}"
        moved[name] = value
    return moved


def _take(network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copies what has its place and its shape; the control's outputs are numbered otherwise."""
    own = network.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if "controlnet_down_blocks" not in name and name in own and own[name].shape == value.shape
    }
    network.load_state_dict(fitting, strict=False)


@torch.no_grad()
def _idle(block: nn.Module, number: int) -> None:
    """Makes one layer of a block the identity on what flows through the block."""
    resnet = block.resnets[number]
    resnet.conv2.weight.zero_()
    resnet.conv2.bias.zero_()
    if resnet.conv_shortcut is not None:
        resnet.conv_shortcut.weight.zero_()
        resnet.conv_shortcut.bias.zero_()
        width = resnet.conv_shortcut.weight.shape[0]
        resnet.conv_shortcut.weight[:, :width, 0, 0] = torch.eye(width)
    if getattr(block, "attentions", None):
        block.attentions[number].proj_out.weight.zero_()
        block.attentions[number].proj_out.bias.zero_()


def _spread(old: nn.ModuleList, new: nn.ModuleList) -> None:
    """The control's outputs: conv_in, then per level a layer (now two) and the way down."""
    sources = [0]
    for level in range(4):
        first = 1 + 2 * level
        sources += [first, first] + ([first + 1] if level < 3 else [])
    for layer, source in zip(new, sources, strict=True):
        if layer.weight.shape == old[source].weight.shape:
            layer.load_state_dict(old[source].state_dict())
