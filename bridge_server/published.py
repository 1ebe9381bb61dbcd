"""What a job's output was when it got its name: whether a file is still the one that was written.

Kept in the job's folder, from before anybody could hear that the job was done.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from bridge_server.media.parts import to_disk
from bridge_server.pieces import pieces

NAME = "published.json"
#: While it is written; left where a process was killed at it.
_PART = f"{NAME}.part"
#: All that may be kept in a job's folder.
FILES = (NAME, _PART)


class Facts(NamedTuple):
    """A file as it was written: bytes, nanoseconds, and a hash; older jobs have made none."""

    size: int
    time: int
    sha256: str = ""


def remember(
    files: Mapping[Path, Path], folder: Path, poll: Callable[[], None] = lambda: None
) -> None:
    """Keep what the output's files are, before they get their names.

    They are hashed here, where nobody waits for a reply: once, and as they were verified.

    files: each part that is written, and the name that it gets
    folder: of the job
    poll: is called between pieces, and may raise

    Raises:
        OSError: it cannot be written; names the file.
    """
    facts = {
        str(target): Facts(*_stamp(part), _sha256(part, poll)) for part, target in files.items()
    }
    part = folder / _PART
    try:
        part.write_text(json.dumps(facts), encoding="utf-8")
        to_disk(part)
        os.replace(part, folder / NAME)
        to_disk(folder)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(folder / NAME)) from error


def known(folder: Path) -> dict[str, Facts]:
    """Return what was remembered of each file; nothing where nothing was."""
    try:
        told = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return {file: Facts(*own) for file, own in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def intact(file: Path, facts: Mapping[str, Facts]) -> bool:
    """Whether `file` is one of those that were remembered, and unchanged since."""
    found = facts.get(str(file))
    try:
        return found is not None and (found.size, found.time) == _stamp(file)
    except OSError:
        return False


def all_ours(folder: Path) -> bool:
    """Whether what has the output's names is what the job of this folder wrote itself."""
    facts = known(folder)
    there = [Path(file) for file in facts if Path(file).exists()]
    return bool(there) and all(intact(file, facts) for file in there)


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _sha256(file: Path, poll: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    for piece in pieces(file, poll):
        digest.update(piece)
    return digest.hexdigest()
