"""Cheap pictures of latents: by a small VAE, or the affine map that fits VAE and clip best."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.models import as_image


class Preview:
    """Fitted by least squares to frames and their latents; needs no table of any known model.

    latents: (N, c, h, w); frames: (N, 3, H, W) in [0, 1]
    """

    def __init__(self, latents: Tensor, frames: Tensor) -> None:
        colours = F.interpolate(frames.float(), size=latents.shape[-2:], mode="area")
        known, wanted = _rows(latents), colours.movedim(1, -1).flatten(0, 2)
        # The normal equations on the processor: small, and every device has them.
        known, wanted = known.cpu().double(), wanted.cpu().double()
        ridge = 1e-4 * len(known) * torch.eye(known.shape[1], dtype=known.dtype)
        self._matrix = torch.linalg.solve(known.T @ known + ridge, known.T @ wanted).float()

    def __call__(self, latents: Tensor) -> Tensor:
        """Picture latents (N, c, h, w): (N, 3, h, w) in [0, 1]."""
        colours = _rows(latents) @ self._matrix.to(latents.device)
        return colours.clamp(0, 1).unflatten(0, latents.movedim(1, -1).shape[:3]).movedim(-1, 1)


@torch.no_grad()
def decode_small(vae: Any, latents: Tensor) -> Tensor:
    """Picture latents (N, c, h, w) by a small VAE (TAESD), one by one: (N, 3, H, W) in [0, 1]."""
    scaled = latents.to(next(vae.parameters())) / vae.config.scaling_factor
    return torch.cat([as_image(vae.decode(latent).sample) for latent in scaled.split(1)])


def _rows(latents: Tensor) -> Tensor:
    """(N, c, h, w) → (N * h * w, c + 1), the last column ones."""
    return F.pad(latents.detach().float().movedim(1, -1).flatten(0, 2), (0, 1), value=1.0)
