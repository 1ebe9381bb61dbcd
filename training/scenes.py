# SPDX-License-Identifier: Apache-2.0
"""Rendered pictures: landscapes, solids under a lamp, procedural textures. uint8 RGB, square."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from training import filters as f

Image = np.ndarray


def render(size: int, rng: np.random.Generator) -> Image:
    """A random rendered picture of size x size pixels."""
    kinds = (landscape, solids, texture)
    image = kinds[int(rng.integers(len(kinds)))](size, rng)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _tint(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> Image:
    hue, sat, val = rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)
    return f.colour(*colorsys.hsv_to_rgb(float(hue), float(sat), float(val)))


def _ramp(size: int, top: Image, bottom: Image) -> Image:
    position = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    return np.repeat(top * (1 - position) + bottom * position, size, axis=1)


def landscape(size: int, rng: np.random.Generator) -> Image:
    """Sky, three ranges of hills, some houses and trees."""
    image = _ramp(size, f.colour(0.25, 0.5, 0.9), f.colour(0.8, 0.88, 0.97))
    clouds = f.smoothstep(f.noise(image.shape, size / 12, rng), 0.3, 1.6)
    image = f.mix(image, 1.0, 0.8 * clouds)
    for layer in range(3):
        image = _hill(image, layer, rng)
    canvas = np.ascontiguousarray(image, np.float32)
    for _ in range(int(rng.integers(3, 9))):
        (_house if rng.uniform() < 0.4 else _tree)(canvas, rng)
    return np.clip(canvas + 0.02 * f.noise(canvas.shape, 0.8, rng)[..., None], 0, 1)


def _hill(image: Image, layer: int, rng: np.random.Generator) -> Image:
    size = image.shape[0]
    steps = np.linspace(0, 2 * np.pi, size, dtype=np.float32)
    waves = [rng.uniform(0.01, 0.06) * np.sin(steps * n + rng.uniform(0, 6)) for n in (1, 2, 3, 7)]
    ridge = np.sum(waves, axis=0)
    edge = 0.45 + 0.16 * layer + ridge
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    ground = f.smoothstep(rows - edge[None], 0.0, 0.01)
    green = f.mix(f.colour(0.45, 0.58, 0.7), f.colour(0.25, 0.5, 0.15), (layer + 1) / 3)
    rough = 1 + 0.12 * f.noise(image.shape, 1.0 + layer, rng)
    return f.mix(image, green * rough[..., None], ground)


def _house(canvas: Image, rng: np.random.Generator) -> None:
    size = canvas.shape[0]
    width, height = (int(size * rng.uniform(0.08, 0.2)) for _ in range(2))
    x, y = int(rng.integers(0, size - width)), int(size * rng.uniform(0.45, 0.7))
    wall, roof = _tint(rng, (0.1, 0.5), (0.6, 0.95)), _tint(rng, (0.4, 0.8), (0.3, 0.7))
    cv2.rectangle(canvas, (x, y), (x + width, y + height), wall.tolist(), -1)
    gable = np.array([(x - 4, y), (x + width // 2, y - height // 2), (x + width + 4, y)])
    cv2.fillPoly(canvas, [gable], roof.tolist(), cv2.LINE_AA)
    for column in (0.2, 0.6):
        corner = (x + int(width * column), y + height // 3)
        other = (corner[0] + width // 5, corner[1] + height // 4)
        cv2.rectangle(canvas, corner, other, (0.15, 0.2, 0.3), -1)


def _tree(canvas: Image, rng: np.random.Generator) -> None:
    size = canvas.shape[0]
    x, y = int(rng.integers(size)), int(size * rng.uniform(0.55, 0.9))
    crown = int(size * rng.uniform(0.04, 0.1))
    cv2.line(canvas, (x, y), (x, y - 2 * crown), (0.3, 0.2, 0.12), max(2, crown // 4), cv2.LINE_AA)
    for _ in range(14):
        spot = (
            x + int(rng.normal(0, crown * 0.5)),
            y - 2 * crown + int(rng.normal(0, crown * 0.5)),
        )
        green = (rng.uniform(0.1, 0.3), rng.uniform(0.35, 0.65), rng.uniform(0.05, 0.2))
        cv2.circle(canvas, spot, max(2, int(crown * rng.uniform(0.3, 0.6))), green, -1, cv2.LINE_AA)


def solids(size: int, rng: np.random.Generator) -> Image:
    """Shaded balls and boxes with shadows in front of a textured wall."""
    wall = _ramp(size, _tint(rng, (0, 0.5), (0.4, 0.95)), _tint(rng, (0, 0.5), (0.2, 0.8)))
    canvas = wall * (1 + 0.06 * f.noise(wall.shape, rng.uniform(0.8, 6), rng))[..., None]
    for _ in range(int(rng.integers(2, 7))):
        canvas = (_ball if rng.uniform() < 0.6 else _box)(canvas.astype(np.float32), rng)
    return canvas


def _ball(canvas: Image, rng: np.random.Generator) -> Image:
    size = canvas.shape[0]
    radius = size * rng.uniform(0.06, 0.22)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    dx, dy = (
        (x - size * rng.uniform(0.1, 0.9)) / radius,
        (y - size * rng.uniform(0.1, 0.9)) / radius,
    )
    inside = 1 - f.smoothstep(dx * dx + dy * dy, 0.94, 1.0)
    height = np.sqrt(np.clip(1 - dx * dx - dy * dy, 0, 1))
    light = np.clip(-0.5 * dx - 0.55 * dy + 0.65 * height, 0, 1)
    shadow = np.exp(-((dx - 0.3) ** 2 + (dy - 0.9) ** 2 * 6))
    lit = _tint(rng, (0.2, 0.95), (0.4, 1.0)) * (0.18 + 0.85 * light)[..., None]
    lit = lit + 0.8 * f.smoothstep(light, 0.93, 1.0)[..., None]
    return f.mix(f.mix(canvas, 0.05, 0.5 * shadow), lit, inside)


def _box(canvas: Image, rng: np.random.Generator) -> Image:
    size = canvas.shape[0]
    centre = (float(size * rng.uniform(0.1, 0.9)), float(size * rng.uniform(0.1, 0.9)))
    sides = (float(size * rng.uniform(0.1, 0.4)), float(size * rng.uniform(0.1, 0.4)))
    corners = cv2.boxPoints((centre, sides, float(rng.uniform(0, 90))))
    tint = _tint(rng, (0.1, 0.9), (0.2, 1.0))
    canvas = np.ascontiguousarray(canvas)
    for depth in range(10, -1, -1):
        shade = tint * (1.0 if depth == 0 else 0.5)
        cv2.fillPoly(canvas, [(corners + depth).astype(np.int32)], shade.tolist(), cv2.LINE_AA)
    return canvas


def texture(size: int, rng: np.random.Generator) -> Image:
    """Coloured noise in stripes, checks or clouds."""
    field = f.noise((size, size), rng.uniform(1, 20), rng)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    period, angle = rng.uniform(8, 60), rng.uniform(0, np.pi)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + field)
    amount = f.smoothstep(
        wave + rng.uniform(0, 1) * field, -rng.uniform(0.1, 1), rng.uniform(0.1, 1)
    )
    first, second = _tint(rng, (0, 1), (0.05, 1)), _tint(rng, (0, 1), (0.05, 1))
    return f.mix(first, second, amount.astype(np.float32))
