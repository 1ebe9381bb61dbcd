"""A clip restyled by the server: what `render` does unless it is told to work by itself.

The server is found, or started: apart from this terminal, so that it survives it, and so that it
ends by itself when nothing was to do for a while. The job's id is a hash of what is asked for and
of the files that it is asked of. So the same command finds the same job again, and lets it go on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge_server import access, config, events, library
from bridge_server.config import Config
from bridge_server.events import Watch
from bridge_server.lock import Lock
from bridge_server.request import Request
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled
from host_plugins import program
from host_plugins.link import endpoint, messages, wire
from host_plugins.link.client import Client
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Event, Hello, JobInfo, Made, OfJob, Submit

PRINTED = "server.log"
#: In what a server says that finds another one in its place.
_TAKEN = "is running already"
#: Seconds: for a server to start, for a reply, between looks at events and at whether it lives.
_STARTING, _REPLY, _POLL, _LOOK = 60.0, 30.0, 0.2, 2.0
#: Seconds for the request to cancel of a command that leaves at once.
_LAST_WORD = 1.0
#: Seconds in the queue after which it is said why nothing happens.
_PATIENCE = 3.0
#: Servers that may end at one job before that is an error.
_STARTS = 3
_UNDERWAY = ("queued", "running")
_WAKE = {"failed": messages.RETRY, "cancelled": messages.RETRY, "paused": messages.RESUME}
#: What a picture of a sequence is called: the number, or the place for it, is before the suffix.
_NUMBER = re.compile(r"(#+|%0?\d*d|\d+)(?=\.(png|tiff?|exr)$)", re.IGNORECASE)
#: Servers that were started here; they outlive this process.
_STARTED: list[subprocess.Popen[bytes]] = []
_PLACES = (config.HOME, config.STORE, config.FOLDER, endpoint.FOLDER)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the work is to be done; empty and 0: as the server was told, or the best there is."""

    device: str = ""
    threads: int = 0

    @property
    def said(self) -> bool:
        """Whether anything was said."""
        return bool(self.device or self.threads)

    @property
    def options(self) -> list[str]:
        """What a server is told to work so."""
        words = ["--device", self.device] if self.device else []
        return [*words, "--threads", str(self.threads)] if self.threads else words


@dataclass(frozen=True, slots=True)
class Rendered:
    """A job that has come where it should, and what it made. before: it had been done already."""

    job: JobInfo
    made: Made
    before: bool = False

    @property
    def keyframes(self) -> dict[int, Path]:
        """The keyframes' pictures, by their frames; painted ones where their painter put them."""
        wanted = self.job.request
        painted = {
            int(change["frame"]): Path(change["value"])
            for change in wanted.get("changes", ())
            if change["what"] == "painted"
        }
        every = {own.frame: Path(own.path) for own in self.job.keyframes} | painted
        first = wanted.get("until") == "first_frame"
        return {frame: every[frame] for frame in sorted(every)[: 1 if first else None]}


def render(wanted: Request, place: Place, watch: Watch, cancel: CancelToken) -> Rendered:
    """Have a clip restyled by the server, as far as `wanted` says.

    wanted: with absolute paths, see `request.absolute`
    cancel: stops the job, and this; what is done is kept

    Raises:
        BridgeError: what the server says; it cannot be started or was ended (unavailable).
        Cancelled: `cancel` was set, or the job was cancelled by somebody else.
    """
    settings = config.load()
    started = found_or_started(place, settings, cancel, watch)
    with Client() as client:
        errand = _Errand(client, wanted, place, settings, watch, cancel)
        errand.greet(check=not started)
        return errand.done()


def found_or_started(place: Place, settings: Config, cancel: CancelToken, watch: Watch) -> bool:
    """See to it that a server runs; returns whether it was started here.

    Raises:
        BridgeError: it cannot be started; says why (unavailable). Its endpoint file cannot be
            trusted (unauthorised).
        Cancelled: `cancel` was set meanwhile.
    """
    if running() is not None:
        return False
    watch(events.Note("starting the server"))
    folder = config.state_folder(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    printed, end = folder / PRINTED, time.monotonic() + _STARTING
    while time.monotonic() < end:
        process = _start(place, printed)
        while process.poll() is None and time.monotonic() < end:
            cancel.check()
            if running() is not None:
                return True
            time.sleep(0.05)
        # Where another one holds the place it is about to come, or about to go.
        if running() is not None:
            return True
        if _TAKEN not in _last_line(printed):
            break
        time.sleep(0.3)
    raise BridgeError(
        Code.UNAVAILABLE, f"the server could not be started: {_last_line(printed)}",
        f"{printed} says more; --local works without a server", retryable=False,
    )  # fmt: skip


def _start(place: Place, printed: Path) -> subprocess.Popen[bytes]:
    """Start a server apart from this terminal; what it prints goes to the end of a file."""
    words = [sys.executable, "-m", "bridge_server"]
    process = program.start_server(words, printed, place.options, environ())
    _STARTED.append(process)
    return process


def running() -> Endpoint | None:
    """Return where the server is; None if none runs.

    Raises:
        BridgeError: the endpoint file cannot be read, or trusted.
    """
    for process in _STARTED:  # one that ended seems to live until its parent has looked
        process.poll()
    try:
        return endpoint.read()
    except BridgeError as error:
        if error.code is Code.UNAVAILABLE and error.retryable:
            return None
        raise


def job_id(wanted: Request, settings: Config, attempt: int = 0) -> str:
    """Return the id of the job that a command asks for.

    It differs where the program, the clip or another file that is named does: then the result may.
    attempt: counts the jobs that the same command made, each after the one before was done
    """
    version = importlib.metadata.version("fresco-bridge")
    files = {path: _file_facts(path) for path in access.sources(wanted)}
    models = {name: _model_facts(name, settings) for name in access.models(wanted)}
    said = json.dumps([wanted.table(), version, files, models, attempt], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _file_facts(path: str) -> list[list[Any]]:
    """Name, size and time of a file, or of all files of a folder or an image sequence."""
    file = Path(path)
    with suppress(OSError):
        return [[own.name, own.stat().st_size, own.stat().st_mtime_ns] for own in _files(file)]
    return []  # the server says what is wrong with it


def _files(file: Path) -> list[Path]:
    if file.is_dir():
        return sorted(own for own in file.iterdir() if own.is_file())
    if not _NUMBER.search(file.name):
        return [file]
    named = _NUMBER.sub("", file.name)
    return sorted(own for own in file.parent.iterdir() if _NUMBER.sub("", own.name) == named)


def _model_facts(name: str, settings: Config) -> Any:
    if library.is_path(name):
        return _file_facts(name)
    return Lock(settings.lock_file).get(name).revision


class _Errand:
    """One command's business with the server."""

    def __init__(
        self,
        client: Client,
        wanted: Request,
        place: Place,
        settings: Config,
        watch: Watch,
        cancel: CancelToken,
    ) -> None:
        self._client, self._wanted, self._place = client, wanted, place
        self._settings, self._watch, self._cancel = settings, watch, cancel
        self._starts, self._ended = 0, False
        self._stopping = self._foretold = self._excused = False
        self._since = self._looked = time.monotonic()

    def greet(self, check: bool) -> None:
        """Say who asks.

        check: whether the server may be another one than was wished for

        Raises:
            BridgeError: it works elsewhere than this command is to (invalid).
        """
        ours = importlib.metadata.version("fresco-bridge")
        hello = Hello(client="the command line", version=ours, minor=wire.MINOR)
        told = self._client.ask(messages.HELLO, hello, _REPLY)
        if told.server != ours:
            text = f"the server is of version {told.server}, this command of {ours}"
            self._watch(events.Note(f"{text}; `fresco-bridge stop` ends it, the next one is new"))
        place = self._place
        wish = ({"device": place.device, "threads": place.threads},)
        if check and place.said and tuple(map(dict, told.workers)) != wish:
            words = ", ".join(_in_words(own) for own in told.workers)
            raise BridgeError(
                Code.INVALID, f"the server that runs works on {words}, not as asked for here",
                "leave --device and --threads away, add --local, or end it with "
                "`fresco-bridge stop`",
            )  # fmt: skip

    def done(self) -> Rendered:
        """Submit the job, or find it again, and wait until it rests."""
        job, before = self._submitted()
        if not before:
            job = self._followed(job)
        if job.state == "failed":
            raise BridgeError.from_table(job.failure)
        if job.state in ("cancelled", "paused"):
            raise Cancelled(f"job {job.job} was stopped.")
        return Rendered(job, self._ask(messages.RESULT, job.job), before)

    # ---------------------------------------------------------------------------------- submitting

    def _submitted(self) -> tuple[JobInfo, bool]:
        """The job, under way or at its gate; and whether it was done before."""
        for attempt in itertools.count():
            id_ = job_id(self._wanted, self._settings, attempt)
            known = self._known(id_)
            if known is None:
                return self._new(id_), False
            if known.state != "done":
                return self._woken(known), False
            if not self._wanted.overwrite and self._intact(id_):
                return known, True
        raise AssertionError("there is no last number")

    def _known(self, id_: str) -> JobInfo | None:
        try:
            return self._ask(messages.JOB, id_)
        except BridgeError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return None

    def _new(self, id_: str) -> JobInfo:
        self._subscribe(id_)
        clip = Path(self._wanted.clip).name
        title = f"{clip}: {self._wanted.prompt}" if self._wanted.prompt else clip
        asked = Submit(job=id_, request=self._wanted.table(), title=title[:200],
                       client="the command line")  # fmt: skip
        return self._client.ask(messages.SUBMIT, asked, _REPLY)

    def _woken(self, job: JobInfo) -> JobInfo:
        """Let a job go on that was stopped; say what is known of it."""
        self._subscribe(job.job)
        for text in job.notes:
            self._watch(events.Note(text))
        for own in job.keyframes:
            self._watch(events.KeyframeDone(own.frame, Path(own.path), own.final))
        return self._ask(_WAKE[job.state], job.job) if job.state in _WAKE else job

    def _subscribe(self, id_: str) -> None:
        self._client.subscribe([id_], ["progress"], timeout=_REPLY)

    def _intact(self, id_: str) -> bool:
        made: Made = self._ask(messages.RESULT, id_)
        outputs = [file for file in made.files if file.role == "output"]
        return bool(outputs) and all(file.intact for file in outputs)

    def _ask(self, op: Any, id_: str) -> Any:
        return self._client.ask(op, OfJob(job=id_), _REPLY)

    # ----------------------------------------------------------------------------------- following

    def _followed(self, job: JobInfo) -> JobInfo:
        try:
            while job.state in _UNDERWAY:
                again = self._looks_after_server()
                job = self._looked_at(job, again)
        except KeyboardInterrupt:  # the second: there is no waiting for the job's end
            with suppress(BridgeError, KeyboardInterrupt):
                self._client.ask(messages.CANCEL, OfJob(job=job.job), _LAST_WORD)
            raise
        return self._ask(messages.JOB, job.job)

    def _looked_at(self, job: JobInfo, again: bool) -> JobInfo:
        """Show what has come; returns the job as it is now.

        again: its state is to be asked for, whatever has come

        Raises:
            BridgeError: the server was ended (unavailable), or what it says.
        """
        changed = again
        try:
            for event in self._client.poll(_POLL):
                changed = self._on(event, job.job) or changed
            self._stop_if_asked(job.job)
            if changed:
                job = self._ask(messages.JOB, job.job)
            self._excuse(job)
        except BridgeError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            if self._ended:
                raise _ended() from error
            self._looked = 0.0  # else it is started again at the next turn
        return job

    def _on(self, event: Event, job: str) -> bool:
        """Show an event; whether it changes the job's state."""
        data = event.data
        if event.event == "progress":
            if data["stage"] != "analyse":
                self._foretell(job)
            self._watch(events.Progress(data["stage"], data["done"], data["total"]))
        elif event.event == "keyframe":
            final = bool(data.get("final", True))
            self._watch(events.KeyframeDone(data["frame"], Path(data["path"]), final))
        elif event.event == "note":
            self._watch(events.Note(data["text"]))
        elif event.event == "server":
            self._ended = True
        elif event.event == "state":
            if data.get("why"):
                self._watch(events.Note(f"{data['why']}; the job goes on"))
            return True
        return False

    def _foretell(self, job: str) -> None:
        """Say once what the job will take."""
        if not self._foretold:
            self._foretold = True
            told = self._ask(messages.JOB, job).forecast
            if told:
                self._watch(foretold(told))

    def _stop_if_asked(self, job: str) -> None:
        try:
            self._cancel.check()
        except Cancelled:
            if not self._stopping:
                self._stopping = True
                self._ask(messages.CANCEL, job)

    def _looks_after_server(self) -> bool:
        """See whether the server lives; start it again where it did not end by itself.

        Raises:
            BridgeError: it was ended, or ends again and again (unavailable).
        """
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return False
        self._looked = now
        if running() is not None:
            return False
        if self._ended or self._stopping or self._starts == _STARTS:
            raise _ended()
        self._starts += 1
        found_or_started(self._place, self._settings, self._cancel, events.ignore)
        self._watch(events.Note("the server had ended, and was started again; the job goes on"))
        return True

    def _excuse(self, job: JobInfo) -> None:
        """Say once why nothing happens."""
        if job.state != "queued" or self._excused or time.monotonic() - self._since < _PATIENCE:
            return
        self._excused = True
        pong = self._client.ask(messages.PING, None, _REPLY)
        if pong.running:
            self._watch(events.Note("the server is at another job; `fresco-bridge jobs` lists all"))


def _ended() -> BridgeError:
    return BridgeError(
        Code.UNAVAILABLE, "the server was ended", "the same command starts it, and goes on"
    )


def foretold(told: Mapping[str, Any]) -> events.Forecast:
    """Return the forecast that a job carries (PROTOCOL.md, `JobInfo`) as an event."""
    return events.Forecast(told.get("seconds"), told.get("memory", 0), told.get("disk", 0))


def _in_words(worker: Mapping[str, Any]) -> str:
    threads = worker.get("threads")
    return (worker.get("device") or "the best device") + (f", {threads} threads" if threads else "")


def environ() -> dict[str, str]:
    """The environment of a server that works in another folder than this one."""
    told = dict(os.environ)
    for name in _PLACES:
        if told.get(name):
            told[name] = str(Path(told[name]).expanduser().absolute())
    # Where the program was found by the folder that this was started in, it must be found still.
    paths = [os.path.abspath(path) for path in told.get("PYTHONPATH", "").split(os.pathsep) if path]
    ours = str(Path(__file__).parents[1])
    if ours == os.getcwd():
        paths.append(ours)
    return {**told, "PYTHONPATH": os.pathsep.join(paths)} if paths else told


def _last_line(file: Path) -> str:
    with suppress(OSError):
        lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return lines[-1].removeprefix("fresco-bridge: ")
    return "it said nothing"
