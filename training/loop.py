# SPDX-License-Identifier: Apache-2.0
"""What every training loop needs: schedule, averaged weights, journal, checkpoints."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Run:
    """Settings of one training run.

    decay: the last this many steps lower the rate linearly to a twentieth; 0 = none.
    """

    folder: Path
    steps: int
    batch: int
    rate: float
    seed: int = 0
    warm_up: int = 200
    decay: int = 0
    minutes: float = 1e9
    save_every: int = 250

    def rate_at(self, step: int, started: int) -> float:
        """Learning rate at `step` of a run whose optimiser was made at step `started`."""
        warm = min(1.0, (step - started + 1) / self.warm_up)
        left = (self.steps - step) / self.decay if self.decay else 1.0
        return self.rate * warm * min(1.0, max(0.05, left))


class Clock:
    """Tells when a run is to end and save: after some minutes, or asked to by SIGTERM."""

    def __init__(self, minutes: float) -> None:
        self.deadline = time.monotonic() + 60 * minutes
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.asked = True

    @property
    def over(self) -> bool:
        """Whether the present step was the last one."""
        return self.asked or time.monotonic() >= self.deadline


class Average:
    """Exponential average of parameters, with a short memory at first."""

    def __init__(self, modules: Iterable[nn.Module], decay: float = 0.999) -> None:
        self.parameters = [p for module in modules for p in module.parameters()]
        self.shadow = [p.detach().clone() for p in self.parameters]
        self.decay = decay
        self.count = 0

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the present parameters."""
        self.count += 1
        decay = min(self.decay, self.count / (self.count + 10))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the average and the present parameters; a second call undoes it."""
        for shadow, parameter in zip(self.shadow, self.parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(shadow)
            shadow.copy_(kept)


class Journal:
    """Appends rows of numbers to a CSV file and keeps running means between rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sums: dict[str, float] = {}
        self.count = 0
        self.since = time.monotonic()

    def add(self, **values: float) -> None:
        """Remembers the values of one step."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def flush(self, step: int) -> dict[str, float]:
        """Writes the means since the last flush and the seconds per step."""
        row = {name: total / self.count for name, total in self.sums.items()}
        row["seconds"] = (time.monotonic() - self.since) / self.count
        self._write({"step": step, **row})
        self.sums, self.count, self.since = {}, 0, time.monotonic()
        return row

    def _write(self, row: dict[str, float]) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow({name: f"{value:.6g}" for name, value in row.items()})


@dataclass(slots=True)
class Progress:
    """Where a run stands: the next step, and the step at which the optimiser was made."""

    step: int = 0
    started: int = 0


def save(path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer,
         average: Average, progress: Progress) -> None:  # fmt: skip
    """Writes everything that an exact continuation on this machine needs."""
    state = {
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimiser": optimiser.state_dict(),
        "average": (average.shadow, average.count),
        "progress": (progress.step, progress.started),
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def restore(path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer,
            average: Average) -> Progress:  # fmt: skip
    """Reads what `save` wrote."""
    state = torch.load(path, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    optimiser.load_state_dict(state["optimiser"])
    shadow, average.count = state["average"]
    for kept, read in zip(average.shadow, shadow, strict=True):
        kept.copy_(read)
    return Progress(*state["progress"])
