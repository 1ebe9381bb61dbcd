# SPDX-License-Identifier: Apache-2.0
"""Restyles pictures with the draft model: SDEdit start, ControlNet, classifier-free guidance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny

from training import latents, models, styles


@dataclass(frozen=True, slots=True)
class Settings:
    """How to sample; control is `tile` or `canny`, strength 1 starts from the noisiest step."""

    steps: int = 20
    strength: float = 0.9
    guidance: float = 2.0
    control: str = "tile"
    scale: float = 1.0
    seed: int = 0


class Painter:
    """A pipeline folder, loaded for sampling."""

    def __init__(self, folder: Path) -> None:
        self.draft = models.load(folder)
        self.autoencoder = AutoencoderTiny.from_pretrained(folder / "vae").float().eval()
        for module in self.draft.modules().values():
            module.to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def restyle(self, pictures: np.ndarray, prompts: list[str], settings: Settings) -> np.ndarray:
        """pictures: (N, H, W, 3) uint8 RGB, sides multiples of 8; returns the like."""
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        factor = self.autoencoder.config.scaling_factor
        clean = self.autoencoder.encoder(images) * factor
        control = control_maps(pictures, settings.control)
        embeds = self.draft.embed([""] * len(prompts) + prompts)
        sample = self._denoise(clean, control, embeds, settings)
        decoded = self.autoencoder.decoder(sample / factor).clamp(-1, 1)
        return ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()

    def _denoise(self, clean: torch.Tensor, control: torch.Tensor, embeds: torch.Tensor,
                 settings: Settings) -> torch.Tensor:  # fmt: skip
        schedule = models.scheduler()
        schedule.set_timesteps(settings.steps)
        first = round(settings.steps * (1 - settings.strength))
        steps = schedule.timesteps[first:]
        generator = torch.Generator().manual_seed(settings.seed)
        noise = torch.randn(clean[:1].shape, generator=generator).expand_as(clean)
        sample = schedule.add_noise(clean, noise, steps[:1])
        scale = torch.full((2 * len(clean),), settings.scale)
        for step in steps:
            velocity = self.draft.predict(
                sample.repeat(2, 1, 1, 1), step, embeds, control.repeat(2, 1, 1, 1), scale
            )
            plain, styled = velocity.chunk(2)
            guided = plain + settings.guidance * (styled - plain)
            sample = schedule.step(guided, step, sample, generator=generator).prev_sample
        return sample


def control_maps(pictures: np.ndarray, kind: str) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1]: softened pictures or canny edges."""
    if kind == "tile":
        maps = [styles.soften(picture, 4) for picture in pictures]
    else:
        maps = [latents.edges(picture) for picture in pictures]
    return torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).float() / 255
