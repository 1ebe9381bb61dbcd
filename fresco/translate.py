"""Keyframes in, stylised keyframes out: one batch, a long clip, one keyframe again.

`translate` runs one batch, `translate_clip` the batches of a clip one after the other, and `redo`
one keyframe between its unchanged neighbours. What comes back are `fresco.request.Keyframe`: with
their results they hold the latents of every step, which later batches and `redo` replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fresco.batches import plan
from fresco.correspondence import Correspondence
from fresco.errors import FrescoError, InvalidInput, OutOfMemory, is_out_of_memory
from fresco.frames import Frames
from fresco.models import Model
from fresco.noise import Noise
from fresco.prompts import Text, alike
from fresco.request import Keyframe, Options, Translation, embed, keyframes
from fresco.run import Run


def translate(
    frames: Frames,
    model: Model,
    options: Options | None = None,
    *,
    prompts: str | Sequence[str] = "",
    negative: str | Sequence[str] = "",
    prompt_embeds: Tensor | Text | None = None,
    controls: Sequence[Tensor] = (),
    seeds: int | Sequence[int] = 0,
    strengths: float | Sequence[float] = 0.75,
    background: Tensor | None = None,
    numbers: Sequence[int] | None = None,
    records: Sequence[Keyframe] = (),
    correspondence: Correspondence | None = None,
    style: Keyframe | None = None,
    noise: Noise | None = None,
) -> Translation:
    """Translate the frames of one batch together.

    frames: (N, 3, H, W), the new keyframes, RGB in [0, 1]
    prompts, negative, prompt_embeds, controls, seeds, strengths, background, numbers: what is asked
        of them, see `fresco.request.keyframes`
    records: done keyframes of an earlier batch, in front of the new ones: replayed, to guide them
    correspondence, style, noise: see `translate_batch`

    Raises:
        InvalidInput, UnsupportedModel, Cancelled, OutOfMemory: see `translate_batch`.
    """
    options = options or Options()
    if not all(keyframe.done for keyframe in records):
        raise InvalidInput("there are records that are not translated yet; do them first.")
    if numbers is None and records:
        first = 1 + max(keyframe.number for keyframe in records)
        numbers = range(first, first + len(frames))
    new = keyframes(
        frames,
        model,
        prompts=prompts,
        negative=negative,
        prompt_embeds=prompt_embeds,
        controls=controls,
        seeds=seeds,
        strengths=strengths,
        background=background,
        numbers=numbers,
        settings=options.settings,
    )
    return translate_batch(
        [*records, *new], model, options, correspondence=correspondence, style=style, noise=noise
    )


def translate_batch(
    batch: Sequence[Keyframe],
    model: Model,
    options: Options | None = None,
    *,
    correspondence: Correspondence | None = None,
    style: Keyframe | None = None,
    noise: Noise | None = None,
) -> Translation:
    """Translate the keyframes of one batch that are not done yet, together.

    Those that are done already (anchors, neighbours, painted ones) are replayed and guide the
    others; they do not change and are not in the result.

    batch: in running order, all of one size
    correspondence: of all frames of the batch in this order; estimated if not given
    style: a done keyframe of another shot, whose look is shared through cross-frame attention only
    noise: instead of the keyframes' seeds; one row per frame of the batch, then one for `style`

    Raises:
        InvalidInput: nothing to translate, or keyframes that do not fit together or the model.
        UnsupportedModel: a model that the method cannot guide.
        Cancelled: by the options' token.
        OutOfMemory: it does not fit in the smallest blocks either.
    """
    try:
        return Run(batch, model, options or Options(), correspondence, style, noise).translate()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, FrescoError) or not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"memory ran out beside the model and the VAE ({error}); use fewer keyframes per batch "
            "or a smaller size, or close other programs."
        ) from error


def translate_clip(
    shots: Sequence[Sequence[int]],
    load: Callable[[Sequence[int]], Sequence[Keyframe]],
    model: Model,
    size: int = 8,
    options: Options | None = None,
    shared_style: bool = True,
) -> Iterator[Translation]:
    """Translate the keyframes of a clip, batch after batch; one batch is held at a time.

    shots: for each shot its keyframes' numbers, ascending (`fresco.keyframes.propose_per_shot`)
    load: makes the keyframes of the given numbers, in that order; painted ones may be among them
    size: frames in a batch, anchors included
    shared_style: later shots see the clip's first keyframe in cross-frame attention

    Raises:
        InvalidInput: no keyframes, or a batch size under 3; and as `translate`.
    """
    style: Keyframe | None = None
    for shot in shots:
        known: dict[int, Keyframe] = {}
        for batch in plan(shot, size):
            new = _loaded(load, batch.keyframes)
            anchors = [known[number] for number in batch.anchors]
            result = Translation(())
            if not all(keyframe.done for keyframe in new):
                result = translate_batch([*anchors, *new], model, options, style=style)
                yield result
            done = [keyframe for keyframe in (*anchors, *new) if keyframe.done]
            known = {keyframe.number: keyframe for keyframe in (*done, *result.keyframes)}
            known = {number: known[number] for number in (shot[0], batch.keyframes[-1])}
        if style is None and shared_style:
            style = known[shot[0]]


def _loaded(
    load: Callable[[Sequence[int]], Sequence[Keyframe]], numbers: Sequence[int]
) -> Sequence[Keyframe]:
    loaded = load(numbers)
    if [keyframe.number for keyframe in loaded] != list(numbers):
        raise InvalidInput(
            f"keyframes {list(numbers)} were asked for, but "
            f"{[keyframe.number for keyframe in loaded]} were loaded; give them their numbers."
        )
    return loaded


def redo(
    shot: Sequence[Keyframe],
    k: int,
    model: Model,
    options: Options | None = None,
    *,
    prompt: str | None = None,
    negative: str | None = None,
    prompt_embeds: Tensor | Text | None = None,
    seed: int | None = None,
    strength: float | None = None,
    style: Keyframe | None = None,
    noise: Noise | None = None,
) -> Keyframe:
    """Translate keyframe `k` of a done shot again, between its neighbours, which stay the same.

    What is not given stays as it was. The neighbours are replayed from their tracks; a painted one
    is its encoded image, noised to each step.

    shot: the done keyframes of one shot, in order
    k: place in `shot`
    prompt_embeds: (halves, length, D), instead of `prompt`; see `fresco.request.keyframes`
    returns: the new keyframe; nothing of `shot` changes

    Raises:
        InvalidInput: no such keyframe, or a neighbour that is not done; and as `translate`.
    """
    if not 0 <= k < len(shot):
        raise InvalidInput(f"there is no keyframe {k}; the shot has 0 to {len(shot) - 1}.")
    neighbours = [place for place in (k - 1, k + 1) if 0 <= place < len(shot)]
    unfinished = [shot[place].number for place in neighbours if not shot[place].done]
    if unfinished:
        raise InvalidInput(
            f"keyframes {unfinished} beside it are not translated yet; do them first."
        )
    options = options or Options()
    target = replace(
        _retold(shot[k], model, prompt, negative, prompt_embeds),
        seed=shot[k].seed if seed is None else seed,
        strength=shot[k].strength if strength is None else strength,
        image=None,
        latents=None,
        track=None,
    )
    batch = [*shot[max(0, k - 1) : k], target, *shot[k + 1 : k + 2]]
    (result,) = translate_batch(batch, model, options, style=style, noise=noise).keyframes
    return result


def _retold(
    keyframe: Keyframe,
    model: Model,
    prompt: str | None,
    negative: str | None,
    prompt_embeds: Tensor | Text | None,
) -> Keyframe:
    """Exchange the embeddings, or the prompt or the negative prompt; the other stays."""
    if prompt_embeds is not None:
        given = prompt_embeds if isinstance(prompt_embeds, Text) else Text(prompt_embeds)
        return replace(keyframe, text=given.tokens, pooled=given.pooled)
    if prompt is None and negative is None:
        return keyframe
    halves = len(keyframe.text)
    told = embed(model, [prompt or ""], [negative or ""], halves)
    kept = [negative is None, prompt is None][-halves:]
    text = told.tokens.to(keyframe.text)
    old, text = alike(model, [keyframe.text, text])
    mask = torch.tensor(kept, device=text.device)[:, None]
    pooled = keyframe.pooled
    if pooled is not None and told.pooled is not None:
        pooled = torch.where(mask, pooled, told.pooled.to(pooled))
    return replace(keyframe, text=torch.where(mask[..., None], old, text), pooled=pooled)
