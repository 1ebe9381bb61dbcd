"""diffusers' pipelines, of which only the loaders of files are used."""

from __future__ import annotations

from typing import Any

from fresco.quiet import quietly


def pipeline_class(is_xl: bool) -> Any:
    """The text-to-image pipeline of diffusers for Stable Diffusion or SDXL.

    Imported here and quietly: they ask for image processors that are not needed, and transformers
    says on import that torchvision is missing for them.
    """
    with quietly():
        import diffusers

        name = "StableDiffusionXLPipeline" if is_xl else "StableDiffusionPipeline"
        return getattr(diffusers, name)
