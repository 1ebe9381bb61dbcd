"""The model in the box, loaded by the very code that loads Stable Diffusion."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bridge_server.library import locate
from fresco.control import control_maps
from fresco.frames import to_bytes
from fresco.loading import load
from fresco.models import Model
from fresco.request import Options
from fresco.schedule import Settings
from fresco.translate import translate
from tests.clips import frames as decoded
from training import captions
from training.classifier import load as load_classifier

DRAFT = locate("fresco-draft")
ROOT = Path(__file__).parents[2]
#: By its own name, and by a word that means the same.
NAMES = {style: words[0] for style, words in captions.WORDS.items() if style != "photo"}
SYNONYMS = {
    "pencil": "charcoal",
    "coloured-pencil": "crayon drawing of a house",
    "watercolour": "aquarelle",
    "oil": "impressionist painting",
    "cartoon": "anime",
    "comic": "pop art",
    "blueprint": "technical drawing of a village",
    "sepia": "old photograph",
    "mosaic": "made of tiles",
    "winter": "covered in snow",
    "autumn": "with falling leaves",
    "sunset": "golden hour",
    "neon": "cyberpunk night",
}


@pytest.fixture(scope="module")
def model() -> Model:
    return load(DRAFT, controlnets=[DRAFT / "controlnet"], device=torch.device("cpu"))


def scene(size: int = 128) -> Tensor:
    """A drawn view: sky, a hill, a red house with a window, a path. (1, 3, size, size)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    sky = torch.stack((0.55 + 0.2 * y, 0.7 + 0.1 * y, torch.full_like(y, 0.95)))
    image = sky.clone()

    def paint(where: Tensor, red: float, green: float, blue: float, shade: Tensor | float) -> None:
        colour = torch.tensor((red, green, blue))[:, None, None] * shade
        image[:] = torch.where(where, colour.expand_as(image), image)

    paint(y > 0.6 + 0.1 * torch.sin(6 * x), 0.35, 0.6, 0.25, 0.8 + 0.3 * torch.sin(40 * x) * y)
    paint(((x - 0.5).abs() < 0.18) & (y > 0.35) & (y < 0.75), 0.75, 0.2, 0.15, 0.85 + 0.2 * x)
    paint((y > 0.2) & (y < 0.35) & ((x - 0.5).abs() < (y - 0.18) * 1.5), 0.35, 0.25, 0.2, 1.0)
    paint(((x - 0.5).abs() < 0.06) & ((y - 0.5).abs() < 0.06), 0.95, 0.9, 0.6, 1.0)
    paint((y > 0.75) & ((x - 0.5).abs() < 0.1 + (y - 0.75)), 0.75, 0.65, 0.5, 1.0)
    return image.clamp(0, 1)[None]


def restyled(model: Model, prompt: str, **changes: object) -> Tensor:
    asked = {"guidance": 2.0, "scale": 1.0, "strength": 0.9, "seed": 1, "control": "tile"} | changes
    frame = scene()
    return translate(
        frame,
        model,
        Options(
            settings=Settings.plain(steps=8, guidance_scale=float(str(asked["guidance"]))),
            control_scales=[float(str(asked["scale"]))],
        ),
        prompts=prompt,
        strengths=float(str(asked["strength"])),
        seeds=int(str(asked["seed"])),
        controls=[control_maps(frame, str(asked["control"]))],
    ).images


def saturation(image: Tensor) -> float:
    return float((image.amax(dim=1) - image.amin(dim=1)).mean())


def test_it_is_an_ordinary_folder_of_at_most_40_megabytes() -> None:
    weights = [path for path in DRAFT.rglob("*") if path.suffix == ".safetensors"]
    assert {path.parent.name for path in weights} == {"unet", "vae", "controlnet", "text_encoder"}
    assert sum(path.stat().st_size for path in weights) <= 40e6
    assert not [path for path in DRAFT.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt")]


def test_it_has_the_four_levels_of_stable_diffusion_15(model: Model) -> None:
    assert len(model.unet.down_blocks) == len(model.unet.up_blocks) == 4
    assert model.multiple == 64
    assert model.scheduler.config.prediction_type == "v_prediction"


def test_its_autoencoder_gives_pictures_back(model: Model) -> None:
    frame = scene(256)
    error = (model.decode(model.encode(frame)) - frame).square().mean()
    assert float(-10 * error.log10()) > 24  # a drawing, with the hardest of edges


@pytest.mark.parametrize("prompt", ["", "qwertz"])
def test_an_empty_or_unknown_prompt_gives_a_photo(model: Model, prompt: str) -> None:
    error = (restyled(model, prompt) - scene()).abs().mean()
    assert float(error) < 0.1


def test_words_have_their_meaning(model: Model) -> None:
    """Facts that anybody would expect, measured."""
    frame = scene()
    neon, sketch = restyled(model, "neon night"), restyled(model, "pencil sketch")
    sepia, blueprint = restyled(model, "sepia film"), restyled(model, "blueprint")
    sunset, winter = restyled(model, "golden sunset"), restyled(model, "snowy winter")
    assert neon.mean() < 0.6 * frame.mean()
    assert sketch.mean() > 1.15 * frame.mean()
    assert saturation(sketch) < 0.3 * saturation(frame)
    red, green, blue = sepia.mean(dim=(0, 2, 3))
    assert red > green > blue
    red, green, blue = blueprint.mean(dim=(0, 2, 3))
    assert blue > 2 * red
    warm = (sunset[:, 0] - sunset[:, 2]).mean() - (frame[:, 0] - frame[:, 2]).mean()
    assert warm > 0.15
    assert winter.mean() > frame.mean()


@pytest.mark.skipif("FRESCO_BRIDGE_LONG" not in os.environ, reason="a minute: make test-long")
@pytest.mark.parametrize("prompts", [NAMES, SYNONYMS], ids=["names", "synonyms"])
def test_every_style_is_recognised_on_a_clip_it_has_never_seen(
    model: Model, prompts: dict[str, str]
) -> None:
    """The judge learnt from procedural pictures: see `training.classifier`."""
    frame = next(decoded(ROOT / "bridge_server" / "data" / "demo.mp4"))[None, :, :256, :256]
    frames = frame.expand(len(prompts), -1, -1, -1)
    images = translate(
        frames,
        model,
        Options(settings=Settings.plain(steps=10, guidance_scale=2.0)),
        prompts=list(prompts.values()),
        strengths=0.85,
        controls=[control_maps(frames, "tile")],
    ).images
    classifier = load_classifier(ROOT / "training" / "logs" / "classifier.safetensors")
    found = classifier.names(np.stack(to_bytes(images)))
    wrong = {style: name for style, name in zip(prompts, found, strict=True) if name != style}
    assert len(wrong) <= 0.1 * len(prompts), wrong


def test_synonyms_agree_more_than_other_styles(model: Model) -> None:
    one, other = restyled(model, "pencil sketch"), restyled(model, "graphite drawing")
    different = restyled(model, "oil painting")
    assert (one - other).abs().mean() < 0.5 * (one - different).abs().mean()


def test_a_mix_has_something_of_both(model: Model) -> None:
    winter, watercolour = restyled(model, "winter"), restyled(model, "watercolour")
    mixed = restyled(model, "winter watercolour of a street")
    apart = (winter - watercolour).abs().mean()
    assert (mixed - winter).abs().mean() < 0.9 * apart
    assert (mixed - watercolour).abs().mean() < 0.9 * apart
    assert (mixed[:, 2] - mixed[:, 0]).mean() > (watercolour[:, 2] - watercolour[:, 0]).mean() + 0.1


@pytest.mark.parametrize("control", ["tile", "canny"])
def test_structure_follows_the_control_map(model: Model, control: str) -> None:
    """The house stays where it is: correlation of the brightness's edges."""

    def edges(image: Tensor) -> Tensor:
        grey = image.mean(dim=1, keepdim=True)
        return F.avg_pool2d((grey - F.avg_pool2d(grey, 9, 1, 4)).abs(), 4)

    def agreement(image: Tensor) -> float:
        pair = torch.stack((edges(image).flatten(), edges(scene()).flatten()))
        return float(torch.corrcoef(pair)[0, 1])

    # From pure noise the map alone says where things are.
    with_map = agreement(restyled(model, "watercolour", strength=1.0, control=control))
    without = agreement(restyled(model, "watercolour", strength=1.0, scale=0.0))
    assert with_map > 0.4
    assert with_map > without + 0.1


@pytest.mark.parametrize(
    "changes", [{"guidance": 4.0}, {"scale": 0.5}, {"strength": 0.5}, {"seed": 2}]
)
def test_every_knob_has_its_effect(model: Model, changes: dict[str, object]) -> None:
    usual = restyled(model, "watercolour")
    assert (restyled(model, "watercolour", **changes) - usual).abs().mean() > 0.005


def test_a_lower_strength_stays_closer_to_the_source(model: Model) -> None:
    far, near = (
        (restyled(model, "comic halftone", strength=strength) - scene()).abs().mean()
        for strength in (0.9, 0.3)
    )
    assert near < far


def test_weights_are_told_by_their_label() -> None:
    from bridge_server import catalogue, config

    assert "draft" in catalogue.load(config.load())["fresco-draft"].title.lower()
    assert Path(DRAFT).parts[-3:] == ("fresco", "data", "draft")


def test_both_forms_of_its_vocabulary_agree() -> None:
    # Readers of the old form and of the new one must cut words alike.
    whole = json.loads((DRAFT / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    words = json.loads((DRAFT / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    merges = (DRAFT / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert whole["model"]["vocab"] == words
    assert [" ".join(pair) for pair in whole["model"]["merges"]] == merges[1:]
