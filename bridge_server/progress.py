"""How a job is watched: bars for a person, lines for a log, JSON for a program."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich import progress
from rich.console import Console

from bridge_server.events import (
    Event,
    Expected,
    Forecast,
    KeyframeDone,
    Note,
    Planned,
    Progress,
    Publishing,
    table,
)
from bridge_server.words import duration

_WORDS = {
    "analyse": "measuring the clip",
    "translate": "styling keyframes",
    "propagate": "styling the frames between",
    "encode": "writing the clip",
}


def cost(forecast: Forecast) -> str:
    """Say what something takes, as far as it is known; nothing where nothing is to do."""
    said = [f"{count / 1e9:.1f} GB of {what}" for count, what in
            ((forecast.memory, "memory"), (forecast.disk, "disk")) if count >= 5e7]  # fmt: skip
    if forecast.seconds is not None and forecast.seconds >= 1:
        said.insert(0, f"about {duration(forecast.seconds)}")
    return ", ".join(said)


class Lines:
    """A line where a stage begins, and with every tenth of it: for logs and pipes.

    A line says how long the stage will still take at its speed so far. What was done before this
    run is no part of the speed.

    clock: seconds, rising
    """

    def __init__(
        self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._clock = out or sys.stderr, clock
        self._tenths: dict[str, int] = {}
        #: Of each stage: when this run came to it, and how much of it was done then.
        self._begun: dict[str, tuple[float, float]] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def __call__(self, event: Event) -> None:
        """See `bridge_server.events.Watch`."""
        if isinstance(event, Note):
            self._say(f"note: {event.text}")
        elif isinstance(event, Forecast) and (said := cost(event)):
            self._say(f"this takes {said}")
        elif isinstance(event, KeyframeDone):
            self._say(f"keyframe {event.number}: {event.file}")
        elif isinstance(event, Progress) and event.total:
            self._move(event)

    def _move(self, event: Progress) -> None:
        self._begun.setdefault(event.stage, (self._clock(), event.done))
        tenths = int(10 * event.done / event.total)
        if tenths > self._tenths.get(event.stage, -1):
            self._tenths[event.stage] = tenths
            share = "done" if tenths >= 10 else f"{10 * tenths} %{self._left(event)}"
            self._say(f"{_WORDS[event.stage]}: {share}")

    def _left(self, event: Progress) -> str:
        """How long the stage will still take, in words; empty as long as nothing can be said."""
        since, before = self._begun[event.stage]
        made = event.done - before
        if made <= 0:
            return ""
        seconds = (self._clock() - since) / made * (event.total - event.done)
        return f", about {duration(seconds)} left"

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class JsonLines:
    """Every event as one line of JSON on stdout."""

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def __call__(self, event: Event) -> None:
        """See `bridge_server.events.Watch`."""
        # Others are the program's own affairs.
        if not isinstance(event, Planned | Publishing | Expected):
            print(json.dumps(table(event)), flush=True)


class Bars:
    """A bar per stage, with the time that is left."""

    def __init__(self) -> None:
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            console=Console(stderr=True),
            speed_estimate_period=120,
        )
        self._tasks: dict[str, progress.TaskID] = {}

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """See `bridge_server.events.Watch`."""
        if isinstance(event, Note):
            self._bars.console.print(f"note: {event.text}", markup=False, highlight=False)
        elif isinstance(event, Forecast) and (said := cost(event)):
            self._bars.console.print(f"this takes {said}", markup=False, highlight=False)
        elif isinstance(event, Progress) and event.total:
            if event.stage not in self._tasks:
                # What was there already is no part of the speed.
                self._tasks[event.stage] = self._bars.add_task(
                    _WORDS[event.stage], total=event.total, completed=round(event.done)
                )
            self._bars.update(self._tasks[event.stage], completed=event.done)


def watcher(as_json: bool) -> Lines | JsonLines | Bars:
    """Return what suits who is looking."""
    if as_json:
        return JsonLines()
    return Bars() if sys.stderr.isatty() else Lines()
