"""Requests that are sent again while they are being answered, and the doctor, who takes long."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from bridge_server import config
from bridge_server.server import Server
from tests.bridge_server.strangers import Refused, Stranger
from tests.bridge_server.within import run, until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a script of POSIX, and its sockets")


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder: a line in `begun` is written by every doctor, who is done when there is `go`."""
    program = tmp_path / "slow"
    program.write_text(
        f"#!/bin/sh\ncd '{tmp_path}'\necho x >> begun\nwhile [ ! -e go ]; do sleep 0.05; done\n"
        """echo '[{"area": "models"}]'\n"""
    )
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    return tmp_path


def doctors(folder: Path) -> int:
    begun = folder / "begun"
    return len(begun.read_text().split()) if begun.exists() else 0


def test_a_doctor_who_takes_long_holds_nobody_up(slow: Path) -> None:
    async def check(own: Server) -> None:
        client, other = Stranger(own.folder), Stranger(own.folder)
        for id_ in ("a", "a", "a", "a", "b", "c", "d", "e"):
            client.send(client.envelope("doctor", id_))
        await until(lambda: doctors(slow) == 1)
        for op in ("describe", "jobs", "models"):
            assert await asyncio.to_thread(other.ask, op)
        assert doctors(slow) == 1  # the others wait their turn
        (slow / "go").touch()
        for id_ in ("a", "a", "a", "a", "b", "c", "d", "e"):
            reply = await asyncio.to_thread(client.reply_to, id_, 30)
            assert reply is not None
            assert reply["rows"] == [{"area": "models"}]
        assert doctors(slow) == 5  # the copies had none of their own
        assert not own._asking
        client.close()
        other.close()

    run(slow, check)


def test_copies_by_another_connection_are_answered_with_the_first(tmp_path: Path) -> None:
    async def check(own: Server) -> None:
        first, again, another = (Stranger(own.folder) for _ in range(3))
        again.session = first.session
        with closing(sqlite3.connect(own.state / config.JOURNAL, isolation_level=None)) as other:
            other.execute("begin immediate")
            for client in (first, first, again, another):
                client.send(client.envelope("pause", "the same", job="none"))
            # Another session's request is another request.
            await until(lambda: sorted(len(each.peers) for each in own._asking.values()) == [1, 3])
            other.execute("rollback")
        for client in (first, first, again, another):
            with pytest.raises(Refused) as told:
                await asyncio.to_thread(client.reply_to, "the same", 30)
            assert told.value.code in ("not_found", "busy")
        assert not own._asking
        for client in (first, again, another):
            client.close()

    run(tmp_path, check)


def test_a_copy_by_another_connection_subscribes_that_one(tmp_path: Path) -> None:
    async def check(own: Server) -> None:
        first, again = Stranger(own.folder), Stranger(own.folder)
        again.session = first.session
        for client in (first, again):
            client.send(client.envelope("events.subscribe", "the same"))
        for client in (first, again):
            assert await asyncio.to_thread(client.reply_to, "the same", 30)
            assert (await asyncio.to_thread(client.ask, "ping"))["subscribed"]
            client.close()

    run(tmp_path, check)


def test_an_id_that_is_used_twice_is_no_copy_where_something_else_is_asked(tmp_path: Path) -> None:
    async def check(own: Server) -> None:
        client = Stranger(own.folder)
        with closing(sqlite3.connect(own.state / config.JOURNAL, isolation_level=None)) as other:
            other.execute("begin immediate")
            for job in ("a", "b"):
                client.send(client.envelope("job", "1", job=job))
            await asyncio.sleep(0.3)
            other.execute("rollback")
        said = list[str]()
        for _ in "ab":
            with pytest.raises(Refused) as told:
                await asyncio.to_thread(client.reply_to, "1", 30)
            said.append(str(told.value))
        assert sorted("job a" in text for text in said) == [False, True]
        assert not own._asking
        client.close()

    run(tmp_path, check)
