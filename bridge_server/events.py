"""What is told of a job on its way: plain facts, for a terminal, a program or a socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # a client of the server shows them without computing
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


@dataclass(frozen=True, slots=True)
class Expected:
    """The work that is missing, now that the keyframes are known: what a forecast is made from.

    todo: stage → work in its unit, until the job is done or at its gate; rest: after the gate
    memory, rest_memory: bytes at the highest point; disk, rest_disk: bytes of the store
    """

    todo: Mapping[str, int]
    rest: Mapping[str, int]
    memory: int
    rest_memory: int
    disk: int
    rest_disk: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a job will take until it is done or at its gate: seconds, and bytes.

    seconds: None until this machine has done such work
    """

    seconds: float | None
    memory: int
    disk: int


Event: TypeAlias = (
    Progress | KeyframeDone | Preview | Note | Planned | Publishing | Expected | Forecast
)
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
