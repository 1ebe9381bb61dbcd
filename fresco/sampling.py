"""The denoising loop of one batch (method, sections 5 and 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fresco.attention import AttentionGuidance
from fresco.guidance import FeatureGuidance
from fresco.memory import Limits
from fresco.models import Model
from fresco.noise import DrawFrom, Noise
from fresco.prediction import Mixture
from fresco.reference import Reference, record
from fresco.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the model is told about the frames of a batch, M in all, outsiders included.

    text: (halves * M, length, D), unconditional half first
    controls: one (M, 3, H, W) in [0, 1] per ControlNet
    control_scales: as many factors
    guidance_scale: of classifier-free guidance
    added: passed to the U-Net as ``added_cond_kwargs``; tensors with one row per text row
    """

    text: Tensor
    controls: Sequence[Tensor] = ()
    control_scales: Sequence[float] = ()
    guidance_scale: float = 7.5
    added: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def told(self, chosen: slice) -> dict[str, Any]:
        """What some rows of the text batch are told, as the U-Net takes it."""
        added = {name: _rows(value, chosen) for name, value in self.added.items()}
        return {"encoder_hidden_states": self.text[chosen], "added_cond_kwargs": added or None}


@dataclass(frozen=True, slots=True)
class Guidance:
    """FRESCO's part in a batch, switched from step to step."""

    attention: AttentionGuidance
    features: FeatureGuidance

    def enter(self, schedule: Schedule, step: int, limits: Limits) -> None:
        """Switch on what belongs to `step`."""
        self.attention.spatial = schedule.spatial(step)
        self.attention.temporal = schedule.temporal(step)
        if not self.attention.spatial:
            self.attention.reference.clear()  # read in the first steps only
        self.features.enabled = schedule.optimised(step)
        if not self.features.enabled:
            self.features.reference.clear()  # optimised steps come first
        self.features.gram_block = limits.gram_block

    def only_half(self, half: int | None) -> None:
        """Say which guidance half the model is given next; None for all."""
        self.attention.half = self.features.half = half


def predict(
    model: Model,
    latents: Tensor,
    timestep: Tensor,
    conditions: Conditions,
    guidance: Guidance,
    limits: Limits,
) -> Tensor:
    """What the model makes of `latents` (M, c, h, w), under classifier-free guidance."""
    halves = len(conditions.text) // len(latents)
    latents = model.scheduler.scale_model_input(latents, timestep)
    if halves == 1 or not limits.split_halves:
        guidance.only_half(None)
        outputs = _run(model, latents, timestep, conditions, range(halves)).chunk(halves)
    else:
        outputs = []
        for half in range(halves):
            guidance.only_half(half)
            outputs.append(_run(model, latents, timestep, conditions, [half]))
    if halves == 1:
        return outputs[0]
    without_text, with_text = outputs
    return without_text + conditions.guidance_scale * (with_text - without_text)


def record_in_parts(
    unet: Any, latents: Tensor, timestep: int | Tensor, conditions: Conditions, limits: Limits
) -> Reference:
    """Record the features of the input frames, the guidance halves one by one if limits say so."""
    rows, count = len(conditions.text), len(latents)
    size = count if limits.split_halves else rows
    parts: list[Reference] = []
    for start in range(0, rows, size):
        told = conditions.told(slice(start, start + size))
        text = told.pop("encoder_hidden_states")
        parts.append(record(unet, latents, timestep, text, **told))
    return Reference.joined(parts)


def denoise(
    scheduler: Any,
    schedule: Schedule,
    hold: Callable[[Tensor | None, int], Tensor],
    predict_output: Callable[[Tensor, int], Tensor],
    smooth: Callable[[Tensor], Tensor] | None,
    noise: Noise,
    on_clean: Callable[[int, Tensor], None],
) -> tuple[Tensor, Tensor]:
    """Run the schedule's steps with `scheduler`.

    hold: gives the latents a step starts from: the given ones (None before the first step), with
        those overwritten that are not the model's to choose
    predict_output: the model's output for the latents of a step
    smooth: changes the predicted clean latents, in the steps that smooth the background
    on_clean: told each step and its predicted clean latents

    returns: the final latents (M, c, h, w), and those that each step started from
        (steps run, M, c, h, w), on the processor
    """
    latents: Tensor | None = None
    starts: list[Tensor] = []
    for run_step, step in enumerate(schedule.steps):
        latents = hold(latents, step)
        starts.append(latents.cpu())
        output = predict_output(latents, step)
        timestep = schedule.timesteps[step]
        mixture = Mixture.at(scheduler, timestep)
        clean = mixture.clean(output, latents)
        if smooth is not None and schedule.smoothed(step):
            clean = smooth(clean)
            output = mixture.output(clean, latents)
        with DrawFrom(partial(noise.step, step, run_step)):
            latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
        on_clean(step, clean)
    final = hold(latents, schedule.last + 1)
    return final, torch.stack(starts) if starts else final.cpu().new_empty(0, *final.shape)


def _run(
    model: Model, latents: Tensor, timestep: Tensor, conditions: Conditions, halves: Sequence[int]
) -> Tensor:
    """Run ControlNets and U-Net on the given halves."""
    rows = len(latents)
    chosen = slice(halves[0] * rows, (halves[-1] + 1) * rows)
    told = conditions.told(chosen)
    repeated = torch.cat([latents] * len(halves))
    output = model.unet(
        repeated,
        timestep,
        return_dict=False,
        **told,
        **_control(model, repeated, timestep, told, conditions, len(halves)),
    )
    return output[0]


def _control(
    model: Model,
    latents: Tensor,
    timestep: Tensor,
    told: Mapping[str, Any],
    conditions: Conditions,
    halves: int,
) -> dict[str, Any]:
    """The sum of what the ControlNets add to the U-Net's skips and middle."""
    skips: list[Tensor] = []
    middle: Tensor | None = None
    nets = zip(model.controlnets, conditions.controls, conditions.control_scales, strict=True)
    for net, image, scale in nets:
        own_skips, own_middle = net(
            latents,
            timestep,
            **told,
            controlnet_cond=torch.cat([image.to(latents)] * halves),
            conditioning_scale=scale,
            return_dict=False,
        )
        if middle is None:
            skips, middle = list(own_skips), own_middle
        else:
            skips = [one + other for one, other in zip(skips, own_skips, strict=True)]
            middle = middle + own_middle
    if middle is None:
        return {}
    return {"down_block_additional_residuals": skips, "mid_block_additional_residual": middle}


def _rows(value: Any, chosen: slice) -> Any:
    """The same rows of a tensor, or of each tensor in a list."""
    return value[chosen] if isinstance(value, Tensor) else [_rows(item, chosen) for item in value]
