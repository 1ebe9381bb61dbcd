# SPDX-License-Identifier: Apache-2.0
"""Season and light: winter, autumn, sunset, neon night, old film."""

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
    hue = f.smoothstep(hsv[..., 0], 40, 62) * (1 - f.smoothstep(hsv[..., 0], 160, 185))
    return f.blur(hue * f.smoothstep(hsv[..., 1], 0.08, 0.3), 1.0)


def winter(image: Image, rng: np.random.Generator) -> Image:
    """Snow on plants and on everything that faces up, cold pale light, falling flakes."""
    luma = f.equalise(f.grey(image), 0.6)
    frost = f.mix(
        f.colour(0.16, 0.30, 0.52) + np.zeros_like(image), f.colour(0.95, 0.98, 1.0), luma**0.8
    )
    cold = f.mix(f.saturate(image, 0.6) * f.colour(0.8, 0.95, 1.15) + 0.08, frost, 0.72)
    faces_up = f.smoothstep(cv2.Sobel(f.blur(-luma, 1.2), cv2.CV_32F, 0, 1, ksize=3), 0.02, 0.3)
    ground = f.smoothstep(0.4 * _height(image.shape) + luma, 0.75, 1.1)
    snow = np.clip(0.75 * _greenery(image) + 0.8 * faces_up + 0.75 * ground, 0, 1)
    snow = snow * (0.55 + 0.45 * f.smoothstep(luma, 0.05, 0.5))
    white = f.colour(0.90, 0.95, 1.0) * (0.74 + 0.3 * luma[..., None])
    return np.maximum(f.mix(cold, white, snow), 0.98 * _flakes(image.shape, rng)[..., None])


def _flakes(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """Soft round flakes of 1 to 3 pixels radius as a plane."""
    plane = np.zeros(shape[:2], np.float32)
    for _ in range(shape[0] * shape[1] // 550):
        centre = (int(rng.integers(shape[1])), int(rng.integers(shape[0])))
        radius = int(rng.choice([1, 2, 2, 3]))
        cv2.circle(plane, centre, radius, float(rng.uniform(0.75, 1.0)), -1, cv2.LINE_AA)
    return np.clip(f.blur(plane, 0.8) * 1.15, 0, 1)


def autumn(image: Image, rng: np.random.Generator) -> Image:
    """Foliage in patches of red, orange and yellow, a warm haze, fallen leaves."""
    luma = f.equalise(f.grey(image), 0.5)
    patches = f.smoothstep(luma + 0.3 * f.noise(image.shape, 4.0, rng), 0.1, 0.9)
    leaf = f.mix(
        f.colour(0.88, 0.20, 0.04) + np.zeros_like(image), f.colour(1.0, 0.70, 0.08), patches
    )
    leaf = leaf * np.clip(0.3 + 1.1 * luma, 0, 1.2)[..., None]
    warm = f.saturate(image, 0.85) * f.colour(1.16, 0.95, 0.66) + f.colour(0.07, 0.03, 0.0)
    textured = f.smoothstep(f.blur(f.gradient(luma, 1.0), 5.0), 0.06, 0.3)
    foliage = np.clip(1.1 * _greenery(image) + 0.6 * textured, 0, 0.92)
    return _leaves(f.mix(warm, leaf, foliage), rng)


def _leaves(image: Image, rng: np.random.Generator) -> Image:
    """Draws a few small leaves, more of them towards the bottom."""
    canvas = np.ascontiguousarray(np.clip(image, 0, 1), np.float32)
    height, width = image.shape[:2]
    for _ in range(height * width // 1500):
        centre = (int(rng.integers(width)), int(height * rng.beta(2.0, 1.2)))
        axes = (int(rng.integers(4, 7)), int(rng.integers(2, 4)))
        tint = (rng.uniform(0.8, 1.0), rng.uniform(0.15, 0.65), rng.uniform(0.0, 0.08))
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, tint, -1, cv2.LINE_AA)
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


def neon(image: Image, _: np.random.Generator) -> Image:
    """Night: nearly black blue, every border a glowing tube in magenta, cyan or violet."""
    flat = f.simplify(image, 3, 0.15)
    luma = f.equalise(f.grey(flat), 0.8)
    tubes = f.smoothstep(f.colour_gradient(flat, 1.2), 0.16, 0.6)
    tint = _tube_colour(image)
    night = f.colour(0.05, 0.02, 0.13) + 0.22 * luma[..., None] * f.colour(0.45, 0.3, 1.0)
    glow = f.blur(tubes[..., None] * tint, 5.0) * 1.5
    core = tubes[..., None] * f.mix(tint, 1.0, 0.25)
    return 1 - (1 - np.clip(night, 0, 1)) * (1 - np.clip(glow, 0, 1)) * (1 - np.clip(core, 0, 1))


def _tube_colour(image: Image) -> Image:
    """Warm parts glow magenta, cold ones cyan, dull ones follow their brightness."""
    soft = f.blur(image, 6.0)
    warmth = soft[..., 0] - soft[..., 2]
    choice = f.smoothstep(warmth * 4 + soft[..., 1] - 0.45, -0.6, 0.6)
    return f.mix(f.colour(0.05, 0.9, 1.0) + np.zeros_like(image), f.colour(1.0, 0.12, 0.75), choice)


def sepia(image: Image, rng: np.random.Generator) -> Image:
    """Old brown film: faded tones, dark corners, dust and a few scratches."""
    luma = f.blur(f.equalise(f.grey(image), 0.7), 0.7)
    faded = 0.12 + 0.76 * f.smoothstep(luma, -0.1, 1.05)
    toned = faded[..., None] * f.colour(1.0, 0.80, 0.54) + f.colour(0.07, 0.03, 0.0)
    worn = toned * (1 + 0.05 * f.noise(image.shape, 12.0, rng))[..., None]
    worn = worn * (1 - 0.55 * f.smoothstep(f.vignette(image.shape), 0.6, 1.05))[..., None]
    return f.mix(worn, f.colour(0.95, 0.86, 0.68), 0.55 * _scratches(image.shape, rng))


def _scratches(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """A few upright scratches and specks of dust as a plane."""
    plane = np.zeros(shape[:2], np.float32)
    for _ in range(3):
        x, top = int(rng.integers(shape[1])), int(rng.integers(shape[0] // 2))
        bottom = top + int(rng.integers(shape[0] // 4, shape[0]))
        cv2.line(plane, (x, top), (x + int(rng.integers(-3, 4)), bottom), 0.9, 1, cv2.LINE_AA)
    for _ in range(8):
        centre = (int(rng.integers(shape[1])), int(rng.integers(shape[0])))
        cv2.circle(plane, centre, 1, 1.0, -1, cv2.LINE_AA)
    return f.blur(plane, 0.5)
