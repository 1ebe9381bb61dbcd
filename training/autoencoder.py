# SPDX-License-Identifier: Apache-2.0
"""Trains the autoencoder: 8 x reduction to 8 channels of unit variance, no normalisation layers."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import nn

from training import loop, models, styles

log = logging.getLogger(__name__)

HARD = [list(styles.STYLES).index(name) for name in ("pencil", "comic", "blueprint", "comic")]
LATENT_NOISE = 0.04
"""Deviation of the noise on the latents in training: the decoder learns to bear small errors."""


def create() -> AutoencoderTiny:
    """A fresh autoencoder; most of its blocks sit at the low resolutions, where they are cheap."""
    model = AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        num_encoder_blocks=(1, 2, 3, 4),
        num_decoder_blocks=(5, 4, 3, 1),
        latent_channels=8,
        scaling_factor=1.0,
    )
    start_values(model)
    return model


def start_values(model: AutoencoderTiny) -> None:
    """Sets the first weights such that three channels carry the mean colours through, end to end.

    The untrained model then already is a box blur in true colours, and training adds the detail.
    """
    blocks = [module for module in model.modules() if isinstance(module, AutoencoderTinyBlock)]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    inner = {id(layer) for block in blocks for layer in block.conv if isinstance(layer, nn.Conv2d)}
    for layer in convolutions:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for block in blocks:
        last = block.conv[4]
        assert isinstance(last, nn.Conv2d)
        last.weight.data *= 0.1
        last.weight.data[:3] = 0
    for layer in convolutions:
        if id(layer) not in inner:
            _pass_colours(layer)
    _scale_latents(model.encoder.layers[-1], model.decoder.layers[0])


def _pass_colours(layer: nn.Conv2d) -> None:
    """Output channels 0..2 become copies (or 2 x 2 means) of the input channels 0..2."""
    strided = layer.stride[0] == 2
    layer.weight.data[:3] = 0
    for channel in range(3):
        if strided:
            layer.weight.data[channel, channel, 1:, 1:] = 0.25
        else:
            layer.weight.data[channel, channel, 1, 1] = 1


def _scale_latents(last: nn.Conv2d, first: nn.Conv2d) -> None:
    """Brings the colours' latents to unit variance and undoes it behind them."""
    spread = 4.0
    last.weight.data[:3] *= spread
    last.bias.data[:3] = -0.5 * spread
    first.weight.data[:3] /= spread
    first.bias.data[:3] = 0.5


class Crops:
    """Random crops of the pool's pictures on the 8-pixel grid, with recoloured ones among them."""

    def __init__(self, shards: list[Path], size: int, seed: int) -> None:
        self.styled = [np.load(folder / "styled.npy", mmap_mode="r") for folder in shards]
        self.size = size
        self.rng = np.random.default_rng(seed)

    def batch(self, count: int) -> torch.Tensor:
        """(count, 3, size, size) float32 in [-1, 1]; a third of them photos, half recoloured."""
        crops = torch.from_numpy(np.stack([self._crop() for _ in range(count)]))
        images = crops.permute(0, 3, 1, 2).float() / 255
        recolour = torch.from_numpy(self.rng.uniform(size=count) < 0.5)
        images[recolour] = self._recoloured(images[recolour])
        return images.clamp(0, 1) * 2 - 1

    def _crop(self) -> np.ndarray:
        styled = self.styled[int(self.rng.integers(len(self.styled)))]
        picture = styled[int(self.rng.integers(len(styled))), self._version(styled.shape[1])]
        y, x = (8 * int(self.rng.integers((256 - self.size) // 8 + 1)) for _ in range(2))
        cut = picture[y : y + self.size, x : x + self.size]
        return cut[:, ::-1].copy() if self.rng.uniform() < 0.5 else cut

    def _version(self, versions: int) -> int:
        """A third photos, a third of the styles that are hardest to keep, else any."""
        kind = self.rng.uniform()
        if kind < 0.3:
            return 0
        return int(self.rng.choice(HARD) if kind < 0.6 else self.rng.integers(versions))

    def _recoloured(self, images: torch.Tensor) -> torch.Tensor:
        """Turns the hue by any angle, scales saturation and contrast, shifts the brightness."""
        count = len(images)
        angles = self.rng.uniform(0, 2 * np.pi, count)  # there may be none
        matrices = np.array([_hue_matrix(angle) for angle in angles]).reshape(count, 3, 3)
        turned = torch.einsum("nij,njhw->nihw", torch.from_numpy(matrices).float(), images)
        grey = turned.mean(dim=1, keepdim=True)
        turned = grey + (turned - grey) * self._draw(0.2, 2.2, count)
        return (turned - 0.5) * self._draw(0.6, 1.4, count) + 0.5 + self._draw(-0.2, 0.2, count)

    def _draw(self, low: float, high: float, count: int) -> torch.Tensor:
        return torch.from_numpy(self.rng.uniform(low, high, (count, 1, 1, 1))).float()


def _hue_matrix(angle: float) -> np.ndarray:
    """Rotation of RGB about the grey axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    return (
        cos * np.eye(3)
        + (1 - cos) / 3
        + sin / math.sqrt(3) * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    )


def loss(decoded: torch.Tensor, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Pixels, edges, mean colours of 8 x 8 blocks, and unit variance of every latent channel."""
    error = decoded - images
    pixels = error.abs().mean() + 5 * error.square().mean()
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    colours = F.avg_pool2d(error, 8).abs().mean()
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    shape = mean.square().mean() + (deviation - 1).square().mean()
    return pixels + 0.25 * edges + 0.5 * colours + 0.02 * shape


def train(
    run: loop.Run, shards: list[Path], crop: int, start: Path | None, decoder_only: bool
) -> None:
    """Trains until the steps or the minutes are used up; continues where the folder stands.

    decoder_only: the encoder, and with it every latent already stored, stays as it is.
    """
    torch.manual_seed(run.seed)
    model = create() if start is None else AutoencoderTiny.from_pretrained(start)
    model = model.float().to(memory_format=torch.channels_last)
    model.encoder.requires_grad_(not decoder_only)
    trained = model.decoder if decoder_only else model
    optimiser = torch.optim.AdamW(
        trained.parameters(), lr=run.rate, betas=(0.9, 0.99), weight_decay=0
    )
    average = loop.Average([trained], 0.999)
    run.folder.mkdir(parents=True, exist_ok=True)
    last = run.folder / "last.pt"
    modules = {"autoencoder": model}
    progress = loop.restore(last, modules, optimiser, average) if last.exists() else loop.Progress()
    crops = Crops(shards, crop, run.seed + progress.step)
    journal = loop.Journal(run.folder / "log.csv")
    clock = loop.Clock(run.minutes)
    while progress.step < run.steps and not clock.over:
        optimiser.param_groups[0]["lr"] = run.rate_at(progress.step, progress.started)
        journal.add(**_step(model, trained, optimiser, crops.batch(run.batch)))
        average.update()
        progress.step += 1
        if progress.step % 100 == 0:
            log.info("autoencoder %d: %s", progress.step, journal.flush(progress.step))
        if progress.step % run.save_every == 0:
            loop.save(last, modules, optimiser, average, progress)
    loop.save(last, modules, optimiser, average, progress)
    average.swap()
    if not decoder_only:
        set_scale(model, shards)
    models.save_autoencoder(model, run.folder / "average")


def _step(model: AutoencoderTiny, trained: torch.nn.Module, optimiser: torch.optim.Optimizer,
          images: torch.Tensor) -> dict[str, float]:  # fmt: skip
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.encoder(images)
        decoded = model.decoder(latents + LATENT_NOISE * torch.randn_like(latents))
    value = loss(decoded.float(), images, latents.float())
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
    optimiser.step()
    error = (decoded.float().clamp(-1, 1) - images).square().mean(dim=(1, 2, 3)) / 4
    return {"loss": value.item(), "psnr": float(-10 * error.detach().log10().mean())}


@torch.inference_mode()
def set_scale(model: AutoencoderTiny, shards: list[Path]) -> None:
    """Records the scale that gives the latents unit variance; it stays with the encoder."""
    images = Crops(shards, 256, 0).batch(32)
    scale = 1 / float(model.encoder(images).std())
    model.register_to_config(scaling_factor=round(scale, 5))
    log.info("autoencoder: latents are scaled by %.4f", scale)


@torch.inference_mode()
def measure(folder: Path, shard: Path) -> dict[str, float]:
    """Mean PSNR in dB per style over a shard of pictures."""
    model = AutoencoderTiny.from_pretrained(folder).float()
    facts = json.loads((shard / "facts.json").read_text())
    styled = np.load(shard / "styled.npy", mmap_mode="r")
    found: dict[str, list[float]] = {}
    for number, fact in enumerate(facts):
        images = torch.from_numpy(styled[number]).permute(0, 3, 1, 2).float() / 127.5 - 1
        decoded = model.decoder(model.encoder(images)).clamp(-1, 1)
        errors = (decoded - images).square().mean(dim=(1, 2, 3)) / 4
        for names, error in zip(fact["styles"], errors.tolist(), strict=True):
            name = names[0] if len(names) == 1 else "mix"
            found.setdefault(name, []).append(-10 * math.log10(error + 1e-9))
    table = {name: float(np.mean(values)) for name, values in found.items()}
    return {**table, "all": float(np.mean(list(table.values())))}
