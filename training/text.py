# SPDX-License-Identifier: Apache-2.0
"""The draft model's own vocabulary and text encoder, in the classes that Stable Diffusion uses."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training import captions
from training.pool import CONTENT

LENGTH = 32
"""Tokens of a prompt, start and end included."""
MERGES = 700
WIDTH = 160
START, END = "<|startoftext|>", "<|endoftext|>"
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Learns byte-pair merges from the captions and writes `vocab.json` and `merges.txt`."""
    merges = _learn_merges([*captions.corpus(), *CONTENT.values()] * 3)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(m) for m in merges)]
    unique = list(dict.fromkeys([*tokens, START, END]))
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(unique)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_vocabulary(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes `vocab.json` and `merges.txt`, which older readers want beside `tokenizer.json`."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(
        json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8"
    )
    pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    lines = ["#version: 0.2", *pairs]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _learn_merges(phrases: list[str]) -> list[tuple[str, str]]:
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(_regex(SPLIT), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    trained.train_from_iterator(phrases, trainer)
    found = json.loads(trained.to_str())["model"]["merges"]
    return [tuple(merge) for merge in found][:MERGES]


def _regex(pattern: str):  # noqa: ANN202 - the class has no public stub
    from tokenizers import Regex

    return Regex(pattern)


def create_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A fresh text encoder of two layers."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)
