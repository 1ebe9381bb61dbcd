"""The kinds of Stable Diffusion models that FRESCO can guide, and how a file is told to be one.

A family's settings and the tokenizer's words are in the package (``fresco/data``), so a single
weight file is enough to load a model without the network.
"""

from __future__ import annotations

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
_OTHER_WORLDS = ("double_blocks.", "joint_blocks.", "transformer_blocks.0.attn.", "blocks.0.attn")


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of Stable Diffusion.

    name: "sd15", "sd2", "sdxl"
    title: as users say it
    context: width of the text embeddings that its U-Net takes
    pipeline: diffusers' class for it
    padding: what its tokenizers pad prompts with, one per text encoder
    """

    name: str
    title: str
    context: int
    pipeline: str
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
SD15 = Family("sd15", "Stable Diffusion 1.5", 768, "StableDiffusionPipeline", (_END,))
SD2 = Family("sd2", "Stable Diffusion 2", 1024, "StableDiffusionPipeline", ("!",))
SDXL = Family("sdxl", "Stable Diffusion XL", 2048, "StableDiffusionXLPipeline", (_END, "!"))
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
    pipeline = str(index.get("_class_name", "unknown"))
    if not pipeline.startswith("StableDiffusion") or pipeline.startswith("StableDiffusion3"):
        raise UnsupportedModel(f"{name} is a {pipeline}, and {_NO_DECODER}; {_SUPPORTED}.")
    if pipeline.startswith("StableDiffusionXL"):
        if "text_encoder" not in index or index["text_encoder"][0] is None:
            raise UnsupportedModel(f"{name} is an SDXL refiner; use the base model.")
        return SDXL
    return SD2 if unet.get("cross_attention_dim") == SD2.context else SD15


def _not_a_base(name: str, shapes: Mapping[str, Any]) -> str:
    if any(mark in key for key in shapes for mark in _OTHER_WORLDS):
        return f"{name} is a transformer (as FLUX or SD 3), and {_NO_DECODER}; {_SUPPORTED}."
    kind = what_is(shapes)
    if kind == "unknown":
        return f"{name} holds no model that is known here; {_SUPPORTED}."
    return f"{name} is a {kind}, not a base model; add it as such to a base model."


_NO_DECODER = "FRESCO guides the decoder of a U-Net, which it does not have"
_NAMES = ", ".join(family.title for family in FAMILIES)
_SUPPORTED = f"use {_NAMES} or a fine-tune of them"
