"""Several intervals side by side: they depend on nothing but their own frames and keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from fresco.callbacks import CancelToken
from fresco.frames import Frames
from fresco.propagate.interval import interval


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One interval; the fields are `interval`'s."""

    frames: Frames
    left: Tensor | None
    right: Tensor | None
    method: str = "auto"


def intervals(
    jobs: Iterable[Job], workers: int = 1, cancel: CancelToken | None = None
) -> Iterator[Tensor]:
    """Yield each job's frames in the order of the jobs, `workers` of them worked on at once.

    Jobs are taken from the iterable as workers come free, so that only their frames are held. The
    result is the same for any number of workers.

    Raises:
        InvalidInput, Cancelled: see `interval`; no further job is begun.
    """
    token = cancel or CancelToken()
    waiting: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for job in jobs:
                waiting.append(
                    pool.submit(interval, job.frames, job.left, job.right, job.method, cancel=token)
                )
                if len(waiting) >= workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
