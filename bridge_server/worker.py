"""A worker: a process that does jobs for the server, one after the other, on one device.

It is told what to do over its standard input, and tells what happens over its standard output
(`pipe`). It computes in its main thread; another one listens, so that it can be stopped at any
poll. When the server is gone, so is the input, and the worker ends.

Told: {do: "run", job, request, revision, folder, uploaded, roots, crashes}, {do: "stop", job},
{do: "watch", previews}.
Tells: {tell: "broken" | "ready" | "alive" | "settled" | "planned" | "kept" | "progress" |
"keyframe" | "preview" | "note" | "ended", job, ...}.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bridge_server import (
    config,
    events,
    failures,
    forecast,
    job_logs,
    pipe,
    published,
    records,
    request,
)
from bridge_server.environment import Environment, here
from bridge_server.footage import resized
from bridge_server.job import settle
from bridge_server.media import confine
from bridge_server.processes import be_modest, die_with_parent
from bridge_server.render import Outcome, render
from bridge_server.store import Store
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled, FrescoError
from fresco.warm import WarmModels
from host_plugins.link.wire import LIMITS

log = logging.getLogger("bridge_server")

#: Seconds between signs of life; between previews of a job.
_BEAT, _PREVIEWS = 1.0, 0.4
#: Seconds in which the work may end by itself once the server is gone.
_GRACE = 2.0
#: Pixels of the long side, and quality, of pictures that are shown while a job runs.
_SHOWN, _QUALITY = 512, 88
#: Previews of a batch that are told: a message has no room for more beside its header.
_SHOWN_AT_ONCE = LIMITS.frames - 1
#: Workers that ended at a job, one after the other, from which on it plans with less memory.
_TOO_MUCH = 2


class _Polled(CancelToken):
    """Knows when it was last polled: work that no longer polls hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.polled = time.monotonic()

    def check(self) -> None:
        self.polled = time.monotonic()
        super().check()


@dataclass(slots=True)
class _Task:
    """A job that is to be done.

    folder: of the job, for its log and what must be remembered
    uploaded: the clip is the server's, so the result must not be beside it
    roots: folders that the owner is bound to; none: to none
    crashes: workers that ended at it since it last came forward
    """

    job: str
    revision: int
    request: dict[str, Any]
    folder: Path
    uploaded: bool
    roots: tuple[Path, ...] = ()
    crashes: int = 0
    token: _Polled = field(default_factory=_Polled)


class Worker:
    """What the threads of a worker share."""

    def __init__(self, told: BinaryIO, tells: BinaryIO, device: str, threads: int) -> None:
        self._told, self._tells = told, tells
        self._writing = threading.Lock()
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._task: _Task | None = None
        self._previews = False
        self._shown = 0.0
        self._warm = ""  # the model that was read last
        self._place = here(device, threads)
        self._models = WarmModels(
            self._place.memory, self._place.torch_device, self._place.torch_dtype
        )

    def run(self) -> None:
        """Work until the server is gone."""
        for each in (self._listen, self._beat):
            threading.Thread(target=each, daemon=True).start()
        self._tell("ready", device=self._place.device, hardware=self._place.hardware)
        while (task := self._tasks.get()) is not None:
            self._do(task)

    # ------------------------------------------------------------------------- the other threads

    def _listen(self) -> None:
        while (message := pipe.read(self._told)) is not None:
            self._take(message)
        if self._task is not None:
            self._task.token.cancel()
        self._tasks.put(None)
        time.sleep(_GRACE)
        os._exit(0)

    def _take(self, message: pipe.Message) -> None:
        if message["do"] == "run":
            task = _Task(
                message["job"],
                message["revision"],
                message["request"],
                Path(message["folder"]),
                message["uploaded"],
                tuple(map(Path, message["roots"])),
                message["crashes"],
            )
            self._task = task  # from now on it can be stopped
            self._tasks.put(task)
        elif message["do"] == "stop":
            if self._task is not None and self._task.job == message["job"]:
                self._task.token.cancel()
        elif message["do"] == "watch":
            self._previews = message["previews"]

    def _beat(self) -> None:
        before, idle = time.monotonic(), 0.0
        while True:
            task = self._task
            before, passed = time.monotonic(), time.monotonic() - before
            polled = task is None or task.token.polled > before - passed
            # A machine that slept, or a worker that was held, did not hang all that time.
            idle = 0.0 if polled else idle + min(passed, 2 * _BEAT)
            self._tell("alive", idle=idle)
            time.sleep(_BEAT)

    def _tell(self, what: str, **more: Any) -> None:
        with self._writing, suppress(OSError, ValueError):  # the server is gone
            self._tells.write(pipe.pack({"tell": what, **more}))
            self._tells.flush()

    # ----------------------------------------------------------------------------- the main thread

    def _do(self, task: _Task) -> None:
        with job_logs.logged(task.folder):
            log.info("begun", extra={"request": task.request, "revision": task.revision})
            how = self._done(task)
            log.info("ended", extra={"how": how["how"]})
        self._task = None
        self._tell("ended", job=task.job, revision=task.revision, **how)

    def _done(self, task: _Task) -> dict[str, Any]:
        try:
            return self._rendered(task)
        except Cancelled:
            return {"how": "stopped"}
        except BaseException as error:
            log.exception("failed")
            return {"how": "failed", "failure": failures.told(error).table()}

    def _rendered(self, task: _Task) -> dict[str, Any]:
        if not task.roots:
            return self._worked_off(task)
        settings = config.load()
        ours = (settings.store, config.state_folder(settings))
        with confine.within(task.roots, ours):
            return self._worked_off(task)

    def _worked_off(self, task: _Task) -> dict[str, Any]:
        settings = config.load()
        wanted = _again(request.from_table(task.request), task.folder)
        task.token.check()
        folder = task.folder if task.uploaded else None
        place, notes = _cautious(self._place, task.crashes)
        job = settle(wanted, place, settings, task.token, folder)
        self._tell("settled", job=task.job, output=str(job.output), notes=[*job.notes, *notes],
                   span=[job.span.start, job.span.stop],
                   work=forecast.work(job, warm=job.model == self._warm))  # fmt: skip
        self._warm = job.model or self._warm
        store = Store(settings.store, lambda key: self._tell("kept", job=task.job, unit=key))
        outcome = render(job, store, self._models, lambda event: self._on(task, event), task.token)
        how = "done" if outcome.report is not None else "rested"
        return {"how": how, "keyframes": outcome.keyframes, "report": _rows(outcome)}

    def _on(self, task: _Task, event: events.Event) -> None:
        match event:
            case events.Progress():
                self._tell("progress", job=task.job, **asdict(event))
            case events.KeyframeDone():
                self._tell(
                    "keyframe", job=task.job, frame=event.number, path=str(event.file),
                    final=event.final, jpeg=_jpeg(records.read_picture(event.file)),
                )  # fmt: skip
            case events.Note():
                log.info("note", extra={"text": event.text})
                self._tell("note", job=task.job, text=event.text)
            case events.Planned():
                log.info("planned", extra={"units": len(event.units)})
                self._tell("planned", job=task.job, units=list(event.units))
            case events.Expected():
                self._tell("expected", job=task.job, **asdict(event))
            case events.Preview():
                self._preview(task, event)
            case events.Publishing():
                published.remember(event.files, task.folder, task.token.check)
            case events.Forecast():  # of a command that runs without a server
                pass

    def _preview(self, task: _Task, event: events.Preview) -> None:
        now = time.monotonic()
        if not self._previews or now - self._shown < _PREVIEWS:
            return
        self._shown = now
        jpegs = [_jpeg(picture) for picture in event.picture()[:_SHOWN_AT_ONCE]]
        frames = list(event.numbers)[: len(jpegs)]
        self._tell("preview", job=task.job, frames=frames, step=event.step, last=event.last,
                   jpegs=jpegs)  # fmt: skip


def _cautious(place: Environment, crashes: int) -> tuple[Environment, list[str]]:
    """Plan with half the memory where it may have been too little, and say so; then with less."""
    if crashes < _TOO_MUCH:
        return place, []
    smaller = replace(place, memory=place.memory >> (crashes - _TOO_MUCH + 1))
    note = (
        f"{crashes} workers ended at this, perhaps for want of memory; it is planned with "
        f"{smaller.memory / 1e9:.1f} GB now"
    )
    return smaller, [note]


def _rows(outcome: Outcome) -> list[dict[str, str]]:
    if outcome.report is None:
        return []
    return [
        {"name": row.name, "source": str(row.source), "result": str(row.result),
         "state": row.state.value, "why": row.why}
        for row in outcome.report.rows
    ]  # fmt: skip


def _jpeg(picture: Tensor) -> bytes:
    """Return (3, H, W) in [0, 1] as a JPEG, smaller if it is large."""
    height, width = picture.shape[-2:]
    factor = min(1.0, _SHOWN / max(height, width))
    if factor < 1:
        picture = resized(picture, max(1, round(height * factor)), max(1, round(width * factor)))
    rgb: NDArray[np.uint8] = (picture.clamp(0, 1) * 255).round().byte().cpu().numpy()
    bgr = np.ascontiguousarray(rgb[::-1].transpose(1, 2, 0))
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()


def _again(wanted: request.Request, folder: Path) -> request.Request:
    """Let a job write over what it wrote itself, before somebody could hear that it was done."""
    return replace(wanted, overwrite=True) if published.all_ours(folder) else wanted


# ---------------------------------------------------------------------------------------- process


def main() -> None:
    """Run a worker: ``python -m bridge_server.worker --device cpu --threads 2``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("bridge_server").setLevel(logging.INFO)
    # Ctrl-C in the server's terminal is the server's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    be_modest()
    told, tells = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the messages
    try:
        worker = Worker(told, tells, options.device, options.threads)
    except FrescoError as error:
        tells.write(pipe.pack({"tell": "broken", "why": str(error)}))
        tells.close()
        sys.exit(1)
    worker.run()


if __name__ == "__main__":
    main()
