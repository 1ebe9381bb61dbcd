"""Which steps are run, and which parts of FRESCO are on in each (method, sections 5 to 8).

FRESCO's constants were chosen for 20 steps; here they are fractions of the schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fresco.errors import InvalidInput

#: The reference pass sees frames that are nearly clean: noised at most this share of the schedule.
_NEARLY_CLEAN = 0.05


@dataclass(frozen=True, slots=True)
class Settings:
    """How a batch is denoised and which parts of FRESCO take part.

    steps: of the whole schedule, T
    guidance_scale: classifier-free guidance; 1 or less runs without the unconditional half
    spatial, cross_frame, temporal: the three kinds of guided attention
    spatial_steps: how many steps, from the first, are spatially guided
    temporal_until: temporal guidance is on down to this share of the training steps
    temporal_loss, spatial_weight, iterations, lr, adain_epsilon: see `fresco.features.optimise`
    optimise_until: the optimisation is on in this share of the schedule, warm-up steps counted
    smooth_at: the steps whose background is smoothed, as shares of the schedule
    repeat_start_noise, repeat_step_noise: see `fresco.noise.SeededNoise`

    Raises:
        InvalidInput: fewer than one step.
    """

    steps: int = 20
    guidance_scale: float = 7.5
    spatial: bool = True
    cross_frame: bool = True
    temporal: bool = True
    spatial_steps: int = 1
    temporal_until: float = 0.35
    temporal_loss: bool = True
    spatial_weight: float = 100.0
    iterations: int = 20
    lr: float = 0.2
    adain_epsilon: float = 1.0
    optimise_until: float = 0.75
    smooth_at: tuple[float, ...] = (16 / 20, 17 / 20)
    repeat_start_noise: bool = True
    repeat_step_noise: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidInput(f"a run of {self.steps} steps; use at least 1.")

    @classmethod
    def plain(cls, **changes: Any) -> Settings:
        """Settings with every part of FRESCO off: each frame translated by itself."""
        off: dict[str, Any] = {
            "spatial": False,
            "cross_frame": False,
            "temporal": False,
            "temporal_loss": False,
            "spatial_weight": 0.0,
            "smooth_at": (),
        }
        return cls(**{**off, **changes})

    @property
    def halves(self) -> int:
        """2 under classifier-free guidance, otherwise 1."""
        return 2 if self.guidance_scale > 1 else 1

    @property
    def optimises(self) -> bool:
        """Whether features are optimised at all."""
        losses = self.temporal_loss or self.spatial_weight != 0
        return losses and self.iterations > 0 and self.optimise_until > 0


def first_step(strength: float, steps: int) -> int:
    """The first step run at this denoising strength: ``strength = 1 - first / steps``.

    Raises:
        InvalidInput: the strength is not in [0, 1].
    """
    if not 0 <= strength <= 1:
        raise InvalidInput(f"the strength is {strength}; use 0 (the frame itself) to 1.")
    return steps - round(strength * steps)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of one run.

    timesteps: (T,), the whole schedule, of the training steps
    first: the first step that is run
    training_steps: of the model, 1000 for Stable Diffusion
    """

    timesteps: Tensor
    first: int
    training_steps: int
    settings: Settings

    @classmethod
    def of(
        cls, scheduler: Any, settings: Settings, firsts: Sequence[int], device: torch.device
    ) -> Schedule:
        """Set `scheduler` to the run's first step; `firsts` are those of the frames.

        Raises:
            InvalidInput: the scheduler cannot run so many steps.
        """
        try:
            scheduler.set_timesteps(settings.steps, device=device)
        except ValueError as error:
            raise InvalidInput(
                f"{type(scheduler).__name__} cannot run {settings.steps} steps: {error}"
            ) from error
        first = min(firsts)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        training_steps = scheduler.config.num_train_timesteps
        return cls(scheduler.timesteps, first, training_steps, settings)

    @property
    def last(self) -> int:
        """The last step."""
        return len(self.timesteps) - 1

    @property
    def steps(self) -> range:
        """The steps that are run, numbered in the whole schedule."""
        return range(self.first, len(self.timesteps))

    @property
    def reference_timestep(self) -> int:
        """The schedule's last timestep, or a nearly clean one where few steps end early."""
        return min(int(self.timesteps[-1]), round(_NEARLY_CLEAN * self.training_steps))

    def spatial(self, step: int) -> bool:
        """Whether spatial-guided attention is on."""
        return self.settings.spatial and step < self.first + self.settings.spatial_steps

    def temporal(self, step: int) -> bool:
        """Whether temporal-guided attention is on."""
        limit = self.settings.temporal_until * self.training_steps
        return self.settings.temporal and float(self.timesteps[step]) >= limit

    def optimised(self, step: int) -> bool:
        """Whether features are optimised."""
        share = round(self.settings.optimise_until * self.settings.steps)
        return self.settings.optimises and step < share

    def smoothed(self, step: int) -> bool:
        """Whether the background is smoothed."""
        steps = (round(share * self.settings.steps) for share in self.settings.smooth_at)
        return step in {min(smoothed, self.last) for smoothed in steps}
