from __future__ import annotations

import importlib.metadata
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bridge_server import config, signpost
from bridge_server.probes import server
from bridge_server.probes.finding import Finding, State
from host_plugins.link import endpoint
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Pong

OURS = importlib.metadata.version("fresco-bridge")
AT = Endpoint("ipc:///nowhere", os.getpid(), version=OURS)


def found(folder: Path, pong: Pong | None = None) -> dict[str, Finding]:
    def ask(_at: Endpoint) -> Pong:
        if pong is None:
            raise BridgeError(Code.TIMEOUT, "no answer")
        return pong

    return {each.subject: each for each in server.running([folder], ask)}


def test_no_server(tmp_path: Path) -> None:
    told = found(tmp_path / "none")
    assert list(told) == ["running"]
    assert (told["running"].state, told["running"].text[:12]) == (State.OK, "does not run")


def test_a_server_that_answers(tmp_path: Path) -> None:
    signpost.write(AT, tmp_path / "run")
    told = found(tmp_path / "run", Pong(time=0, running=1, queued=2, doing="translate"))
    assert told["running"].text.endswith("1 running, 2 queued, translate")
    assert (told["version"].state, told["version"].text) == (State.OK, OURS)


def test_a_server_of_another_version(tmp_path: Path) -> None:
    signpost.write(replace(AT, version="0.0.1"), tmp_path / "run")
    told = found(tmp_path / "run", Pong(time=0))
    assert told["version"].state is State.NOTE
    assert "fresco-bridge stop" in told["version"].hint


def test_a_server_that_is_silent(tmp_path: Path) -> None:
    signpost.write(AT, tmp_path / "run")
    told = found(tmp_path / "run")["running"]
    assert told.state is State.PROBLEM
    assert str(tmp_path / "run" / endpoint.NAME) in told.hint


def test_the_file_of_a_server_that_was_killed(tmp_path: Path) -> None:
    signpost.write(replace(AT, pid=2**22 + 1), tmp_path / "run")
    told = found(tmp_path / "run")["running"]
    assert told.state is State.NOTE
    assert endpoint.NAME in told.text


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_file_that_others_can_read(tmp_path: Path) -> None:
    file = signpost.write(AT, tmp_path / "run")
    file.chmod(0o644)
    told = found(tmp_path / "run")["running"]
    assert told.state is State.PROBLEM
    assert told.hint


def test_where_its_files_are() -> None:
    settings = config.load()
    assert "not there" in next(server.left(settings)).text
    folder = config.state_folder(settings)
    folder.mkdir(parents=True)
    (folder / "server.log").write_bytes(b"x" * 1_500_000)
    assert f"{folder}, 1.5 MB" in next(server.left(settings)).text
