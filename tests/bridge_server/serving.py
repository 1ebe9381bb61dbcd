"""A real server in a process of its own, with everything in one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import psutil

from bridge_server import config
from host_plugins.link import endpoint, messages
from host_plugins.link.client import Client
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.messages import Event, JobInfo, OfJob, Submit

#: A job of three keyframes with the draft model: seconds.
SMALL: dict[str, Any] = {
    "prompt": "oil painting",
    "size": 64,
    "steps": 3,
    "keyframes": "every:4",
    "cuts": "none",
}
#: Events that came together with one that was waited for.
_unread: WeakKeyDictionary[Client, deque[Event]] = WeakKeyDictionary()
REST = ("done", "failed", "cancelled", "waiting", "paused")


@dataclass
class Serving:
    """Starts servers that share a folder, one after the other."""

    folder: Path
    options: Sequence[str] = ()
    environ: dict[str, str] = field(default_factory=dict[str, str])
    process: subprocess.Popen[bytes] | None = None
    device: str = "cpu"

    @property
    def runtime(self) -> Path:
        return self.folder / "run"

    @property
    def state(self) -> Path:
        return self.folder / "home" / "server"

    def start(self) -> Serving:
        """Start a server and wait until it can be reached."""
        self.launch()
        until(lambda: self.at() is not None or self.process_ended())
        assert not self.process_ended(), (self.folder / "server.log").read_text()
        return self

    def launch(self) -> None:
        """Start a server."""
        environ = {
            **os.environ,
            config.HOME: str(self.folder / "home"),
            config.STORE: str(self.folder / "store"),
            endpoint.FOLDER: str(self.runtime),
            "OMP_NUM_THREADS": "1",
            **self.environ,
        }
        words = [sys.executable, "-m", "bridge_server", "serve", "--device", self.device]
        words += ["--threads", "1", *self.options]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(words, env=environ, stderr=log)

    def at(self) -> Endpoint | None:
        try:
            found = endpoint.read([self.runtime])
        except endpoint.BridgeError:
            return None
        return found if self.process is not None and found.pid == self.process.pid else None

    def process_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def client(self) -> Client:
        return Client(lambda: endpoint.read([self.runtime]))

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes of the server's workers."""
        return [own for own in self.others if "bridge_server.worker" in own.cmdline()]

    @property
    def others(self) -> list[psutil.Process]:
        """All processes that the server has started."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children()

    def kill(self) -> None:
        """End the server as a power cut would; all that it started must end with it."""
        if self.process is not None and self.process.poll() is None:
            others = self.others
            self.process.kill()
            self.process.wait()
            until(lambda: not any(map(lives, others)))

    def stop(self) -> int:
        """End the server as a user would; returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(holds: Callable[[], Any], seconds: float = 600.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def submit(client: Client, job: str, clip: Path, **more: Any) -> JobInfo:
    request = {"clip": str(clip), **SMALL, **more}
    return client.ask(messages.SUBMIT, Submit(job=job, request=request))


def info(client: Client, job: str) -> JobInfo:
    return client.ask(messages.JOB, OfJob(job=job))


def at_rest(client: Client, job: str, seconds: float = 600.0) -> JobInfo:
    """Wait until a job rests."""
    end = time.monotonic() + seconds
    while (now := info(client, job)).state not in REST:
        assert time.monotonic() < end, f"{job} is still {now.state} at {now.stage}"
        time.sleep(0.05)
    return now


def event(client: Client, wanted: Callable[[Event], bool], seconds: float = 600.0) -> Event:
    """Wait for an event of a client that has subscribed."""
    unread = _unread.setdefault(client, deque())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        unread.extend(client.poll(0 if unread else 0.2))
        while unread:
            if wanted(each := unread.popleft()):
                return each
    raise AssertionError("the event did not come")
