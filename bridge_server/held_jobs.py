"""Jobs that are held back until their uploads are there, and uploads that no job needs.

The clerk says what is there (`errands`). A client may submit a job before it has sent all frames of
its clip; then the job stays in the queue, and others go before it (PROTOCOL.md, section 10).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from bridge_server.access import UPLOAD, uploads
from bridge_server.books import Books
from bridge_server.errands import Errands
from bridge_server.journal import Row
from bridge_server.request import Request, from_table
from fresco.errors import FrescoError
from host_plugins.link.errors import BridgeError
from host_plugins.link.messages import OfUpload

log = logging.getLogger(__name__)

#: The frames [first, behind the last) that are missing, by the upload.
Missing: TypeAlias = dict[str, list[list[int]]]

#: Seconds after which a clerk that ended is asked again.
_CLERK_AGAIN = 1.0
#: How a note begins that says what a job waits for; gaps in a clip that it names.
_WAITS, _SPANS = "waits for the frames", 5


class HeldJobs:
    """The jobs of one server that wait for uploads.

    loop: everything is called in it, but `is_ready` and `hold`, which are called within changes
    forward: is told that a job may have its turn now
    """

    def __init__(
        self,
        books: Books,
        errands: Errands,
        loop: asyncio.AbstractEventLoop,
        forward: Callable[[], None],
    ) -> None:
        self._books, self._errands, self._loop = books, errands, loop
        self._forward = forward
        self._held = set[str]()
        self._asked = asyncio.Event()

    def is_ready(self, job: str) -> bool:
        """Whether all that a job needs has arrived."""
        return job not in self._held

    def hold(self, row: Row) -> None:
        """Hold a job that comes forward back until its uploads are looked at.

        Called within the change that lets it come forward: else its turn might come first.
        """
        if row.state == "queued" and _uploads_of(row):
            self._held.add(row.id)
            self._loop.call_soon_threadsafe(self.look)

    def look(self) -> None:
        """Ask for a look at the jobs that wait: `asked`, then `let_forward`."""
        self._asked.set()

    async def asked(self) -> None:
        """Wait until somebody has asked for a look since the last one began."""
        await self._asked.wait()
        self._asked.clear()

    async def let_forward(self) -> None:
        """Let jobs come forward whose uploads have arrived, and those that never will: they fail.

        Of the others the user is told what they wait for. One task calls this, so that no look
        undoes another.
        """
        for row in await self._books.persisted(self._rows) if self._held else ():
            try:
                missing = await self._missing(row.owner, from_table(row.request))
            except (BridgeError, FrescoError) as error:
                if isinstance(error, BridgeError) and error.retryable:
                    self._loop.call_later(_CLERK_AGAIN, self.look)
                    continue
                missing = {}  # said where the job begins
            if missing:
                await self._books.persisted(lambda row=row, lack=missing: self._say(row.id, lack))
            else:
                await self._books.persisted(lambda row=row: self._held.discard(row.id))
                self._forward()

    def _rows(self) -> list[Row]:
        """The jobs that are held back. One that is not queued any more will be held anew."""
        found = map(self._books.jobs.journal.find, sorted(self._held))
        rows = [row for row in found if row is not None and row.state == "queued"]
        self._held = {row.id for row in rows}
        return rows

    def _say(self, job: str, missing: Missing) -> None:
        """Tell the user of a job, once, which frames it waits for."""
        row = self._books.jobs.journal.find(job)
        if row is None or row.state != "queued" or any(map(_is_wait, row.notes)):
            return
        for ref, spans in sorted(missing.items()):
            self._books.jobs.note(job, _wait(ref, spans))

    async def check(self, owner: str, wanted: Request) -> None:
        """Look at the uploads of a new job; frames may still be missing.

        Raises:
            BridgeError: an upload that there is not (not_found), or is not complete (wrong_state);
                frames without an end (invalid).
        """
        await self._missing(owner, wanted, new=True)

    async def _missing(self, owner: str, wanted: Request, new: bool = False) -> Missing:
        """Return the frames that a job must still wait for; of uploads that lack none, nothing.

        new: the job is; its uploads count as used then
        """
        missing: Missing = {}
        for ref in uploads(wanted):
            more = {**_need(ref, wanted), "new": new}
            found, _ = await self._errands.ask("missing", owner, more=more)
            if found["missing"]:
                missing[ref] = found["missing"]
        return missing

    async def arrived(self, row: Row) -> tuple[Request, dict[str, Path]]:
        """Return a job's request, and the files of its uploads by their names there.

        Raises:
            BridgeError: an upload is not there (not_found), or not complete (wrong_state).
            FrescoError: the request is one that this version does not take.
        """
        wanted = from_table(row.request)
        files: dict[str, Path] = {}
        for ref in uploads(wanted):
            found, _ = await self._errands.ask("source", row.owner, more=_need(ref, wanted))
            files[ref] = Path(found["path"])
            if ref == wanted.clip and not wanted.rate and found["rate"]:
                wanted = replace(wanted, rate=found["rate"])
        return wanted, files

    async def expire(self) -> None:
        """Let uploads go that no unfinished job needs."""
        await self._errands.ask("expire", more={"needed": await self._needed()})

    async def _needed(self) -> list[tuple[str, str]]:
        """The owners and names of the uploads that jobs stand on, or are to begin with.

        Not of one that lacks frames: as long as some still come it is used anyhow, and a job whose
        frames never come must not keep it for ever.
        """
        needed = list[tuple[str, str]]()
        for row in await self._books.journalled(self._books.jobs.unfinished):
            missing: Missing = {}
            if row.state in ("queued", "paused"):
                with contextlib.suppress(BridgeError, FrescoError):
                    missing = await self._missing(row.owner, from_table(row.request))
            # What is no upload's name nothing can have; the clerk would refuse the others with it.
            named = filter(_is_ref, _uploads_of(row))
            needed += [(row.owner, ref) for ref in named if ref not in missing]
        return needed


def _uploads_of(row: Row) -> set[str]:
    """Return the uploads that a job names.

    Its request may be one that this version does not take: then all that look like some.
    """
    try:
        return uploads(from_table(row.request))
    except (BridgeError, FrescoError) as error:
        log.error("the request of job %s cannot be read: %s", row.id, error)
        return set(_refs(row.request))


def _is_ref(ref: str) -> bool:
    """Whether an upload may have this name."""
    try:
        OfUpload.from_table({"upload": ref.removeprefix(UPLOAD)})
    except BridgeError:
        return False
    return True


def _refs(told: Any) -> Iterator[str]:
    """Yield the texts anywhere in plain lists and tables that begin as an upload's name."""
    if isinstance(told, str):
        if told.startswith(UPLOAD):
            yield told
    elif isinstance(told, Mapping):
        yield from _refs(list(cast("Mapping[str, Any]", told).values()))
    elif isinstance(told, Sequence):
        for each in cast("Sequence[Any]", told):
            yield from _refs(each)


def _need(ref: str, wanted: Request) -> dict[str, Any]:
    """An upload, and what a request needs of it (`incoming.Need`)."""
    beside = (wanted.mask, wanted.subject, *(own.maps for own in wanted.controls))
    role = "clip" if ref == wanted.clip else "beside" if ref in beside else "picture"
    need = {"role": role, "start": wanted.start, "stop": wanted.stop, "handles": wanted.handles}
    return {"ref": ref, "clip": wanted.clip, "need": need}


def _wait(ref: str, spans: Sequence[Sequence[int]]) -> str:
    """What a job waits for, for people.

    spans: frames [first, behind the last) of an upload
    """
    told = ", ".join(f"{first} to {stop - 1}" for first, stop in spans[:_SPANS])
    more = " and others" if len(spans) > _SPANS else ""
    return f"{_WAITS} {told}{more} of {ref}, which have not been sent yet"


def _is_wait(note: str) -> bool:
    return note.startswith(_WAITS)
