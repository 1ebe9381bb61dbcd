"""How it stands with the server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from host_plugins.link.errors import BridgeError


class Standing(Enum):
    """Whether there is a server, and whether it can be asked."""

    UNKNOWN = "looking for the server"
    ABSENT = "not running"
    STARTING = "starting"
    SILENT = "does not answer"
    HERE = "here"


@dataclass(frozen=True, slots=True)
class Server:
    """The server now.

    doing: of one that is here, what it is at, in its own word; see `Pong.doing`
    problem: why there is none, where that is more than that nobody started it
    """

    standing: Standing
    doing: str = ""
    problem: BridgeError | None = None
