"""The models' folder, in the layout of the Hugging Face cache.

    models--owner--name/blobs/<etag>                the files, by content
    models--owner--name/snapshots/<commit>/<path>   links to them, or the files where links fail
    models--owner--name/refs/<revision>             which commit a branch was at

So what other programs fetched is found here, and what is fetched here is found by them. A file
that is on its way is called blobs/<etag>.fresco-bridge.part, which nobody reads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridge_server.pieces import pieces

_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a file contains.

    size: bytes
    sha256: of the bytes
    blob: git's SHA-1, of the bytes with a header before them
    """

    size: int
    sha256: str
    blob: str

    def agrees(self, etag: str) -> bool | None:
        """Whether the content is what `etag` names; None if it is no hash of content."""
        if _SHA256.fullmatch(etag):
            return etag == self.sha256
        return etag == self.blob if _SHA1.fullmatch(etag) else None


def fingerprint(path: Path, poll: Callable[[], None] = lambda: None) -> Fingerprint:
    """Read `path` once, piece by piece, calling `poll` before each."""
    size = path.stat().st_size
    sha256, blob = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    for piece in pieces(path, poll):
        sha256.update(piece)
        blob.update(piece)
    return Fingerprint(size, sha256.hexdigest(), blob.hexdigest())


class Storage:
    """The files of one repository in the models' folder."""

    def __init__(self, folder: Path, repository: str) -> None:
        name = "--".join(["models", *repository.split("/")])
        self._root = folder / name
        self._guards = folder / ".locks" / name

    def snapshot(self, commit: str) -> Path:
        """Return the folder of `commit`; it need not exist."""
        return self._root / "snapshots" / commit

    def blob(self, etag: str) -> Path:
        """Return where the content called `etag` is kept."""
        return self._root / "blobs" / etag

    def part(self, etag: str) -> Path:
        """Return where the content called `etag` is collected while it arrives."""
        return self._root / "blobs" / f"{etag}.fresco-bridge.part"

    def guard(self, etag: str) -> Path:
        """Return the file that is locked by whoever fetches `etag`; Hugging Face's own too."""
        return self._guards / f"{etag}.lock"

    def commits(self) -> list[str]:
        """Return the commits of which there is something: main's first, then the newest."""
        main = self._root / "refs" / "main"
        first = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
        folders = self._root / "snapshots"
        found = [path for path in folders.glob("*") if path.is_dir()]
        found.sort(key=lambda path: (path.name != first, -path.stat().st_mtime))
        return [path.name for path in found]

    def paths(self, commit: str) -> list[str]:
        """Return the files there are of `commit`, as paths in the repository."""
        root = self.snapshot(commit)
        return sorted(
            path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
        )

    def place(self, commit: str, path: str, etag: str) -> Path:
        """Make the content called `etag` the file `path` of `commit`, replacing what is there."""
        pointer, blob = self.snapshot(commit) / path, self.blob(etag)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        fresh = pointer.with_name(f".{pointer.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        try:
            fresh.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # Windows without the privilege: the file itself, as the hub's library does
            os.replace(blob, fresh)
        os.replace(fresh, pointer)
        return pointer

    def remember(self, revision: str, commit: str) -> None:
        """Note that the branch or tag `revision` is at `commit`."""
        if revision == commit:
            return
        ref = self._root / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit, encoding="utf-8")


def etag_of(path: Path) -> str:
    """Return what the cache says a file contains: the name of what it links to."""
    return path.resolve().name if path.is_symlink() else ""
