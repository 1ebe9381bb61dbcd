"""What is told of a job on its way: plain facts, for a terminal, a program or a socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor


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


@dataclass(frozen=True, slots=True)
class Planned:
    """What a job stands on: the keys of all its units."""

    units: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Publishing:
    """The output is verified and about to get its name. files: the target of each part."""

    files: Mapping[Path, Path]


Event: TypeAlias = Progress | KeyframeDone | Preview | Note | Planned | Publishing
Watch: TypeAlias = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Watch nothing."""


def table(event: Event) -> dict[str, Any]:
    """Return an event as plain values; a preview without its picture."""
    # Not `asdict`: it copies what it meets, and behind a preview's picture there is a whole model.
    names = [field.name for field in fields(event) if field.name != "picture"]
    facts = {name: getattr(event, name) for name in names}
    plain = {name: str(own) if isinstance(own, Path) else own for name, own in facts.items()}
    return {"event": type(event).__name__.lower(), **plain}
