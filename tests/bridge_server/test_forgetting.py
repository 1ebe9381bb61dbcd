"""What the server lets go of after a year, or when a clock says so: never a file that was made."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bridge_server import config, job_logs, published
from host_plugins.link import messages
from host_plugins.link.client import Client
from host_plugins.link.errors import BridgeError
from host_plugins.link.messages import OfJob, OfUpload, Submit, UploadBegin, UploadChunk
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import SMALL, Serving, at_rest, info, until


def uploaded(client: Client, name: str, file: Path) -> str:
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    begin = UploadBegin(upload=name, name=file.name, size=len(data), sha256=digest)
    client.ask(messages.UPLOAD_BEGIN, begin, timeout=30)
    part = UploadChunk(upload=name, offset=0, payloads=(data,))
    client.ask(messages.UPLOAD_CHUNK, part, timeout=30)
    return client.ask(messages.UPLOAD_END, OfUpload(upload=name), timeout=30).file


def forgotten(client: Client, job: str) -> bool:
    try:
        info(client, job)
    except BridgeError:
        return True
    return False


def test_results_of_uploads_outlive_their_jobs(tmp_path: Path) -> None:
    serving = Serving(tmp_path).start()
    try:
        with serving.client() as client:
            clip = uploaded(client, "up", reel(tmp_path / "far away.mp4", (9,)))
            client.ask(messages.SUBMIT, Submit(job="old", request={"clip": clip, **SMALL}))
            done = at_rest(client, "old")
            assert done.state == "done", done.failure
            made = client.ask(messages.RESULT, OfJob(job="old")).files
            output = Path(next(file.path for file in made if file.role == "output"))
        assert output.parent == serving.state / "jobs" / "old"
        before = output.read_bytes()
        assert serving.stop() == 0
        with closing(sqlite3.connect(serving.state / config.JOURNAL)) as journal, journal:
            journal.execute("update jobs set changed = changed - 366 * 24 * 3600")
        serving.start()
        with serving.client() as client:
            until(lambda: forgotten(client, "old"))
        assert serving.stop() == 0  # then all is removed that will be
        assert output.read_bytes() == before
        assert list(output.parent.iterdir()) == [output]
    finally:
        serving.kill()


@pytest.mark.parametrize("more", [(), ("film styled.mp4",)])
def test_of_a_forgotten_job_only_results_stay(tmp_path: Path, more: tuple[str, ...]) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for name in (job_logs.NAME, job_logs.OLDER, *published.FILES, *more):
        (folder / name).touch()
    logs = job_logs.JobLogs(tmp_path)
    logs.forget_all(["a", "never there"], published.FILES)
    logs.close()
    left = [file.name for file in folder.iterdir()] if folder.exists() else []
    assert left == list(more)
    assert folder.exists() == bool(more)


def test_a_log_goes_before_what_else_is_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for name in (job_logs.NAME, published.NAME):
        (folder / name).touch()
    logs = job_logs.JobLogs(tmp_path)
    logs.forget(["a"])
    logs.close()
    assert [file.name for file in folder.iterdir()] == [published.NAME]
