# SPDX-License-Identifier: GPL-3.0-or-later
"""What a strip remembers about its jobs: enough to put a result into its place, also next week."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Ticket:
    """One job of a strip.

    job: its id on the server
    scene, strip: names, as they were when it was asked for
    start: the timeline frame at which the result begins
    frames: the source frame that is shown at each timeline frame from there on
    folder: where its files go
    name: what the result's strip is to be called
    geometry: how the source lies on the screen, and so the result (`sources.Source`)
    mute: whether the original is muted once the result is there
    placed: whether the result was put on the timeline
    anchor: the timeline frame at which the strip's content began, to see whether it was moved
    """

    job: str
    scene: str
    strip: str
    start: int
    frames: tuple[int, ...]
    folder: str
    name: str
    geometry: dict[str, Any] = field(default_factory=dict[str, Any])
    mute: bool = False
    placed: bool = False
    anchor: float | None = None

    @property
    def first(self) -> int:
        """The first source frame that is restyled."""
        return min(self.frames)

    @property
    def stop(self) -> int:
        """The source frame behind the last one that is restyled."""
        return max(self.frames) + 1

    @property
    def plain(self) -> bool:
        """Whether timeline and source go side by side, so that a movie fits as it is."""
        return self.frames == tuple(range(self.first, self.stop))

    def source_frame(self, timeline: int) -> int:
        """The source frame shown at a timeline frame; outside the strip the nearest one's."""
        place = min(max(timeline - self.start, 0), len(self.frames) - 1)
        return self.frames[place]

    def moved(self, anchor: float) -> Ticket:
        """The ticket of a strip whose content begins at `anchor` by now."""
        if self.anchor is None:
            return self
        return replace(self, start=self.start + round(anchor - self.anchor), anchor=anchor)

    def table(self) -> dict[str, Any]:
        """Plain values, for JSON; frames that go up one by one as their ends."""
        told = asdict(self)
        told["frames"] = {"first": self.first, "stop": self.stop} if self.plain else self.frames
        return told


def write(tickets: Iterable[Ticket]) -> str:
    """Return the text that a strip keeps."""
    return json.dumps([ticket.table() for ticket in tickets])


def read(text: str) -> list[Ticket]:
    """Read what `write` wrote; what somebody else has put there is left out."""
    told: Any = None
    with suppress(ValueError, TypeError):
        told = json.loads(text)
    found: list[Ticket] = []
    for table in told if isinstance(told, list) else []:  # pyright: ignore
        with suppress(TypeError, KeyError, ValueError, AttributeError):
            known = {each.name: table[each.name] for each in fields(Ticket) if each.name in table}  # pyright: ignore
            found.append(Ticket(**{**known, "frames": _frames(known["frames"])}))  # pyright: ignore
    return found


def _frames(told: Any) -> tuple[int, ...]:
    if isinstance(told, dict):
        return tuple(range(told["first"], told["stop"]))  # pyright: ignore
    return tuple(int(frame) for frame in told)


def renewed(tickets: Sequence[Ticket], ticket: Ticket) -> list[Ticket]:
    """Return the tickets with `ticket` among them, instead of the one of its job."""
    others = [each for each in tickets if each.job != ticket.job]
    return [*others, ticket]


def placed(ticket: Ticket) -> Ticket:
    """Return the ticket of a result that is on the timeline."""
    return replace(ticket, placed=True)
