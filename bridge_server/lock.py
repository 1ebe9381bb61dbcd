"""The lock: which revision of each model was fetched, and the hashes of its files.

Hashes are computed here from the bytes on disk, after the download. One JSON file, replaced as a
whole under a lock between processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from fresco.errors import InvalidInput

VERSION = 1


@dataclass(frozen=True, slots=True)
class Pinned:
    """One file as it was: bytes, and the SHA-256 of them in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A licence that the user accepted: its id, and when (ISO 8601, UTC)."""

    id: str
    when: str

    @classmethod
    def now(cls, licence: str) -> Accepted:
        """Accept `licence` at this moment."""
        return cls(licence, datetime.now(timezone.utc).isoformat(timespec="seconds"))


@dataclass(frozen=True, slots=True)
class Locked:
    """What is known of one model.

    repository: on the hub; empty for files of the user's own
    revision: the commit that was fetched; empty until something was
    files: path in the repository → what it was
    """

    repository: str = ""
    revision: str = ""
    files: Mapping[str, Pinned] = field(default_factory=dict[str, Pinned])
    accepted: Accepted | None = None


class Lock:
    """The file of all `Locked` models, by catalogue name or hub id."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Locked]:
        """Return everything that is locked; nothing where there is no file yet.

        Raises:
            InvalidInput: the file cannot be read as a lock.
        """
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InvalidInput(f"{self.path} is damaged ({error}); {_MEND}") from error
        try:
            return _parse(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"{self.path} is no lock of version {VERSION}; {_MEND}") from error

    def get(self, name: str) -> Locked:
        """Return what is known of `name`; an empty record if nothing is."""
        return self.read().get(name, Locked())

    def knows(self, sha256: str) -> bool:
        """Whether a file of this content was pinned."""
        return any(
            pinned.sha256 == sha256
            for locked in self.read().values()
            for pinned in locked.files.values()
        )

    def update(self, name: str, change: Callable[[Locked], Locked]) -> Locked:
        """Replace what is known of `name` by what `change` makes of it, in one step."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.guard"):
            everything = self.read()
            everything[name] = change(everything.get(name, Locked()))
            self._write(everything)
        return everything[name]

    def _write(self, everything: Mapping[str, Locked]) -> None:
        models = {name: asdict(everything[name]) for name in sorted(everything)}
        text = json.dumps({"version": VERSION, "models": models}, indent=2) + "\n"
        replace_text(self.path, text)


_MEND = "move it away and run `fresco-bridge models download` again for the models you use."


def replace_text(path: Path, text: str) -> None:
    """Write `text` to `path` so that a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _parse(document: Any) -> dict[str, Locked]:
    if document["version"] != VERSION:
        raise ValueError(document["version"])
    return {
        name: Locked(
            repository=str(record["repository"]),
            revision=str(record["revision"]),
            files={
                path: Pinned(int(pinned["size"]), str(pinned["sha256"]))
                for path, pinned in record["files"].items()
            },
            accepted=Accepted(**record["accepted"]) if record["accepted"] else None,
        )
        for name, record in document["models"].items()
    }
