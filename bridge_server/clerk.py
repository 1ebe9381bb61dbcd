"""The clerk: a process that takes uploads in and hands results out, for clients without our disk.

Frames are coded and decoded here, so that the server's own process does neither. Asked over its
standard input, it answers over its standard output (`pipe`), several things at once.

Asked: {n, op, owner, fields, payloads, ...}. Answers: {n, fields, payloads} or {n, error}.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

from bridge_server import config, failures, handout, pipe
from bridge_server.handout import Frames
from bridge_server.media import confine
from bridge_server.processes import be_modest, die_with_parent
from bridge_server.uploads import Need, Uploads
from host_plugins.link.messages import OPS, DownloadChunk, DownloadFrame, File, Message

_THREADS = 4
#: Seconds between looks at files that are open and unused.
_TEND = 10.0


class Clerk:
    """The uploads in one folder, and the files of results that are open."""

    def __init__(self, folder: Path, chunk: int) -> None:
        self._uploads, self._frames, self._chunk = Uploads(folder), Frames(), chunk
        self._ours = (folder.parent, config.load().store)
        self._done: Mapping[str, Callable[[str, pipe.Message], tuple[Any, tuple[Any, ...]]]] = {
            "upload.begin": self._upload(self._uploads.begin),
            "upload.chunk": self._upload(self._uploads.chunk),
            "upload.end": self._upload(self._uploads.end),
            "upload.frame": self._upload(self._uploads.frame),
            "download.chunk": self._download_chunk,
            "download.frame": self._download_frame,
            "missing": self._missing,
            "source": self._source,
            "expire": self._expire,
        }

    def serve(self, asked: BinaryIO, answers: BinaryIO) -> None:
        """Answer until the server is gone."""
        writing = threading.Lock()

        def answer(message: pipe.Message) -> None:
            data = pipe.pack({"n": message["n"], **self._answer(message)})
            with writing, suppress(BrokenPipeError, ValueError):
                answers.write(data)
                answers.flush()

        threading.Thread(target=self._tend, daemon=True).start()
        with ThreadPoolExecutor(_THREADS) as threads:
            while (message := pipe.read(asked)) is not None:
                threads.submit(answer, message)

    def _answer(self, message: pipe.Message) -> pipe.Message:
        try:
            fields, payloads = self._done[message["op"]](message["owner"], message)
        except Exception as error:
            return {"error": failures.told(error).table()}
        return {"fields": dict(fields), "payloads": [bytes(own) for own in payloads]}

    def _tend(self) -> None:
        waited = threading.Event()
        while not waited.wait(_TEND):
            self._frames.tend()

    @staticmethod
    def _upload(take: Callable[[str, Any], Message]) -> Callable[[str, pipe.Message], Any]:
        def taken(owner: str, message: pipe.Message) -> Any:
            asked = _asked(message)
            return take(owner, asked).table(), ()

        return taken

    def _download_chunk(self, _owner: str, message: pipe.Message) -> Any:
        asked = _asked(message)
        assert isinstance(asked, DownloadChunk)
        with self._bounds(message):
            reply, data = handout.chunk(_files(message), asked, self._chunk)
        return reply.table(), (data,)

    def _bounds(self, message: pipe.Message) -> AbstractContextManager[None]:
        """Open results only in the folders that the job's owner is bound to, and in our own."""
        if not message["roots"]:
            return nullcontext()
        return confine.within(tuple(map(Path, message["roots"])), self._ours)

    def _download_frame(self, _owner: str, message: pipe.Message) -> Any:
        asked = _asked(message)
        assert isinstance(asked, DownloadFrame)
        with self._bounds(message):
            reply, data = self._frames.frame(_files(message), range(*message["span"]), asked)
        return reply.table(), () if data is None else (data,)

    def _missing(self, owner: str, message: pipe.Message) -> Any:
        if message["new"]:
            self._uploads.touch(owner, message["ref"])
        found = self._uploads.missing(owner, message["ref"], *self._span(owner, message))
        return {"missing": [[span.start, span.stop] for span in found]}, ()

    def _source(self, owner: str, message: pipe.Message) -> Any:
        found = self._uploads.source(owner, message["ref"], *self._span(owner, message))
        return {"path": str(found.path), "rate": found.rate}, ()

    def _span(self, owner: str, message: pipe.Message) -> tuple[int, int | None]:
        need = Need(**message["need"])
        return self._uploads.span(owner, message["ref"], need, message["clip"])

    def _expire(self, _owner: str, message: pipe.Message) -> Any:
        keys = [self._uploads.key(owner, ref) for owner, ref in message["needed"]]
        return {"gone": list(self._uploads.expire(keys))}, ()


def _asked(message: pipe.Message) -> Any:
    payloads = tuple(message.get("payloads", ()))
    return OPS[message["op"]].request.from_table(message["fields"], payloads)


def _files(message: pipe.Message) -> tuple[File, ...]:
    return tuple(File.from_table(own) for own in message["files"])


def main() -> None:
    """Run a clerk: ``python -m bridge_server.clerk FOLDER CHUNK``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    be_modest()
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the messages
    Clerk(Path(sys.argv[1]), int(sys.argv[2])).serve(asked, answers)


if __name__ == "__main__":
    main()
