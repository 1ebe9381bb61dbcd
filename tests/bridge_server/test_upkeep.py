"""What the server does now and then goes on, whatever one of its rounds or one of its jobs is."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bridge_server import config, upkeep
from bridge_server.access import Owner
from bridge_server.jobs import Jobs
from bridge_server.journal import Journal
from bridge_server.server import Server
from bridge_server.store import Store
from host_plugins.link.messages import Submit
from tests.bridge_server.strangers import Stranger
from tests.bridge_server.within import run, until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the server is found by a socket of POSIX")


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_TEND", 0.2)


def journal_with(folder: Path, change: Callable[[Jobs], None]) -> Path:
    """Write into the journal of a server that is still to be started."""
    file = folder / "state" / config.JOURNAL
    file.parent.mkdir(parents=True)
    journal = Journal(file)
    with journal.change():
        change(Jobs(journal))
    journal.close()
    return file


def changed(file: Path, job: str, **more: Any) -> None:
    """Give a job's request fields that this version does not know."""
    with closing(sqlite3.connect(file)) as base, base:
        (told,) = base.execute("select request from jobs where id = ?", (job,)).fetchone()
        request = json.dumps({**json.loads(told), **more})
        base.execute("update jobs set request = ? where id = ?", (request, job))


def test_a_request_that_this_version_refuses_stops_no_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def submit(jobs: Jobs) -> None:
        for job in ("strange", "waits"):
            request = {"clip": f"upload:{job}", "stop": 9}
            jobs.submit(Owner(), Submit(job=job, request=request), checked=True)

    file = journal_with(tmp_path, submit)
    changed(file, "strange", of_tomorrow=1)

    async def check(own: Server) -> None:
        client = Stranger(own.folder)
        assert await asyncio.to_thread(client.ask, "ping")
        client.close()
        # What cannot be read comes forward, to fail with the reason; so does the other, of which
        # there is no upload.
        await until(lambda: not own.held._held)

    run(tmp_path, check)
    assert "the request of job strange cannot be read" in caplog.text


def test_a_journal_that_is_held_for_a_while_ends_no_upkeep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(config.BUDGET, "0")

    async def check(own: Server) -> None:
        file = own.state / config.JOURNAL
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("begin immediate")
            await until(lambda: "the upkeep goes on without" in caplog.text)
            old = unused(Store(own.settings.store), "a" * 64)
            other.execute("rollback")
        await until(lambda: not old.exists())

    run(tmp_path, check)


def unused(store: Store, key: str) -> Path:
    """Make a result that nobody has used for days."""
    with store.writing(key) as desk:
        (desk / "a").write_bytes(b"a result")
    place = store.find(key)
    assert place is not None
    for file in place.iterdir():
        os.utime(file, (1e9, 1e9))
    return place
