# SPDX-License-Identifier: Apache-2.0
"""Painted styles: watercolour, oil, mosaic."""

from __future__ import annotations

import cv2
import numpy as np

from training import filters as f

Image = np.ndarray


def watercolour(image: Image, rng: np.random.Generator) -> Image:
    """Thin bright washes on white paper, with blooms and dark wet edges."""
    washed = f.mix(f.coherent(image, 2, 2, 2.0), f.plain(image, 3, 0.15), 0.5)
    luma = f.grey(washed)
    bright = 0.42 + 0.58 * f.smoothstep(luma, -0.1, 0.8)
    wash = f.saturate(washed / (luma[..., None] + 0.06) * bright[..., None], 1.7)
    wet = f.line(f.outlines(image), 2)
    blooms = 1 + 0.16 * f.noise(image.shape, 9.0, rng) + 0.04 * f.noise(image.shape, 4.0, rng)
    pigment = (1 - wash) * (0.9 * np.clip(blooms, 0.4, 1.5) * _bare(luma, rng))[..., None]
    painted = f.colour(1.0, 1.0, 0.98) - pigment
    return f.mix(painted, wash * 0.35, 0.75 * wet)


def _bare(luma: Image, rng: np.random.Generator) -> Image:
    """1 where the brush went; less in ragged patches of the bright parts, where paper shows."""
    ragged = f.blur(luma, 2.0) + 0.1 * f.noise(luma.shape, 8.0, rng)
    return 1 - 0.7 * f.smoothstep(ragged, 0.55, 0.95)


def oil(image: Image, rng: np.random.Generator) -> Image:
    """Thick saturated strokes along the forms, with light on the ridges of the paint.

    Neighbouring strokes differ in hue more than in brightness, so that borders stay the strongest.
    """
    base = f.saturate(f.mix(f.coherent(image, 3, 4), image, 0.2), 1.8)
    luma = f.grey(base)
    angle = f.flow_angle(f.grey(image), 4.0) + 0.5 * f.noise(image.shape, 14.0, rng)
    contrast = f.smoothstep(f.equalise(luma, 0.3), -0.1, 0.95) / (luma + 0.06)
    painted = base * np.clip(0.5 + 0.6 * contrast, 0.3, 1.9)[..., None]
    bristles = _strokes(angle, 1.6, 8, rng)
    relief = cv2.Sobel(f.blur(bristles, 1.0), cv2.CV_32F, 1, 1, ksize=3)
    light = 0.04 * bristles + 0.03 * relief / (relief.std() + 1e-6)
    hues = np.clip(_strokes(angle, 2.2, 10, rng), -2, 2)[..., None] * f.colour(0.5, -0.2, -0.28)
    painted = painted + (0.085 + 0.1 * luma[..., None]) * hues
    return (painted + 0.15) * f.colour(1.04, 0.98, 0.86) * (1 + light)[..., None] - 0.14


def _strokes(angle: Image, breadth: float, length: int, rng: np.random.Generator) -> Image:
    """Noise drawn out along a field of directions, deviation 1."""
    drawn = f.along(f.noise(angle.shape, breadth, rng), angle, length)
    return drawn / (drawn.std() + 1e-6)


def mosaic(image: Image, rng: np.random.Generator) -> Image:
    """Square glazed tiles of 8 pixels with bevelled borders and dark grout."""
    height, width = image.shape[:2]
    size = (width // 8, height // 8)
    tiles = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    tiles = np.clip(f.saturate(tiles, 2.0) * 1.12, 0, 1)
    tiles = tiles * (1 + 0.07 * rng.standard_normal(tiles.shape[:2]).astype(np.float32))[..., None]
    tiles = np.round(np.clip(tiles, 0, 1) * 7) / 7
    glazed = cv2.resize(tiles, (width, height), interpolation=cv2.INTER_NEAREST)
    y, x = np.mgrid[0:height, 0:width] % 8
    bevel = 0.2 * ((y == 0) | (x == 0)) - 0.18 * ((y == 6) | (x == 6))
    grout = ((x == 7) | (y == 7)).astype(np.float32)
    return f.mix(
        glazed + bevel[..., None].astype(np.float32), f.colour(0.24, 0.22, 0.2), 0.85 * grout
    )
