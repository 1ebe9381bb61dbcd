"""Samplers by the names that users know, and few-step presets (LCM, Hyper, Turbo).

A sampler is one of diffusers' schedulers on the noise schedule that the model was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import tomlkit

from fresco.errors import InvalidInput, UnsupportedModel
from fresco.schedule import Settings

_PRESETS = Path(__file__).parent / "data" / "presets.toml"
#: What belongs to the model and not to the way it is sampled.
_OF_THE_MODEL = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_OTHER_NOISE = ("EDM", "FlowMatch")
_UNCLIPPED = {"clip_sample": False, "steps_offset": 1}
_TRAILING = {"timestep_spacing": "trailing"}

#: name → diffusers' class and what it is told beside the model's schedule.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", {**_UNCLIPPED, "timestep_spacing": "leading"}),
    "ddim": ("DDIMScheduler", {**_UNCLIPPED, "set_alpha_to_one": False}),
    "ddim_trailing": ("DDIMScheduler", {**_UNCLIPPED, **_TRAILING, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {"steps_offset": 1}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {"steps_offset": 1}),
    "euler_a_trailing": ("EulerAncestralDiscreteScheduler", _TRAILING),
    "euler_trailing": ("EulerDiscreteScheduler", _TRAILING),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"steps_offset": 1}),
    "dpmpp_2m_karras": (
        "DPMSolverMultistepScheduler",
        {"steps_offset": 1, "use_karras_sigmas": True},
    ),
    "unipc": ("UniPCMultistepScheduler", {"steps_offset": 1}),
    "lcm": ("LCMScheduler", {"clip_sample": False, "set_alpha_to_one": True}),
    "tcd": ("TCDScheduler", {"clip_sample": False, "set_alpha_to_one": True}),
}
#: The method's own (section 5).
DEFAULT = "ddpm"


def sampler(name: str, trained: Mapping[str, Any], prediction: str | None = None) -> Any:
    """Make the scheduler `name` for a model.

    trained: the configuration of any scheduler of the model
    prediction: what the model predicts ("epsilon", "v_prediction"), where `trained` is wrong

    Raises:
        InvalidInput: there is no such sampler, or it knows no such schedule.
        UnsupportedModel: the model was trained on another kind of noise.
    """
    if name not in SAMPLERS:
        raise InvalidInput(f"there is no sampler {name!r}; use one of {', '.join(SAMPLERS)}.")
    if prediction not in (None, *_PREDICTIONS):
        raise InvalidInput(
            f"a model cannot predict {prediction!r}; it is one of {', '.join(_PREDICTIONS)}."
        )
    own = str(trained.get("_class_name", ""))
    if own.startswith(_OTHER_NOISE) or not trained.keys() & {"beta_schedule", "trained_betas"}:
        raise UnsupportedModel(
            f"the model's scheduler ({own or 'without a name'}) is not on Stable Diffusion's noise "
            "schedule, which the method is made for; use a model that is."
        )
    kind, told = SAMPLERS[name]
    schedule = {key: trained[key] for key in _OF_THE_MODEL if trained.get(key) is not None}
    if prediction is not None:
        schedule["prediction_type"] = prediction
    try:
        return getattr(diffusers, kind).from_config({**schedule, **told})
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InvalidInput(f"the model's scheduler_config.json cannot be: {error}") from error


def remembers(name: str) -> bool:
    """Whether a sampler builds on earlier steps, so that a batch needs one strength."""
    kind, told = SAMPLERS[name]
    return getattr(diffusers, kind)(**told).config.get("solver_order", 1) > 1


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings that belong together.

    title: in plain words
    sampler: a name in `SAMPLERS`
    steps, guidance_scale: what the method's settings become
    lora: the name of the LoRA that it needs, in the catalogue; empty if the base model is enough
    lora_weight: of that LoRA
    families: of the models that it is made for
    """

    title: str
    sampler: str
    steps: int
    guidance_scale: float
    lora: str = ""
    lora_weight: float = 1.0
    families: Sequence[str] = ("sd15",)

    def settings(self, settings: Settings | None = None) -> Settings:
        """`settings` with the preset's steps and guidance."""
        return replace(settings or Settings(), steps=self.steps, guidance_scale=self.guidance_scale)


@cache
def presets() -> dict[str, Preset]:
    """The presets in the package, by name."""
    entries: dict[str, Any] = tomlkit.parse(_PRESETS.read_text(encoding="utf-8")).unwrap()
    return {name: Preset(**entry) for name, entry in entries.items()}


def preset(name: str) -> Preset:
    """The preset `name`.

    Raises:
        InvalidInput: there is none.
    """
    if name not in presets():
        raise InvalidInput(f"there is no preset {name!r}; use one of {', '.join(presets())}.")
    return presets()[name]
