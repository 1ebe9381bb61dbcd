"""Round trips of ping and cancel: of an idle server, and of one whose worker uses every core.

Run with ``python -m tests.benchmarks.server``; it takes about a minute. Asked for are 20 ms in 99
of 100 cases, on two cores.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bridge_server.reels import reel
from tests.bridge_server.serving import Serving, until
from tests.bridge_server.strangers import Stranger

#: Round trips of each kind, and seconds between them: as a user's, not as fast as it goes.
COUNT, PAUSE = 400, 0.02
#: Frames of the clip: ten minutes at 24 frames per second.
FRAMES = 14400


def round_trips(ask: Callable[[], object]) -> tuple[float, float, float]:
    """Median, 99th percentile and largest, in milliseconds."""
    took: list[float] = []
    for _ in range(COUNT):
        begun = time.perf_counter()
        ask()
        took.append(1000 * (time.perf_counter() - begun))
        time.sleep(PAUSE)
    took.sort()
    return statistics.median(took), took[int(0.99 * COUNT)], took[-1]


def measured(client: Stranger) -> dict[str, tuple[float, float, float]]:
    """The figures of each operation. What is cancelled was cancelled: the journal is written."""
    return {
        "ping": round_trips(lambda: client.ask("ping")),
        "cancel": round_trips(lambda: client.ask("cancel", job="gone")),
        "job": round_trips(lambda: client.ask("job", job="gone")),
    }


def submit(client: Stranger, job: str, clip: Path, **more: object) -> None:
    request = {"clip": str(clip), "prompt": job, "output": str(clip.with_name(f"styled {job}.mp4"))}
    client.ask("submit", job=job, request=request | more, priority=0 if job == "gone" else 5)


def main() -> None:
    """Measure and print."""
    cores = str(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        short = reel(Path(folder) / "short.mp4", (9,))
        film = reel(Path(folder) / "film.mp4", (FRAMES // 100,) * 100, sound=False)
        environ = {"OMP_NUM_THREADS": cores}
        serving = Serving(Path(folder), ["--threads", cores], environ).start()
        client = Stranger(serving.runtime)
        until(lambda: not client.ask("ping").header.get("doing"))
        # Paused, so that it can be cancelled while nothing runs.
        submit(client, "gone", short)
        client.ask("cancel", job="gone")
        until(lambda: client.ask("job", job="gone")["state"] == "cancelled")
        found = {"idle": measured(client)}
        for name, clip, stage in (("translating", short, "translate"), ("film", film, "analyse")):
            client.ask("events.subscribe")
            submit(client, name, clip, steps=400, size=256, keyframes="every:3")
            until(lambda stage=stage: of_stage(client, stage), 120)
            found[name] = measured(client)
            print(f"{name}: was at {client.ask('job', job=name).header.get('stage')} to the end")
            client.ask("cancel", job=name)
            client.ask("events.unsubscribe")
        client.close()
        serving.stop()
    show(found)


def of_stage(client: Stranger, stage: str) -> bool:
    """Whether a job that runs has come to a stage."""
    jobs = client.ask("jobs", states=["running"]).header.get("jobs", [])
    return any(job.get("stage") == stage for job in jobs)


def show(found: dict[str, dict[str, tuple[float, float, float]]]) -> None:
    print(f"{'ms: median / p99 / max':24}" + "".join(f"{name:>24}" for name in found))
    for op in ("ping", "cancel", "job"):
        cells = (" / ".join(f"{each:.1f}" for each in figures[op]) for figures in found.values())
        print(f"{op:24}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
