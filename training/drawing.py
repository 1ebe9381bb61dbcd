# SPDX-License-Identifier: Apache-2.0
"""Drawn styles: pencil, coloured pencil, cartoon, comic, blueprint."""

from __future__ import annotations

import cv2
import numpy as np

from training import filters as f

Image = np.ndarray


def pencil(image: Image, rng: np.random.Generator) -> Image:
    """Graphite on white paper: firm outlines, soft tone, hatching in the dark parts."""
    luma = f.equalise(f.grey(f.plain(image, 2, 0.1)), 0.4)
    shade = 1 - f.smoothstep(luma, -0.15, 0.75)
    drawn = 0.99 - 0.55 * shade + 0.07 * shade * f.hatching(image.shape, rng)
    drawn = f.mix(drawn, 0.1, 0.9 * f.line(f.outlines(image)))
    return np.repeat(np.clip(drawn, 0, 1)[..., None], 3, axis=2)


def coloured_pencil(image: Image, rng: np.random.Generator) -> Image:
    """Light colours in strokes on white paper, with outlines in the darker colour."""
    smooth = f.plain(image, 2, 0.12)
    luma = f.equalise(f.grey(smooth), 0.3)
    tint = _vivid(smooth, 0.5, 2.4)
    shade = 1 - f.smoothstep(luma, -0.1, 1.0)
    cover = 0.2 + 0.7 * shade + (0.065 + 0.055 * shade) * f.hatching(image.shape, rng, -1)
    drawn = f.mix(f.colour(1.0, 1.0, 0.99) + np.zeros_like(image), tint, np.clip(cover, 0, 1))
    return f.mix(drawn, tint * 0.25, 0.85 * f.line(f.outlines(image)))


def _vivid(image: Image, level: float, factor: float) -> Image:
    """The picture's hues at one brightness, saturated."""
    even = image / (f.grey(image)[..., None] + 0.08) * level
    return f.saturate(np.clip(even, 0, 1.2), factor)


def cartoon(image: Image, _: np.random.Generator) -> Image:
    """Flat bright colours in few steps inside thick black outlines."""
    flat = f.plain(image, 4, 0.16)
    hsv = cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)
    value = f.equalise(hsv[..., 2], 0.5)
    steps = np.floor(value * 4) + f.smoothstep(value * 4 - np.floor(value * 4), 0.2, 0.8)
    hsv[..., 2] = 0.38 + 0.62 * steps / 4
    hsv[..., 1] = np.clip(hsv[..., 1] * 1.7 + 0.06, 0, 0.95)
    painted = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return f.mix(painted, 0.02, f.line(f.outlines(image), 3))


def comic(image: Image, _: np.random.Generator) -> Image:
    """Printed comic: primary colours, black shadows, dots of ink 8 pixels apart."""
    flat = f.simplify(image, 4, 0.16)
    luma = f.equalise(f.grey(flat), 0.6)
    tint = _primary(flat)
    paper = f.colour(1.0, 0.97, 0.88) + np.zeros_like(image)
    depth = 0.09 / (f.grey(paper) - f.grey(tint) + 0.1)
    covered = 1.1 - luma + depth * f.smoothstep(luma, 0.1, 0.3) * _dots(image.shape)
    printed = f.mix(paper, tint, np.clip(covered, 0, 1))
    shadow = f.smoothstep(0.15 - luma, -0.04, 0.04)
    return f.mix(printed, 0.02, np.maximum(f.blur(shadow, 0.6), f.line(f.outlines(image), 3)))


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
    """A dot screen, 1 in the dots' centres and -1 between; two dots per 8 x 8 cell."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    return np.cos((x + 0.5) * np.pi / 4) * np.cos((y + 0.5) * np.pi / 4)


def blueprint(image: Image, _: np.random.Generator) -> Image:
    """White construction lines on deep blue with squared paper: lines every 8 and 32 pixels."""
    luma = f.grey(f.simplify(image, 3, 0.15))
    tone = f.colour(0.03, 0.13, 0.48) + 0.12 * f.blur(luma, 2.0)[..., None]
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    fine = ((x % 8 == 0) | (y % 8 == 0)).astype(np.float32)
    broad = ((x % 32 < 2) | (y % 32 < 2)).astype(np.float32)
    sheet = f.mix(tone, f.colour(0.35, 0.55, 0.95), np.maximum(0.12 * fine, 0.35 * broad))
    return f.mix(sheet, f.colour(0.95, 0.98, 1.0), f.line(f.outlines(image, (60, 80, 100)), 2))
