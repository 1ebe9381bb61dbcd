# SPDX-License-Identifier: Apache-2.0
"""Draws the curves of a run's journal."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def draw(journal: Path, target: Path) -> None:
    """One panel per column of the CSV file, over the steps, with a running mean; if it has rows."""
    if not journal.exists():
        return
    with journal.open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("step", "seconds", "norm")]
    steps = [float(row["step"]) for row in rows]
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        values = np.array([float(row[name] or "nan") for row in rows])
        width = max(1, min(len(values) // 8, 20))
        smooth = np.convolve(values, np.ones(width) / width, "valid")
        axis.plot(steps, values, alpha=0.3)
        axis.plot(steps[width - 1 :], smooth)
        axis.set_title(name)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=90)
    plt.close(figure)
