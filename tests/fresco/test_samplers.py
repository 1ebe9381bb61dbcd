"""Samplers by name and the few-step presets, run on a tiny model."""

from __future__ import annotations

import pytest
import torch

from fresco.errors import InvalidInput
from fresco.request import Options
from fresco.samplers import SAMPLERS, preset, presets, remembers, sampler
from fresco.schedule import Settings
from fresco.translate import translate
from tests.fresco import tiny

#: The configuration that Stable Diffusion 1.5 is published with: another sampler's, on purpose.
PUBLISHED = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_on_the_models_schedule_and_runs(name: str) -> None:
    scheduler = sampler(name, PUBLISHED)
    assert float(scheduler.betas[0]) == pytest.approx(0.00085, rel=1e-4)
    assert float(scheduler.betas[-1]) == pytest.approx(0.012, rel=1e-4)
    assert not getattr(scheduler.config, "clip_sample", False)
    model = tiny.model(controlnets=0, scheduler=scheduler)
    frames = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    options = Options(settings=Settings(steps=4, iterations=1))
    text = torch.cat([tiny.text(2, 1), tiny.text(2, 2)])
    images = translate(frames, model, options, prompt_embeds=text, strengths=0.75).images
    assert images.isfinite().all()
    assert remembers(name) is model.remembers_steps


def test_the_methods_own_timesteps() -> None:
    """20 steps of 1000, spaced as the published results were made."""
    scheduler = sampler("ddpm", PUBLISHED)
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == [951 - 50 * step for step in range(20)]


def test_trailing_timesteps_begin_at_pure_noise() -> None:
    scheduler = sampler("ddim_trailing", PUBLISHED)
    scheduler.set_timesteps(8)
    assert int(scheduler.timesteps[0]) == 999


def test_what_the_model_predicts_is_kept_unless_told_otherwise() -> None:
    trained = {**PUBLISHED, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    scheduler = sampler("ddim", trained)
    assert scheduler.config.prediction_type == "v_prediction"
    assert float(scheduler.alphas_cumprod[-1]) == 0
    assert sampler("ddim", trained, "epsilon").config.prediction_type == "epsilon"


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="no sampler 'pndm'; use one of ddpm"):
        sampler("pndm", PUBLISHED)
    with pytest.raises(InvalidInput, match="no preset 'fast'; use one of quality"):
        preset("fast")


@pytest.mark.parametrize("name", presets())
def test_presets_name_what_exists(name: str) -> None:
    entry = preset(name)
    assert entry.sampler in SAMPLERS
    settings = entry.settings(Settings(iterations=7))
    assert (settings.steps, settings.guidance_scale) == (entry.steps, entry.guidance_scale)
    assert settings.iterations == 7
    assert set(entry.families) <= {"sd15", "sd2", "sdxl"}
