"""Time and peak memory of one call, each in a fresh process so that none warms the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil

_MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Measured:
    """What one call took: seconds of wall and processor time, bytes above what was there before."""

    wall_s: float
    cpu_s: float
    peak_bytes: int

    def __str__(self) -> str:
        megabytes = self.peak_bytes / _MEGABYTE
        return f"{self.wall_s:9.3f} s wall {self.cpu_s:9.3f} s CPU {megabytes:8.0f} MB"


def measure(call: Callable[[], object], repeat: int = 0) -> Measured:
    """Run `call` once for its memory, and `repeat` times more, unwatched, for its fastest time.

    Short calls want repeats: the watching itself would take a part of their time.
    """
    runs = [_watched(call), *(_timed(call) for _ in range(repeat))]
    timed = runs[1:] or runs
    return Measured(
        min(run.wall_s for run in timed),
        min(run.cpu_s for run in timed),
        max(run.peak_bytes for run in runs),
    )


def _timed(call: Callable[[], object]) -> Measured:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    del result
    return Measured(wall, cpu, 0)


def _watched(call: Callable[[], object]) -> Measured:
    process = psutil.Process()
    before = process.memory_info().rss
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    timed = _timed(call)
    done.set()
    watcher.join()
    return replace(timed, peak_bytes=max(0, peak - before))


def in_fresh_process(module: str, *arguments: str) -> Measured:
    """Run ``python -m module arguments``, whose last line of output is what `report` printed."""
    command = [sys.executable, "-m", module, *arguments]
    # Threads that wait must not spin: on a busy machine they would take the time of those at work.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout
    return Measured(**json.loads(output.strip().splitlines()[-1]))


def report(measured: Measured) -> None:
    """Print `measured` for `in_fresh_process`."""
    fields = {name: getattr(measured, name) for name in Measured.__slots__}
    sys.stdout.write(json.dumps(fields) + "\n")
