from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_server import signpost
from host_plugins.link import endpoint
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError

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
