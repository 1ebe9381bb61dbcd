"""LoRA files of all formats as one: ``W + B A``, under names that diffusers' loaders know.

The files scale each layer by alpha / rank, and say alpha in different places; diffusers mixes them
up where layers differ. Folded into B beforehand, no factor is left to be lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fresco import weights
from fresco.errors import InvalidInput, UnsupportedModel

#: What a file name's tensors may end on, down and up.
_PAIRS = (
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
)
#: Parts of names → what they mean, where it is more than a LoRA.
_MORE = {
    "hada_w": "a LyCORIS network (LoHa)",
    "lokr_w": "a LyCORIS network (LoKr)",
    "oft_blocks": "an OFT network",
    "glora": "a GLoRA network",
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "lora_mid": "a LoCon with Tucker decomposition",
    ".diff": "a LoRA with whole weights beside it",
    "w_norm": "a LoRA with whole weights beside it",
}
#: The oldest files name the U-Net's blocks without saying that they are the U-Net's.
_BARE = re.compile(r"(down_blocks|mid_block|up_blocks)\.")
_PEFT = "base_model.model."
_METADATA = "lora_adapter_metadata"


def read(file: Path) -> dict[str, Tensor]:
    """Read a LoRA with all its factors in it: what is left to choose is its weight.

    Raises:
        InvalidInput: it is damaged, or no LoRA.
        UnsupportedModel: it holds more than diffusers can put on a model.
    """
    found = weights.tensors(file)
    for mark, what in _MORE.items():
        if any(mark in name for name in found):
            raise UnsupportedModel(
                f"{file.name} is {what}, which cannot be put on a model here; use a plain LoRA, or "
                "a checkpoint that it was merged into."
            )
    kind = weights.what_is(found)
    if kind != "LoRA":
        raise InvalidInput(f"{file.name} ({kind}) is no LoRA; add it as what it is.")
    named = {_known(name): tensor for name, tensor in found.items()}
    return _with_told(_with_alphas(file, named), _told(file))


def layers(found: Mapping[str, Any]) -> int:
    """How many layers a LoRA's tensors change."""
    return sum(name.endswith(down) for name in found for down, _ in _PAIRS)


def _known(name: str) -> str:
    if name.startswith(_PEFT):
        return "unet." + name.removeprefix(_PEFT)
    return f"unet.{name}" if _BARE.match(name) else name


def _with_alphas(file: Path, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold kohya's ``.alpha`` tensors."""
    alphas = {name: found.pop(name) for name in list(found) if name.endswith(".alpha")}
    for name, alpha in alphas.items():
        pair = _pair(found, name.removesuffix(".alpha"))
        if pair is None:
            raise InvalidInput(f"{file.name} has {name} but not the weights that it scales.")
        down, up = pair
        found[up] = found[up] * (float(alpha) / found[down].shape[0])
    return found


def _with_told(found: dict[str, Tensor], told: Mapping[str, Any]) -> dict[str, Tensor]:
    """Fold the alphas that diffusers writes into a file's metadata."""
    for name in list(found):
        ending = next((down for down, _ in _PAIRS if name.endswith(down)), None)
        part, _, layer = name.partition(".")
        alpha = told.get(f"{part}.lora_alpha")
        if ending is None or alpha is None:
            continue
        layer = layer.removesuffix(ending)
        alpha = _of_layer(told.get(f"{part}.alpha_pattern") or {}, layer, alpha)
        rank = found[name].shape[0]
        divisor = rank**0.5 if told.get(f"{part}.use_rslora") else rank
        up = name.removesuffix(ending) + dict(_PAIRS)[ending]
        found[up] = found[up] * (alpha / divisor)
    return found


def _of_layer(pattern: Mapping[str, float], layer: str, default: float) -> float:
    """Patterns of peft name layers by their last parts, or by regular expressions."""
    for key, value in pattern.items():
        if layer == key or layer.endswith(f".{key}") or re.fullmatch(rf"(.*\.)?({key})", layer):
            return value
    return default


def _told(file: Path) -> Mapping[str, Any]:
    try:
        return json.loads(weights.notes(file).get(_METADATA, "{}"))
    except ValueError as error:
        raise weights.damaged(file, error) from error


def _pair(found: Mapping[str, Tensor], stem: str) -> tuple[str, str] | None:
    for down, up in _PAIRS:
        if stem + down in found and stem + up in found:
            return stem + down, stem + up
    return None
