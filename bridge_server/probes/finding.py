"""What a probe finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from fresco.errors import FrescoError


class State(Enum):
    """How it is: in order, worth knowing, or in need of mending."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    area, subject: what it belongs to, and what it is
    hint: what to do; never empty for a problem
    """

    area: str
    subject: str
    state: State
    text: str
    hint: str = ""


def guarded(area: str, subject: str, probe: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what `probe` finds; if it fails, what it found until then, and that it failed."""
    found: list[Finding] = []
    try:
        found.extend(probe())
    except FrescoError as error:
        hint = "do what it says, and run the command again"
        found.append(Finding(area, subject, State.PROBLEM, str(error), hint))
    except Exception as error:
        text = f"could not be examined: {type(error).__name__}: {error}"
        hint = "this should not happen; report it with this text"
        found.append(Finding(area, subject, State.PROBLEM, text, hint))
    return found
