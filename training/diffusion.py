# SPDX-License-Identifier: Apache-2.0
"""Trains U-Net, ControlNet and text encoder together on stored latents."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDPMScheduler
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from training import growth, loop, models
from training.latents import Batch, Mixture, Sampler

log = logging.getLogger(__name__)

SNR_LIMIT = 5.0
"""The velocities of less noisy pictures than this count less, as in min-SNR (arXiv 2303.09556).

Unlike there, noisier ones count in full: that is where the colours are decided.
"""
FOREIGN_START = 0.35
FOREIGN_FROM = 450
"""Share of the noisy latents, from this timestep up, that are made of the unstyled picture.

So the model learns to reach the style when the noise hides the input frame, as in SDEdit.
"""


@dataclass(slots=True)
class Trainer:
    """The networks and what belongs to their training."""

    draft: models.Draft
    schedule: DDPMScheduler
    optimiser: torch.optim.Optimizer
    average: loop.Average

    def step(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """One step of the optimiser; returns the loss, and the errors at high and low noise."""
        noisy, steps, target, weight = prepare(self.schedule, batch, generator)
        with torch.autocast("cpu", torch.bfloat16):
            embeds = self.draft.embed(batch.prompts)
            velocity = self.draft.predict(noisy, steps, embeds, batch.control, batch.scale)
        errors = (velocity.float() - target).square().mean(dim=(1, 2, 3))
        value = (errors * weight).mean()
        self.optimiser.zero_grad(set_to_none=True)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.average.parameters, 1.0)
        self.optimiser.step()
        self.average.update()
        late = steps >= 500
        found = {"loss": value.item(), "error": errors.mean().item(), "norm": norm.item()}
        if late.any() and not late.all():
            found["high"], found["low"] = errors[late].mean().item(), errors[~late].mean().item()
        return found


def prepare(
    schedule: DDPMScheduler, batch: Batch, generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Noisy latents, timesteps, velocities and weights of a batch."""
    count = len(batch.latents)
    steps = torch.randint(0, 1000, (count,), generator=generator)
    noise = torch.randn(batch.latents.shape, generator=generator)
    foreign = (torch.rand(count, generator=generator) < FOREIGN_START) & (steps >= FOREIGN_FROM)
    clean = torch.where(foreign.view(-1, 1, 1, 1), batch.source, batch.latents)
    noisy = schedule.add_noise(clean, noise, steps)
    signal = schedule.alphas_cumprod[steps].view(-1, 1, 1, 1)
    implied = (noisy - signal.sqrt() * batch.latents) / (1 - signal).sqrt()
    target = signal.sqrt() * implied - (1 - signal).sqrt() * batch.latents
    ratio = (signal / (1 - signal)).flatten()
    return noisy, steps, target, (SNR_LIMIT / (ratio + 1)).clamp(max=1)


SKIP_DROPOUT = 0.15
"""Share of the pictures, per level, that must do without the skips of one of the two top levels.

Else the networks do everything there, and what FRESCO guides below changes nothing.
"""


class _SkipDropout:
    """A hook on an up block: removes the skips of some pictures of the batch."""

    def __call__(self, block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        skips = kwargs["res_hidden_states_tuple"]
        if not block.training:
            return args, kwargs
        kept = torch.rand(len(skips[0]), 1, 1, 1) >= SKIP_DROPOUT
        return args, {**kwargs, "res_hidden_states_tuple": tuple(skip * kept for skip in skips)}


class _Norm(nn.GroupNorm):
    """Group normalisation in single precision, which is faster than bfloat16 on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the class's own name
        return super().forward(input.float())


def _hasten(draft: models.Draft) -> None:
    """Makes training in bfloat16 fast on a CPU; the weights and what is saved stay the same."""
    for network in (draft.unet, draft.controlnet):
        network.set_attn_processor(AttnProcessor())
        for layer in network.modules():
            if type(layer) is nn.GroupNorm:
                layer.__class__ = _Norm


def build(run: loop.Run, start: Path | None) -> Trainer:
    """Fresh networks, or those of a pipeline folder, with a new optimiser."""
    draft = models.create(run.folder / "tokenizer") if start is None else models.load(start)
    if draft.unet.config["layers_per_block"] != models.LAYERS:
        draft = growth.grown(draft)
    for block in draft.unet.up_blocks[-2:]:
        block.register_forward_pre_hook(_SkipDropout(), with_kwargs=True)
    for module in draft.modules().values():
        module.to(memory_format=torch.channels_last).train()
    _hasten(draft)
    parameters = [p for module in draft.modules().values() for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=run.rate, betas=(0.9, 0.99), weight_decay=1e-3,
                                  fused=True)  # fmt: skip
    average = loop.Average(draft.modules().values(), 0.9985)
    return Trainer(draft, models.scheduler(), optimiser, average)


def train(
    run: loop.Run, shards: list[Path], mixture: Mixture, start: Path | None, vae: Path
) -> None:
    """Trains until the steps or the minutes are used up; continues where the folder stands."""
    torch.manual_seed(run.seed)
    run.folder.mkdir(parents=True, exist_ok=True)
    trainer = build(run, start)
    last = run.folder / "last.pt"
    modules = trainer.draft.modules()
    progress = loop.Progress()
    if last.exists():
        progress = loop.restore(last, modules, trainer.optimiser, trainer.average)
        trainer.optimiser.param_groups[0].update(fused=True, foreach=False)
    generator = torch.Generator().manual_seed(run.seed + 7919 * progress.step)
    sampler = Sampler(shards, mixture, run.seed + progress.step)
    journal = loop.Journal(run.folder / "log.csv")
    clock = loop.Clock(run.minutes)
    while progress.step < run.steps and not clock.over:
        trainer.optimiser.param_groups[0]["lr"] = run.rate_at(progress.step, progress.started)
        journal.add(**trainer.step(sampler.batch(run.batch), generator))
        progress.step += 1
        if progress.step % 50 == 0:
            log.info("diffusion %d: %s", progress.step, journal.flush(progress.step))
        if progress.step % run.save_every == 0:
            checkpoint(trainer, last, vae, progress)
    checkpoint(trainer, last, vae, progress)


def checkpoint(trainer: Trainer, last: Path, vae: Path, progress: loop.Progress) -> None:
    """Writes the state for an exact continuation and the averaged weights as a pipeline folder."""
    modules = trainer.draft.modules()
    loop.save(last, modules, trainer.optimiser, trainer.average, progress)
    trainer.average.swap()
    masters = [parameter.detach().clone() for parameter in trainer.average.parameters]
    models.save(trainer.draft, AutoencoderTiny.from_pretrained(vae), last.parent / "average")
    with torch.no_grad():
        for parameter, master in zip(trainer.average.parameters, masters, strict=True):
            parameter.copy_(master)
    trainer.average.swap()
