"""What is asked of a batch of keyframes, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from fresco.callbacks import CancelToken, OnStep, ignore
from fresco.errors import InvalidInput
from fresco.flow import FlowEstimator
from fresco.frames import Frames, check_values, stack
from fresco.memory import Limits
from fresco.models import Model
from fresco.prompts import Text
from fresco.prompts import embed as embed_prompts
from fresco.schedule import Settings

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Keyframe:
    """One keyframe: what it is, what was asked of it, and what came of it.

    number: its place in the clip, in source frames
    frame: (3, H, W), the source frame, RGB in [0, 1]
    text: (halves, length, D), its prompt embeddings, unconditional first
    pooled: (halves, P), the same as one vector, for models that want it (SDXL)
    controls: a control map (3, H, W) in [0, 1] per ControlNet
    seed, strength: of its noise; 1 - strength of the schedule is skipped
    background: (1, H, W), 1 = background, where it is to be smoothed
    image: (3, H, W), the stylised keyframe; None before it is translated
    latents: (c, h, w), of `image`; None for one painted by hand
    track: (steps run, c, h, w), the latents each step started from; None for one painted by hand
    steps, scheduler: what `track` was recorded with: steps of the whole schedule, name of the class
    """

    number: int
    frame: Tensor
    text: Tensor
    pooled: Tensor | None = None
    controls: tuple[Tensor, ...] = ()
    seed: int = 0
    strength: float = 0.75
    background: Tensor | None = None
    image: Tensor | None = None
    latents: Tensor | None = None
    track: Tensor | None = None
    steps: int = 0
    scheduler: str = ""

    @property
    def done(self) -> bool:
        """Whether it has a result, and so is replayed instead of translated."""
        return self.image is not None

    @property
    def source(self) -> Tensor:
        """The picture whose latents stand in where no step is recorded: a painting or the frame."""
        painting = self.image if self.track is None else None
        return self.frame if painting is None else painting

    def painted(self, image: Tensor) -> Keyframe:
        """Return this keyframe with a result painted by hand.

        Raises:
            InvalidInput: an image of another size, or values that are no image.
        """
        if image.shape != self.frame.shape:
            raise InvalidInput(
                f"the painted keyframe {self.number} has shape {tuple(image.shape)}, "
                f"its frame {tuple(self.frame.shape)}; export it at the size of the frame."
            )
        (checked,) = stack([image])
        return replace(self, image=checked, latents=None, track=None)


@dataclass(frozen=True, slots=True, eq=False)
class Translation:
    """What came of one batch.

    keyframes: the new ones, translated: the records that later batches and `redo` replay
    shrunk: what had to be made smaller to fit into memory, in words
    limits: what it ran with in the end
    """

    keyframes: tuple[Keyframe, ...]
    shrunk: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def images(self) -> Tensor:
        """The stylised keyframes (N, 3, H, W) in [0, 1]."""
        return torch.stack(
            [keyframe.image for keyframe in self.keyframes if keyframe.image is not None]
        )

    @property
    def latents(self) -> Tensor:
        """Their latents (N, c, h, w)."""
        latents = [keyframe.latents for keyframe in self.keyframes]
        return torch.stack([latent for latent in latents if latent is not None])


@dataclass(frozen=True, slots=True)
class Options:
    """How a batch is run, apart from what is asked of each keyframe.

    settings: of the method
    control_scales: a factor per ControlNet
    flow: the flow estimator or its name, where correspondence is computed
    limits: what to hold in memory at once; shrinks by itself if it must
    added: passed to the U-Net as ``added_cond_kwargs``, the same for all frames; each tensor has
        one row per guidance half (an IP-Adapter's ``image_embeds``, for example)
    on_step: told of every step
    cancel: stops the run from another thread
    """

    settings: Settings = field(default_factory=Settings)
    control_scales: Sequence[float] = ()
    flow: FlowEstimator | str = "dis"
    limits: Limits = field(default_factory=Limits)
    added: Mapping[str, Any] = field(default_factory=dict[str, Any])
    on_step: OnStep = ignore
    cancel: CancelToken = field(default_factory=CancelToken)


def keyframes(
    frames: Frames,
    model: Model,
    *,
    prompts: str | Sequence[str] = "",
    negative: str | Sequence[str] = "",
    prompt_embeds: Tensor | Text | None = None,
    controls: Sequence[Tensor] = (),
    seeds: int | Sequence[int] = 0,
    strengths: float | Sequence[float] = 0.75,
    background: Tensor | None = None,
    numbers: Sequence[int] | None = None,
    settings: Settings | None = None,
) -> list[Keyframe]:
    """Make untranslated keyframes of frames (N, 3, H, W) and what is asked of each.

    One value, or one per frame, of: prompts, negative (prompts), seeds, strengths.

    prompt_embeds: (2N, length, D), unconditional half first, or (N, ...) without guidance; instead
        of prompts; as `fresco.prompts.Text` where the model wants pooled ones as well
    controls: per ControlNet its maps (N, 3, H, W) in [0, 1]
    background: (N, 1, H, W), 1 = background, 0 = subject
    numbers: places in the clip; 0 to N - 1 by default

    Raises:
        InvalidInput: frames that cannot be worked on, or lists of other lengths.
        UnsupportedModel: prompts, but the model has no text encoder.
    """
    batch = stack(frames)
    count, settings = len(batch), settings or Settings()
    numbers = list(range(count)) if numbers is None else _each(numbers, count, "numbers")
    seeds, strengths = _each(seeds, count, "seeds"), _each(strengths, count, "strengths")
    if prompt_embeds is None:
        wanted, unwanted = _each(prompts, count, "prompts"), _each(negative, count, "negatives")
        embedded = embed(model, wanted, unwanted, settings.halves)
    elif prompts or negative:
        raise InvalidInput("there are prompts and prompt_embeds; give one of them.")
    else:
        embedded = prompt_embeds if isinstance(prompt_embeds, Text) else Text(prompt_embeds)
    text, pooled = embedded.tokens, embedded.pooled
    if text.ndim != 3 or len(text) != settings.halves * count:
        raise InvalidInput(
            f"prompt embeddings of shape {tuple(text.shape)} for {count} frames; expected "
            f"{settings.halves} per frame (guidance above 1 has an unconditional half in front)."
        )
    for given in controls:
        _check_maps(given, batch, "control maps", 3)
    if background is not None:
        _check_maps(background, batch, "background mattes", 1)
    per_frame = _by_frame(text, settings.halves)
    vectors = None if pooled is None else _by_frame(pooled, settings.halves)
    return [
        Keyframe(
            number=numbers[index],
            frame=batch[index],
            text=per_frame[index].clone(),
            pooled=None if vectors is None else vectors[index].clone(),
            controls=tuple(given[index] for given in controls),
            seed=seeds[index],
            strength=strengths[index],
            background=None if background is None else background[index],
        )
        for index in range(count)
    ]


def embed(model: Model, prompts: Sequence[str], negative: Sequence[str], halves: int) -> Text:
    """Embed prompts, each distinct one once: halves * count rows, unconditional half first.

    Raises:
        InvalidInput: a prompt that cannot be read.
        UnsupportedModel: the model has no text encoder.
    """
    wanted = [*negative, *prompts] if halves == 2 else list(prompts)
    distinct = list(dict.fromkeys(wanted))
    embedded = embed_prompts(model, distinct)[[distinct.index(prompt) for prompt in wanted]]
    unwanted = len(wanted) - len(prompts)
    empty = [row for row in range(unwanted) if not wanted[row].strip()]
    return embedded.with_zeros(empty) if model.zero_empty else embedded


def _by_frame(rows: Tensor, halves: int) -> Tensor:
    """(halves * N, ...) → (N, halves, ...)."""
    return rows.unflatten(0, (halves, -1)).transpose(0, 1)


def _each(value: _T | Sequence[_T], count: int, name: str) -> list[_T]:
    """One value for all, or a list of one for each."""
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return [cast("_T", value)] * count
    values = list(cast("Sequence[_T]", value))
    if len(values) != count:
        raise InvalidInput(f"{len(values)} {name} for {count} frames; give one, or one per frame.")
    return values


def _check_maps(maps: Tensor, batch: Tensor, name: str, channels: int) -> None:
    expected = (len(batch), channels, *batch.shape[2:])
    if tuple(maps.shape) != expected:
        raise InvalidInput(
            f"the {name} have shape {tuple(maps.shape)}; expected {expected}, one per frame."
        )
    try:
        check_values(maps)
    except InvalidInput as error:
        raise InvalidInput(f"the {name} are no images: {error}") from error
