"""That the processes which open files keep to the folders of a job's owner."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from bridge_server import config
from bridge_server.clerk import Clerk
from bridge_server.media import confine
from bridge_server.worker import Worker, _Task
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import File
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import SMALL


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(config.HOME, str(tmp_path / "home"))
    monkeypatch.setenv(config.STORE, str(tmp_path / "store"))
    folder = tmp_path / "root" / "films"
    folder.mkdir(parents=True)
    reel(folder / "a.mp4", (9,))
    return folder


def led_out(films: Path) -> None:
    """Put a link in place of the folder, to one with the same names."""
    films.rename(films.parent.parent / "elsewhere")
    films.symlink_to(films.parent.parent / "elsewhere")


def task(films: Path, tmp_path: Path) -> _Task:
    request = {"clip": str(films / "a.mp4"), **SMALL, "until": "first_frame"}
    folder = tmp_path / "job"
    folder.mkdir(exist_ok=True)
    return _Task("a", 1, request, folder, False, (films.parent,))


def worker() -> Worker:
    return Worker(io.BytesIO(), io.BytesIO(), "cpu", 1)


def test_a_worker_follows_no_link(films: Path, tmp_path: Path) -> None:
    led_out(films)
    how = worker()._done(task(films, tmp_path))
    assert (how["how"], how["failure"]["code"]) == ("failed", "forbidden")
    assert "is not where it was" in how["failure"]["error"]


@pytest.mark.skipif(not confine.NAMES, reason="no names of opened files here")
def test_a_worker_works_within_the_folders(films: Path, tmp_path: Path) -> None:
    """All of a job but what comes after its first frame: the clip is opened many times."""
    how = worker()._done(task(films, tmp_path))
    assert (how["how"], how["keyframes"]) == ("rested", [0])


def test_a_link_that_comes_while_the_clip_is_looked_at(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was opened before; when it is opened again, the folder is another."""
    step, times = confine._step, list[str]()

    def changed(name: str, flags: int, folder: int | None, path: Path) -> int:
        handle = step(name, flags, folder, path)
        times.append(name)
        if times.count("a.mp4") == 2 and name == "a.mp4":
            led_out(films)
        return handle

    monkeypatch.setattr(confine, "_step", changed)
    how = worker()._done(task(films, tmp_path))
    assert (how["how"], how["failure"]["code"]) == ("failed", "forbidden")


def test_the_clerk_follows_no_link(films: Path, tmp_path: Path) -> None:
    clerk = Clerk(tmp_path / "state" / "uploads", 1 << 20)
    size = (films / "a.mp4").stat().st_size
    file = File(name="a.mp4", role="output", size=size, path=str(films / "a.mp4"))
    message: dict[str, Any] = {
        "op": "download.chunk", "fields": {"job": "a", "name": "a.mp4"}, "files": [file.table()],
        "span": [0, 9], "roots": [str(films.parent)],
    }  # fmt: skip
    frame = {**message, "op": "download.frame", "fields": {"job": "a", "frame": 0}}
    assert clerk._download_chunk("", message)[0] == {"offset": 0, "size": size}
    assert clerk._download_frame("", frame)[0]["ready"]
    led_out(films)
    with pytest.raises(BridgeError) as told:
        clerk._download_chunk("", message)
    assert told.value.code is Code.NOT_FOUND
    fresh = Clerk(tmp_path / "state" / "uploads", 1 << 20)  # the other has the file open already
    assert fresh._answer({**frame, "owner": ""})["error"]["code"] == "forbidden"
