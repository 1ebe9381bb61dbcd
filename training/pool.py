# SPDX-License-Identifier: Apache-2.0
"""Shards of training pictures on disk: sources, their styled versions, captions' facts.

A shard is a folder with `source.npy` (N, 256, 256, 3), `styled.npy` (N, S, 256, 256, 3), both uint8
RGB, and `facts.json`: per picture the content word and the S style names. Style 0 is the photo.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from training import scenes, styles

log = logging.getLogger(__name__)

SIZE = 256
MIXES_PER_PICTURE = 2
VERSIONS = len(styles.STYLES) + MIXES_PER_PICTURE
RENDERED = 0.1
CUTOUT = 0.45
"""Shares of rendered pictures, and of photos with an animal or a thing pasted in."""

REPEATS = {"kphotoalbum": 4, "scikit-image": 2, "tuxpaint-data": 2}
"""Sources with rare content (people, mostly) are drawn more often."""

CONTENT = {
    "city": "a city", "sea": "the sea", "snow": "snowy mountains", "mountain": "mountains",
    "beach": "a beach", "desert": "a desert", "forest": "a forest", "fields": "fields",
    "valley": "a valley", "canyon": "a canyon", "water": "a lake", "sky": "the sky",
    "hills": "hills", "fog": "fog", "dune": "dunes", "space": "space", "lava": "lava",
    "explore_monuments": "a building", "explore_farm_animals": "an animal",
    "explore_world_animals": "an animal", "explore_world_music": "musicians", "erase": "an animal",
    "jesper": "a man", "wayne": "a man", "astronaut": "a woman", "chelsea": "a cat",
    "coffee": "a cup of coffee", "motorcycle": "a motorcycle", "flower": "a flower",
    "china": "a temple",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: uint8 RGB, with alpha for cutouts; `content` may be empty."""

    image: np.ndarray
    content: str


def load(cache: Path, split: str, kind: str = "photo") -> list[Picture]:
    """Reads the fetched pictures of a split (`train` or `held`) and kind."""
    folder = cache / "pictures"
    entries = json.loads((folder / "index.json").read_text())
    chosen = [entry for entry in entries if (entry["split"], entry["kind"]) == (split, kind)]
    chosen = [entry for entry in chosen for _ in range(REPEATS.get(entry["source"], 1))]
    return [_read(folder / entry["file"], entry["name"], kind) for entry in chosen]


def _read(path: Path, name: str, kind: str) -> Picture:
    if kind == "cutout":
        image = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
        return Picture(image, "a " + re.sub(r"[^a-z]+", " ", name.lower()).strip().split(" ")[-1])
    content = next((words for key, words in CONTENT.items() if name.startswith(key)), "")
    return Picture(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), content)


def crop(picture: Picture, rng: np.random.Generator) -> Picture:
    """A random square of the picture, resized to SIZE, mirrored half of the time."""
    image = picture.image
    shortest = min(image.shape[:2])
    side = int(shortest * rng.uniform(0.55, 1.0))
    y = int(rng.integers(image.shape[0] - side + 1))
    x = int(rng.integers(image.shape[1] - side + 1))
    cut = cv2.resize(image[y : y + side, x : x + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return Picture(cut[:, ::-1] if rng.uniform() < 0.5 else cut, picture.content)


def paste(picture: Picture, cutout: Picture, rng: np.random.Generator) -> Picture:
    """Puts a cutout, scaled and softened to the ground's sharpness, onto a picture."""
    scale = SIZE * rng.uniform(0.35, 0.8) / max(cutout.image.shape[:2])
    figure = cv2.resize(cutout.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    figure = figure[:, ::-1] if rng.uniform() < 0.5 else figure
    height, width = figure.shape[:2]
    y, x = (int(rng.integers(SIZE - side + 1)) for side in (height, width))
    image = picture.image.copy()
    alpha = cv2.GaussianBlur(figure[..., 3:].astype(np.float32) / 255, (3, 3), 0)[..., None]
    ground = image[y : y + height, x : x + width]
    image[y : y + height, x : x + width] = (figure[..., :3] * alpha + ground * (1 - alpha)).astype(
        np.uint8
    )
    return Picture(image, cutout.content)


def vary(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Small changes of exposure, contrast, saturation and white balance; uint8 RGB."""
    value = image.astype(np.float32) / 255
    value = value ** rng.uniform(0.75, 1.3) * rng.uniform(0.92, 1.06, 3).astype(np.float32)
    luma = value.mean(axis=2, keepdims=True)
    value = luma + (value - luma) * rng.uniform(0.6, 1.3)
    return (np.clip(value, 0, 1) * 255).astype(np.uint8)


def draw(photos: list[Picture], cutouts: list[Picture], rng: np.random.Generator) -> Picture:
    """One source picture: a rendered scene, a photo, or a photo with something pasted in."""
    if rng.uniform() < RENDERED:
        return Picture(scenes.render(SIZE, rng), "")
    picture = crop(photos[int(rng.integers(len(photos)))], rng)
    if cutouts and rng.uniform() < CUTOUT:
        picture = paste(picture, cutouts[int(rng.integers(len(cutouts)))], rng)
    return Picture(vary(picture.image, rng), picture.content)


def chosen_styles(rng: np.random.Generator) -> list[tuple[str, ...]]:
    """All single styles and a few mixes, as tuples of names."""
    mixes = rng.choice(len(styles.MIXES), MIXES_PER_PICTURE, replace=False)
    return [(name,) for name in styles.STYLES] + [styles.MIXES[int(i)] for i in mixes]


def build(cache: Path, folder: Path, count: int, split: str, seed: int) -> None:
    """Writes one shard of `count` source pictures and their styled versions."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    photos = load(cache, split)
    cutouts = load(cache, "train", "cutout") if split == "train" else []
    shape = (count, SIZE, SIZE, 3)
    source = np.lib.format.open_memmap(folder / "source.npy", "w+", np.uint8, shape)
    facts = []
    for number in range(count):
        picture = draw(photos, cutouts, rng)
        source[number] = picture.image
        facts.append({"content": picture.content, "styles": chosen_styles(rng)})
    source.flush()
    restyle(folder, facts, seed)
    (folder / "facts.json").write_text(json.dumps(facts))


def restyle(folder: Path, facts: list[dict], seed: int) -> None:
    """Draws all the styled versions of a shard's sources."""
    rng = np.random.default_rng(seed)
    source = np.load(folder / "source.npy", mmap_mode="r")
    part = folder / "styled.part.npy"
    shape = (len(source), VERSIONS, *source.shape[1:])
    styled = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
    for number, (image, fact) in enumerate(zip(source, facts, strict=True)):
        value = image.astype(np.float32) / 255
        for version, names in enumerate(fact["styles"]):
            styled[number, version] = np.round(styles.apply(tuple(names), value, rng) * 255)
        if number % 100 == 99:
            log.info("pool: %d of %d pictures", number + 1, len(source))
    styled.flush()
    part.replace(folder / "styled.npy")
