"""Starting the server: a process of its own, which outlives the panel; no Qt."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from host_plugins.link import endpoint
from host_plugins.link.errors import BridgeError, Code

#: Seconds without work after which a server that was started here ends.
IDLE_END = 600
#: Of Windows: without a terminal, and without its Ctrl-C.
_APART: int = getattr(subprocess, "DETACHED_PROCESS", 0) | getattr(
    subprocess, "CREATE_NEW_PROCESS_GROUP", 0
)
#: Bytes of a log's end that are read.
_TAIL = 1 << 16


class Starter:
    """Starts servers, one after the other.

    program: the words of a command that `serve` is put behind
    printed: the file that gets what a server prints, at its end; None: beside the endpoint file
    """

    def __init__(self, program: Sequence[str], printed: Path | None = None) -> None:
        self._program = list(program)
        self.printed = printed or endpoint.folders()[0] / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a server, unless one that was started here is still under way.

        Raises:
            BridgeError: there is no such program, or its log cannot be written (unavailable).
        """
        if self.under_way:
            return
        words = [*self._program, "serve", "--idle-end", str(IDLE_END)]
        try:
            self.printed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.printed.open("ab") as out:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    start_new_session=os.name != "nt", creationflags=_APART,
                )  # fmt: skip
        except OSError as error:
            raise self._not_started(str(error)) from error

    @property
    def under_way(self) -> bool:
        """Whether a server that was started here lives; one that has ended is taken leave of."""
        return self._process is not None and self._process.poll() is None

    def ended(self) -> BridgeError | None:
        """Why the server that was started here is no more; None if it lives, or ended in order."""
        if self._process is None or self._process.poll() in (None, 0):
            return None
        lines = tail(self.printed).strip().splitlines() or ["it said nothing"]
        return self._not_started(lines[-1].removeprefix("fresco-bridge: "))

    def _not_started(self, why: str) -> BridgeError:
        hint = f"{self.printed} says more, and `fresco-bridge doctor` looks for what is wrong"
        return BridgeError(Code.UNAVAILABLE, f"the server has ended: {why}", hint, False)


def tail(file: Path) -> str:
    """Return the end of a log; nothing if it cannot be read."""
    with suppress(OSError), file.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
        return log.read().decode("utf-8", errors="replace")
    return ""
