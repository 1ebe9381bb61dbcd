from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bridge_server import signpost
from host_plugins.link import endpoint, messages
from host_plugins.link.client import Client
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError, Code
from tests.bridge_server.serving import Serving, until

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


def test_what_is_written_is_read(folder: Path) -> None:
    file = signpost.write(HERE, folder)
    assert endpoint.read([folder]) == HERE
    assert os.listdir(folder) == [file.name]


@posix
def test_only_the_user_can_read_it(folder: Path) -> None:
    old = os.umask(0)
    try:
        file = signpost.write(HERE, folder)
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


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
        signpost.write(HERE, folder)


def test_only_ones_own_file_is_removed(folder: Path) -> None:
    file = signpost.write(HERE, folder)
    signpost.remove(Endpoint("other", 1), folder)
    assert file.exists()
    signpost.remove(HERE, folder)
    assert not file.exists()
    signpost.remove(HERE, folder)


def test_a_reader_never_sees_half_a_file(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bridge_server.signpost import *\n"
        "for n in range(300): write(Endpoint('x' * (n % 50 * 100), int(sys.argv[2])), "
        "Path(sys.argv[1]))"
    )
    signpost.write(HERE, folder)
    writer = subprocess.Popen([sys.executable, "-c", code, str(folder), str(os.getpid())])
    while writer.poll() is None:
        assert endpoint.read([folder]).pid == os.getpid()
    assert writer.returncode == 0


@posix
@pytest.mark.parametrize(("platform", "longest"), [("linux", 107), ("darwin", 103), ("aix", 103)])
def test_paths_of_sockets_are_short_enough(platform: str, longest: int) -> None:
    for length in range(60, 130):
        folder = Path("/" + "ü" * 10 + "f" * (length - 21))
        address = signpost.socket_address(folder, platform)
        path = address.removeprefix("ipc://")
        assert len(os.fsencode(path)) <= longest
        fits = length + len("/bridge.sock") <= longest
        assert (Path(path).parent == folder) is fits
        if not fits:
            assert stat.S_IMODE(os.stat(Path(path).parent).st_mode) == 0o700
            os.rmdir(Path(path).parent)


def test_a_reader_on_windows_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = os.replace, list[Path]()

    def shared(part: Path, file: Path) -> None:
        tries.append(part)
        if len(tries) < 3:
            raise PermissionError("used by another process")
        real(part, file)

    monkeypatch.setattr(os, "replace", shared)
    signpost.write(HERE, folder)
    assert len(tries) == 3
    assert endpoint.read([folder]) == HERE


def test_the_first_folder_that_can_be_written_into_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    second = tmp_path / "second"
    # As where the folder of the session is gone, or another user's.
    where = [file / "fresco-bridge", second, tmp_path / "third"]
    assert signpost.place(where) == second
    signpost.write(HERE, second)
    assert endpoint.read(where) == HERE, "clients look into all of them"
    assert signpost.place([second, tmp_path]) == second, "also where one was before"
    assert os.listdir(second) == [endpoint.NAME]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no modes here")
def test_a_folder_that_may_only_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tempfile.TemporaryFile

    def refusing(*args: Any, **more: Any) -> Any:
        if more["dir"] == tmp_path / "first":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(*args, **more)

    monkeypatch.setattr(tempfile, "TemporaryFile", refusing)
    first, second = tmp_path / "first", tmp_path / "second"
    assert signpost.place([first, second]) == second
    with pytest.raises(BridgeError, match=r"first \(Read-only") as told:
        signpost.place([first])
    assert told.value.code is Code.FORBIDDEN
    assert endpoint.FOLDER in told.value.hint


@posix
def test_a_folder_that_somebody_prepared_is_not_passed_over(tmp_path: Path) -> None:
    """Clients would look there first."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(BridgeError) as told:
        signpost.place([tmp_path / "open", tmp_path / "second"])
    assert told.value.code is Code.UNAUTHORISED


@posix
def test_a_server_that_may_not_write_into_the_first_is_found_in_the_next(tmp_path: Path) -> None:
    session, shared = tmp_path / "session", tmp_path / "shared"
    for own in (session, shared):
        own.mkdir()
    (session / "fresco-bridge").write_text("in the way")
    environ = {endpoint.FOLDER: "", "XDG_RUNTIME_DIR": str(session), "TMPDIR": str(shared)}
    serving = Serving(tmp_path, environ=environ)
    serving.launch()
    try:
        where = endpoint.folders(environ)
        assert len(where) == 2
        until(lambda: (where[1] / endpoint.NAME).exists() or serving.process_ended())
        with Client(lambda: endpoint.read(where)) as client:
            assert client.ask(messages.PING, None).running == 0
    finally:
        assert serving.stop() == 0
    assert not (where[1] / endpoint.NAME).exists()
