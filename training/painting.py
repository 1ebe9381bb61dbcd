# SPDX-License-Identifier: Apache-2.0
"""Painted styles: watercolour, oil, mosaic."""

from __future__ import annotations

import cv2
import numpy as np

from training import filters as f

Image = np.ndarray


def watercolour(image: Image, rng: np.random.Generator) -> Image:
    """Thin bright washes, darker wet edges, bleeding borders, white paper showing through."""
    flat = f.simplify(_wobble(image, rng), 5, 0.25)
    washed = f.mix(f.kuwahara(flat, 5), f.simplify(image, 2), 0.3)
    luma = f.grey(washed)
    bright = 0.36 + 0.64 * f.smoothstep(f.equalise(luma, 0.6), -0.15, 0.85)
    wash = np.clip(f.saturate(washed / (luma[..., None] + 0.06) * bright[..., None], 1.35), 0, 1)
    pigment = 1 - wash
    edges = f.smoothstep(f.colour_gradient(washed, 1.4), 0.1, 0.7)
    blooms = 1 + 0.16 * f.noise(image.shape, 9.0, rng) + 0.05 * f.noise(image.shape, 2.0, rng)
    pigment = pigment * (0.92 * blooms + 0.55 * edges)[..., None] * _bare(luma, rng)[..., None]
    return f.colour(1.0, 0.99, 0.96) - pigment


def _wobble(image: Image, rng: np.random.Generator) -> Image:
    """Pushes the borders about by one or two pixels, as wet paint runs."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    dx, dy = f.noise(image.shape, 4.0, rng), f.noise(image.shape, 4.0, rng)
    return cv2.remap(image, x + 1.1 * dx, y + 1.1 * dy, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)


def _bare(luma: Image, rng: np.random.Generator) -> Image:
    """1 where the brush went; less in ragged patches of the bright parts, where paper shows."""
    ragged = f.blur(luma, 2.0) + 0.14 * f.noise(luma.shape, 6.0, rng)
    return 1 - 0.5 * f.smoothstep(ragged, 0.74, 0.94)


def oil(image: Image, rng: np.random.Generator) -> Image:
    """Thick saturated strokes along the forms, with light on the ridges of the paint."""
    base = f.saturate(f.mix(f.kuwahara(image, 5), image, 0.15), 1.55)
    luma = f.grey(base)
    angle = f.flow_angle(f.grey(image), 5.0) + 0.5 * f.noise(image.shape, 14.0, rng)
    bristles = f.along(f.noise(image.shape, 1.3, rng), angle, 7)
    bristles = bristles / (bristles.std() + 1e-6)
    painted = f.along(base, angle, 3)
    contrast = f.smoothstep(f.equalise(luma, 0.7), -0.05, 1.0) / (luma + 0.06)
    painted = painted * np.clip(0.35 + 0.62 * contrast, 0.3, 1.9)[..., None]
    relief = cv2.Sobel(f.blur(bristles, 0.7), cv2.CV_32F, 1, 1, ksize=3)
    light = 0.07 * bristles + 0.08 * relief / (relief.std() + 1e-6)
    return painted * f.colour(1.03, 0.98, 0.88) * (1 + light)[..., None]


def mosaic(image: Image, rng: np.random.Generator) -> Image:
    """Square glazed tiles of 8 pixels with bevelled borders and dark grout."""
    height, width = image.shape[:2]
    size = (width // 8, height // 8)
    tiles = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    tiles = np.clip(f.saturate(tiles, 1.7) * 1.12, 0, 1)
    tiles = tiles * (1 + 0.1 * rng.standard_normal(tiles.shape[:2]).astype(np.float32))[..., None]
    tiles = np.round(np.clip(tiles, 0, 1) * 7) / 7
    glazed = cv2.resize(tiles, (width, height), interpolation=cv2.INTER_NEAREST)
    y, x = np.mgrid[0:height, 0:width] % 8
    bevel = 0.2 * ((y == 0) | (x == 0)) - 0.18 * ((y == 6) | (x == 6))
    grout = ((x == 7) | (y == 7)).astype(np.float32)
    return f.mix(
        glazed + bevel[..., None].astype(np.float32), f.colour(0.24, 0.22, 0.2), 0.85 * grout
    )
