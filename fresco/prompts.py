"""Prompts as embeddings: long, weighted and blended ones, by compel.

compel's syntax: ``(fog)1.4`` or ``fog++`` weighs words, ``("a", "b").blend(0.7, 0.3)`` mixes
prompts, ``("a", "b").and()`` puts them side by side; text longer than the encoder reads is given to
it in pieces. ``(fog:1.4)``, as other programs write it, is understood as well.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from compel import BaseTextualInversionManager, Compel, ReturnedEmbeddingsType
from compel.prompt_parser import FlattenedPrompt, PromptParser
from torch import Tensor

from fresco.errors import InvalidInput, UnsupportedModel
from fresco.models import Model
from fresco.quiet import quietly

#: "thick fog: 1.4", but no "16:9": between two whole numbers a colon is a colon.
_COLON_WEIGHT = re.compile(r"(?<!\\)(?!(?<=\d):\d+\s*$):\s*(-?(?:\d+\.?\d*|\.\d+))\s*$")
_LORA_TAG = re.compile(r"<(lora|lyco|hypernet):[^>]*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Text:
    """Embedded prompts.

    tokens: (count, length, D); length is a multiple of what the encoder reads at once
    pooled: (count, P), one vector per prompt, for models that want it (SDXL); otherwise None
    """

    tokens: Tensor
    pooled: Tensor | None = None

    def __getitem__(self, rows: Any) -> Text:
        return Text(self.tokens[rows], None if self.pooled is None else self.pooled[rows])

    def with_zeros(self, rows: Sequence[int]) -> Text:
        """Embeddings with these rows zero."""
        keep = torch.ones(len(self.tokens), 1, 1).to(self.tokens)
        keep[list(rows)] = 0
        pooled = None if self.pooled is None else self.pooled * keep[:, 0]
        return Text(self.tokens * keep, pooled)


def embed(model: Model, prompts: Sequence[str]) -> Text:
    """Embed `prompts`, all padded to the length of the longest.

    Raises:
        InvalidInput: a prompt that cannot be read.
        UnsupportedModel: the model has no text encoder.
    """
    if model.tokenizer is None or model.text_encoder is None:
        raise UnsupportedModel(
            "this model has no text encoder; give prompt_embeds, or load one with it."
        )
    texts = [_checked(prompt) for prompt in prompts]
    with torch.no_grad(), quietly():
        pooled = _pooled(model, texts) if model.is_xl else None
        with _without_last_layers(model):
            tokens = torch.cat([_read(reader, texts) for reader in _readers(model)], dim=2)
    if not bool(tokens.isfinite().all()):
        raise InvalidInput(
            f"the prompts {list(prompts)} come to nothing: do the weights of a blend add up to 0?"
        )
    return Text(tokens.to(model.device, model.dtype), pooled)


def alike(model: Model, texts: Sequence[Tensor]) -> list[Tensor]:
    """Lengthen embeddings (..., L, D) to the longest by those of the empty prompt, as compel does.

    Rows of zeros, as SDXL has for no negative prompt, go on as zeros.

    Raises:
        InvalidInput: another model's embeddings, which do not fit in pieces of this one's.
        UnsupportedModel: the model has no text encoder.
    """
    length = max(text.shape[-2] for text in texts)
    if all(text.shape[-2] == length for text in texts):
        return list(texts)
    empty = embed(model, [""]).tokens[0]
    return [_lengthened(text, length, empty.to(text)) for text in texts]


def _lengthened(text: Tensor, length: int, empty: Tensor) -> Tensor:
    missing = length - text.shape[-2]
    if missing % len(empty):
        raise InvalidInput(
            f"prompt embeddings of {text.shape[-2]} and {length} tokens meet in one batch, but "
            f"this model reads {len(empty)} at once; embed all prompts with this model."
        )
    padding = empty.repeat(missing // len(empty), 1).expand(*text.shape[:-2], -1, -1)
    says_nothing = (text == 0).flatten(-2).all(dim=-1)[..., None, None]
    return torch.cat((text, padding.masked_fill(says_nothing, 0)), dim=-2)


def _checked(prompt: str) -> str:
    """A prompt in compel's words.

    Raises:
        InvalidInput: it asks for what a prompt cannot do here.
    """
    tag = _LORA_TAG.search(prompt)
    if tag is not None:
        raise InvalidInput(
            f"the prompt names {tag[0]}; LoRAs are not chosen in the prompt: add it to the LoRAs "
            "of the job, with its weight, and leave the tag out."
        )
    text = _in_compels_words(prompt)
    try:
        parsed = PromptParser().parse_conjunction(text)
    except (PromptParser.ParsingException, ValueError) as error:
        raise InvalidInput(
            f"the prompt {prompt!r} cannot be read: {error}; put a backslash before brackets and "
            "quotation marks that are meant as such."
        ) from error
    flat = [part for part in parsed.prompts if isinstance(part, FlattenedPrompt)]
    if parsed.lora_weights or any(part.wants_cross_attention_control for part in flat):
        raise InvalidInput(
            f"the prompt {prompt!r} uses .swap() or withLora(), which have no meaning here; "
            "write one prompt per keyframe, and add LoRAs to the job."
        )
    return text if parsed.prompts else ""


def _in_compels_words(prompt: str) -> str:
    """Write ``(fog:1.4)`` as ``(fog)1.4``, however deep; a backslash makes the next letter plain.

    Raises:
        InvalidInput: a weight below 0, which compel does not know.
    """
    groups = [""]
    for part in re.findall(r"\\.|.", prompt, re.DOTALL):
        if part == "(":
            groups.append("")
        elif part == ")" and len(groups) > 1:
            inside = groups.pop()
            groups[-1] += _weighted(inside, prompt)
        else:
            groups[-1] += part
    return "(".join(groups)


def _weighted(inside: str, prompt: str) -> str:
    weight = _COLON_WEIGHT.search(inside)
    if weight is None:
        return f"({inside})"
    if float(weight[1]) < 0:
        raise InvalidInput(
            f"the prompt {prompt!r} has a weight below 0; put what you do not want into the "
            "negative prompt."
        )
    return f"({inside[: weight.start()]}){float(weight[1]):g} "  # a digit behind it is none of its


def _read(reader: Compel, texts: Sequence[str]) -> Tensor:
    tokens = reader(list(texts))
    assert isinstance(tokens, Tensor), "asked for nothing else"
    return tokens


def _readers(model: Model) -> list[Compel]:
    """One compel per text encoder; with two, their embeddings stand side by side."""
    kind = ReturnedEmbeddingsType
    wanted = kind.LAST_HIDDEN_STATES_NORMALIZED
    if model.is_xl:
        wanted = kind.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    return [
        Compel(
            tokenizer=tokenizer,
            text_encoder=encoder,
            textual_inversion_manager=_Inversions(tokenizer, model.words),
            truncate_long_prompts=False,
            returned_embeddings_type=wanted,
            device=str(encoder.device),
        )
        for tokenizer, encoder in model.text_parts
    ]


class _Inversions(BaseTextualInversionManager):
    """Writes a textual inversion of several vectors as its several tokens."""

    def __init__(self, tokenizer: Any, words: Mapping[str, tuple[str, ...]]) -> None:
        numbers = tokenizer.convert_tokens_to_ids
        self._tokens = {numbers(word): numbers(list(tokens)) for word, tokens in words.items()}

    def expand_textual_inversion_token_ids_if_necessary(self, token_ids: list[int]) -> list[int]:
        """See compel."""
        return [part for token in token_ids for part in self._tokens.get(token, [token])]


def _pooled(model: Model, texts: Sequence[str]) -> Tensor:
    """One vector per prompt, by the last text encoder; weights have no effect on it."""
    tokenizer, encoder = model.text_parts[-1]
    compel = Compel(
        tokenizer=tokenizer,
        text_encoder=encoder,
        textual_inversion_manager=_Inversions(tokenizer, model.words),
        device=str(encoder.device),
    )
    plain = [_without_weights(text) for text in texts]
    pooled = compel.conditioning_provider.get_pooled_embeddings(plain)
    assert isinstance(pooled, Tensor), "asked for without tokens"
    return pooled.to(model.device, model.dtype)


def _without_weights(text: str) -> str:
    flat = PromptParser().parse_conjunction(text).prompts
    fragments = [fragment for part in flat for fragment in getattr(part, "children", ())]
    return " ".join(getattr(fragment, "text", "") for fragment in fragments)


@contextmanager
def _without_last_layers(model: Model) -> Generator[None]:
    """Leave out the encoders' last layers inside the ``with`` block, as `clip_skip` says."""
    with ExitStack() as stack:
        for _, encoder in model.text_parts:
            layers = getattr(encoder, "text_model", encoder).encoder
            kept = len(layers.layers) - (model.clip_skip - 1)
            if kept < 1:
                raise InvalidInput(
                    f"clip skip {model.clip_skip} leaves nothing of a text encoder of "
                    f"{len(layers.layers)} layers; use 1 (none) or 2."
                )
            stack.callback(setattr, layers, "layers", layers.layers)
            layers.layers = layers.layers[:kept]
        yield
