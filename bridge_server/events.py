"""What is told of a job on its way: plain facts, for a terminal, a program or a socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

#: The stages of a job in their order.
STAGES = ("analyse", "translate", "propagate", "encode")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is. done, total: in the stage's own unit; total 0: the stage has no work."""

    stage: str
    done: float
    total: float


@dataclass(frozen=True, slots=True)
class KeyframeDone:
    """A styled keyframe. file: a PNG of 16 bits; final: whether it will not change any more."""

    number: int
    file: Path
    final: bool = True


@dataclass(frozen=True, slots=True)
class Preview:
    """What keyframes look like after a step, (N, 3, h, w) in [0, 1]; small, and not final."""

    numbers: tuple[int, ...]
    step: int
    last: int
    picture: Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the user should know, in words."""

    text: str


Event: TypeAlias = Progress | KeyframeDone | Preview | Note
Watch: TypeAlias = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Watch nothing."""


def table(event: Event) -> dict[str, Any]:
    """Return an event as plain values; a preview without its picture."""
    facts = {"event": type(event).__name__.lower(), **asdict(event)}
    facts.pop("picture", None)
    return {name: str(value) if isinstance(value, Path) else value for name, value in facts.items()}
