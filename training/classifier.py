# SPDX-License-Identifier: Apache-2.0
"""A small network that names the style of a picture; it judges the draft model's pictures.

It is trained on procedurally styled pictures only, never on the model's own.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from safetensors.torch import load_model, save_model
from torch import nn

from training import loop, styles

log = logging.getLogger(__name__)

NAMES = tuple(styles.STYLES)
SIZE = 128
"""Pixels: it looks at crops of this size, at the pictures' own scale."""


TOGETHER = 0.7
"""The part of the training in which a batch shows the same crops in all styles."""


class Classifier(nn.Module):
    """Five strided convolutions and three more, mean and deviation over the picture, one layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128, 160)
        layers: list[nn.Module] = []
        for depth, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
            if depth > 1:
                layers += [nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1], len(NAMES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: (N, 3, H, W) in [0, 1]; returns scores (N, styles)."""
        features = self.body(images * 2 - 1)
        return self.head(torch.cat([features.mean(dim=(2, 3)), features.std(dim=(2, 3))], dim=1))

    @torch.inference_mode()
    def names(self, pictures: np.ndarray) -> list[str]:
        """The style of each of (N, H, W, 3) uint8 RGB pictures."""
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        return [NAMES[int(i)] for i in self(images).argmax(dim=1)]


@dataclass(frozen=True, slots=True)
class Shard:
    """Styled pictures, and their latents: views of files."""

    styled: np.ndarray
    latents: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Shard:
        """Opens a shard's files."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r")
                     for name in ("styled", "latents")))  # fmt: skip

    def pictures(self, places: list[tuple[int, int, int, int]]) -> torch.Tensor:
        """Crops (picture, style, y, x), (N, 3, SIZE, SIZE) in [0, 1]."""
        crops = [self.styled[n, k, y : y + SIZE, x : x + SIZE] for n, k, y, x in places]
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255

    @torch.inference_mode()
    def decoded(
        self, places: list[tuple[int, int, int, int]], vae: AutoencoderTiny, noise: float
    ) -> torch.Tensor:
        """The same crops by way of the autoencoder, the latents noisy: as a painter's come."""
        edge = SIZE // 8
        crops = [self.latents[n, k, :, y // 8 : y // 8 + edge, x // 8 : x // 8 + edge]
                 for n, k, y, x in places]  # fmt: skip
        latents = torch.from_numpy(np.stack(crops)).float() / vae.config.scaling_factor
        latents = latents + noise * latents.std() * torch.randn(latents.shape)
        with torch.autocast("cpu", torch.bfloat16):
            found = vae.decoder(latents.contiguous(memory_format=torch.channels_last))
        return (found.float().clamp(-1, 1) + 1) / 2


def _batch(
    shard: Shard, vae: AutoencoderTiny, count: int, together: bool, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of single styles, blurred, noisy or recoloured a little: no artefact is to decide.

    Half of the batches have gone through the autoencoder, which is not to decide either.

    together: few crops in all styles, so that not the contents decide; else many pictures.
    """
    repeats = len(NAMES) if together else 1
    places: list[tuple[int, int, int, int]] = []
    for start in range(0, count, repeats):
        y, x = (8 * int(rng.integers((256 - SIZE) // 8 + 1)) for _ in range(2))
        picture = int(rng.integers(len(shard.styled)))
        places += [(picture, label % len(NAMES), y, x) for label in range(start, start + repeats)]
    labels = np.array([place[1] for place in places])
    if rng.uniform() < 0.5:
        images = shard.decoded(places, vae, rng.uniform(0, 0.25))
    else:
        images = shard.pictures(places)
    return _disturb(images, rng).clamp(0, 1), torch.from_numpy(labels)


def _disturb(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Softer or sharper, more or less colourful and contrasty, noisy: as painters differ."""
    if rng.uniform() < 0.5:
        size = int(SIZE * rng.uniform(0.5, 0.95))
        small = F.interpolate(images, size=(size, size), mode="area")
        images = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear")
    soft = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    images = images + _draw(rng, len(images), 0.0, 0.5) * (images - soft)
    luma = images.mean(dim=1, keepdim=True)
    images = luma + (images - luma) * _draw(rng, len(images), 0.85, 1.35)
    images = (images - 0.5) * _draw(rng, len(images), 0.92, 1.2) + 0.5
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (len(images), 3, 1, 1))).float()
    noise = torch.from_numpy(rng.standard_normal(images.shape)).float()
    return images * gain + 0.03 * rng.uniform() * noise


def _draw(rng: np.random.Generator, count: int, low: float, high: float) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 1))).float()


def _freeze_statistics(model: nn.Module) -> None:
    """Lets the batch normalisation use its running means, as it will when it judges."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def train(run: loop.Run, shards: list[Path], autoencoder: Path) -> None:
    """Trains until the steps or the minutes are used up; continues where the folder stands.

    Writes `classifier.safetensors`, the averaged weights in half precision.
    """
    torch.manual_seed(run.seed)
    model = Classifier()
    opened = [Shard.open(shard) for shard in shards]
    vae = AutoencoderTiny.from_pretrained(autoencoder).to(memory_format=torch.channels_last).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=run.rate, fused=True)
    average = loop.Average([model], 0.998)
    run.folder.mkdir(parents=True, exist_ok=True)
    last, modules = run.folder / "last.pt", {"classifier": model}
    progress = loop.restore(last, modules, optimiser, average) if last.exists() else loop.Progress()
    rng = np.random.default_rng(run.seed + progress.step)
    journal, clock = loop.Journal(run.folder / "log.csv"), loop.Clock(run.minutes)
    while progress.step < run.steps and not clock.over:
        optimiser.param_groups[0]["lr"] = run.rate_at(progress.step, progress.started)
        together = progress.step < TOGETHER * run.steps
        if not together:
            _freeze_statistics(model)
        shard = opened[int(rng.integers(len(opened)))]
        journal.add(**_step(model, optimiser, _batch(shard, vae, run.batch, together, rng)))
        average.update()
        progress.step += 1
        if progress.step % 100 == 0:
            log.info("classifier %d: %s", progress.step, journal.flush(progress.step))
        if progress.step % run.save_every == 0:
            loop.save(last, modules, optimiser, average, progress)
    loop.save(last, modules, optimiser, average, progress)
    average.swap()
    save_model(model.half(), str(run.folder / "classifier.safetensors"))


def _step(
    model: Classifier, optimiser: torch.optim.Optimizer, batch: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, float]:
    images, labels = batch
    scores = model(images)
    value = F.cross_entropy(scores, labels, label_smoothing=0.05)
    optimiser.zero_grad()
    value.backward()
    optimiser.step()
    accuracy = (scores.argmax(1) == labels).float().mean()
    return {"loss": value.item(), "accuracy": accuracy.item()}


def load(path: Path) -> Classifier:
    """Reads a trained classifier."""
    model = Classifier()
    load_model(model, str(path))
    return model.eval()


def measure(path: Path, shard: Path) -> dict[str, float]:
    """Accuracy per style on a shard of procedurally styled pictures."""
    model = load(path)
    styled = np.load(shard / "styled.npy", mmap_mode="r")
    right = dict.fromkeys(NAMES, 0)
    for pictures in styled:
        for name, found in zip(NAMES, model.names(pictures[: len(NAMES)]), strict=True):
            right[name] += name == found
    table = {name: count / len(styled) for name, count in right.items()}
    return {**table, "all": float(np.mean(list(table.values())))}


def confusion(path: Path, pictures: dict[str, np.ndarray]) -> str:
    """For pictures by wanted style, what the classifier names them, as JSON."""
    model = load(path)
    return json.dumps({name: model.names(group) for name, group in pictures.items()}, indent=1)
