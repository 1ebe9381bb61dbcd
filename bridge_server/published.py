"""What a job's output was when it got its name: whether a file is still the one that was written.

Kept in the job's folder, from before anybody could hear that the job was done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from bridge_server.media.parts import to_disk

NAME = "published.json"
#: While it is written; left where a process was killed at it.
_PART = f"{NAME}.part"
#: All that may be kept in a job's folder.
FILES = (NAME, _PART)


def remember(files: Mapping[Path, Path], folder: Path) -> None:
    """Keep what the output's files are, before they get their names.

    files: each part that is written, and the name that it gets
    folder: of the job

    Raises:
        OSError: it cannot be written; names the file.
    """
    facts = {str(target): _facts(part) for part, target in files.items()}
    part = folder / _PART
    try:
        part.write_text(json.dumps(facts), encoding="utf-8")
        to_disk(part)
        os.replace(part, folder / NAME)
        to_disk(folder)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(folder / NAME)) from error


def known(folder: Path) -> dict[str, list[int]]:
    """Return what was remembered: file → bytes, and nanoseconds; nothing where nothing was."""
    try:
        return json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def intact(file: Path, facts: Mapping[str, list[int]]) -> bool:
    """Whether `file` is one of those that were remembered, and unchanged since."""
    try:
        return facts.get(str(file)) == _facts(file)
    except OSError:
        return False


def all_ours(folder: Path) -> bool:
    """Whether what has the output's names is what the job of this folder wrote itself."""
    facts = known(folder)
    there = [Path(file) for file in facts if Path(file).exists()]
    return bool(there) and all(intact(file, facts) for file in there)


def _facts(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]
