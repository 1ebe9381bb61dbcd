# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: the input row, then a row per style, on pictures that were never trained on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from training import captions, styles
from training.sampling import Painter, Settings

MIX_PROMPTS = ("winter watercolour of a street", "autumn oil painting", "sunset comic book")


def prompts() -> list[str]:
    """The first phrase of every style, an unknown word, and some mixes."""
    return [captions.WORDS[name][0] for name in styles.STYLES] + ["", "qwertz", *MIX_PROMPTS]


def draw(painter: Painter, pictures: np.ndarray, settings: Settings) -> np.ndarray:
    """(rows x H, N x W, 3) uint8 RGB; the first row are the inputs."""
    count = len(pictures)
    painted = [painter.restyle(pictures, [prompt] * count, settings) for prompt in prompts()]
    labels = ["input", *(prompt or "(empty)" for prompt in prompts())]
    return np.vstack(
        [_row(row, label) for row, label in zip([pictures, *painted], labels, strict=True)]
    )


def _row(pictures: np.ndarray, label: str) -> np.ndarray:
    row = np.ascontiguousarray(np.hstack(list(pictures)))
    strip = np.full((row.shape[0], 150, 3), 255, np.uint8)
    for line, word in enumerate(label.split(" ")):
        place = (6, 24 + 20 * line)
        cv2.putText(strip, word, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.hstack([strip, row])


def write(image: np.ndarray, path: Path) -> None:
    """Writes an RGB picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
