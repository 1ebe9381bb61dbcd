"""Whether the files that a job reads are still what they were when it was settled.

A result is kept under a key of what it was made from. A file that is replaced during the work would
put results of its new content under keys of the old one, where every later job found them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bridge_server.errors import SourceChanged
from bridge_server.media import confine

_SAMPLE = 1 << 20
#: Bytes, nanoseconds and inode of each file.
Stats: TypeAlias = "tuple[tuple[int, int, int], ...]"


@dataclass(frozen=True, slots=True)
class Source:
    """Files that belong together, and what they were.

    word: `identity`
    """

    files: tuple[Path, ...]
    stats: Stats
    word: str

    @classmethod
    def of(cls, files: Iterable[Path]) -> Source:
        """Look at files as they are now.

        Raises:
            OSError: one is not there.
        """
        files = tuple(files)
        return cls(files, stats(files), identity(files))

    def check(self) -> None:
        """Check that the files are still the same.

        Raises:
            SourceChanged: one was replaced, changed or removed.
        """
        try:
            # Some network folders give the same file another inode now and then.
            same = stats(self.files) == self.stats or identity(self.files) == self.word
        except FileNotFoundError as error:
            raise SourceChanged(
                f"{error.filename} vanished while the job ran; put it back, and try again."
            ) from error
        except OSError as error:
            raise SourceChanged(f"{error.filename} cannot be read any more: {error}") from error
        if not same:
            raise SourceChanged(
                f"{self._name} was replaced or changed while the job ran; try again when it stays."
            )

    @property
    def _name(self) -> str:
        return str(self.files[0]) if len(self.files) == 1 else f"a file beside {self.files[0]}"


def stats(files: Iterable[Path]) -> Stats:
    """Return what can be known of files without reading them.

    Raises:
        OSError: one is not there.
    """
    found = (file.stat() for file in files)
    return tuple((own.st_size, own.st_mtime_ns, own.st_ino) for own in found)


def identity(files: Iterable[Path]) -> str:
    """A word for the content of files, however they are called: sizes, times, samples.

    A film of many gigabytes cannot be hashed for every command.
    """
    digest = hashlib.sha256()
    for file in files:
        with confine.file(file) as name, name.open("rb") as data:
            stat = os.fstat(data.fileno())
            digest.update(f"{stat.st_size}:{stat.st_mtime_ns}|".encode())
            digest.update(data.read(_SAMPLE if stat.st_size < 64 * _SAMPLE else _SAMPLE // 16))
    return digest.hexdigest()[:24]
