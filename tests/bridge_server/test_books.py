"""The journal's thread: changes in one transaction, and again while the file cannot be written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from bridge_server import books, config
from bridge_server.access import Owner
from bridge_server.books import Books
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Event, Submit


def with_books(folder: Path, check: Callable[[Books], Awaitable[None]], ending: bool) -> None:
    async def opened() -> None:
        own = Books(lambda: ending)
        await own.open(folder / config.JOURNAL, unheard)
        await check(own)
        await own.close()

    asyncio.run(opened())


def unheard(_event: Event, _owner: str) -> None:
    pass


def submit(own: Books, job: str) -> str:
    return own.jobs.submit(Owner(), Submit(job=job, request={"clip": "/a.mp4"}), checked=True).id


def test_a_change_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def check(own: Books) -> None:
        def change() -> None:
            submit(own, "a")
            raise BridgeError(Code.INVALID, "no")

        with pytest.raises(BridgeError):
            await own.journalled(change)
        assert own.jobs.journal.find("a") is None
        assert await own.journalled(lambda: submit(own, "a")) == "a"

    with_books(tmp_path, check, ending=False)


@pytest.mark.parametrize("ending", [False, True])
def test_news_wait_for_a_journal_that_another_holds_unless_the_server_ends(
    tmp_path: Path, ending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "_AGAIN", 0.05)
    tries = list[str]()

    async def check(own: Books) -> None:
        def change() -> None:
            tries.append(submit(own, "a"))
            if len(tries) < 3 or ending:
                raise sqlite3.OperationalError("database is locked")

        if ending:
            with pytest.raises(BridgeError) as told:
                await own.persisted(change)
            assert told.value.code is Code.BUSY
        else:
            await own.persisted(change)

    with_books(tmp_path, check, ending)
    assert len(tries) == (1 if ending else 3)
    with closing(sqlite3.connect(tmp_path / config.JOURNAL)) as base:
        assert base.execute("select count(*) from jobs").fetchone() == (0 if ending else 1,)
