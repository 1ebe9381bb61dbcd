# SPDX-License-Identifier: Apache-2.0
"""Season and light: winter, autumn, sunset, neon night; old film.

Of winter, autumn and neon there are two parts, so that a medium can come between them: the scene
itself, and what is in front of it (flakes, leaves, glowing tubes).
"""

from __future__ import annotations

import cv2
import numpy as np

from training import filters as f

Image = np.ndarray


def _height(shape: tuple[int, ...]) -> Image:
    """0 at the top and 1 at the bottom of the picture, as a plane."""
    return np.repeat(np.linspace(0, 1, shape[0], dtype=np.float32)[:, None], shape[1], axis=1)


def _greenery(image: Image) -> Image:
    """1 where the picture is green or yellow-green, 0 elsewhere."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hue = f.smoothstep(hsv[..., 0], 40, 62) * (1 - f.smoothstep(hsv[..., 0], 165, 190))
    return f.blur(hue * f.smoothstep(hsv[..., 1], 0.08, 0.3), 1.0)


def winter(image: Image, rng: np.random.Generator) -> Image:
    """Snow on plants and on everything that faces up, cold pale light, large falling flakes."""
    return snowfall(snowy(image, rng), image, rng)


def snowy(image: Image, _: np.random.Generator) -> Image:
    """Winter without the falling flakes."""
    luma = f.equalise(f.grey(image), 0.5)
    frost = f.mix(
        f.colour(0.10, 0.24, 0.50) + np.zeros_like(image), f.colour(0.86, 0.94, 1.0), luma**0.9
    )
    cold = f.mix(f.saturate(image, 0.8) * f.colour(0.75, 0.92, 1.15) + 0.04, frost, 0.6)
    faces_up = f.smoothstep(cv2.Sobel(f.blur(-luma, 1.6), cv2.CV_32F, 0, 1, ksize=3), 0.03, 0.35)
    ground = f.smoothstep(0.9 * _height(image.shape) + 0.5 * luma, 0.7, 1.15)
    snow = np.clip(0.75 * _greenery(image) + 0.9 * faces_up + 0.85 * ground, 0, 1)
    white = f.colour(0.93, 0.97, 1.0) * (0.62 + 0.42 * luma[..., None])
    return f.mix(cold, white, 0.92 * snow)


def snowfall(painted: Image, _: Image, rng: np.random.Generator) -> Image:
    """Falling flakes in front of a picture."""
    return np.maximum(painted, _flakes(painted.shape, rng)[..., None])


def _cells(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> Image:
    """Centres (x, y) in a random share of the 8-pixel cells, at most 1 pixel off their middle."""
    rows, columns = np.nonzero(rng.uniform(size=(shape[0] // 8, shape[1] // 8)) < share)
    middle = 8 * np.stack([columns, rows], axis=1) + 4
    return middle + rng.integers(-1, 2, middle.shape)


def _flakes(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """Soft round flakes of 2 or 3 pixels radius as a plane."""
    plane = np.zeros(shape[:2], np.float32)
    for x, y in _cells(shape, 0.13, rng):
        cv2.circle(plane, (int(x), int(y)), int(rng.integers(2, 4)), 1.0, -1, cv2.LINE_AA)
    return np.clip(f.blur(plane, 0.7) * 1.1, 0, 1)


def autumn(image: Image, rng: np.random.Generator) -> Image:
    """Everything green turned red, orange and yellow, fallen and falling leaves; sky stays blue."""
    return leaves(foliage(image, rng), image, rng)


def foliage(image: Image, rng: np.random.Generator) -> Image:
    """Autumn without the falling leaves."""
    luma = f.equalise(f.grey(image), 0.4)
    patches = f.smoothstep(luma + 0.3 * f.noise(image.shape, 5.0, rng), 0.15, 0.85)
    leaf = f.mix(
        f.colour(0.90, 0.14, 0.02) + np.zeros_like(image), f.colour(1.0, 0.68, 0.04), patches
    )
    leaf = leaf * np.clip(0.35 + 1.1 * luma, 0, 1.15)[..., None]
    textured = f.smoothstep(f.blur(f.gradient(f.grey(image), 1.0), 4.0), 0.10, 0.4)
    turned = np.clip(1.2 * _greenery(image) + 0.75 * textured, 0, 0.95) * (1 - 0.8 * _blue(image))
    warm = f.saturate(image, 1.25) * f.colour(1.12, 0.98, 0.80) + f.colour(0.05, 0.02, 0.0)
    rest = f.mix(warm, f.saturate(image, 1.4), _blue(image))
    return f.mix(rest, leaf, turned)


def _blue(image: Image) -> Image:
    """1 where the picture is blue (sky, water), 0 elsewhere."""
    excess = image[..., 2] - 0.5 * (image[..., 0] + image[..., 1])
    return f.blur(f.smoothstep(excess, 0.02, 0.12), 1.5)


def leaves(painted: Image, _: Image, rng: np.random.Generator) -> Image:
    """Draws leaves of about 8 pixels, more of them towards the bottom."""
    canvas = np.ascontiguousarray(np.clip(painted, 0, 1), np.float32)
    for x, y in _cells(painted.shape, 0.16, rng):
        if rng.uniform() > 0.25 + 0.75 * y / painted.shape[0]:
            continue
        axes = (int(rng.integers(4, 6)), int(rng.integers(2, 4)))
        tint = (rng.uniform(0.85, 1.0), rng.uniform(0.12, 0.62), 0.02)
        angle = float(rng.choice([30, 90, 150]))
        cv2.ellipse(canvas, (int(x), int(y)), axes, angle, 0, 360, tint, -1, cv2.LINE_AA)
    return canvas


def sunset(image: Image, _: np.random.Generator) -> Image:
    """Low sun: violet shadows, red middle tones, golden lights, a glow at the horizon."""
    height = _height(image.shape)
    luma = f.equalise(f.grey(image), 0.7)
    low = f.mix(f.colour(0.17, 0.05, 0.30), f.colour(0.88, 0.26, 0.34), f.smoothstep(luma, 0, 0.5))
    graded = f.mix(
        low, f.colour(1.0, 0.80, 0.34), f.smoothstep(luma + 0.25 * (height - 0.5), 0.35, 1)
    )
    graded = f.mix(graded, f.colour(0.62, 0.28, 0.62), 0.5 * (1 - f.smoothstep(height, 0.0, 0.4)))
    graded = f.mix(graded, image * f.colour(1.0, 0.6, 0.5), 0.15)
    glow = np.exp(-(((height - 0.5) / 0.22) ** 2)) * (0.2 + 0.8 * f.smoothstep(luma, 0.3, 0.9))
    return graded + 0.22 * glow[..., None] * f.colour(1.0, 0.6, 0.15)


def neon(image: Image, rng: np.random.Generator) -> Image:
    """Night: nearly black blue, every border a glowing tube in magenta, cyan or violet."""
    return tubes(night(image, rng) * 0.7, image, rng)


def night(image: Image, _: np.random.Generator) -> Image:
    """The dark scene of neon, with a trace of the light."""
    lit = f.mix(f.colour(0.4, 0.15, 1.0) + np.zeros_like(image), _tube_colour(image), 0.4)
    return f.colour(0.05, 0.01, 0.13) + 0.45 * f.blur(f.grey(image), 1.0)[..., None] ** 1.3 * lit


def tubes(painted: Image, image: Image, _: np.random.Generator) -> Image:
    """Glowing tubes along the borders of `image`, in front of what was painted of it."""
    lines = f.line(f.outlines(image, (40, 60, 80)), 3)[..., None]
    tint = _tube_colour(image)
    glow = f.blur(lines * tint, 4.0) * 1.1
    core = np.clip(1.4 * lines, 0, 1) * f.mix(tint, 1.0, 0.15)
    dark = 1 - np.clip(painted, 0, 1)
    return 1 - dark * (1 - np.clip(glow, 0, 1)) * (1 - np.clip(core, 0, 1))


def _tube_colour(image: Image) -> Image:
    """Warm parts glow magenta, cold ones cyan, dull ones follow their brightness."""
    soft = f.blur(image, 6.0)
    warmth = soft[..., 0] - soft[..., 2]
    choice = f.smoothstep(warmth * 4 + soft[..., 1] - 0.45, -0.6, 0.6)
    return f.mix(f.colour(0.05, 0.9, 1.0) + np.zeros_like(image), f.colour(1.0, 0.12, 0.75), choice)


def sepia(image: Image, rng: np.random.Generator) -> Image:
    """Old brown film: one hue only, dark corners, grain, dust and upright scratches."""
    luma = f.equalise(f.grey(image), 0.4)
    tone = 0.1 + 0.85 * f.smoothstep(luma, -0.15, 1.1)
    tone = tone * (1 - 0.6 * f.smoothstep(f.vignette(image.shape), 0.5, 1.05))
    tone = tone + 0.015 * f.noise(image.shape, 1.2, rng)
    tone = f.mix(tone, 0.95, 0.7 * _scratches(image.shape, rng))
    return np.clip(tone, 0, 1)[..., None] ** f.colour(0.72, 1.12, 1.95)


def _scratches(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """A few upright scratches and specks of dust as a plane."""
    plane = np.zeros(shape[:2], np.float32)
    for column in rng.choice(shape[1] // 8, max(1, shape[1] // 100), replace=False):
        x = 8 * int(column) + 4
        cv2.line(plane, (x, 0), (x, shape[0]), float(rng.uniform(0.6, 1.0)), 1)
    for x, y in _cells(shape, 0.01, rng):
        cv2.circle(plane, (int(x), int(y)), 2, 1.0, -1, cv2.LINE_AA)
    return f.blur(plane, 0.5)
