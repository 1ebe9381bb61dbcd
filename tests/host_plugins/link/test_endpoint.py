from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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


def test_what_is_written_is_read(folder: Path) -> None:
    file = endpoint.write(HERE, folder)
    assert endpoint.read([folder]) == HERE
    assert os.listdir(folder) == [file.name]


@posix
def test_only_the_user_can_read_it(folder: Path) -> None:
    old = os.umask(0)
    try:
        file = endpoint.write(HERE, folder)
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_secrets_are_not_shown() -> None:
    assert "k" * 40 not in repr(HERE)
    assert "'token'" not in repr(HERE)


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_file_that_others_may_use_is_refused(folder: Path, mode: int) -> None:
    endpoint.write(HERE, folder).chmod(mode)
    assert code(folder) is Code.UNAUTHORISED


@posix
def test_a_file_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint.write(HERE, folder)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert code(folder) is Code.UNAUTHORISED


@posix
def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    endpoint.write(HERE, tmp_path / "other")
    folder.mkdir(mode=0o700)
    (folder / endpoint.NAME).symlink_to(tmp_path / "other" / endpoint.NAME)
    assert code(folder) is Code.UNAUTHORISED


def test_what_is_no_file_is_refused(folder: Path) -> None:
    (folder / endpoint.NAME).mkdir(parents=True)
    assert code(folder) is Code.UNAUTHORISED


@posix
@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_folder_that_others_prepared_is_refused(folder: Path, tmp_path: Path, kind: str) -> None:
    if kind == "open":
        folder.mkdir()
        folder.chmod(0o777)
    elif kind == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    else:
        folder.touch(0o600)
    with pytest.raises((BridgeError, FileExistsError)):
        endpoint.write(HERE, folder)


def test_no_file_means_no_server(folder: Path) -> None:
    assert code(folder) is Code.UNAVAILABLE


def test_a_server_that_has_ended_is_not_one(folder: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    endpoint.write(Endpoint(HERE.address, done.pid), folder)
    assert code(folder) is Code.UNAVAILABLE


def test_the_first_folder_with_a_running_server_counts(folder: Path, tmp_path: Path) -> None:
    endpoint.write(Endpoint(HERE.address, -1), folder)
    endpoint.write(HERE, tmp_path / "second")
    assert endpoint.read([tmp_path / "none", folder, tmp_path / "second"]) == HERE


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
    file = endpoint.write(HERE, folder)
    file.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(BridgeError, match=r"endpoint\.json does not say"):
        endpoint.read([folder])


def test_fields_of_a_newer_version_are_ignored(folder: Path) -> None:
    file = endpoint.write(HERE, folder)
    file.write_text(json.dumps({**json.loads(file.read_text()), "colour": "blue"}))
    assert endpoint.read([folder]) == HERE


def test_only_ones_own_file_is_removed(folder: Path) -> None:
    file = endpoint.write(HERE, folder)
    endpoint.remove(Endpoint("other", 1), folder)
    assert file.exists()
    endpoint.remove(HERE, folder)
    assert not file.exists()
    endpoint.remove(HERE, folder)


def test_a_reader_never_sees_half_a_file(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from host_plugins.link.endpoint import *\n"
        "for n in range(300): write(Endpoint('x' * (n % 50 * 100), int(sys.argv[2])), "
        "Path(sys.argv[1]))"
    )
    endpoint.write(HERE, folder)
    writer = subprocess.Popen([sys.executable, "-c", code, str(folder), str(os.getpid())])
    while writer.poll() is None:
        assert endpoint.read([folder]).pid == os.getpid()
    assert writer.returncode == 0


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


@posix
@pytest.mark.parametrize(("platform", "longest"), [("linux", 107), ("darwin", 103), ("aix", 103)])
def test_paths_of_sockets_are_short_enough(platform: str, longest: int) -> None:
    for length in range(60, 130):
        folder = Path("/" + "ü" * 10 + "f" * (length - 21))
        address = endpoint.socket_address(folder, platform)
        path = address.removeprefix("ipc://")
        assert len(os.fsencode(path)) <= longest
        fits = length + len("/bridge.sock") <= longest
        assert (Path(path).parent == folder) is fits
        if not fits:
            assert stat.S_IMODE(os.stat(Path(path).parent).st_mode) == 0o700
            os.rmdir(Path(path).parent)


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


def test_a_reader_on_windows_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = os.replace, list[Path]()

    def shared(part: Path, file: Path) -> None:
        tries.append(part)
        if len(tries) < 3:
            raise PermissionError("used by another process")
        real(part, file)

    monkeypatch.setattr(os, "replace", shared)
    endpoint.write(HERE, folder)
    assert len(tries) == 3
    assert endpoint.read([folder]) == HERE
