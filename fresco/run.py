"""One batch on its way (method, sections 2 to 8)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fresco.attention import AttentionGuidance, guided_attention
from fresco.callbacks import Step, polled
from fresco.correspondence import Correspondence, estimate
from fresco.errors import InvalidInput
from fresco.features import fuse_background
from fresco.frames import stack
from fresco.guidance import FeatureGuidance, guided_features
from fresco.memory import Budget, Limits, placed, tiled
from fresco.models import Model, check_size
from fresco.noise import Noise, SeededNoise
from fresco.prediction import noised
from fresco.preview import Preview, decode_small
from fresco.prompts import alike
from fresco.reference import Reference
from fresco.request import Keyframe, Options, Translation
from fresco.sampling import Conditions, Guidance, denoise, predict, record_in_parts
from fresco.schedule import Schedule, Settings, first_step


class Run:
    """One batch on its way: what is fixed when it starts, and the functions the loop calls.

    See `fresco.translate.translate_batch` for the arguments and what is raised.
    """

    def __init__(
        self,
        batch: Sequence[Keyframe],
        model: Model,
        options: Options,
        correspondence: Correspondence | None,
        style: Keyframe | None,
        noise: Noise | None,
    ) -> None:
        options.cancel.check()
        _check(batch, style, model, options)
        self.model, self.options, self.settings = model, options, options.settings
        self.batch, self.style = list(batch), style
        self.all = [*batch, *([style] if style is not None else [])]
        self.budget = Budget(options.limits)
        if options.limits.offload:
            for part in model.modules:
                part.to("cpu")
        self.frames = self.stacked([keyframe.frame for keyframe in batch])
        correspondence = correspondence or estimate(self.frames, options.flow, options.cancel.check)
        self.correspondence = correspondence.to(model.device)
        self.firsts = [first_step(keyframe.strength, self.settings.steps) for keyframe in self.all]
        asked = [self.firsts[place] for place in self.new_places()]
        if model.remembers_steps and len(set(asked)) > 1:
            raise InvalidInput(
                f"{type(model.scheduler).__name__} builds on earlier steps, which weaker keyframes "
                "do not have; use one strength, or DDPM, DDIM, Euler ancestral or LCM."
            )
        self.schedule = Schedule.of(model.scheduler, self.settings, asked, model.device)
        for place, keyframe in enumerate(self.all):
            if keyframe.strength == 0:
                self.firsts[place] = self.schedule.last + 1
        self.conditions = self.told()
        self.background = self.backgrounds()
        self.given_noise = noise

    def translate(self) -> Translation:
        """Denoise, decode, and give each new keyframe its result."""
        model = self.model
        with torch.no_grad(), polled(self.options.cancel, *_parts(model)):
            sources = self.stacked([keyframe.source for keyframe in self.all])
            self.clean = self.encode(sources)
            self.noise = self.given_noise or self.seeded()
            self.start_noise = self.noise.start().to(self.clean)
            if self.start_noise.shape != self.clean.shape:
                raise InvalidInput(
                    f"the start noise has shape {tuple(self.start_noise.shape)}, the latents "
                    f"{tuple(self.clean.shape)}; give one row per frame of the batch."
                )
            self.preview = self.previewer(sources)
            del sources
            with self.placed(model.unet, *model.controlnets), self.guided() as guidance:
                final, starts = denoise(
                    model.scheduler,
                    self.schedule,
                    self.hold,
                    lambda latents, step: self.predict(guidance, latents, step),
                    None if self.background is None else self.smooth,
                    self.noise,
                    self.report,
                )
            return self.results(final, starts)

    def previewer(self, sources: Tensor) -> Callable[[Tensor], Tensor]:
        """What draws a picture of latents: the model's small VAE, or a fitted estimate."""
        if self.model.preview_vae is not None:
            return partial(decode_small, self.model.preview_vae)
        return Preview(self.clean, sources)

    def stacked(self, parts: Sequence[Tensor]) -> Tensor:
        """Bring tensors of any device to the model's and stack them."""
        return torch.stack([part.to(self.model.device) for part in parts])

    def encode(self, images: Tensor) -> Tensor:
        """Encode within the memory limits."""
        return self.budget.vae(lambda limits: self.in_tiles(limits, self.model.encode, images))

    def decode(self, latents: Tensor) -> Tensor:
        """Decode within the memory limits."""
        return self.budget.vae(lambda limits: self.in_tiles(limits, self.model.decode, latents))

    def in_tiles(self, limits: Limits, work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Run the VAE in the limits' tiles."""
        vae = self.model.vae
        with self.placed(vae), tiled(vae, limits.vae_tile, self.model.latent_scale):
            return work(x)

    def placed(self, *modules: nn.Module) -> AbstractContextManager[None]:
        """Have `modules` on the model's device, only there if networks are offloaded."""
        return placed(self.model.device, self.budget.limits.offload, *modules)

    def seeded(self) -> Noise:
        """Noise from the keyframes' seeds."""
        return SeededNoise(
            [keyframe.seed for keyframe in self.all],
            [keyframe.number for keyframe in self.all],
            self.clean.shape[1:],
            self.settings.repeat_start_noise,
            self.settings.repeat_step_noise,
        )

    def told(self) -> Conditions:
        """What the model is told about the frames."""
        model = self.model
        texts = alike(model, [keyframe.text for keyframe in self.all])
        text = self.stacked(texts).transpose(0, 1).flatten(0, 1)
        maps = zip(*(keyframe.controls for keyframe in self.all), strict=True)
        scales = self.options.control_scales or [1.0] * len(model.controlnets)
        return Conditions(
            text=text.to(model.device, model.dtype),
            controls=[self.stacked(images).to(model.dtype) for images in maps],
            control_scales=list(scales),
            guidance_scale=self.settings.guidance_scale,
            added=self.added(self.all),
        )

    def added(self, keyframes: Sequence[Keyframe]) -> dict[str, Any]:
        """What else the U-Net is told: reference pictures; pooled text and sizes for SDXL."""
        added = _repeat(self.options.added, len(keyframes))
        vectors = [keyframe.pooled for keyframe in keyframes if keyframe.pooled is not None]
        if self.model.is_xl:
            pooled = self.stacked(vectors).transpose(0, 1).flatten(0, 1).to(self.model.dtype)
            size = self.frames.shape[-2:]
            sizes = torch.tensor([*size, 0, 0, *size], device=pooled.device, dtype=pooled.dtype)
            added |= {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}
        return added

    @contextmanager
    def guided(self) -> Generator[Guidance]:
        """Guide the U-Net inside the ``with`` block, by the features of the input frames."""
        settings = self.settings
        reference = self.reference() if self.needs_reference() else Reference()
        attention = AttentionGuidance.of(self.frames, self.correspondence, reference.attention)
        attention.cross_frame = settings.cross_frame
        attention.on_attention = self.options.cancel.check
        features = FeatureGuidance(
            self.correspondence,
            reference.features,
            temporal=settings.temporal_loss,
            spatial_weight=settings.spatial_weight,
            iterations=settings.iterations,
            lr=settings.lr,
            adain_epsilon=settings.adain_epsilon,
            on_iteration=self.options.cancel.check,
        )
        attention.outsiders = features.outsiders = len(self.all) - len(self.batch)
        unet = self.model.unet
        with guided_attention(unet, attention), guided_features(unet, features):
            yield Guidance(attention, features)

    def needs_reference(self) -> bool:
        """Whether any part of the guidance reads the input frames' features."""
        steps = self.schedule.steps
        optimised = self.settings.spatial_weight != 0 and any(map(self.schedule.optimised, steps))
        return optimised or any(map(self.schedule.spatial, steps))

    def reference(self) -> Reference:
        """Run the U-Net over the nearly clean input frames (not over paintings)."""
        count, halves = len(self.batch), self.settings.halves
        timestep = self.schedule.reference_timestep
        inputs = self.clean[:count].clone()
        for place, keyframe in enumerate(self.batch):
            if keyframe.source is not keyframe.frame:
                inputs[place] = self.encode(keyframe.frame[None])[0]
        noisy = noised(self.model.scheduler, inputs, self.noise.reference()[:count], timestep)
        text = self.conditions.text.unflatten(0, (halves, -1))[:, :count].flatten(0, 1)
        conditions = Conditions(text, added=self.added(self.batch))
        return self.budget.step(
            lambda limits: record_in_parts(self.model.unet, noisy, timestep, conditions, limits)
        )

    def hold(self, latents: Tensor | None, step: int) -> Tensor:
        """Overwrite the latents that are not the model's to choose at the start of `step`.

        A new keyframe is its noised frame up to its first step. A done one is its recorded latents,
        or, where it has none, its noised frame or painting.
        """
        held = self.clean.clone() if latents is None else latents.clone()
        noisy = self.noised_to(step)
        for place, keyframe in enumerate(self.all):
            if not keyframe.done and step > self.firsts[place]:
                continue
            recorded = self.recorded(keyframe, step)
            held[place] = noisy[place] if recorded is None else recorded.to(held)
        return held

    def recorded(self, keyframe: Keyframe, step: int) -> Tensor | None:
        """The latents that `step` of a done keyframe started from, if there is a record."""
        if keyframe.track is None or not keyframe.done:
            return None
        place = step - (len(self.schedule.timesteps) - len(keyframe.track))
        if place == len(keyframe.track):
            return keyframe.latents
        return keyframe.track[place] if place >= 0 else None

    def noised_to(self, step: int) -> Tensor:
        """The clean latents with the start noise at `step`; after the last step, without."""
        if step > self.schedule.last:
            return self.clean
        timesteps = self.schedule.timesteps[step].expand(len(self.clean))
        return self.model.scheduler.add_noise(self.clean, self.start_noise, timesteps)

    def predict(self, guidance: Guidance, latents: Tensor, step: int) -> Tensor:
        """The model's output under the guidance of `step`, within the memory limits."""
        timestep = self.schedule.timesteps[step]

        def work(limits: Limits) -> Tensor:
            self.options.cancel.check()
            guidance.enter(self.schedule, step, limits)
            return predict(self.model, latents, timestep, self.conditions, guidance, limits)

        return self.budget.step(work)

    def backgrounds(self) -> Tensor | None:
        """The mattes of the batch (N, 1, H, W), if any frame has one; others have no background."""
        mattes = [keyframe.background for keyframe in self.batch]
        if all(matte is None for matte in mattes):
            return None
        nothing = self.frames.new_zeros(1, *self.frames.shape[2:])
        return self.stacked([nothing if matte is None else matte for matte in mattes]).float()

    def smooth(self, clean: Tensor) -> Tensor:
        """Fuse the backgrounds of the pictures that the clean latents show."""
        assert self.background is not None, "only called with mattes"
        count = len(self.batch)
        pixels = self.decode(clean[:count]) * 2 - 1
        fused = fuse_background(pixels, self.correspondence, self.background)
        latents = self.encode((fused.clamp(-1, 1) + 1) / 2)
        return torch.cat((latents.to(clean), clean[count:]))

    def report(self, step: int, clean: Tensor) -> None:
        """Tell the caller of a step that is done."""
        new = clean[self.new_places()]
        timestep = float(self.schedule.timesteps[step])
        preview = partial(self.preview, new)  # a watcher that keeps it keeps nothing else alive
        self.options.on_step(Step(step, self.schedule.last, timestep, new, preview))

    def new_places(self) -> list[int]:
        """Which rows of the batch are new keyframes."""
        return [place for place, keyframe in enumerate(self.batch) if not keyframe.done]

    def results(self, final: Tensor, starts: Tensor) -> Translation:
        """Give each new keyframe its image, latents and track."""
        places = self.new_places()
        images = self.decode(final[places])
        done = [
            replace(
                self.batch[place],
                image=image.cpu().clone(),
                latents=final[place].cpu().clone(),
                track=starts[:, place].clone(),
                steps=self.settings.steps,
                scheduler=type(self.model.scheduler).__name__,
            )
            for place, image in zip(places, images, strict=True)
        ]
        return Translation(tuple(done), tuple(self.budget.shrunk), self.budget.limits)


def _parts(model: Model) -> Iterator[nn.Module]:
    """Every layer of the VAE's halves and of the networks that run at each step."""
    for network in (model.vae.encoder, model.vae.decoder, model.unet, *model.controlnets):
        for part in network.modules():
            if not any(True for _ in part.children()):
                yield part


def _check(
    batch: Sequence[Keyframe], style: Keyframe | None, model: Model, options: Options
) -> None:
    model.check()
    if all(keyframe.done for keyframe in batch):
        raise InvalidInput("there is nothing to translate: no keyframe, or all are done.")
    if style is not None and not style.done:
        raise InvalidInput("the keyframe whose style is shared is not translated yet; do it first.")
    everything = [*batch, *([style] if style is not None else [])]
    frames = stack([keyframe.frame.to(model.device) for keyframe in everything])
    check_size(model, *frames.shape[-2:])
    shapes = {(len(keyframe.text), *keyframe.text.shape[2:]) for keyframe in everything}
    lengths = {keyframe.text.shape[1] for keyframe in everything}
    if len(shapes) > 1 or (len(lengths) > 1 and model.text_encoder is None):
        raise InvalidInput("the keyframes' prompt embeddings differ in shape; embed them alike.")
    if model.is_xl and any(keyframe.pooled is None for keyframe in everything):
        raise InvalidInput(
            "this model (SDXL) needs pooled prompt embeddings; give prompts, or prompt_embeds "
            "as fresco.prompts.Text with pooled ones."
        )
    pictured = getattr(model.unet.config, "encoder_hid_dim_type", None) == "ip_image_proj"
    if pictured and "image_embeds" not in options.added:
        raise InvalidInput(
            "the model has an IP-Adapter but no picture for it; give its image_embeds in "
            "Options.added, one row per guidance half."
        )
    _check_added(options)
    nets, scales = len(model.controlnets), len(options.control_scales)
    if scales not in (0, nets):
        raise InvalidInput(f"{scales} control scales for {nets} ControlNets; give one for each.")
    for keyframe in everything:
        _check_keyframe(keyframe, nets, options.settings, type(model.scheduler).__name__)


def _check_added(options: Options) -> None:
    """What the U-Net would take without complaint, and make another picture of."""
    halves = options.settings.halves
    rows = {len(part) for part in tree_leaves(dict(options.added)) if isinstance(part, Tensor)}
    if rows - {halves}:
        raise InvalidInput(
            f"Options.added has tensors of {sorted(rows)} rows; guidance of "
            f"{options.settings.guidance_scale} needs {halves}, one per half."
        )


def _check_keyframe(keyframe: Keyframe, nets: int, settings: Settings, scheduler: str) -> None:
    if keyframe.track is not None:
        recorded, now = (keyframe.scheduler, keyframe.steps), (scheduler, settings.steps)
        if recorded != now:
            raise InvalidInput(
                f"keyframe {keyframe.number} was recorded with {recorded[0]} in {recorded[1]} "
                f"steps, this run has {now[0]} in {now[1]}; use the same, or translate it again."
            )
    if len(keyframe.controls) != nets:
        raise InvalidInput(
            f"keyframe {keyframe.number} has {len(keyframe.controls)} control maps, the model "
            f"{nets} ControlNets; give one map for each."
        )
    if len(keyframe.text) != settings.halves:
        raise InvalidInput(
            f"keyframe {keyframe.number} has {len(keyframe.text)} prompt embeddings; guidance of "
            f"{settings.guidance_scale} needs {settings.halves}."
        )


def _repeat(added: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Repeat each half's row for all its frames, in tensors and lists of them."""

    def repeat(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.repeat_interleave(count, dim=0)
        return [repeat(item) for item in value]

    return {name: repeat(value) for name, value in added.items()}
