"""The server's end of the clerk: asked from the event loop, started when it is first needed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from bridge_server import pipe
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.wire import Buffer

log = logging.getLogger(__name__)

Answer = tuple[dict[str, Any], tuple[Buffer, ...]]


class Errands:
    """Sends the clerk on errands.

    folder: of the uploads; chunk: bytes of a chunk at most; logs: where it complains
    """

    def __init__(self, folder: Path, chunk: int, logs: Path) -> None:
        self._folder, self._chunk, self._logs = folder, chunk, logs
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = itertools.count()
        # Payloads may be larger than the pipe: somebody else waits until they have gone in.
        self._writing = ThreadPoolExecutor(1, "to the clerk")

    async def ask(
        self,
        op: str,
        owner: str = "",
        fields: Mapping[str, Any] | None = None,
        payloads: Sequence[Buffer] = (),
        more: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Ask, and wait for the answer.

        more: what the clerk must know beside the client's request

        Raises:
            BridgeError: the clerk's; it ended meanwhile (unavailable, to be tried again).
        """
        number = next(self._numbers)
        message = {"n": number, "op": op, "owner": owner, "fields": dict(fields or {}),
                   "payloads": [bytes(own) for own in payloads], **(more or {})}  # fmt: skip
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Answer] = loop.create_future()
        self._waiting[number] = waiting
        try:
            stdin = self._open(loop)
            await loop.run_in_executor(self._writing, _write, stdin, message)
            return await waiting
        except (OSError, ValueError) as error:
            raise _gone() from error
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """End the clerk."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        self._writing.shutdown(wait=False, cancel_futures=True)

    def _open(self, loop: asyncio.AbstractEventLoop) -> BinaryIO:
        if self._process is None or self._process.poll() is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "bridge_server.clerk"]
            with (self._logs / "clerk.log").open("ab") as errors:
                self._process = subprocess.Popen(
                    [*command, str(self._folder), str(self._chunk)], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=errors, start_new_session=os.name != "nt",
                )  # fmt: skip
            threading.Thread(target=self._listen, args=(self._process, loop), daemon=True).start()
        return cast("BinaryIO", self._process.stdin)

    def _listen(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        stdout = cast("BinaryIO", process.stdout)
        with suppress(RuntimeError, OSError, ValueError, TypeError):  # the loop has ended
            while (message := pipe.read(stdout)) is not None:
                loop.call_soon_threadsafe(self._answered, message)
            loop.call_soon_threadsafe(self._ended, process)

    def _answered(self, message: pipe.Message) -> None:
        waiting = self._waiting.get(message["n"])
        if waiting is None or waiting.done():
            return
        if "error" in message:
            waiting.set_exception(BridgeError.from_table(message["error"]))
        else:
            waiting.set_result((message["fields"], tuple(message["payloads"])))

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        log.error("the clerk ended: %s", process.poll())
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_gone())


def _write(stdin: BinaryIO, message: pipe.Message) -> None:
    stdin.write(pipe.pack(message))
    stdin.flush()


def _gone() -> BridgeError:
    return BridgeError(Code.UNAVAILABLE, "the server's clerk ended at this", "try again")
