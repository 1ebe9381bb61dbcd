# SPDX-License-Identifier: Apache-2.0
"""Encodes the pool once, so that the training steps of the diffusion model do no image work.

Adds `latents.npy` (N, S, 8, 32, 32) float16, scaled to unit variance, to a shard.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderTiny

from training import captions, styles

log = logging.getLogger(__name__)

TILE_FACTORS = (2, 3, 4, 4, 4, 6, 8)
"""How much the tile map is softened; 4 is the default of the draft model."""
HARD = ("coloured-pencil", "oil", "cartoon")
"""Styles that a classifier took for others longest: whose strokes are learnt late."""


@torch.inference_mode()
def encode(autoencoder: AutoencoderTiny, shard: Path) -> None:
    """Writes the latents of every picture of a shard; goes on where it was interrupted."""
    styled = np.load(shard / "styled.npy", mmap_mode="r")
    part = shard / "latents.part.npy"
    latents = _opened(part, styled.shape, autoencoder.config.latent_channels)
    for number in range(_first_empty(latents), len(styled)):
        images = torch.from_numpy(styled[number]).permute(0, 3, 1, 2).float() / 127.5 - 1
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            found = torch.cat([autoencoder.encoder(few) for few in images.split(2)])
        latents[number] = (found.float() * autoencoder.config.scaling_factor).numpy()
    latents.flush()
    part.replace(shard / "latents.npy")
    deviation = latents[:50].astype(np.float32).std()
    log.info("%s: latents of %d pictures, deviation %.3f", shard.name, len(styled), deviation)


def _opened(part: Path, styled: tuple[int, ...], channels: int) -> np.memmap:
    if part.exists():
        return np.lib.format.open_memmap(part, "r+")
    shape = (*styled[:2], channels, styled[2] // 8, styled[3] // 8)
    return np.lib.format.open_memmap(part, "w+", np.float16, shape)


def _first_empty(latents: np.ndarray) -> int:
    filled = latents[:, -1, :, 0, 0].any(axis=1)
    return int(np.argmin(filled)) if not filled.all() else len(latents)


@dataclass(frozen=True, slots=True)
class Mixture:
    """How a batch is drawn.

    size: side of the crops in pixels; photo, mixed: shares of plain photos and of mixed styles;
    hard: share of the single styles that is kept for the HARD ones; canny, bare: shares of edge
    maps and of pictures without control.
    """

    size: int = 128
    photo: float = 0.14
    mixed: float = 0.2
    hard: float = 0.4
    canny: float = 0.25
    bare: float = 0.08


@dataclass(slots=True)
class Batch:
    """latents, source (N, 8, h, w), control (N, 3, 8h, 8w) in [0, 1], scale (N,), one prompt each.

    source: the latents of the picture that was styled.
    """

    latents: torch.Tensor
    source: torch.Tensor
    control: torch.Tensor
    scale: torch.Tensor
    prompts: list[str]


class Sampler:
    """Draws batches from encoded shards."""

    def __init__(self, shards: list[Path], mixture: Mixture, seed: int) -> None:
        self.latents = [np.load(shard / "latents.npy", mmap_mode="r") for shard in shards]
        self.source = [np.load(shard / "source.npy", mmap_mode="r") for shard in shards]
        self.facts = [json.loads((shard / "facts.json").read_text()) for shard in shards]
        self.mixture = mixture
        self.rng = np.random.default_rng(seed)

    def batch(self, count: int) -> Batch:
        """A random batch with captions and control maps."""
        drawn = [self._draw() for _ in range(count)]
        latents, source, control, scale, prompts = zip(*drawn, strict=True)
        maps = torch.from_numpy(np.stack(control)).permute(0, 3, 1, 2).float() / 255
        return Batch(
            torch.from_numpy(np.stack(latents)).float(),
            torch.from_numpy(np.stack(source)).float(),
            maps.contiguous(memory_format=torch.channels_last),
            torch.tensor(scale),
            list(prompts),
        )

    def _draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, str]:
        shard = int(self.rng.integers(len(self.latents)))
        number = int(self.rng.integers(len(self.latents[shard])))
        fact = self.facts[shard][number]
        version = self._version(len(fact["styles"]))
        y, x, side = self._place()
        both = self.latents[shard][number, [version, 0], :, y : y + side, x : x + side]
        picture = self.source[shard][number, 8 * y : 8 * (y + side), 8 * x : 8 * (x + side)]
        control, scale = self._control(picture)
        prompt = captions.caption(tuple(fact["styles"][version]), fact["content"], self.rng)
        return both[0], both[1], control, scale, prompt

    def _version(self, versions: int) -> int:
        """Style 0 is the photo; the last ones are mixes."""
        kind, singles = self.rng.uniform(), len(styles.STYLES)
        if kind < self.mixture.photo:
            return 0
        if kind < self.mixture.photo + self.mixture.mixed:
            return int(self.rng.integers(singles, versions))
        if self.rng.uniform() < self.mixture.hard:
            return list(styles.STYLES).index(str(self.rng.choice(HARD)))
        return int(self.rng.integers(1, singles))

    def _place(self) -> tuple[int, int, int]:
        """Upper left corner and side of the crop, in latent cells.

        Corners lie 4 cells apart, so that what repeats every 32 pixels is where it always is.
        """
        side = self.mixture.size // 8
        y, x = (4 * int(self.rng.integers((32 - side) // 4 + 1)) for _ in range(2))
        return y, x, side

    def _control(self, picture: np.ndarray) -> tuple[np.ndarray, float]:
        """A control map and its scale."""
        kind = self.rng.uniform()
        if kind < self.mixture.bare:
            return np.zeros_like(picture), 0.0
        if kind < self.mixture.bare + self.mixture.canny:
            return edges(picture, 50 + 50 * self.rng.uniform()), 1.0
        return styles.soften(picture, TILE_FACTORS[int(self.rng.integers(len(TILE_FACTORS)))]), 1.0


def edges(picture: np.ndarray, low: float = 50.0) -> np.ndarray:
    """The canny control map: white lines on black; the upper threshold is twice the lower one."""
    lines = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), low, 2 * low)
    return np.repeat(lines[..., None], 3, axis=2)
