"""Starting the server: a process of its own, which outlives the panel; no Qt."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from host_plugins import program
from host_plugins.link import endpoint
from host_plugins.link.errors import BridgeError, Code

#: Bytes of a log's end that are read.
_TAIL = 1 << 16


class Starter:
    """Starts servers, one after the other.

    words: the command that `serve` is put behind
    printed: the file that gets what a server prints, at its end; None: beside the endpoint file
    """

    def __init__(self, words: Sequence[str], printed: Path | None = None) -> None:
        self._words = list(words)
        self.printed = printed or endpoint.folders()[0] / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a server, unless one that was started here is still under way.

        Raises:
            BridgeError: there is no such program, or its log cannot be written (host).
        """
        if not self.under_way:
            self._process = program.start_server(self._words, self.printed)

    @property
    def under_way(self) -> bool:
        """Whether a server that was started here lives; one that has ended is taken leave of."""
        return self._process is not None and self._process.poll() is None

    def ended(self) -> BridgeError | None:
        """Why the server that was started here is no more; None if it lives, or ended in order."""
        if self._process is None or self._process.poll() in (None, 0):
            return None
        lines = tail(self.printed).strip().splitlines() or ["it said nothing"]
        why = lines[-1].removeprefix("fresco-bridge: ")
        hint = f"{self.printed} says more, and `fresco-bridge doctor` looks for what is wrong"
        return BridgeError(Code.UNAVAILABLE, f"the server has ended: {why}", hint, False)


def tail(file: Path) -> str:
    """Return the end of a log; nothing if it cannot be read."""
    with suppress(OSError), file.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
        return log.read().decode("utf-8", errors="replace")
    return ""
