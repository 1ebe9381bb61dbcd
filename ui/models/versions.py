"""Another version of a job that is done: the same request, with a change; no Qt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from host_plugins.link.messages import JobInfo

#: What is changed of a keyframe, and its new value; None: as the whole clip has it.
Changes = Mapping[str, str | None]
PAINTED = "painted"


def changes_at(request: Mapping[str, Any], frame: int) -> dict[str, str]:
    """Return what a request changes of a keyframe."""
    every: list[Mapping[str, Any]] = list(request.get("changes", ()))
    return {str(own["what"]): str(own["value"]) for own in every if own["frame"] == frame}


def another(job: JobInfo, frame: int, changes: Changes, taken: Callable[[Path], bool]) -> Any:
    """Return the request of `job` with a keyframe changed, and a file that is not `taken`."""
    kept = [
        dict(own)
        for own in job.request.get("changes", ())
        if own["frame"] != frame or own["what"] not in changes
    ]
    new = [
        {"frame": frame, "what": what, "value": value}
        for what, value in changes.items()
        if value is not None
    ]
    output = str(free(Path(job.output), taken))
    return {**job.request, "changes": kept + new, "output": output}


def free(output: Path, taken: Callable[[Path], bool]) -> Path:
    """Return a name like `output` that is not taken: "a restyled 2.mov"."""
    stem, _, number = output.stem.rpartition(" ")
    stem, first = (stem, int(number) + 1) if stem and number.isdecimal() else (output.stem, 2)
    names = (output.with_name(f"{stem} {count}{output.suffix}") for count in itertools.count(first))
    return next(name for name in names if not taken(name))
