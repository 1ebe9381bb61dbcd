"""What the supervisor asks of the jobs, and what workers tell of them, entered in the books."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bridge_server import failures, pipe
from bridge_server.audience import Audience
from bridge_server.books import Books
from bridge_server.forecast import blended
from bridge_server.journal import Row
from bridge_server.supervisor import Running, Task
from host_plugins.link.errors import BridgeError
from host_plugins.link.messages import Keyframe, Preview, Progress
from host_plugins.link.wire import Buffer

#: Why a job comes forward again, for people.
_SERVER_ENDED = "the server was ended"


class Bookkeeper:
    """A `supervisor.Ledger`.

    ready: whether what a job needs is there; called within changes
    task: makes of a job what its worker is told; raises what a job fails with that cannot begin
    """

    def __init__(
        self,
        books: Books,
        audience: Audience,
        ready: Callable[[str], bool],
        task: Callable[[Row], Awaitable[Task]],
    ) -> None:
        self._books, self._audience = books, audience
        self._ready, self._task = ready, task
        self._seq: dict[str, int] = {}

    async def next(self, take: Callable[[Row], Running]) -> Task | None:
        """Return the job whose turn it is; those before it that cannot begin fail."""

        def taken() -> Row | None:
            row = self._books.jobs.next(self._ready)
            if row is not None:
                take(row)
            return row

        while (row := await self._books.persisted(taken)) is not None:
            self._seq[row.id] = row.seq
            try:
                return await self._task(row)
            except Exception as error:  # the worker must get its next job, whatever this one is
                await self._fail(row, failures.told(error))
        return None

    async def _fail(self, row: Row, failure: BridgeError) -> None:
        jobs = self._books.jobs
        await self._books.persisted(lambda: jobs.failed(row.id, failure, row.revision))

    async def speeds(self) -> dict[str, tuple[float, float]]:
        """Return what was learnt of this machine's speed."""
        return await self._books.persisted(self._books.jobs.journal.speeds)

    async def told(self, running: Running, message: pipe.Message) -> None:
        """Take over what a worker tells of a job."""
        what = message["tell"]
        if what == "progress":
            self._tell_passing(running, "progress", _progress(running, message).table())
        elif what == "preview":
            told = Preview(
                frames=tuple(message["frames"]), step=message["step"], last=message["last"]
            )
            self._tell_passing(running, "preview", told.table(), tuple(message["jpegs"]))
        else:
            await self._enter(running.job, self._change(running, message))
            if what == "ended":
                await self._learn(running, message["how"])

    def _tell_passing(
        self, running: Running, kind: str, data: dict[str, Any], payloads: tuple[Buffer, ...] = ()
    ) -> None:
        seq = self._seq.get(running.job, 0)
        self._audience.tell_passing(kind, running.job, running.owner, seq, data, payloads)

    async def _enter(self, job: str, change: Callable[[], Any]) -> None:
        """Change a job, and remember the number of its newest event."""

        def changed() -> int:
            change()
            row = self._books.jobs.journal.find(job)
            return 0 if row is None else row.seq

        self._seq[job] = await self._books.persisted(changed)

    def _change(self, running: Running, message: pipe.Message) -> Callable[[], Any]:
        jobs, job = self._books.jobs, running.job
        what = message["tell"]
        if what == "settled":
            return lambda: jobs.settled(job, message["output"], message["span"], message["notes"])
        if what == "expected":
            ahead = running.forecast.ahead()
            return lambda: jobs.expected(job, ahead)
        if what == "planned":
            return lambda: jobs.uses(job, message["units"], forward=False)
        if what == "kept":
            return lambda: jobs.uses(job, [message["unit"]])
        if what == "note":
            return lambda: jobs.note(job, message["text"])
        if what == "keyframe":
            self._audience.show(job, message["frame"], message["jpeg"])
            keyframe = Keyframe(frame=message["frame"], name=f"keyframe-{message['frame']:06d}.png",
                                path=message["path"], final=message["final"])  # fmt: skip
            return lambda: jobs.keyframe(job, keyframe)
        assert what == "ended", what
        return self._end(running, message)

    def _end(self, running: Running, message: pipe.Message) -> Callable[[], Any]:
        jobs, job, revision = self._books.jobs, running.job, message["revision"]
        how = message["how"]
        if how == "done":
            return lambda: jobs.done(job, revision, message["report"], message["keyframes"])
        if how == "rested":
            rest = running.forecast.rest()
            return lambda: jobs.rested(job, revision, message["keyframes"], rest)
        if how == "failed":
            failure = BridgeError.from_table(message["failure"])
            return lambda: jobs.failed(job, failure, revision)
        return lambda: jobs.stopped(job, _SERVER_ENDED)

    async def _learn(self, running: Running, how: str) -> None:
        journal = self._books.jobs.journal
        if how in ("done", "rested"):
            running.forecast.end()
        learnt, known = running.forecast.learnt, running.forecast.speeds

        def learn() -> None:
            for what, new in learnt.items():
                journal.learn(what, *blended(known.get(what), new))

        await self._books.persisted(learn)

    async def crashed(self, running: Running, failure: BridgeError) -> None:
        """Take over that a worker ended at a job."""
        jobs = self._books.jobs
        await self._books.persisted(lambda: jobs.crashed(running.job, failure))

    async def interrupted(self, running: Running) -> None:
        """Take over that a job was interrupted by the server's end."""
        jobs = self._books.jobs
        await self._books.persisted(lambda: jobs.stopped(running.job, _SERVER_ENDED))

    async def troubled(self, why: str) -> None:
        """Tell the users of all jobs that wait that no worker can be started."""
        await self._books.persisted(lambda: self._books.jobs.note_waiting(why))


def _progress(running: Running, message: pipe.Message) -> Progress:
    eta = running.forecast.left()
    return Progress(stage=message["stage"], done=message["done"], total=message["total"],
                    eta_s=None if eta is None else round(eta, 1))  # fmt: skip
