"""Whether the server runs, and what it left behind where it does not."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path

from bridge_server.config import Config, state_folder
from bridge_server.probes.finding import Finding, State
from host_plugins.link import endpoint, messages
from host_plugins.link.client import Client
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Pong

AREA = "server"
#: Seconds for a reply.
_REPLY = 5.0


def _asked(at: Endpoint) -> Pong:
    with Client(lambda: at) as client:
        return client.ask(messages.PING, None, _REPLY)


def running(
    folders: list[Path] | None = None, ask: Callable[[Endpoint], Pong] = _asked
) -> Iterator[Finding]:
    """Whether a server runs and answers, and is of this version.

    folders: that its endpoint file may be in; the usual ones where None
    """
    folders = endpoint.folders() if folders is None else folders
    try:
        at = endpoint.read(folders)
    except BridgeError as error:
        yield _absent(error, folders)
        return
    try:
        pong = ask(at)
    except BridgeError as error:
        text = f"process {at.pid} should be the server, and does not answer: {error}"
        hint = f"if that is another program, remove {_file(folders)}; else end it, and start anew"
        yield Finding(AREA, "running", State.PROBLEM, text, hint)
        return
    doing = f", {pong.doing}" if pong.doing else ""
    text = f"{at.address}, process {at.pid}: {pong.running} running, {pong.queued} queued{doing}"
    yield Finding(AREA, "running", State.OK, text)
    yield _version(at.version, importlib.metadata.version("fresco-bridge"))


def left(settings: Config) -> Iterator[Finding]:
    """Where the journal and the logs are, and how large they have become."""
    folder = state_folder(settings)
    if not folder.is_dir():
        yield Finding(AREA, "files", State.OK, f"{folder}, not there before the first server")
        return
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    text = f"{folder}, {size / 1e6:.1f} MB: journal, server.log, worker.log, and jobs' logs in jobs"
    yield Finding(AREA, "files", State.OK, text)


def _absent(error: BridgeError, folders: list[Path]) -> Finding:
    """Say why there is no server: none runs, one was killed, or its file cannot be trusted."""
    if error.code is not Code.UNAVAILABLE or not error.retryable:
        return Finding(AREA, "running", State.PROBLEM, error.message, error.hint)
    stale = _file(folders)
    if stale is not None:
        text = f"does not run; it was killed, and left {stale}"
        hint = "nothing: the next server replaces the file, and goes on with the jobs"
        return Finding(AREA, "running", State.NOTE, text, hint)
    text = "does not run; `render` starts it when it is needed"
    return Finding(AREA, "running", State.OK, text, "`fresco-bridge serve` starts one for editors")


def _version(server: str, ours: str) -> Finding:
    if server == ours:
        return Finding(AREA, "version", State.OK, server)
    text = f"the server is of version {server}, this command of {ours}"
    return Finding(AREA, "version", State.NOTE, text, "`fresco-bridge stop`, then start it again")


def _file(folders: list[Path]) -> Path | None:
    """The endpoint file that is there."""
    files = [folder / endpoint.NAME for folder in folders]
    return next((file for file in files if file.exists()), None)
