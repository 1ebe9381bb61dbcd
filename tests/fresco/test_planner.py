from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from fresco.errors import OutOfMemory
from fresco.memory import Limits, best_device, best_dtype
from fresco.models import Model
from fresco.planner import _StorageCount, forecast, plan
from fresco.request import Options
from fresco.schedule import Settings
from fresco.translate import translate
from tests.benchmarks import memory
from tests.fresco import cases, tiny

SETTINGS = Settings(steps=4, iterations=2, optimise_until=1.0, temporal_until=0.0)


def wide_model() -> Model:
    """Wide enough that its features, not Python's own objects, are what takes the memory."""
    widths = (32, 64, 64, 64)
    return tiny.model(block_out_channels=widths, attention_head_dim=4, norm_num_groups=8)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("settings", [SETTINGS, Settings.plain(steps=4)])
def test_the_rehearsal_holds_what_a_run_holds(split: bool, settings: Settings) -> None:
    """Against the storages of a real step, counted by the same means."""
    model, frames, side = wide_model(), 4, 256
    limits = Limits(split_halves=split)
    said = forecast(model, side, side, frames, settings, limits, device="cuda")
    pictures = cases.frames(frames, side, side)
    text = tiny.text(2 * frames)
    with _StorageCount("cuda") as count:
        translate(
            pictures,
            model,
            Options(settings, limits=limits),
            prompt_embeds=text,
            controls=[pictures],
            strengths=0.25,
            correspondence=cases.correspondence(frames, side, side),
        )
    assert max(said.working.values()) == pytest.approx(count.peak, rel=0.2)


def test_a_forecast_needs_shapes_only() -> None:
    real = wide_model()
    with torch.device("meta"):
        shapes = Model(
            unet=type(real.unet).from_config(real.unet.config),
            vae=type(real.vae).from_config(real.vae.config),
            scheduler=None,
            controlnets=[type(net).from_config(net.config) for net in real.controlnets],
        )
    for model in (real, shapes):
        said = forecast(model, 128, 128, 3, SETTINGS, device="cpu")
        assert said.peak == forecast(real, 128, 128, 3, SETTINGS).peak


def test_forecasts_move_the_right_way() -> None:
    model = wide_model()

    def peak(side: int = 128, frames: int = 4, **more: object) -> int:
        return forecast(model, side, side, frames, SETTINGS, **more).peak  # pyright: ignore

    assert peak(side=256) > 2 * peak()
    assert peak(frames=8) > 1.3 * peak()
    assert peak(limits=Limits(split_halves=True)) < peak()
    # Offloading helps as long as no background is smoothed, which needs the VAE between steps.
    bare = replace(SETTINGS, smooth_at=())
    offloaded = forecast(model, 128, 128, 4, bare, Limits(offload=True))
    assert offloaded.peak < forecast(model, 128, 128, 4, bare).peak
    assert peak(outsiders=1) > peak()
    assert peak(dtype=torch.float16) < 0.8 * peak()
    plain = forecast(model, 128, 128, 4, Settings.plain()).peak
    assert plain < peak()


def test_a_plan_fits_its_budget_and_keeps_the_batch_if_it_can() -> None:
    model = wide_model()
    free = plan(model, 128, 128, 8, 10**12, SETTINGS)
    assert free.limits == Limits()
    assert free.frames == 8
    tight = plan(model, 128, 128, 8, free.peak - 1, SETTINGS)
    assert tight.peak < free.peak
    assert tight.frames == 8
    assert tight.limits == Limits(split_halves=True)
    tighter = plan(model, 128, 128, 8, free.weights + tight.working["step"] * 3 // 4, SETTINGS)
    assert tighter.frames < 8
    with pytest.raises(OutOfMemory, match=r"0.0 GB are not enough for 128 x 128"):
        plan(model, 128, 128, 8, 1000, SETTINGS)


def test_the_words_name_what_is_only_predicted() -> None:
    model = wide_model()
    assert "predicted for cuda" in str(forecast(model, 128, 128, 3, SETTINGS, device="cuda"))
    assert "predicted for" not in str(forecast(model, 128, 128, 3, SETTINGS, device="cpu"))


def test_stable_diffusion_at_half_precision_fits_a_card_of_8_gb() -> None:
    with torch.device("meta"):
        model = memory.networks(width=320)
    said = plan(model, 512, 512, 8, 8 * 10**9, dtype=torch.float16, device="cuda")
    assert said.peak <= 8 * 10**9
    assert said.frames == 8
    assert "predicted for cuda" in str(said)


@pytest.mark.skipif(
    not os.environ.get("FRESCO_BRIDGE_LONG"), reason="minutes and 15 GB of memory: make test-long"
)
@pytest.mark.parametrize("split", [False, True])
def test_the_forecast_of_stable_diffusion_is_near_the_measured_peak(split: bool) -> None:
    real, said = memory.compare(side=512, frames=8, width=320, split=split, threads=2)
    assert said.peak == pytest.approx(real, rel=0.2)


def test_device_and_dtype() -> None:
    assert best_dtype(torch.device("cpu")) == torch.float32
    assert best_dtype(torch.device("mps")) == torch.float16
    assert best_device().type in ("cpu", "cuda", "mps")
    assert replace(Limits(), gram_block=2**14, split_halves=True).smaller_step() is None
