"""Round trips of ping and cancel: of an idle server, and of one whose worker uses every core.

Run with ``python -m tests.benchmarks.server``; it takes about two minutes. Asked for are 20 ms in
99 of 100 cases, on two cores. Beside them stands what no server can better: a message to another
process and back, and a small write that is brought to the same disk, which every cancel waits for.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import zmq

from tests.bridge_server.reels import reel
from tests.bridge_server.serving import Serving, until
from tests.bridge_server.strangers import Stranger

#: Round trips of each kind, and seconds between them: as a user's, not as fast as it goes.
COUNT, PAUSE = 300, 0.01
#: Frames of the clip: ten minutes at 24 frames per second.
FRAMES = 14400
#: Clients that are there beside the one that is measured; seconds between two requests of each.
CROWD, CROWD_PAUSE = 63, 2.0

#: Milliseconds: median, 99th percentile, largest.
Figures: TypeAlias = "tuple[float, float, float]"


def round_trips(ask: Callable[[], object]) -> Figures:
    took: list[float] = []
    for _ in range(COUNT):
        begun = time.perf_counter()
        ask()
        took.append(1000 * (time.perf_counter() - begun))
        time.sleep(PAUSE)
    took.sort()
    return statistics.median(took), took[int(0.99 * COUNT)], took[-1]


def measured(client: Stranger, folder: Path) -> dict[str, Figures]:
    """The figures of each operation. What is cancelled was cancelled: the journal is written."""
    with echoing(folder) as echo, (folder / "written").open("ab", buffering=0) as file:

        def write() -> None:
            file.write(bytes(4096))
            os.fsync(file.fileno())

        return {
            "(a message and back)": round_trips(echo),
            "(a write to the disk)": round_trips(write),
            "ping": round_trips(lambda: client.ask("ping")),
            "cancel": round_trips(lambda: client.ask("cancel", job="gone")),
            "job": round_trips(lambda: client.ask("job", job="gone")),
        }


@contextmanager
def echoing(folder: Path) -> Generator[Callable[[], object]]:
    """Another process that does nothing but send messages back."""
    address = f"ipc://{folder}/echo"
    code = "import sys, zmq; s = zmq.Context().socket(zmq.ROUTER); s.bind(sys.argv[1])\n"
    code += "while True: s.send_multipart(s.recv_multipart())"
    process = subprocess.Popen([sys.executable, "-c", code, address])
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(address)

        def echo() -> None:
            socket.send(b"ping")
            socket.recv()

        try:
            echo()
            yield echo
        finally:
            process.kill()
            process.wait()


def crowd(runtime: Path) -> None:
    """Be many clients that hear everything and ask now and then, until killed."""
    clients = [Stranger(runtime) for _ in range(CROWD)]
    for client in clients:
        client.subscribe()
    print("here", flush=True)
    while True:
        for place, client in enumerate(clients):
            client.ask("cancel" if place % 8 == 0 else "ping", **{"job": "gone"})
            client.listen(CROWD_PAUSE / CROWD)


@contextmanager
def crowded(runtime: Path) -> Generator[None]:
    command = [sys.executable, "-m", "tests.benchmarks.server", str(runtime)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"here\n"
        yield
    finally:
        process.kill()
        process.wait()


def submit(client: Stranger, job: str, clip: Path, **more: object) -> None:
    request = {"clip": str(clip), "prompt": job, "output": str(clip.with_name(f"styled {job}.mp4"))}
    client.ask("submit", job=job, request=request | more, priority=0 if job == "gone" else 5)


def of_stage(client: Stranger, stage: str) -> bool:
    """Whether a job that runs has come to a stage."""
    jobs = client.ask("jobs", states=["running"]).header.get("jobs", [])
    return any(job.get("stage") == stage for job in jobs)


@contextmanager
def working(client: Stranger, job: str, clip: Path, stage: str) -> Generator[None]:
    """A job that uses every core, in one of its stages from the beginning to the end."""
    submit(client, job, clip, steps=400, size=256, keyframes="every:3")
    until(lambda: of_stage(client, stage), 120)
    yield
    assert of_stage(client, stage), f"{job} is not at {stage} any more: ask for more of it"
    client.ask("cancel", job=job)
    until(lambda: client.ask("job", job=job)["state"] == "cancelled")


def main() -> None:
    """Measure and print."""
    cores = str(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short = reel(folder / "short.mp4", (9,))
        film = reel(folder / "film.mp4", (FRAMES // 100,) * 100, sound=False)
        environ = {"OMP_NUM_THREADS": cores}
        serving = Serving(folder, ["--threads", cores], environ).start()
        client = Stranger(serving.runtime)
        until(lambda: not client.ask("ping").header.get("doing"))
        # Cancelled while nothing runs: the rest of the figures are of cancelling it again.
        submit(client, "gone", short)
        client.ask("cancel", job="gone")
        until(lambda: client.ask("job", job="gone")["state"] == "cancelled")
        found = {"idle": measured(client, folder)}
        with working(client, "translating", short, "translate"):
            found["translating"] = measured(client, folder)
        with working(client, "film", film, "analyse"):
            found["ten minutes in decode"] = measured(client, folder)
            with crowded(serving.runtime):
                found[f"the same, {CROWD + 1} clients"] = measured(client, folder)
        client.close()
        serving.stop()
    show(found)


def show(found: dict[str, dict[str, Figures]]) -> None:
    load = " ".join(f"{each:.1f}" for each in os.getloadavg()) if os.name != "nt" else "?"
    print(f"{os.cpu_count()} cores, load {load} (this program's own included)")
    print(f"{'ms: median / p99 / max':24}" + "".join(f"{name:>24}" for name in found))
    for op in next(iter(found.values())):
        cells = (" / ".join(f"{each:.1f}" for each in figures[op]) for figures in found.values())
        print(f"{op:24}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    crowd(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
