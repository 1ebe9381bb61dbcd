"""The jobs' logs: one file of JSON lines for each, written by the server and by its workers.

A line has `time` (seconds since 1970), `level`, `what`, and whatever else is said.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from host_plugins.link.messages import Event

NAME, OLDER = "log.jsonl", "log.jsonl.1"
#: Bytes of a job's log, and of what a process prints, from which on it is begun anew; as much again
#: of what was before is kept.
_LARGEST, _LARGEST_PRINTED = 1 << 20, 1 << 22

log = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A record as a line of JSON: time, level, what, and what was said with it."""

    _USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        more = {name: own for name, own in vars(record).items() if name not in self._USUAL}
        if record.exc_info:
            more["trace"] = self.formatException(record.exc_info)
        return _line(record.created, record.levelname.lower(), record.getMessage(), more)


@contextmanager
def logged(folder: Path) -> Generator[None]:
    """Write what is logged in this process into the log of the job of `folder`.

    Where that cannot be, the job is done all the same.
    """
    handler: logging.Handler = logging.NullHandler()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            folder / NAME, maxBytes=_LARGEST, backupCount=1, encoding="utf-8"
        )
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


class JobLogs:
    """What the server itself has to say of jobs; written in a thread, in order.

    folder: of all jobs' folders
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        self._thread = ThreadPoolExecutor(1, "logs")

    def say(self, job: str, what: str, level: str = "info", /, **more: Any) -> None:
        """Add a line; `more` without what is empty."""
        told = {name: own for name, own in more.items() if own not in ("", None, {}, [])}
        line = _line(self._clock(), level, what, told)
        self._thread.submit(_append, self.folder / job, line)

    def tell(self, event: Event) -> None:
        """Say what became of a job; its keyframes and notes its worker writes down."""
        data = dict(event.data)
        if event.event == "state":
            level = "error" if data["state"] == "failed" else "info"
            self.say(event.job, f"is {data.pop('state')}", level, **data)
        elif event.event == "edited":
            change = f"{data['what']}@{data['frame']}={data.get('value')}"
            self.say(event.job, "edited", change=change, revision=data["revision"])

    def forget(self, jobs: Iterable[str]) -> None:
        """Remove the logs of jobs."""
        for job in jobs:
            self._thread.submit(_remove, self.folder / job, (NAME, OLDER))

    def forget_all(self, jobs: Iterable[str], others: Iterable[str]) -> None:
        """Remove the logs of jobs and what else was remembered of them.

        Their folders too, but only where nothing is left in them: results may be, which stay.

        others: names of the files beside the log that may go
        """
        for job in jobs:
            self._thread.submit(_remove, self.folder / job, (NAME, OLDER, *others))
            self._thread.submit(_remove_empty, self.folder / job)

    def close(self) -> None:
        """Wait until everything is written."""
        self._thread.shutdown()


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the log of the job of `folder`, older ones first."""
    found: list[dict[str, Any]] = []
    for name in (OLDER, NAME):
        with suppress(OSError):
            for line in (folder / name).read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError):  # half of one, where a process was killed
                    found.append(dict(json.loads(line)))
    return found


def shortened(printed: Path, largest: int = _LARGEST_PRINTED) -> None:
    """Begin the file that a process prints into anew where it is large; keep its end beside it.

    Emptied in its place: the process goes on writing at the end of the same file.
    """
    with suppress(OSError):
        size = printed.stat().st_size
        if size <= largest:
            return
        with printed.open("rb") as file:
            file.seek(size - largest)
            printed.with_name(f"{printed.name}.1").write_bytes(file.read())
        os.truncate(printed, 0)


def _line(when: float, level: str, what: str, more: Mapping[str, Any]) -> str:
    told = {"time": round(when, 3), "level": level, "what": what, **more}
    return json.dumps(told, default=str, ensure_ascii=False)


def _append(folder: Path, line: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / NAME
        with suppress(OSError):  # not there yet; or, on Windows, in a worker's hands
            if file.stat().st_size > _LARGEST:
                os.replace(file, folder / OLDER)
        with file.open("a", encoding="utf-8") as out:
            out.write(f"{line}\n")
    except OSError as error:  # a full disk must not stop what the line is about
        log.error("the log of %s cannot be written: %s", folder.name, error)


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        with suppress(OSError):
            (folder / name).unlink()


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
