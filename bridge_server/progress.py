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

from bridge_server.events import Event, KeyframeDone, Note, Planned, Progress, Publishing, table

_WORDS = {
    "analyse": "measuring the clip",
    "translate": "styling keyframes",
    "propagate": "styling the frames between",
    "encode": "writing the clip",
}


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
        return f", about {_duration(seconds)} left"

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _duration(seconds: float) -> str:
    """A time as people say it: "40 s", "2 min", "1 h 20 min"."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


class JsonLines:
    """Every event as one line of JSON on stdout."""

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def __call__(self, event: Event) -> None:
        """See `bridge_server.events.Watch`."""
        if not isinstance(event, Planned | Publishing):  # the program's own affairs
            print(json.dumps(table(event)), flush=True)


class Bars:
    """A bar per stage, with the time that is left."""

    def __init__(self) -> None:
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
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
