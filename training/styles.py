# SPDX-License-Identifier: Apache-2.0
"""The styles that the draft model learns, as functions of a picture.

Every function takes and returns float32 RGB in [0, 1], shape (H, W, 3), and is meant for pictures
of about 256 pixels. Patterns (dots, tiles, grids) repeat every 8 or 32 pixels from the upper left
corner, so that they always fall alike onto the cells of the latent picture.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from training import drawing, painting, weather

Image = np.ndarray
Style = Callable[[Image, np.random.Generator], Image]
Front = Callable[[Image, Image, np.random.Generator], Image]
"""Adds to the first picture; the second is the unstyled one."""


def photo(image: Image, _: np.random.Generator) -> Image:
    """The picture itself."""
    return image


SCENES: dict[str, Style] = {
    "winter": weather.winter,
    "autumn": weather.autumn,
    "sunset": weather.sunset,
    "neon": weather.neon,
}
"""Styles that change what is shown: season, light."""

MEDIA: dict[str, Style] = {
    "pencil": drawing.pencil,
    "coloured-pencil": drawing.coloured_pencil,
    "watercolour": painting.watercolour,
    "oil": painting.oil,
    "cartoon": drawing.cartoon,
    "comic": drawing.comic,
    "blueprint": drawing.blueprint,
    "sepia": weather.sepia,
    "mosaic": painting.mosaic,
}
"""Styles that change how it is made: tools, material."""

STYLES: dict[str, Style] = {"photo": photo, **SCENES, **MEDIA}

MIXED_MEDIA = ("coloured-pencil", "watercolour", "oil", "cartoon", "comic", "mosaic")
MIXES: tuple[tuple[str, str], ...] = tuple(
    (scene, medium) for scene in SCENES for medium in MIXED_MEDIA
)
"""Pairs that make sense together: the scene is applied first, then the medium."""


PARTS: dict[str, tuple[Style, Front]] = {
    "winter": (weather.snowy, weather.snowfall),
    "autumn": (weather.foliage, weather.leaves),
    "neon": (weather.night, weather.tubes),
}
"""Scenes with something in front: the medium comes between, so that no flakes are outlined."""


def apply(names: tuple[str, ...], image: Image, rng: np.random.Generator) -> Image:
    """Applies one style, or a scene and then a medium, to a float32 RGB picture."""
    if len(names) == 2 and names[0] in PARTS:
        scene, front = PARTS[names[0]]
        painted = _clipped(STYLES[names[1]](_clipped(scene(image, rng)), rng))
        return _clipped(front(painted, image, rng))
    for name in names:
        image = _clipped(STYLES[name](image, rng))
    return image


def _clipped(image: Image) -> Image:
    return np.clip(image, 0, 1).astype(np.float32)


def soften(image: np.ndarray, factor: int = 8) -> np.ndarray:
    """The tile control map: the picture reduced by `factor` and enlarged again."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
