"""The kinds of Stable Diffusion models that FRESCO can guide, and how a file is told to be one.

A family's settings and the tokenizer's words are in the package (``fresco/data``), so a single
weight file is enough to load a model without the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.errors import UnsupportedModel
from fresco.weights import what_is

_DATA = Path(__file__).parent / "data"
#: The words of CLIP's tokenizer, which all families share.
WORDS = _DATA / "clip"

_UNET = "model.diffusion_model."
_CONTEXT = ("input_blocks.1.1.", "input_blocks.4.1.")
_TO_KEY = "transformer_blocks.0.attn2.to_k.weight"
_TRANSFORMER = re.compile(
    r"(model\.diffusion_model\.)?(double_blocks|joint_blocks|(transformer_)?blocks\.0\.attn)"
)
#: Tensors by which a checkpoint says that its noise is not Stable Diffusion's.
_EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
#: What a ControlNet for several kinds of maps has beside a plain one, and a LoRA in its place.
_NOT_PLAIN = ("task_embedding", "control_add_embedding", "lora_controlnet")


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of Stable Diffusion.

    name: "sd15", "sd2", "sdxl"
    title: as users say it
    context: width of the text embeddings that its U-Net takes
    padding: what its tokenizers pad prompts with, one per text encoder
    """

    name: str
    title: str
    context: int
    padding: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Its settings in diffusers' layout, without weights."""
        return _DATA / "families" / self.name

    @property
    def is_xl(self) -> bool:
        """Whether it has two text encoders."""
        return len(self.padding) == 2


_END = "<|endoftext|>"
SD15 = Family("sd15", "Stable Diffusion 1.5", 768, (_END,))
SD2 = Family("sd2", "Stable Diffusion 2", 1024, ("!",))
SDXL = Family("sdxl", "Stable Diffusion XL", 2048, (_END, "!"))
FAMILIES = (SD15, SD2, SDXL)


def of_checkpoint(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """Tell the family of a single-file checkpoint by its tensors' names and shapes.

    name: of the file, for messages

    Raises:
        UnsupportedModel: it is none of them, and what it is instead.
    """
    first = shapes.get(f"{_UNET}input_blocks.0.0.weight")
    if first is None:
        raise UnsupportedModel(_not_a_base(name, shapes))
    if first[1] != 4:
        raise UnsupportedModel(
            f"{name} takes {first[1]} channels (it is made for inpainting or for instructions, not "
            "for text alone); use the plain model that it was made from."
        )
    if any(mark in shapes for mark in _EDM):
        raise UnsupportedModel(
            f"{name} was trained on EDM's noise (as Playground 2.5 and CosXL), on which FRESCO's "
            "schedule is not defined; use a model on Stable Diffusion's noise."
        )
    keys = [shapes.get(f"{_UNET}{place}{_TO_KEY}") for place in _CONTEXT]
    context = next((key[1] for key in keys if key is not None), 0)
    for family in FAMILIES:
        if family.context == context:
            return family
    raise UnsupportedModel(
        f"{name} takes text embeddings {context} wide; {_SUPPORTED} "
        "(an SDXL refiner, for example, cannot be guided: use the base)."
    )


def of_controlnet(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """Tell the family that a ControlNet's file belongs to, by its tensors' names and shapes.

    Raises:
        UnsupportedModel: it is no ControlNet of these families.
    """
    keys = [shape for key, shape in shapes.items() if key.endswith(_TO_KEY)]
    if any(
        key.startswith(_NOT_PLAIN) or f".{mark}" in key for key in shapes for mark in _NOT_PLAIN
    ):
        raise UnsupportedModel(
            f"{name} is a ControlNet for several kinds of maps, or a LoRA of one; use a plain "
            "ControlNet for one kind."
        )
    if what_is(shapes) == "ControlNet" and keys:
        for family in FAMILIES:
            if family.context == keys[0][1]:
                return family
    kind = what_is(shapes)
    raise UnsupportedModel(f"{name} ({kind}) is no ControlNet of {_NAMES}.")


def of_folder(name: str, index: Mapping[str, Any], unet: Mapping[str, Any]) -> Family:
    """Tell the family of a folder in diffusers' layout by its model_index and its U-Net's config.

    A U-Net of other widths, as the draft model's, counts as Stable Diffusion 1.5.

    Raises:
        UnsupportedModel: it is none of them.
    """
    pipeline = str(index.get("_class_name", "model without a name"))
    if _class(index, "unet") != "UNet2DConditionModel":
        raise UnsupportedModel(f"{name} is a {pipeline}, and {_NO_DECODER}; {_SUPPORTED}.")
    if _class(index, "text_encoder_2"):
        if not _class(index, "text_encoder"):
            raise UnsupportedModel(f"{name} is an SDXL refiner; use the base model.")
        return SDXL
    return SD2 if unet.get("cross_attention_dim") == SD2.context else SD15


def _class(index: Mapping[str, Any], part: str) -> str:
    """The class that a model_index names for a part; empty if there is none."""
    entry = index.get(part)
    return str(entry[1] or "") if isinstance(entry, list) and len(entry) == 2 else ""


def _not_a_base(name: str, shapes: Mapping[str, Any]) -> str:
    if any(map(_TRANSFORMER.match, shapes)):
        return f"{name} is a transformer (as FLUX or SD 3), and {_NO_DECODER}; {_SUPPORTED}."
    kind = what_is(shapes)
    if kind == "unknown":
        return f"{name} holds no model that is known here; {_SUPPORTED}."
    return f"{name} is a {kind}, not a base model; add it as such to a base model."


_NO_DECODER = "FRESCO guides the decoder of a U-Net, which it does not have"
_NAMES = ", ".join(family.title for family in FAMILIES)
_SUPPORTED = f"use {_NAMES} or a fine-tune of them"
