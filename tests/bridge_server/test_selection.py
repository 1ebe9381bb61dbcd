from __future__ import annotations

import pytest

from bridge_server.catalogue import Role
from bridge_server.selection import choose
from fresco.errors import InvalidInput
from tests.bridge_server.conftest import make_entry

PIPELINE = [
    ".gitattributes",
    "README.md",
    "model_index.json",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "feature_extractor/preprocessor_config.json",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]


def test_of_a_pipeline_its_parts_in_half_precision_where_there_is_one() -> None:
    assert choose(make_entry(Role.BASE), PIPELINE) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]


def test_without_half_precision_the_plain_weights_and_no_variant() -> None:
    paths = [path for path in PIPELINE if ".fp16" not in path]
    chosen = [path for path in choose(make_entry(Role.BASE), paths) if "unet/diff" in path]
    assert chosen == ["unet/diffusion_pytorch_model.safetensors"]


def test_of_a_single_model_the_top_folder() -> None:
    paths = [
        "config.json",
        "d.bin",
        "d.fp16.bin",
        "d.fp16.safetensors",
        "d.safetensors",
        "i/x.json",
    ]
    assert choose(make_entry(Role.CONTROLNET), paths) == ["config.json", "d.fp16.safetensors"]


def test_all_shards_of_a_model() -> None:
    paths = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]
    assert choose(make_entry(), [*paths, "m.safetensors.index.json"]) == [
        *paths,
        "m.safetensors.index.json",
    ]


def test_of_several_models_one_must_be_named() -> None:
    with pytest.raises(InvalidInput, match=r'holds several.*"painter/styles:a\.safetensors"'):
        choose(make_entry(), ["a.safetensors", "b.safetensors"])
    assert choose(make_entry(files=("b.safetensors",)), ["a.safetensors", "b.safetensors"]) == [
        "b.safetensors"
    ]


def test_a_pattern_that_meets_nothing() -> None:
    with pytest.raises(InvalidInput, match=r"has no file 'vae/\*'"):
        choose(make_entry(files=("*.safetensors", "vae/*")), ["a.safetensors"])


@pytest.mark.parametrize("role", [Role.BASE, Role.ANNOTATOR])
def test_pickles_are_never_taken_unnamed(role: Role) -> None:
    with pytest.raises(InvalidInput, match="can run code"):
        choose(make_entry(role), ["a.pth", "config.json"])


def test_named_pickles_of_annotators_and_nothing_that_is_a_program() -> None:
    entry = make_entry(Role.ANNOTATOR, files=("*",))
    assert choose(entry, ["a.pth", "b.py", "config.json"]) == ["a.pth", "config.json"]


@pytest.mark.parametrize(
    "path", ["../a.safetensors", "/a.safetensors", "x/../../a.safetensors", "c:\\a.safetensors"]
)
def test_paths_that_lead_out_of_the_folder_are_not_taken(path: str) -> None:
    assert choose(make_entry(files=("*",)), ["ok.safetensors", path]) == ["ok.safetensors"]
