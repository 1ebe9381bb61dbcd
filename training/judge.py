# SPDX-License-Identifier: Apache-2.0
"""Numbers for the draft model's pictures: style recognition and agreement of edges."""

from __future__ import annotations

import cv2
import numpy as np

from training import captions
from training.classifier import NAMES, Classifier
from training.sampling import Painter, Settings


def judge(
    painter: Painter, classifier: Classifier, pictures: np.ndarray, settings: Settings
) -> dict:
    """Per style: the share recognised, what was named instead, the F-measure of the edges."""
    table: dict[str, dict] = {}
    for name in NAMES:
        prompt = captions.WORDS[name][0]
        restyled = painter.restyle(pictures, [prompt] * len(pictures), settings)
        found = classifier.names(restyled)
        pairs = zip(pictures, restyled, strict=True)
        table[name] = {
            "recognised": round(found.count(name) / len(found), 3),
            "instead": sorted({other for other in found if other != name}),
            "edges": round(float(np.mean([edge_agreement(*pair) for pair in pairs])), 3),
        }
    rates = [row["recognised"] for row in table.values()]
    return {**table, "all": {"recognised": round(float(np.mean(rates)), 3)}}


def edge_agreement(before: np.ndarray, after: np.ndarray, within: int = 2) -> float:
    """F-measure of the canny edges of two uint8 RGB pictures, matched within some pixels."""
    first, second = (
        cv2.Canny(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), 100, 200) > 0 for p in (before, after)
    )
    if not first.any() or not second.any():
        return float(first.any() == second.any())
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * within + 1, 2 * within + 1))
    near_first, near_second = (cv2.dilate(e.astype(np.uint8), disc) > 0 for e in (first, second))
    precision, recall = near_first[second].mean(), near_second[first].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-6))
