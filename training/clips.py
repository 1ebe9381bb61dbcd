# SPDX-License-Identifier: Apache-2.0
"""Own short clips with known motion, made of held-out pictures, for tuning video quality."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from training import pool


def pan(picture: np.ndarray, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A slow pan and zoom over a uint8 RGB picture: (count, size, size, 3)."""
    height, width = picture.shape[:2]
    sides = min(height, width) * rng.uniform(0.6, 0.95, 2)
    start, end = ((rng.uniform(0, width - s), rng.uniform(0, height - s)) for s in sides)
    frames = []
    for amount in np.linspace(0, 1, count):
        side = sides[0] + amount * (sides[1] - sides[0])
        x, y = (a + amount * (b - a) for a, b in zip(start, end, strict=True))
        x, y = min(x, width - side), min(y, height - side)
        view = np.array([[side / size, 0, x], [0, side / size, y]], np.float32)
        flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
        frames.append(cv2.warpAffine(picture, view, (size, size), flags=flags))
    return np.stack(frames)


def parallax(frames: np.ndarray, cutout: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moves a cutout (uint8 RGBA) along a curve over the frames of a pan."""
    count, size = frames.shape[:2]
    scale = size * rng.uniform(0.35, 0.6) / max(cutout.shape[:2])
    figure = cv2.resize(cutout, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = figure.shape[:2]
    top = rng.uniform(0.2, 0.9) * (size - height)
    moved = []
    for frame, amount in zip(frames, np.linspace(0, 1, count), strict=True):
        x = amount * (size - width)
        y = np.clip(top + 0.06 * size * np.sin(4 * amount), 0, size - height)
        place = np.array([[1, 0, x], [0, 1, y]], np.float32)
        layer = cv2.warpAffine(figure, place, (size, size)).astype(np.float32)
        alpha = layer[..., 3:] / 255
        moved.append((layer[..., :3] * alpha + frame * (1 - alpha)).astype(np.uint8))
    return np.stack(moved)


def write(cache: Path, folder: Path, seed: int, count: int = 48, size: int = 256) -> None:
    """Writes six clips at 24 frames a second, every other one with something moving in front."""
    rng = np.random.default_rng(seed)
    held, cutouts = pool.load(cache, "held"), pool.load(cache, "train", "cutout")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        frames = pan(held[int(rng.integers(len(held)))].image, count, size, rng)
        if number % 2:
            frames = parallax(frames, cutouts[int(rng.integers(len(cutouts)))].image, rng)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(folder / f"own-{number}.mp4"), code, 24, (size, size))
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
