# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from fresco.loading import load
from training import (
    captions,
    classifier,
    diffusion,
    growth,
    judge,
    latents,
    loop,
    models,
    pool,
    scenes,
    styles,
    text,
)
from training.autoencoder import create

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    image = np.stack(np.meshgrid(ramp, ramp), axis=-1)
    blue = rng.uniform(size=(64, 64, 1)).astype(np.float32)
    return np.concatenate([image, blue], axis=-1)


@pytest.mark.parametrize("names", [(name,) for name in styles.STYLES] + [("winter", "oil")])
def test_styles_keep_shape_range_and_seed(picture: np.ndarray, names: tuple[str, ...]) -> None:
    first, second = (styles.apply(names, picture, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == picture.shape
    assert first.dtype == np.float32
    assert 0 <= first.min() <= first.max() <= 1
    np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def solids() -> np.ndarray:
    return scenes.solids(256, np.random.default_rng(4)).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize(
    "name", ["pencil", "coloured-pencil", "watercolour", "oil", "cartoon", "comic"]
)
def test_drawn_and_painted_styles_keep_the_edges(solids: np.ndarray, name: str) -> None:
    styled = styles.apply((name,), solids, np.random.default_rng(0))
    before, after = (np.round(image * 255).astype(np.uint8) for image in (solids, styled))
    assert judge.edge_agreement(before, after) > 0.6


def test_sepia_has_one_hue(solids: np.ndarray) -> None:
    sepia = styles.apply(("sepia",), solids, np.random.default_rng(0))
    order = np.argsort(sepia[..., 0].ravel())
    for channel in (1, 2):
        assert (np.diff(sepia[..., channel].ravel()[order]) > -1e-4).all()


def test_flakes_of_a_mix_are_not_outlined(solids: np.ndarray) -> None:
    mixed = styles.apply(("winter", "cartoon"), solids, np.random.default_rng(0))
    assert (mixed.min(axis=2) > 0.9).mean() > 0.02


def test_crops_keep_to_the_grid_of_32_pixels(tmp_path: Path) -> None:
    np.save(tmp_path / "latents.npy", np.zeros((1, 2, 8, 32, 32), np.float16))
    np.save(tmp_path / "source.npy", np.zeros((1, 256, 256, 3), np.uint8))
    facts = [{"content": "", "styles": [["photo"], ["oil"]]}]
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    sampler = latents.Sampler([tmp_path], latents.Mixture(size=128), 0)
    places = [sampler._place() for _ in range(200)]
    assert {place[:2] for place in places} == {(y, x) for y in range(0, 17, 4)
                                               for x in range(0, 17, 4)}  # fmt: skip


def test_a_vocabulary_once_made_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = models.create(tmp_path).tokens(["winter watercolour"])
    monkeypatch.setattr(captions, "corpus", lambda: ["other words"])
    assert torch.equal(models.create(tmp_path).tokens(["winter watercolour"]), before)


def test_soften_keeps_the_mean(picture: np.ndarray) -> None:
    assert styles.soften(picture, 4).mean() == pytest.approx(picture.mean(), abs=0.01)


def test_captions_name_both_styles_of_a_mix() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        said = captions.caption(("winter", "oil"), "a cat", rng)
        assert any(word in said for word in captions.WORDS["oil"])
        scene = (*captions.WORDS["winter"], *captions.ADJECTIVES["winter"])
        assert any(word in said for word in scene)


def test_every_word_belongs_to_one_style() -> None:
    words = [word for group in captions.WORDS.values() for word in group]
    assert len(words) == len(set(words))


def test_tokenizer_knows_known_words_and_survives_unknown_ones(tmp_path: Path) -> None:
    tokenizer = text.build_tokenizer(tmp_path)
    assert len(tokenizer("watercolour").input_ids) == 3
    padded = tokenizer("zażółć 龍", padding="max_length", truncation=True)
    assert len(padded.input_ids) == text.LENGTH


def test_untrained_autoencoder_keeps_the_colours() -> None:
    model = create()
    images = torch.rand(2, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3) * 1.4 - 0.7
    with torch.inference_mode():
        decoded = model.decoder(model.encoder(images))
    before, after = (torch.nn.functional.avg_pool2d(x, 32) for x in (images, decoded))
    assert (before - after).abs().mean() < 0.15


def _batch(count: int) -> latents.Batch:
    shape = (count, 8, 8, 8)
    control = torch.rand(count, 3, 64, 64)
    prompts = ["oil painting"] * count
    clean, source = torch.randn(shape), torch.randn(shape)
    return latents.Batch(clean, source, control, torch.ones(count), prompts)


def test_velocity_leads_to_the_styled_latents_also_from_a_foreign_start() -> None:
    schedule, batch = models.scheduler(), _batch(64)
    generator = torch.Generator().manual_seed(0)
    noisy, steps, velocity, _ = diffusion.prepare(schedule, batch, generator)
    signal = schedule.alphas_cumprod[steps].view(-1, 1, 1, 1)
    found = signal.sqrt() * noisy - (1 - signal).sqrt() * velocity
    torch.testing.assert_close(found, batch.latents, atol=2e-3, rtol=0)


def test_a_run_saved_and_restored_goes_on_alike(tmp_path: Path) -> None:
    run = loop.Run(tmp_path, steps=4, batch=2, rate=1e-4)
    torch.manual_seed(0)
    trainer = diffusion.build(run, None)
    batch = _batch(2)
    trainer.step(batch, torch.Generator().manual_seed(1))
    last = tmp_path / "last.pt"
    modules = trainer.draft.modules()
    loop.save(last, modules, trainer.optimiser, trainer.average, loop.Progress(1, 0))
    torch.manual_seed(3)  # what is dropped
    wanted = trainer.step(batch, torch.Generator().manual_seed(2))["loss"]
    other = diffusion.build(run, None)
    loop.restore(last, other.draft.modules(), other.optimiser, other.average)
    torch.manual_seed(3)
    assert other.step(batch, torch.Generator().manual_seed(2))["loss"] == pytest.approx(wanted)


def test_the_classifier_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.signal, "signal", lambda *_: None)  # SIGTERM still ends the tests
    shard = tmp_path / "shard"
    shard.mkdir()
    np.save(shard / "styled.npy", np.zeros((1, pool.VERSIONS, 256, 256, 3), np.uint8))
    np.save(shard / "latents.npy", np.zeros((1, pool.VERSIONS, 8, 32, 32), np.float16))
    models.save_autoencoder(create(), tmp_path / "vae")
    for steps in (1, 3):
        run = loop.Run(tmp_path / "run", steps=steps, batch=2, rate=1e-4)
        classifier.train(run, [shard], tmp_path / "vae")
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["progress"] == (3, 0)
    assert state["average"][1] == 3
    assert classifier.load(tmp_path / "run" / "classifier.safetensors").names(
        np.zeros((1, 128, 128, 3), np.uint8)
    )


def test_saved_folder_is_small_and_complete(tmp_path: Path) -> None:
    draft = models.create(tmp_path / "tokenizer")
    models.save(draft, create(), tmp_path / "draft")
    index = json.loads((tmp_path / "draft/model_index.json").read_text())
    parts = [name for name, value in index.items() if isinstance(value, list) and value[0]]
    assert all((tmp_path / "draft" / name).is_dir() for name in parts)
    size = sum(file.stat().st_size for file in (tmp_path / "draft").rglob("*") if file.is_file())
    assert size < 40e6


def test_the_vocabulary_alone_reads_prompts_alike(tmp_path: Path) -> None:
    tokenizer = text.build_tokenizer(tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    text.write_vocabulary(tokenizer, tmp_path / "bare")
    bare = CLIPTokenizer.from_pretrained(tmp_path / "bare", model_max_length=text.LENGTH)
    for prompt in ("winter watercolour of a street", "Qwertz, 1990!", ""):
        assert bare(prompt).input_ids == tokenizer(prompt).input_ids


def test_grown_networks_take_over_what_kept_its_shape_and_add_layers_that_do_nothing() -> None:
    small = models.Draft(*models.networks(widths=(80, 112, 144, 176), layers=1), None, None)
    grown = growth.grown(small)

    old, new = small.unet.up_blocks[3].resnets, grown.unet.up_blocks[3].resnets
    assert (len(old), len(new)) == (2, 3)
    assert torch.equal(old[1].conv1.weight, new[2].conv1.weight)
    block, x, steps = grown.unet.down_blocks[0], torch.randn(1, 80, 8, 8), torch.randn(1, 320)
    assert torch.equal(block.resnets[1](x, steps), x)
    text = torch.randn(1, 4, grown.unet.config["cross_attention_dim"])
    assert torch.equal(block.attentions[1](x, encoder_hidden_states=text).sample, x)
    controls = small.controlnet.controlnet_down_blocks, grown.controlnet.controlnet_down_blocks
    assert torch.equal(controls[0][1].weight, controls[1][2].weight)


@pytest.mark.skipif("FRESCO_BRIDGE_LONG" not in os.environ, reason="minutes: make test-long")
def test_one_command_makes_a_model_that_loads(tmp_path: Path, solids: np.ndarray) -> None:
    """The whole recipe, a step of each stage, on pictures drawn here instead of fetched ones."""
    pytest.importorskip("matplotlib", reason="the recipe draws its curves with matplotlib")
    pictures = tmp_path / "cache" / "pictures"
    pictures.mkdir(parents=True)
    kinds = {("train", "photo"), ("held", "photo"), ("train", "cutout")}
    entries = [{"file": f"{split}-{kind}.png", "source": "drawn", "name": split, "kind": kind,
                "split": split} for split, kind in sorted(kinds)]  # fmt: skip
    image = cv2.cvtColor((solids[..., ::-1] * 255).astype(np.uint8), cv2.COLOR_BGR2BGRA)
    image[:64, :, 3] = 0
    for entry in entries:
        channels = 4 if entry["kind"] == "cutout" else 3
        cv2.imwrite(str(pictures / entry["file"]), image[..., :channels])
    (pictures / "index.json").write_text(json.dumps(entries))
    command = [sys.executable, "-m", "training", "--work", str(tmp_path), "--shards", "1",
               "--pictures", "2", "--steps", "2", "--batch", "2", "--count", "1",
               "--sampling-steps", "2"]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr

    model = load(tmp_path / "weights", controlnets=[tmp_path / "weights" / "controlnet"],
                 device=torch.device("cpu"))  # fmt: skip
    assert model.scheduler.config.prediction_type == "v_prediction"
    found = json.loads((tmp_path / "runs" / "judge.json").read_text())
    assert set(found) >= {*styles.STYLES, "all", "autoencoder"}
    for stage in ("autoencoder", "classifier", "diffusion", "refine"):
        assert (tmp_path / "runs" / stage / "last.pt").exists()
