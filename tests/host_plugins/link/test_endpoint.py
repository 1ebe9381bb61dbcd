from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge_server import signpost
from host_plugins.link import endpoint
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError, Code

posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes here")
HERE = Endpoint(
    "ipc:///run/user/1/fresco-bridge/bridge.sock",
    os.getpid(),
    "s" * 40,
    "p" * 40,
    "k" * 40,
    "tcp://127.0.0.1:5555",
    "token",
    "0.1.0",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def code(folder: Path) -> Code:
    with pytest.raises(BridgeError) as caught:
        endpoint.read([folder])
    return caught.value.code


def test_secrets_are_not_shown() -> None:
    assert "k" * 40 not in repr(HERE)
    assert "'token'" not in repr(HERE)


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_file_that_others_may_use_is_refused(folder: Path, mode: int) -> None:
    signpost.write(HERE, folder).chmod(mode)
    assert code(folder) is Code.UNAUTHORISED


@posix
def test_a_file_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signpost.write(HERE, folder)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert code(folder) is Code.UNAUTHORISED


@posix
def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    signpost.write(HERE, tmp_path / "other")
    folder.mkdir(mode=0o700)
    (folder / endpoint.NAME).symlink_to(tmp_path / "other" / endpoint.NAME)
    assert code(folder) is Code.UNAUTHORISED


def test_what_is_no_file_is_refused(folder: Path) -> None:
    (folder / endpoint.NAME).mkdir(parents=True)
    assert code(folder) is Code.UNAUTHORISED


def test_no_file_means_no_server(folder: Path) -> None:
    assert code(folder) is Code.UNAVAILABLE


def test_a_server_that_has_ended_is_not_one(folder: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    signpost.write(Endpoint(HERE.address, done.pid), folder)
    assert code(folder) is Code.UNAVAILABLE


def test_the_first_folder_with_a_running_server_counts(folder: Path, tmp_path: Path) -> None:
    signpost.write(Endpoint(HERE.address, -1), folder)
    signpost.write(HERE, tmp_path / "second")
    assert endpoint.read([tmp_path / "none", folder, tmp_path / "second"]) == HERE


def test_a_folder_of_anothers_session_is_passed_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one becomes another user and keeps XDG_RUNTIME_DIR."""
    anothers, real = tmp_path / "run" / "user" / "1", {"lstat": os.lstat, "open": os.open}

    def denied(name: str, path: Any, *more: Any) -> Any:
        if Path(path).is_relative_to(anothers):
            raise PermissionError(13, "Permission denied")
        return real[name](path, *more)

    for name in real:
        monkeypatch.setattr(os, name, lambda *args, name=name: denied(name, *args))
    signpost.write(HERE, folder)
    assert endpoint.read([anothers / "fresco-bridge", folder]) == HERE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 9999,
        "\ud800",
        '{"address": 3, "pid": 1}',
        '{"address": "x", "pid": "1"}',
        '{"address": "x", "pid": true}',
        '{"address": "x", "pid": 1, "token": null}',
    ],
)
def test_a_file_of_nonsense_is_named(folder: Path, text: str) -> None:
    file = signpost.write(HERE, folder)
    file.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(BridgeError, match=r"endpoint\.json does not say"):
        endpoint.read([folder])


def test_fields_of_a_newer_version_are_ignored(folder: Path) -> None:
    file = signpost.write(HERE, folder)
    file.write_text(json.dumps({**json.loads(file.read_text()), "colour": "blue"}))
    assert endpoint.read([folder]) == HERE


def test_folders_of_each_system(tmp_path: Path) -> None:
    user = os.getuid() if hasattr(os, "getuid") else 0
    chosen = {endpoint.FOLDER: "/x/y"}
    assert endpoint.folders(chosen, "linux") == [Path("/x/y")]
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert endpoint.folders(runtime, "linux")[0] == tmp_path / "fresco-bridge"
    shared = Path(f"/tmp/fresco-bridge-{user}")
    assert endpoint.folders({"XDG_RUNTIME_DIR": "/nowhere"}, "linux") == [shared]
    assert endpoint.folders({"TMPDIR": "/var/folders/q/T/"}, "darwin")[-1] == Path(
        f"/var/folders/q/T/fresco-bridge-{user}"
    )
    local = {"LOCALAPPDATA": "/c/Users/ü/AppData/Local"}
    assert endpoint.folders(local, "win32") == [Path("/c/Users/ü/AppData/Local/fresco-bridge")]


def test_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint.alive(os.getpid())
    for pid in (0, -1, 2**22 + 1, 2**40, 2**70):
        assert not endpoint.alive(pid)

    def denied(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", denied)
    assert not endpoint.alive(os.getpid()), "a process of somebody else is no server of ours"


@pytest.mark.parametrize(
    ("handle", "waited", "lives"), [(0, 0, False), (7, 0, False), (7, 0x102, True)]
)
def test_processes_on_windows(handle: int, waited: int, lives: bool) -> None:
    closed: list[int] = []
    api: Any = SimpleNamespace(
        OpenProcess=lambda *_: handle,
        WaitForSingleObject=lambda *_: waited,
        CloseHandle=closed.append,
    )
    assert endpoint._alive_on_windows(5, api) is lives
    assert closed == ([handle] if handle else [])
