"""A scene with known truth: textured planes that move, turn, tilt and hide one another.

It is rendered twice with the same geometry: with source textures, and with brush strokes fixed to
the surfaces, which are no function of the source's colour.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
_TEXTURE, _OVERSAMPLED, _SURFACES = 1024, 3, 6


def render(
    side: int = 256, frames: int = 11, motion: float = 1.0, seed: int = 0
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """Return the source and the styled frames, (side, side, 3) RGB; `motion` scales all motion."""
    random = np.random.default_rng(seed)
    surfaces = [_surface(random, index) for index in range(_SURFACES)]
    source: list[NDArray[np.uint8]] = []
    styled: list[NDArray[np.uint8]] = []
    for time in np.linspace(-0.5, 0.5, frames):
        pictures = np.zeros((2, side * _OVERSAMPLED, side * _OVERSAMPLED, 3), np.float32)
        for textures, mask, place, speed in surfaces:
            _paint(pictures, textures, mask, _homography(place + speed * time * motion, side))
        small = [cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in pictures]
        noisy = small[0] + random.normal(size=small[0].shape)
        source.append(np.clip(np.round(noisy), 0, 255).astype(np.uint8))
        styled.append(np.clip(np.round(small[1]), 0, 255).astype(np.uint8))
    return source, styled


def _surface(
    random: np.random.Generator, index: int
) -> tuple[list[Image], Image, NDArray[np.float64], NDArray[np.float64]]:
    """Textures, mask, and place and speed: x, y, angle, size, tilt in x and y."""
    textures = [_cloud(random), _strokes(random)]
    mask = np.full((_TEXTURE, _TEXTURE), float(index == 0), np.float32)
    if index == 0:
        place = np.array([0.5, 0.5, 0, 2.0, 0, 0])
        return textures, mask, place, np.array([0.08, -0.05, 0.12, 0.25, 4e-5, 3e-5])
    middle = _TEXTURE // 2
    if index % 2:
        cv2.circle(mask, (middle, middle), middle - 4, 1.0, -1)
    else:
        angles = np.linspace(0, 2 * np.pi, 9)[:-1]
        radii = random.uniform(0.55, 1, 8) * (middle - 6)
        corners = middle + np.stack((np.cos(angles), np.sin(angles)), 1) * radii[:, None]
        cv2.fillPoly(mask, [corners.astype(np.int32)], 1.0)
    limits = np.array([0.28, 0.28, 0.7, 0.1, 3e-4, 3e-4])
    low, high = [0.25, 0.25, 0, 0.25, -2e-4, -2e-4], [0.75, 0.75, 6, 0.42, 2e-4, 2e-4]
    return textures, mask, random.uniform(low, high), random.uniform(-limits, limits)


def _cloud(random: np.random.Generator) -> Image:
    total = np.zeros((_TEXTURE, _TEXTURE, 3), np.float32)
    for octave in range(2, 8):
        coarse = random.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        coarse[..., 1:] = 0.6 * coarse[..., 1:] + 0.6 * coarse[..., :1]
        grown = cv2.resize(coarse, (_TEXTURE, _TEXTURE), interpolation=cv2.INTER_CUBIC)
        total += grown * 2.0 ** (-0.55 * octave)
    colour = random.uniform(70, 185, 3)
    return np.clip(total / total.std() * 38 + colour, 0, 255).astype(np.float32)


def _strokes(random: np.random.Generator) -> Image:
    palette = random.uniform(20, 235, (6, 3))
    image = np.tile(palette[0].astype(np.float32), (_TEXTURE, _TEXTURE, 1))
    field = random.normal(size=(6, 6)).astype(np.float32) * 1.2
    angles = cv2.resize(field, (_TEXTURE, _TEXTURE), interpolation=cv2.INTER_CUBIC)
    for _ in range(_TEXTURE**2 // 150):
        x, y = (int(v) for v in random.integers(0, _TEXTURE, 2))
        angle = float(np.degrees(angles[y, x] + random.normal() * 0.2))
        size = float(random.uniform(13, 42)), float(random.uniform(2.4, 8))
        colour = palette[random.integers(6)] + random.normal(size=3) * 14
        stroke = (float(x), float(y)), size, angle
        cv2.ellipse(image, stroke, tuple(float(c) for c in colour), -1)
    return np.clip(image, 0, 255).astype(np.float32)


def _homography(place: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """From the texture into the oversampled picture."""
    x, y, angle, size, tilt_x, tilt_y = place
    whole = side * _OVERSAMPLED
    cosine, sine = (f(angle) * size * whole / _TEXTURE for f in (np.cos, np.sin))
    turned = np.array([[cosine, -sine, x * whole], [sine, cosine, y * whole], [0, 0, 1]])
    tilted = np.array([[1, 0, 0], [0, 1, 0], [tilt_x, tilt_y, 1]])
    middle = np.array([[1, 0, -_TEXTURE / 2], [0, 1, -_TEXTURE / 2], [0, 0, 1]])
    return turned @ tilted @ middle


def _paint(
    pictures: Image, textures: list[Image], mask: Image, homography: NDArray[np.float64]
) -> None:
    size = pictures.shape[1:3]
    covered = cv2.warpPerspective(mask, homography, size)[..., None]
    for picture, texture in zip(pictures, textures, strict=True):
        seen = cv2.warpPerspective(texture, homography, size, borderMode=cv2.BORDER_REFLECT)
        picture += (seen - picture) * covered
