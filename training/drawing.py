# SPDX-License-Identifier: Apache-2.0
"""Drawn styles: pencil, coloured pencil, cartoon, comic, blueprint."""

from __future__ import annotations

import cv2
import numpy as np

from training import filters as f

Image = np.ndarray


def _strokes(shape: tuple[int, ...], rng: np.random.Generator, slope: float) -> Image:
    """Parallel pencil strokes: noise drawn out along one direction, deviation 1."""
    height, width = shape[:2]
    field = f.noise(shape, 0.9, rng)
    angle = np.full((height, width), slope, np.float32)
    drawn = f.blur(f.along(field, angle, 9), 0.6)
    return (drawn - drawn.mean()) / (drawn.std() + 1e-6)


def _shading(luma: Image) -> Image:
    """Paper-white drawing of a plane: colour-dodge outlines over light tone."""
    toned = f.equalise(luma, 0.8)
    dodge = np.clip(toned / (f.blur(toned, 4.0) + 0.04), 0, 1)
    lines = f.ink(toned, 1.0, 22.0, 0.006)
    tone = 0.55 + 0.45 * f.smoothstep(f.blur(toned, 1.5), 0.0, 0.65)
    return np.clip(dodge**1.6 * tone * (1 - 0.75 * lines), 0, 1)


def pencil(image: Image, rng: np.random.Generator) -> Image:
    """Graphite on white paper: outlines, soft tone, hatching in the dark parts."""
    luma = f.grey(image)
    drawn = _shading(luma)
    dark = 1 - f.smoothstep(f.blur(f.equalise(luma, 0.8), 3.0), 0.1, 0.65)
    drawn = f.blur(drawn, 0.6) + 0.12 * dark * _strokes(image.shape, rng, -0.8)
    return np.repeat(np.clip(0.1 + 0.88 * drawn, 0, 0.98)[..., None], 3, axis=2)


def coloured_pencil(image: Image, rng: np.random.Generator) -> Image:
    """Coloured strokes through which the white paper shows, with coloured outlines."""
    luma = f.grey(image)
    smooth = f.simplify(image, 2)
    tint = f.saturate(smooth / (f.grey(smooth)[..., None] + 0.08) * 0.66, 1.7)
    tone = f.smoothstep(f.blur(f.equalise(luma, 0.7), 1.0), -0.1, 0.95)
    cover = np.clip(0.92 - 0.65 * tone + 0.17 * _strokes(image.shape, rng, -0.8), 0, 1)
    paper = f.mix(f.colour(0.99, 0.98, 0.95) + np.zeros_like(image), tint, cover)
    lines = f.ink(f.equalise(luma, 0.8), 1.0, 22.0, 0.006)
    return f.mix(paper, tint * 0.35, 0.8 * lines)


def cartoon(image: Image, _: np.random.Generator) -> Image:
    """Flat bright colours in few steps inside thick black outlines."""
    flat = f.simplify(image, 4, 0.2)
    hsv = cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)
    value = f.equalise(hsv[..., 2], 0.7)
    steps = np.floor(value * 4) + f.smoothstep(value * 4 - np.floor(value * 4), 0.35, 0.65)
    hsv[..., 2] = 0.3 + 0.7 * steps / 4
    hsv[..., 1] = np.clip(hsv[..., 1] * 1.45 + 0.06, 0, 0.92)
    painted = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return f.mix(painted, 0.03, _outline(flat))


def _outline(flat: Image) -> Image:
    """Thick ink where luma or colour change: 1 = ink."""
    luma = f.equalise(f.grey(flat), 0.8)
    lines = f.ink(luma, 1.3, 30.0, 0.002)
    borders = f.smoothstep(f.colour_gradient(flat, 1.2), 0.45, 0.8)
    return np.maximum(f.smoothstep(lines, 0.35, 0.6), borders)


def comic(image: Image, _: np.random.Generator) -> Image:
    """Printed comic: primary colours, black shadows, dots of ink 8 pixels apart."""
    flat = f.simplify(image, 4, 0.2)
    luma = f.equalise(f.grey(flat), 0.9)
    tint = _primary(flat)
    dots = _dots(image.shape)
    covered = f.smoothstep(1.05 - luma - dots, -0.2, 0.2)
    printed = f.mix(f.colour(1.0, 0.97, 0.88) + np.zeros_like(image), tint, covered)
    shadow = f.smoothstep(0.24 - luma, -0.03, 0.03)
    return f.mix(printed, 0.03, f.blur(np.maximum(shadow, _outline(flat)), 0.6))


def _primary(flat: Image) -> Image:
    """The nearest of a few printing inks, weighted softly."""
    inks = np.array(
        [
            (0.90, 0.12, 0.14),
            (0.08, 0.32, 0.80),
            (0.98, 0.80, 0.08),
            (0.10, 0.62, 0.32),
            (0.95, 0.55, 0.35),
            (0.10, 0.65, 0.88),
        ],
        np.float32,
    )
    chroma = flat - flat.mean(axis=2, keepdims=True)
    wanted = inks - inks.mean(axis=1, keepdims=True)
    unit = chroma / (np.linalg.norm(chroma, axis=2, keepdims=True) + 0.03)
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    score = np.exp(12 * (unit @ wanted.T))
    return (score / score.sum(axis=2, keepdims=True)) @ inks


def _dots(shape: tuple[int, ...]) -> Image:
    """Threshold of a dot screen, 0 in the dots' centres and 1 between; two dots per 8 x 8 cell."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    wave = np.cos((x + 0.5) * np.pi / 4) * np.cos((y + 0.5) * np.pi / 4)
    return 0.5 - 0.5 * wave


def blueprint(image: Image, _: np.random.Generator) -> Image:
    """White construction lines on deep blue with a faint grid of 32 pixels."""
    flat = f.simplify(image, 3, 0.15)
    luma = f.equalise(f.grey(flat), 0.8)
    lines = f.smoothstep(f.ink(luma, 1.0, 30.0, 0.0), 0.15, 0.7)
    lines = np.maximum(lines, f.smoothstep(f.colour_gradient(flat, 0.8), 0.25, 0.7))
    tone = f.colour(0.05, 0.17, 0.47) + 0.10 * f.blur(luma, 3.0)[..., None]
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    grid = ((x % 32 < 1) | (y % 32 < 1)).astype(np.float32)
    sheet = f.mix(tone, f.colour(0.45, 0.62, 0.9), 0.45 * grid)
    return f.mix(sheet, f.colour(0.93, 0.97, 1.0), 0.95 * f.blur(lines, 0.7))
