# SPDX-License-Identifier: Apache-2.0
"""Captions: templates with synonyms for one style or two, and prompts that mean a plain photo."""

from __future__ import annotations

import numpy as np

WORDS: dict[str, tuple[str, ...]] = {
    "pencil": (
        "pencil sketch", "pencil drawing", "graphite drawing", "graphite sketch", "sketch",
        "black and white sketch", "hand drawn sketch", "pencil on paper", "charcoal drawing",
        "grey pencil drawing", "monochrome drawing", "drawn in pencil", "lead pencil study",
        "pencil", "graphite", "charcoal", "line drawing",
    ),
    "coloured-pencil": (
        "coloured pencil", "colored pencil", "coloured pencil drawing", "colored pencil drawing",
        "coloured pencils", "colored pencils", "colour pencil sketch", "crayon drawing", "crayons",
        "drawn in coloured pencil", "crayon strokes on paper", "pastel pencil drawing",
        "pastels", "crayon",
    ),
    "watercolour": (
        "watercolour", "watercolor", "watercolour painting", "watercolor painting", "aquarelle",
        "watercolour wash", "watercolor on paper", "painted in watercolour", "soft watercolour",
        "loose watercolor", "wet on wet watercolour", "water colour",
        "watercolours", "watercolors", "gouache wash",
    ),
    "oil": (
        "oil painting", "oil on canvas", "impressionist painting", "impasto", "painted in oil",
        "thick brush strokes", "oil paint", "painting by van gogh", "painterly brushwork",
        "classical oil painting", "canvas painting", "expressionist painting",
        "palette knife painting", "oil", "oils", "painting", "brush strokes", "post-impressionism",
    ),
    "cartoon": (
        "cartoon with ink lines", "cartoon", "cel shading", "cel shaded", "anime", "toon",
        "animated film", "cartoon drawing", "flat cartoon", "cartoon style", "anime style",
        "ink and flat colours", "drawn animation", "toon shaded", "manga", "ink lines",
    ),
    "comic": (
        "comic halftone", "comic book", "halftone", "halftone dots", "comic", "pop art",
        "graphic novel", "printed comic", "comic book panel", "ben day dots", "pop art print",
        "superhero comic", "newspaper comic", "comics", "halftone print", "screen print with dots",
    ),
    "blueprint": (
        "blueprint", "technical drawing", "cyanotype", "architect's plan", "construction drawing",
        "schematic", "white lines on blue", "engineering drawing", "blue print",
        "draughtsman's plan", "architectural drawing", "cad drawing",
    ),
    "sepia": (
        "sepia film", "sepia", "old photograph", "vintage film", "antique photograph", "old film",
        "sepia photograph", "faded brown photograph", "silent film", "victorian photograph",
        "sepia toned", "daguerreotype", "vintage", "vintage photo", "old movie", "aged photo",
        "nostalgic old film",
    ),
    "mosaic": (
        "mosaic", "mosaic tiles", "made of tiles", "tiled", "roman mosaic", "tesserae",
        "byzantine mosaic", "ceramic tiles", "mosaic of small tiles", "glass mosaic", "tile mosaic",
    ),
    "winter": (
        "winter", "snowy winter", "in winter", "in the snow", "covered in snow", "snow", "snowfall",
        "snowy", "frozen", "on a snowy day", "frost and snow", "ice and snow", "blizzard",
        "icy winter",
        "in a snowstorm", "with falling snow",
    ),
    "autumn": (
        "autumn", "in autumn", "autumn leaves", "autumn colours", "autumn colors", "fall colors",
        "fall foliage", "golden autumn", "autumnal", "in october", "with falling leaves",
        "red and orange leaves", "indian summer", "in the fall",
    ),
    "sunset": (
        "golden sunset", "sunset", "at sunset", "golden hour", "at dusk", "evening glow", "sundown",
        "at sundown", "sunset light", "in the evening sun", "red evening sky", "warm sunset",
        "twilight", "sunrise", "at dawn",
    ),
    "neon": (
        "neon night", "neon", "neon lights", "glowing neon", "cyberpunk", "synthwave", "neon signs",
        "at night in neon", "neon glow", "in neon light", "cyberpunk night", "neon city at night",
        "vaporwave", "glowing lines at night",
    ),
    "photo": (
        "photo", "photograph", "a photo", "realistic photo", "plain photo", "natural colours",
        "natural light", "raw photo", "real life", "footage", "snapshot", "photorealistic",
        "unedited photo", "realistic", "original", "film still",
    ),
}  # fmt: skip
"""The phrases for each style; the first is the one its name stands for."""

ADJECTIVES: dict[str, tuple[str, ...]] = {
    "winter": ("winter", "snowy", "wintry", "frozen", "icy"),
    "autumn": ("autumn", "autumnal", "fall", "october"),
    "sunset": ("sunset", "golden sunset", "dusk", "evening"),
    "neon": ("neon", "neon night", "cyberpunk", "glowing neon"),
}

SUBJECTS = (
    "a street", "a person", "people", "a dog", "a cat", "a man", "a woman", "a child", "a house",
    "a city", "a garden", "a park", "a road", "a car", "a tree", "a river", "a lake", "a village",
    "a bridge", "a tower", "a bird", "a horse", "a portrait", "a face", "a landscape", "a scene",
    "a musician", "a band", "a singer", "a guitar", "a dancer", "a crowd", "a room", "a table",
    "a flower", "a mountain", "a boat", "the sea", "a building", "a train", "a market", "a shop",
    "a friend", "this video", "the scene", "the clip", "a dog on the grass", "a man playing music",
    "a woman with a hat", "a girl", "a boy", "an old man", "a running dog", "a concert", "a field",
)  # fmt: skip
"""What a caption may speak of when the picture's content is unknown."""

PLAIN = (
    "{subject}", "{style} of {subject}", "{subject}, {style}", "{style}, {subject}", "{style}",
    "{subject} as {style}", "{subject} in {style} style", "{style} style", "a {style}",
    "a {style} of {subject}", "make it {style}", "turn it into {style}", "{subject} {style}",
    "{subject} in the style of {style}", "in the style of {style}", "{style} effect",
    "{style} look", "restyle as {style}", "{style} with {subject}", "{style} version of {subject}",
)  # fmt: skip
"""Templates; the first one (no style word) is used for photos only."""

MIXED = (
    "{adjective} {medium} of {subject}", "{adjective} {medium}", "{medium} of {subject} {scene}",
    "{medium}, {scene}", "{scene}, {medium}", "{subject} {scene}, {medium}", "{scene} {medium}",
    "{medium} of {subject}, {scene}", "{adjective} {subject}, {medium}", "a {adjective} {medium}",
    "a {medium} of a {adjective} scene", "{scene} as {medium}", "{scene} in {medium} style",
    "{medium} and {scene}", "{scene} and {medium}", "{medium} {scene}",
)  # fmt: skip

PRAISE = (
    "best quality", "highly detailed", "masterpiece", "4k", "beautiful", "sharp", "detailed",
    "high quality",
)  # fmt: skip

BLAME = (
    "blurry", "low quality", "worst quality", "deformed", "ugly", "bad anatomy", "noise",
    "watermark",
    "text", "artifacts", "oversaturated", "jpeg artifacts",
)  # fmt: skip
"""Words of negative prompts: alone they mean a plain photo, like an empty prompt."""


def caption(styles: tuple[str, ...], content: str, rng: np.random.Generator) -> str:
    """A random caption for a picture in one style or a (scene, medium) pair."""
    subject = content if content and rng.uniform() < 0.6 else _pick(SUBJECTS, rng)
    if styles == ("photo",):
        return _photo(subject, rng)
    if len(styles) == 1:
        text = _pick(PLAIN[1:], rng).format(style=_pick(WORDS[styles[0]], rng), subject=subject)
    else:
        scene, medium = styles
        text = _pick(MIXED, rng).format(
            adjective=_pick(ADJECTIVES[scene], rng),
            scene=_pick(WORDS[scene], rng),
            medium=_pick(WORDS[medium], rng),
            subject=subject,
        )
    return f"{text}, {_pick(PRAISE, rng)}" if rng.uniform() < 0.15 else text


def _photo(subject: str, rng: np.random.Generator) -> str:
    """Nothing, a named photo, a bare subject, unknown words, or the words of a negative prompt."""
    kind = rng.uniform()
    if kind < 0.5:
        return ""
    if kind < 0.65:
        return _pick(PLAIN, rng).format(style=_pick(WORDS["photo"], rng), subject=subject)
    if kind < 0.78:
        return subject
    if kind < 0.9:
        return " ".join(_pseudo_word(rng) for _ in range(int(rng.integers(1, 4))))
    return ", ".join(rng.choice(BLAME, int(rng.integers(1, 5)), replace=False))


def _pseudo_word(rng: np.random.Generator) -> str:
    """A pronounceable word that means nothing."""
    syllables = [_pick(tuple("bcdfghjklmnprstvwz"), rng) + _pick(tuple("aeiou"), rng)
                 for _ in range(int(rng.integers(1, 4)))]  # fmt: skip
    return "".join(syllables) + _pick(("", "n", "r", "st", "l", "k"), rng)


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def corpus() -> list[str]:
    """Every phrase that the captions are made of, for building the vocabulary."""
    phrases = [phrase for group in (*WORDS.values(), *ADJECTIVES.values()) for phrase in group]
    return [*phrases, *SUBJECTS, *PRAISE, *BLAME, *PLAIN, *MIXED]
