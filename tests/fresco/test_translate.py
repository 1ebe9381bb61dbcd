from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionControlNetImg2ImgPipeline,
    UniPCMultistepScheduler,
)
from peft import LoraConfig
from torch import Tensor

from fresco.attention import FrescoAttnProcessor
from fresco.callbacks import CancelToken, Step
from fresco.errors import Cancelled, InvalidInput, OutOfMemory, UnsupportedModel
from fresco.memory import Limits, best_device
from fresco.models import Model
from fresco.noise import GivenNoise
from fresco.request import Keyframe, Options, Translation, keyframes
from fresco.schedule import Settings
from fresco.translate import redo, translate, translate_batch, translate_clip
from tests.fresco import cases, tiny

SIDE = 64
QUICK = Settings(steps=4, iterations=2)
PLAIN = Settings.plain(steps=4)


def frames(count: int, seed: int = 0) -> Tensor:
    return cases.frames(count, SIDE, SIDE, seed)


def asked(count: int, controlnets: int = 1, seed: int = 0) -> dict[str, Any]:
    """Text and control maps for `count` frames."""
    return {
        "prompt_embeds": tiny.text(2 * count, seed),
        "controls": [frames(count, seed=9 + net) for net in range(controlnets)],
    }


def run(model: Model, count: int = 3, settings: Settings = QUICK, **more: Any) -> Translation:
    options = Options(settings, **more.pop("options", {}))
    return translate(frames(count), model, options, **{**asked(count), **more})


SCHEDULERS: dict[str, Callable[[], Any]] = {
    "ddpm": lambda: DDPMScheduler(**tiny.SCHEDULE),
    "ddpm, v": lambda: DDPMScheduler(**tiny.SCHEDULE, prediction_type="v_prediction"),
    "ddpm, sample": lambda: DDPMScheduler(**tiny.SCHEDULE, prediction_type="sample"),
    "ddim": lambda: DDIMScheduler(**tiny.SCHEDULE),
    "euler a": lambda: EulerAncestralDiscreteScheduler(**without_clip()),
    "euler a, v": lambda: EulerAncestralDiscreteScheduler(
        **without_clip(), prediction_type="v_prediction"
    ),
    "lcm": lambda: LCMScheduler(**without_clip()),
    "dpm++ 2m": lambda: DPMSolverMultistepScheduler(**without_clip()),
    "unipc": lambda: UniPCMultistepScheduler(**without_clip()),
}


def without_clip() -> dict[str, Any]:
    return {name: value for name, value in tiny.SCHEDULE.items() if name != "clip_sample"}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_everything_off_equals_diffusers_own_pipeline(name: str) -> None:
    model = tiny.model(controlnets=1, scheduler=SCHEDULERS[name]())
    settings = Settings.plain(steps=8, guidance_scale=3.0)
    given = asked(2)
    latents = model.encode(frames(2))
    generator = torch.Generator().manual_seed(7)
    pipeline = StableDiffusionControlNetImg2ImgPipeline(
        model.vae, None, None, model.unet, model.controlnets[0], model.scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    negative, positive = given["prompt_embeds"].chunk(2)
    expected = pipeline(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        image=latents,
        control_image=given["controls"][0],
        num_inference_steps=8,
        strength=0.75,
        guidance_scale=3.0,
        controlnet_conditioning_scale=0.7,
        generator=generator,
        output_type="latent",
    ).images

    generator = torch.Generator().manual_seed(7)
    drawn = torch.randn(7, *latents.shape, generator=generator)
    noise = GivenNoise(drawn[0], drawn[0], drawn[1:])
    options = Options(settings, control_scales=[0.7])
    result = translate(frames(2), model, options, strengths=0.75, noise=noise, **given)
    torch.testing.assert_close(result.latents, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_guided(name: str) -> None:
    model = tiny.model(scheduler=SCHEDULERS[name]())
    guided, plain = run(model), run(model, settings=PLAIN)
    assert torch.isfinite(guided.latents).all()
    assert (guided.latents - plain.latents).abs().max() > 1e-3


def test_schedulers_that_cannot_be_guided_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="several times per step"):
        run(tiny.model(scheduler=HeunDiscreteScheduler(**without_clip())))
    with pytest.raises(UnsupportedModel, match="no DDPM noise schedule"):
        run(tiny.model(scheduler=diffusers.FlowMatchEulerDiscreteScheduler()))


def test_two_controlnets_add_up() -> None:
    model = tiny.model(controlnets=2)
    given = asked(2, controlnets=2)

    def result(*scales: float) -> Tensor:
        options = Options(PLAIN, control_scales=scales)
        return translate(frames(2), model, options, **given).latents

    both, first, neither = result(1, 1), result(1, 0), result(0, 0)
    assert (both - first).abs().max() > 1e-4
    assert (first - neither).abs().max() > 1e-4


def test_equal_frames_with_equal_noise_stay_equal() -> None:
    model = tiny.model()
    settings = replace(QUICK, iterations=0, repeat_step_noise=True)
    same = {
        "prompt_embeds": tiny.text(2).repeat_interleave(3, dim=0),
        "controls": [frames(1).repeat(3, 1, 1, 1)],
    }
    result = translate(
        frames(1).repeat(3, 1, 1, 1),
        model,
        Options(settings),
        correspondence=cases.still(3, SIDE, SIDE),
        **same,
    )
    for other in result.images[1:]:
        torch.testing.assert_close(other, result.images[0], rtol=0, atol=1e-4)


def test_same_seed_same_bits_and_another_seed_another_picture() -> None:
    model = tiny.model()
    first, again, other = run(model), run(model), run(model, seeds=1)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.latents, again.latents)
    assert (first.latents - other.latents).abs().max() > 0.1


def test_each_frame_has_its_own_seed_prompt_and_strength() -> None:
    model, count = tiny.model(), 3
    given = asked(count)
    first = translate(frames(count), model, Options(PLAIN), **given)
    changed = translate(frames(count), model, Options(PLAIN), **given, seeds=[0, 5, 0])
    same = (first.latents == changed.latents).flatten(1).all(dim=1)
    assert same.tolist() == [True, False, True]
    weaker = translate(frames(count), model, Options(PLAIN), **given, strengths=[0.75, 0.75, 0.5])
    same = (first.latents == weaker.latents).flatten(1).all(dim=1)
    assert same.tolist() == [True, True, False]


def test_a_weaker_frame_is_its_noised_frame_until_its_first_step() -> None:
    model = tiny.model()
    result = run(model, settings=PLAIN, strengths=[1.0, 0.25, 1.0])
    clean = model.encode(frames(3))
    last = result.keyframes[1].track
    assert last is not None
    assert len(last) == 4
    model.scheduler.set_timesteps(4)
    alpha = model.scheduler.alphas_cumprod[model.scheduler.timesteps]
    noise = (last[0] - alpha[0].sqrt() * clean[1]) / (1 - alpha[0]).sqrt()
    for step in range(4):
        expected = alpha[step].sqrt() * clean[1] + (1 - alpha[step]).sqrt() * noise
        torch.testing.assert_close(last[step], expected, rtol=1e-4, atol=1e-4)


def test_no_strength_gives_the_decoded_frame() -> None:
    model = tiny.model()
    result = run(model, settings=PLAIN, strengths=0.0)
    assert torch.equal(result.latents, model.encode(frames(3)))
    mixed = run(model, settings=PLAIN, strengths=[0.75, 0.0, 0.75])
    assert torch.equal(mixed.latents[1], model.encode(frames(3))[1])


def test_half_precision_runs_through() -> None:
    model = tiny.model()
    assert model.to(best_device(), torch.bfloat16) is model
    half = run(model)
    assert half.latents.dtype == torch.bfloat16
    assert half.images.dtype == torch.float32
    plain = run(model, settings=PLAIN).images
    assert (plain - run(tiny.model(), settings=PLAIN).images).abs().mean() < 0.05


def test_one_frame_and_no_guidance_half() -> None:
    model = tiny.model()
    settings = replace(QUICK, guidance_scale=1.0)
    result = translate(
        frames(1), model, Options(settings), prompt_embeds=tiny.text(1), controls=[frames(1)]
    )
    assert result.images.shape == (1, 3, SIDE, SIDE)
    assert result.images.min() >= 0
    assert result.images.max() <= 1


def test_prompts_go_through_the_models_own_text_encoder(tmp_path: Path) -> None:
    model = tiny.model(controlnets=0)
    with pytest.raises(UnsupportedModel, match="no text encoder"):
        translate(frames(1), model, Options(PLAIN), prompts="a b")
    model.tokenizer, model.text_encoder = tiny.text_encoder(tmp_path)
    options = Options(PLAIN)
    one = translate(frames(2), model, options, prompts=["a b", "c d e"], negative="f")
    other = translate(frames(2), model, options, prompts=["a b", "x y z"], negative="f")
    assert torch.equal(one.latents[0], other.latents[0])
    assert not torch.equal(one.latents[1], other.latents[1])
    negative = translate(frames(2), model, options, prompts=["a b", "c d e"], negative="g")
    assert not torch.equal(one.latents[0], negative.latents[0])


def test_every_step_is_told_with_a_preview() -> None:
    steps: list[Step] = []
    result = run(tiny.model(), options={"on_step": steps.append})
    assert [step.index for step in steps] == [1, 2, 3]
    assert {step.last for step in steps} == {3}
    assert steps[0].timestep > steps[-1].timestep
    for step in steps:
        preview = step.preview()
        assert preview.shape == (3, 3, SIDE // 8, SIDE // 8)
        assert 0 <= preview.min() <= preview.max() <= 1
    assert (steps[-1].clean - result.latents).abs().max() < 0.2


def test_a_preview_looks_like_the_picture() -> None:
    from fresco.preview import Preview

    # Latents that are a mix of the reduced picture: the map must be found.
    pictures = frames(2)
    small = torch.nn.functional.interpolate(pictures, size=(8, 8), mode="area")
    mix = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    latents = torch.einsum("ck,nkhw->nchw", mix, small) + 0.3
    assert (Preview(latents, pictures)(latents) - small).abs().max() < 0.05


def bare(model: Model) -> bool:
    """Whether nothing of FRESCO is left on the model."""
    hooks = [
        *(module._forward_pre_hooks for part in model.modules for module in part.modules()),
        *(module._forward_hooks for part in model.modules for module in part.modules()),
    ]
    processors = model.unet.attn_processors.values()
    fresco = any(isinstance(processor, FrescoAttnProcessor) for processor in processors)
    return not any(hooks) and not fresco


@pytest.mark.parametrize("moment", range(1, 40, 3))
def test_cancel_at_any_poll_leaves_the_model_bare(moment: int) -> None:
    """Polls come in every step, optimisation iteration and VAE tile; stop at the n-th."""

    class StopAt(CancelToken):
        polls = 0

        def check(self) -> None:
            self.polls += 1
            if self.polls == moment:
                self.cancel()
            super().check()

    model, token = tiny.model(), StopAt()
    with pytest.raises(Cancelled):
        run(model, options={"cancel": token})
    assert token.polls == moment
    assert bare(model)
    assert run(model).images.shape[0] == 3


def test_cancel_from_another_thread() -> None:
    model, token = tiny.model(), CancelToken()
    started = threading.Event()

    def on_step(_step: Step) -> None:
        started.set()

    def stop() -> None:
        started.wait()
        token.cancel()

    stopper = threading.Thread(target=stop)
    stopper.start()
    many = replace(QUICK, steps=400)
    with pytest.raises(Cancelled):
        run(model, settings=many, options={"cancel": token, "on_step": on_step})
    stopper.join()
    assert bare(model)


def test_a_lora_changes_the_result_and_survives() -> None:
    model = tiny.model()
    before = run(model).latents
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False)
    model.unet.add_adapter(config)
    adapted = run(model).latents
    assert (adapted - before).abs().max() > 1e-3
    assert torch.equal(run(model).latents, adapted)
    assert "default" in model.unet.peft_config


def test_an_ip_adapter_changes_the_result_and_survives() -> None:
    model = tiny.model()
    before = run(model).latents
    tiny.add_ip_adapter(model.unet)
    processors = dict(model.unet.attn_processors)

    def pictured(seed: int) -> Tensor:
        image = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(seed))
        image[0] = 0  # the unconditional half sees no picture
        return run(model, options={"added": {"image_embeds": [image]}}).latents

    one = pictured(1)
    assert (one - before).abs().max() > 1e-3
    assert (pictured(2) - one).abs().max() > 1e-3
    assert torch.equal(pictured(1), one)
    assert dict(model.unet.attn_processors) == processors


def test_background_smoothing_carries_the_background() -> None:
    model = tiny.model()
    settings = replace(PLAIN, smooth_at=(0.75,))
    still = cases.still(3, SIDE, SIDE)

    def spread(background: Tensor | None) -> float:
        result = run(model, settings=settings, background=background, correspondence=still)
        return float((result.images[1:] - result.images[:1]).abs().mean())

    everywhere, nowhere = torch.ones(3, 1, SIDE, SIDE), torch.zeros(3, 1, SIDE, SIDE)
    assert spread(everywhere) < 0.5 * spread(nowhere)
    assert spread(None) == pytest.approx(spread(nowhere), rel=0.5)


def clip_loader(model: Model, settings: Settings) -> Callable[[Sequence[int]], list[Keyframe]]:
    pictures = frames(40)

    def load(numbers: Sequence[int]) -> list[Keyframe]:
        chosen = pictures[list(numbers)]
        return keyframes(
            chosen,
            model,
            prompt_embeds=tiny.text(2).repeat_interleave(len(numbers), dim=0),
            controls=[chosen],
            numbers=numbers,
            settings=settings,
        )

    return load


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9, 11])
def test_any_number_of_keyframes(count: int) -> None:
    model, settings = tiny.model(), replace(QUICK, steps=2, iterations=1)
    shot = list(range(0, 3 * count, 3))
    load = clip_loader(model, settings)
    batches = list(translate_clip([shot], load, model, size=5, options=Options(settings)))
    assert [k.number for batch in batches for k in batch.keyframes] == shot
    assert all(k.image is not None for batch in batches for k in batch.keyframes)


def test_later_batches_replay_their_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = tiny.model(), replace(QUICK, iterations=0)
    seen: list[Tensor] = []
    real = model.unet.forward

    def spy(sample: Tensor, *args: Any, **options: Any) -> Any:
        seen.append(sample)
        return real(sample, *args, **options)

    monkeypatch.setattr(model.unet, "forward", spy)
    load = clip_loader(model, settings)
    first, second = translate_clip([[0, 3, 6, 9, 12, 15]], load, model, 4, Options(settings))
    anchors = [first.keyframes[0].track, first.keyframes[-1].track]
    later = seen[-3:]  # the last batch's denoising steps
    for place, anchor in enumerate(anchors):
        assert anchor is not None
        for step, recorded in zip(later, anchor, strict=True):
            assert torch.equal(step[place], recorded)
    assert second.keyframes[0].number == 9


def test_a_later_shot_shares_the_style_and_nothing_else() -> None:
    model, settings = tiny.model(), replace(QUICK, iterations=1)
    load = clip_loader(model, settings)

    def second_shot(first: list[int], shared: bool) -> Tensor:
        shots = [first, [20, 24, 28]]
        batches = list(translate_clip(shots, load, model, 5, Options(settings), shared))
        return batches[-1].latents

    (only,) = translate_clip([[20, 24, 28]], load, model, 5, Options(settings))
    alone = only.latents
    shared = second_shot([0, 4], shared=True)
    (first, *_) = translate_clip([[0, 4]], load, model, 5, Options(settings))
    style, new = first.keyframes[0], load([20, 24, 28])
    options = Options(settings)
    by_hand = translate_batch(new, model, options, style=style).latents
    assert torch.equal(by_hand, shared)
    # Of the style only its record is read: not its frame, nor its result.
    blank = replace(style, frame=style.frame * 0, image=style.frame * 0)
    assert torch.equal(translate_batch(new, model, options, style=blank).latents, shared)
    assert torch.equal(second_shot([0, 4], shared=False), alone)
    assert (shared - alone).abs().max() > 1e-4


def done_shot(model: Model, settings: Settings, count: int = 5) -> list[Keyframe]:
    load = clip_loader(model, settings)
    shot = list(range(count))
    batches = translate_clip([shot], load, model, max(3, count), Options(settings))
    return [keyframe for batch in batches for keyframe in batch.keyframes]


def parts(keyframe: Keyframe) -> list[Tensor]:
    return [x for x in (keyframe.image, keyframe.latents, keyframe.track) if x is not None]


@pytest.mark.parametrize("k", [0, 2, 4])
def test_redo_changes_one_keyframe_and_no_other(k: int) -> None:
    model = tiny.model()
    shot = done_shot(model, QUICK)
    before = [[part.clone() for part in parts(keyframe)] for keyframe in shot]
    new = redo(shot, k, model, Options(QUICK), seed=11, prompt_embeds=tiny.text(2, seed=8))
    assert new.number == shot[k].number
    assert new.seed == 11
    assert new.image is not None
    assert not torch.equal(new.image, before[k][0])
    for keyframe, kept in zip(shot, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(parts(keyframe), kept, strict=True))
    again = redo(shot, k, model, Options(QUICK), seed=11, prompt_embeds=tiny.text(2, seed=8))
    assert again.image is not None
    assert torch.equal(again.image, new.image)


def test_redo_is_guided_by_its_neighbours() -> None:
    model = tiny.model()
    shot = done_shot(model, QUICK)
    new = redo(shot, 2, model, Options(QUICK), seed=3)
    assert shot[1].track is not None
    other = [*shot[:1], replace(shot[1], track=shot[1].track + 0.5), *shot[2:]]
    changed = redo(other, 2, model, Options(QUICK), seed=3)
    assert new.latents is not None
    assert changed.latents is not None
    assert (new.latents - changed.latents).abs().max() > 1e-4


def test_a_painted_neighbour_is_its_noised_image() -> None:
    model = tiny.model()
    shot = done_shot(model, QUICK)
    painted = shot[1].painted(frames(1, seed=5)[0])
    assert painted.done
    assert painted.track is None
    shot = [shot[0], painted, *shot[2:]]
    new = redo(shot, 2, model, Options(QUICK), seed=3)
    assert new.image is not None
    other = [shot[0], painted.painted(frames(1, seed=6)[0]), *shot[2:]]
    changed = redo(other, 2, model, Options(QUICK), seed=3)
    assert changed.image is not None
    assert (new.image - changed.image).abs().max() > 1e-4
    with pytest.raises(InvalidInput, match="export it at the size"):
        painted.painted(torch.zeros(3, 8, 8))


def test_a_single_keyframe_is_redone_alone() -> None:
    model = tiny.model()
    (only,) = done_shot(model, QUICK, count=1)
    new = redo([only], 0, model, Options(QUICK), strength=0.5)
    assert new.track is not None
    assert len(new.track) == 2


def test_split_halves_and_small_blocks_are_the_same_method() -> None:
    model = tiny.model()
    settings = replace(QUICK, iterations=0)
    whole = run(model, settings=settings).latents
    small = Limits(split_halves=True, gram_block=64)
    split = run(model, settings=settings, options={"limits": small}).latents
    torch.testing.assert_close(split, whole, rtol=1e-3, atol=1e-3)
    optimised = run(model, options={"limits": small}).latents
    assert (optimised - run(model).latents).abs().mean() < 0.5


def failing(times: int, error: Exception, real: Callable[..., Any]) -> Callable[..., Any]:
    left = [times]

    def call(*args: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return real(*args, **options)

    return call


def test_out_of_memory_halves_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    expected = run(model, settings=PLAIN).latents
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    monkeypatch.setattr(model.unet, "forward", failing(2, error, model.unet.forward))
    result = run(model, settings=PLAIN)
    assert len(result.shrunk) == 2
    assert result.limits.split_halves
    assert result.limits.gram_block < Limits().gram_block
    assert "a denoising step ran out of memory" in result.shrunk[0]
    torch.testing.assert_close(result.latents, expected, rtol=1e-3, atol=1e-3)


def test_out_of_memory_in_the_vae_makes_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    error = RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried")
    monkeypatch.setattr(model.vae, "encode", failing(3, error, model.vae.encode))
    result = run(model, settings=PLAIN)
    assert result.limits.vae_tile == 128
    assert not model.vae.use_tiling
    assert len(result.shrunk) == 3


def test_what_never_fits_ends_in_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    error = torch.OutOfMemoryError("out of memory")
    monkeypatch.setattr(model.unet, "forward", failing(999, error, model.unet.forward))
    with pytest.raises(OutOfMemory, match="fewer keyframes per batch"):
        run(model, settings=PLAIN)
    assert bare(model)


def test_another_error_is_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    monkeypatch.setattr(model.unet, "forward", failing(1, RuntimeError("bug"), model.unet.forward))
    with pytest.raises(RuntimeError, match="bug"):
        run(model)
    assert bare(model)


def test_tiles_are_polled_and_offloading_changes_nothing() -> None:
    model = tiny.model()
    expected = run(model, settings=PLAIN).images
    offloaded = run(model, settings=PLAIN, options={"limits": Limits(offload=True)}).images
    assert torch.equal(offloaded, expected)

    class Counting(CancelToken):
        polls = 0

        def check(self) -> None:
            self.polls += 1

    whole, tiled = Counting(), Counting()
    large = frames(1).repeat(1, 1, 4, 4)
    given = {"prompt_embeds": tiny.text(2), "controls": [large]}
    for token, limits in ((whole, Limits()), (tiled, Limits(vae_tile=128))):
        options = Options(PLAIN, limits=limits, cancel=token)
        translate(large, model, options, **given)
    assert tiled.polls > whole.polls + 10


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"strengths": 1.5}, "strength is 1.5"),
        ({"seeds": [1, 2]}, "2 seeds for 3 frames"),
        ({"prompt_embeds": tiny.text(3)}, "for 3 frames; expected 2"),
        ({"controls": []}, "has 0 control maps, the model 1"),
        ({"controls": [torch.zeros(3, 3, 8, 8)]}, "control maps have shape"),
        ({"background": torch.zeros(3, 3, SIDE, SIDE)}, "background mattes have shape"),
        ({"options": {"control_scales": [1, 2]}}, "2 control scales for 1 ControlNets"),
        ({"settings": Settings(steps=2000)}, "cannot run 2000 steps"),
    ],
)
def test_bad_requests_are_refused(change: dict[str, Any], says: str) -> None:
    model = tiny.model()
    with pytest.raises(InvalidInput, match=says):
        run(model, **change)
    assert bare(model)


def test_frames_that_do_not_fit_the_model_are_refused() -> None:
    model = tiny.model(controlnets=0)
    odd = cases.frames(1, 72, 100)
    with pytest.raises(InvalidInput, match=r"100 x 72; .* multiples of 64: .* 128 x 128"):
        translate(odd, model, Options(PLAIN), prompt_embeds=tiny.text(2))


def test_records_that_do_not_fit_are_refused() -> None:
    model = tiny.model()
    shot = done_shot(model, QUICK, count=3)
    with pytest.raises(
        InvalidInput, match="DDPMScheduler in 4 steps, this run has DDPMScheduler in 6"
    ):
        redo(shot, 1, model, Options(replace(QUICK, steps=6)))
    with pytest.raises(InvalidInput, match="no keyframe 3"):
        redo(shot, 3, model, Options(QUICK))
    with pytest.raises(InvalidInput, match="nothing to translate"):
        translate_batch(shot, model, Options(QUICK))
    undone = replace(shot[0], image=None)
    with pytest.raises(InvalidInput, match=r"\[0\] beside it are not translated"):
        redo([undone, *shot[1:]], 1, model, Options(QUICK))
    with pytest.raises(InvalidInput, match="style is shared is not translated"):
        translate_batch([undone], model, Options(QUICK), style=undone)
    with pytest.raises(InvalidInput, match="at least 1"):
        Settings(steps=0)
    short = GivenNoise(torch.zeros(3, 4, 8, 8), torch.zeros(3, 4, 8, 8), torch.zeros(1, 3, 4, 8, 8))
    with pytest.raises(InvalidInput, match="noise was given for 1 steps"):
        run(model, noise=short)


@pytest.mark.parametrize("name", ["ddpm", "euler a", "lcm"])
def test_the_strength_of_others_changes_nothing_without_guidance(name: str) -> None:
    model, given = tiny.model(scheduler=SCHEDULERS[name]()), asked(3)

    def first_two(*strengths: float) -> Tensor:
        return translate(frames(3), model, Options(PLAIN), **given, strengths=strengths).latents[:2]

    assert torch.equal(first_two(0.75, 0.75, 0.75), first_two(0.75, 0.75, 1.0))


@pytest.mark.parametrize("name", ["dpm++ 2m", "unipc"])
def test_mixed_strengths_need_a_scheduler_without_memory(name: str) -> None:
    model = tiny.model(scheduler=SCHEDULERS[name]())
    with pytest.raises(InvalidInput, match="builds on earlier steps"):
        run(model, strengths=[0.5, 1.0, 1.0])


def test_the_scheduler_in_stable_diffusions_own_configuration() -> None:
    model = tiny.model(scheduler=PNDMScheduler(**without_clip(), skip_prk_steps=True))
    assert torch.isfinite(run(model).latents).all()
    assert torch.equal(run(model, strengths=0.0).latents, model.encode(frames(3)))
    with pytest.raises(UnsupportedModel, match="several times per step"):
        run(tiny.model(scheduler=PNDMScheduler(**without_clip(), skip_prk_steps=False)))


def test_records_of_another_scheduler_are_refused() -> None:
    model = tiny.model()
    shot = done_shot(model, QUICK, count=3)
    model.scheduler = SCHEDULERS["euler a"]()
    with pytest.raises(InvalidInput, match="recorded with DDPMScheduler in 4 steps"):
        redo(shot, 1, model, Options(QUICK))


def test_redo_keeps_what_is_not_given(tmp_path: Path) -> None:
    model = tiny.model(controlnets=0)
    model.tokenizer, model.text_encoder = tiny.text_encoder(tmp_path)
    options = Options(PLAIN)
    shot = translate(frames(1), model, options, prompts="a b", negative="c").keyframes
    assert torch.equal(redo(shot, 0, model, options).text, shot[0].text)
    assert torch.equal(redo(shot, 0, model, options, prompt="a b").text, shot[0].text)
    other = redo(shot, 0, model, options, negative="d")
    assert torch.equal(other.text[1], shot[0].text[1])
    assert not torch.equal(other.text[0], shot[0].text[0])
    assert shot[0].image is not None
    assert other.image is not None
    assert not torch.equal(other.image, shot[0].image)


@pytest.mark.parametrize("painted", [[0], [4], [0, 1, 2, 3, 4], [9]])
def test_painted_keyframes_take_part_in_a_clip(painted: list[int]) -> None:
    model, settings = tiny.model(), replace(QUICK, iterations=0)
    blank = clip_loader(model, settings)

    def load(numbers: Sequence[int]) -> list[Keyframe]:
        loaded = blank(numbers)
        return [k.painted(frames(1, seed=5)[0]) if k.number in painted else k for k in loaded]

    batches = list(translate_clip([list(range(10))], load, model, 5, Options(settings)))
    numbers = [keyframe.number for batch in batches for keyframe in batch.keyframes]
    assert numbers == [number for number in range(10) if number not in painted]


def test_keyframes_without_their_numbers_are_refused() -> None:
    model = tiny.model()
    load = clip_loader(model, QUICK)
    with pytest.raises(InvalidInput, match=r"\[3, 6\] were asked for, but \[0, 3\] were loaded"):
        list(translate_clip([[3, 6]], lambda _numbers: load([0, 3]), model, 5, Options(QUICK)))


def test_numbers_go_on_after_the_records() -> None:
    model = tiny.model()
    first = run(model).keyframes
    more = run(model, records=[first[0], first[-1]])
    assert [keyframe.number for keyframe in more.keyframes] == [3, 4, 5]
    undone = replace(first[0], image=None)
    with pytest.raises(InvalidInput, match="records that are not translated"):
        run(model, records=[undone])


def test_offloading_keeps_only_those_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(controlnets=0)
    moves: list[tuple[str, str]] = []
    for name in ("unet", "vae"):
        part, real = getattr(model, name), getattr(model, name).to

        def to(place: Any, *more: Any, name: str = name, real: Any = real) -> Any:
            moves.append((name, "away" if place == "cpu" else "here"))
            return real(place, *more)

        monkeypatch.setattr(part, "to", to)
    options = Options(PLAIN, limits=Limits(offload=True))
    translate(frames(1), model, options, prompt_embeds=tiny.text(2))
    assert moves == [
        ("unet", "away"), ("vae", "away"), ("vae", "here"), ("vae", "away"),
        ("unet", "here"), ("unet", "away"), ("vae", "here"), ("vae", "away"),
    ]  # fmt: skip


def test_frames_without_a_matte_have_no_background() -> None:
    model = tiny.model()
    settings = replace(PLAIN, smooth_at=(1.0,))
    batch = keyframes(frames(2), model, settings=settings, **asked(2))
    matte = torch.ones(1, SIDE, SIDE)
    still = cases.still(2, SIDE, SIDE)

    def latents(*mattes: Tensor | None) -> Tensor:
        given = [replace(k, background=m) for k, m in zip(batch, mattes, strict=True)]
        return translate_batch(given, model, Options(settings), correspondence=still).latents

    assert torch.equal(latents(matte, None), latents(matte, matte * 0))
    assert not torch.equal(latents(matte, matte), latents(matte, None))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"controls": [torch.full((3, 3, SIDE, SIDE), 255.0)]}, "control maps are no images"),
        ({"background": torch.full((3, 1, SIDE, SIDE), 255.0)}, "mattes are no images"),
        ({"prompts": "a b"}, "give one of them"),
        ({"seeds": -1}, "negative"),
        ({"prompt_embeds": torch.zeros(6, 4)}, "prompt embeddings of shape"),
    ],
)
def test_more_bad_requests_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        run(tiny.model(), **change)


def test_an_ip_adapter_without_a_picture_is_refused() -> None:
    model = tiny.model()
    tiny.add_ip_adapter(model.unet)
    with pytest.raises(InvalidInput, match="no picture for it"):
        run(model)


def test_noise_of_other_frames_is_refused() -> None:
    noise = GivenNoise(
        *(torch.zeros(*shape) for shape in ((2, 4, 8, 8), (2, 4, 8, 8), (3, 2, 4, 8, 8)))
    )
    with pytest.raises(InvalidInput, match="one row per frame"):
        run(tiny.model(), noise=noise)


def test_memory_that_runs_out_elsewhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    error = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(model.scheduler, "step", failing(1, error, model.scheduler.step))
    with pytest.raises(OutOfMemory, match="memory ran out beside the model"):
        run(model)
    assert bare(model)


def test_an_ip_adapter_works_with_halves_one_by_one() -> None:
    model = tiny.model()
    tiny.add_ip_adapter(model.unet)
    image = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(1))
    settings = replace(QUICK, iterations=0)

    def latents(limits: Limits) -> Tensor:
        options = {"added": {"image_embeds": [image]}, "limits": limits}
        return run(model, settings=settings, options=options).latents

    whole, split = latents(Limits()), latents(Limits(split_halves=True))
    torch.testing.assert_close(split, whole, rtol=1e-3, atol=1e-3)
