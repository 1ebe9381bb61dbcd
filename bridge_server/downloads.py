"""Fetching models: licence first, then the files, verified and pinned.

A file that arrives is collected beside the cache's files, hashed from the disk, compared with the
hub's hash, and only then given its name; a broken transfer goes on where it stopped, in this run
or the next.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout

from bridge_server import catalogue, hub, library, selection
from bridge_server.cache import Fingerprint, Storage, fingerprint
from bridge_server.catalogue import Entry, Role
from bridge_server.config import Config
from bridge_server.errors import (
    CorruptDownload,
    DownloadFailed,
    NotAsPinned,
    NotEnoughSpace,
)
from bridge_server.hub import Hub, Interrupted, Listing, RemoteFile
from bridge_server.licences import accept
from bridge_server.lock import Lock, Locked, Pinned
from fresco.errors import InvalidInput, MissingWeights

if TYPE_CHECKING:  # it would bring torch along
    from collections.abc import Generator

    from fresco.callbacks import CancelToken

#: Bytes that stay free on the disk after a download.
SPARE = 512 << 20
#: Seconds to wait before each new try; counted anew whenever bytes arrived.
PAUSES = (1.0, 2.0, 4.0, 8.0)

_BRANCH = "main"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is: bytes that are here of all its bytes, and the file in work."""

    done: int
    total: int
    file: str


OnProgress = Callable[[Progress], None]


def ignore(_progress: Progress) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller asks for besides the model.

    accept_licence: the user has seen the licence and accepts it
    revision: a branch, tag or commit to change to; empty keeps the pinned one
    repair: replace files on disk that are not what was pinned
    """

    accept_licence: bool = False
    revision: str = ""
    repair: bool = False


def download(
    entry: Entry,
    config: Config,
    wish: Wish | None = None,
    on_progress: OnProgress = ignore,
    cancel: CancelToken | None = None,
) -> Locked:
    """Fetch what is missing of `entry`, verify all of it, and pin it.

    cancel: polled with every piece of a file that arrives or is hashed, and in every pause

    Raises:
        InvalidInput: it does not come from a hub, or its files cannot be told.
        LicenceNotAccepted: and nothing was fetched.
        NotEnoughSpace: before anything was fetched, or because the disk filled up meanwhile.
        DownloadFailed: what arrived is kept for the next try.
        CorruptDownload: what arrived was thrown away.
        NotAsPinned: the hub or the disk has something else than was pinned; nothing was changed.
        Cancelled: what arrived is kept for the next try.
    """
    wish = wish or Wish()
    if not entry.downloadable:
        raise InvalidInput(f"{entry.name} is on this machine already; there is nothing to fetch.")
    if config.forbidden:
        raise DownloadFailed(hub.offline(config.forbidden))
    accept(entry, config, wish.accept_licence)
    poll = cancel.check if cancel else _never_stop
    return _Download(entry, config, wish, on_progress, poll).run()


def ensure(
    name: str,
    role: Role | None,
    config: Config,
    on_progress: OnProgress = ignore,
    cancel: CancelToken | None = None,
) -> Path:
    """Locate a model; fetch it first if it is missing and the user's settings are not offline.

    For the server, which works for the user who is not at a command line. Licences are accepted
    at one.

    Raises:
        MissingWeights: it is missing and the settings are offline, as they are unless changed.
        Other errors: see `library.locate` and `download`.
    """
    try:
        return library.locate(name, role, settings=config)
    except MissingWeights:
        entry = None if library.is_path(name) else catalogue.load(config).find(name, role)
        if config.offline or entry is None or not entry.downloadable:
            raise
        download(entry, config, on_progress=on_progress, cancel=cancel)
    return library.locate(name, role, settings=config)


class _Download:
    """One run of `download`."""

    def __init__(
        self,
        entry: Entry,
        config: Config,
        wish: Wish,
        on_progress: OnProgress,
        poll: Callable[[], None],
    ) -> None:
        self._entry, self._config, self._wish, self._poll = entry, config, wish, poll
        self._on_progress = on_progress
        self._lock = Lock(config.lock_file)
        self._known = self._lock.get(entry.name)
        self._hub = Hub(config.endpoint, config.sends_token)
        self._storage = Storage(config.folder, entry.repository)
        self._finished = self._total = 0

    def run(self) -> Locked:
        revision = self._revision()
        listing = self._tried(lambda: self._hub.listing(self._entry.repository, revision))
        self._check_commit(listing, revision)
        files = [self._described(listing, path) for path in self._chosen(listing)]
        self._check_pins(files, listing.commit)
        self._total = sum(file.size for file in files)
        self._check_space(files, listing.commit)
        pins = {file.path: self._bring(file, listing.commit) for file in files}
        self._storage.remember(revision, listing.commit)
        return self._lock.update(
            self._entry.name,
            lambda known: Locked(self._entry.repository, listing.commit, pins, known.accepted),
        )

    def _revision(self) -> str:
        pinned = self._known.revision if self._known.repository == self._entry.repository else ""
        return self._wish.revision or pinned or self._entry.revision or _BRANCH

    def _check_commit(self, listing: Listing, revision: str) -> None:
        if revision == self._known.revision and listing.commit != revision:
            raise NotAsPinned(
                f"{self._config.endpoint} answers with commit {listing.commit} where "
                f"{self._entry.name} is pinned to {revision}; use another mirror."
            )

    def _chosen(self, listing: Listing) -> list[str]:
        return selection.choose(self._entry, list(listing.files))

    def _described(self, listing: Listing, path: str) -> RemoteFile:
        file = listing.files[path]
        if file.etag and file.size >= 0:
            return file
        return self._tried(lambda: self._hub.describe(self._entry.repository, listing.commit, path))

    def _check_pins(self, files: list[RemoteFile], commit: str) -> None:
        """Refuse a hub that has other content under the pinned commit than it had."""
        if commit != self._known.revision:
            return
        for file in files:
            pinned = self._known.files.get(file.path)
            stated = Fingerprint(file.size, file.etag, "")
            if pinned and (
                pinned.size != file.size
                or (len(file.etag) == 64 and stated.sha256 != pinned.sha256)
            ):
                raise NotAsPinned(
                    f"{self._config.endpoint} has another {file.path} at commit {commit} of "
                    f"{self._entry.repository} than was downloaded before; commits do not change, "
                    "so do not trust it: use another mirror."
                )

    def _check_space(self, files: list[RemoteFile], commit: str) -> None:
        missing = sum(self._missing(file, commit) for file in files)
        folder = _existing(self._config.folder)
        free = shutil.disk_usage(folder).free
        if missing and free < missing + SPARE:
            raise self._full(f"{_megabytes(missing + SPARE)} are needed, {_megabytes(free)} free")

    def _missing(self, file: RemoteFile, commit: str) -> int:
        if (self._storage.snapshot(commit) / file.path).exists():
            return 0
        if self._storage.blob(file.etag).exists():
            return 0
        return max(0, file.size - _size(self._storage.part(file.etag)))

    def _full(self, why: str) -> NotEnoughSpace:
        return NotEnoughSpace(
            f"{self._config.folder} has no room for {self._entry.name} ({why}); free some, or set "
            f"another folder in {self._config.settings_file}."
        )

    def _bring(self, file: RemoteFile, commit: str) -> Pinned:
        """Have `file` in its place, verified; return what it is."""
        self._poll()
        self._report(file, 0)
        with self._guarded(file):
            print_ = self._verified_here(file, commit) or self._fetched(file, commit)
        self._finished += file.size
        self._report(file, 0)
        return Pinned(print_.size, print_.sha256)

    def _verified_here(self, file: RemoteFile, commit: str) -> Fingerprint | None:
        """Fingerprint the file if it is on disk; None if it must be fetched."""
        pointer, blob = self._storage.snapshot(commit) / file.path, self._storage.blob(file.etag)
        path = pointer if pointer.exists() else blob
        if not path.exists():
            return None
        print_ = fingerprint(path, self._poll)
        if self._is(print_, file, commit):
            if path is blob:
                self._storage.place(commit, file.path, file.etag)
            return print_
        if self._wish.repair:
            return None
        raise NotAsPinned(
            f"{path} is not the file that {self._entry.repository} holds: it was changed, or its "
            f"disk failed. Nothing was touched; to fetch it again in its place, run "
            f"`{self._entry.command} --repair`."
        )

    def _is(self, print_: Fingerprint, file: RemoteFile, commit: str) -> bool:
        """Whether that is what the hub says, and what was pinned of this commit before."""
        pinned = self._known.files.get(file.path) if commit == self._known.revision else None
        if pinned is not None and pinned.sha256 != print_.sha256:
            return False
        return print_.size == file.size and print_.agrees(file.etag) is not False

    def _fetched(self, file: RemoteFile, commit: str) -> Fingerprint:
        part = self._storage.part(file.etag)
        part.parent.mkdir(parents=True, exist_ok=True)
        # Once more if it is bad: what was kept of an earlier run may be what spoilt it.
        print_ = self._collected(file, commit, part) or self._collected(file, commit, part)
        if print_ is None:
            raise CorruptDownload(
                f"{file.path} of {self._entry.repository} arrived twice from "
                f"{self._config.endpoint} with another content than its hash says, and was thrown "
                "away; try again later, or use another mirror."
            )
        os.replace(part, self._storage.blob(file.etag))
        self._storage.place(commit, file.path, file.etag)
        return print_

    def _collected(self, file: RemoteFile, commit: str, part: Path) -> Fingerprint | None:
        """Collect the whole file; None, and nothing left of it, if it is not what it should be."""
        try:
            self._tried(lambda: self._transfer(file, commit, part), lambda: _size(part))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full("it filled up during the download") from error
            raise
        print_ = fingerprint(part, self._poll)
        if self._is(print_, file, commit):
            return print_
        part.unlink()
        return None

    def _transfer(self, file: RemoteFile, commit: str, part: Path) -> None:
        """Append to `part` what the server sends; `Interrupted` if it is still not all."""
        have = _size(part)
        if have < file.size or not part.exists():
            with self._hub.stream(self._entry.repository, commit, file.path, have) as stream:
                self._write(file, part, stream)
        if _size(part) < file.size:
            raise Interrupted(f"the connection ended {file.size - _size(part)} bytes early.")

    def _write(self, file: RemoteFile, part: Path, stream: hub.Stream) -> None:
        with part.open("r+b" if part.exists() else "wb") as target:
            target.truncate(stream.start)
            have = target.seek(stream.start)
            for piece in stream.pieces:
                self._poll()
                target.write(piece)
                have += len(piece)
                self._report(file, min(have, file.size))
                if have > file.size:
                    return
            target.flush()
            os.fsync(target.fileno())

    def _tried(self, action: Callable[[], _T], arrived: Callable[[], int] = lambda: 0) -> _T:
        """Do `action` until it works; give up after some tries in which no bytes arrived."""
        failures, before = 0, arrived()
        while True:
            try:
                return action()
            except Interrupted as error:  # noqa: PERF203 - that is what the loop is for
                now = arrived()
                failures, before = (0 if now > before else failures), now
                if failures == len(PAUSES):
                    raise DownloadFailed(
                        f"{self._entry.name}: {error} What arrived is kept; the same command "
                        "goes on from there."
                    ) from error
                self._pause(PAUSES[failures])
                failures += 1

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._poll()
            time.sleep(min(left, 0.1))

    @contextmanager
    def _guarded(self, file: RemoteFile) -> Generator[None, None, None]:
        """Be the only process that fetches this content; wait while another does."""
        path = self._storage.guard(file.etag)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        while True:
            self._poll()
            try:
                lock.acquire(timeout=0.2)
                break
            except Timeout:
                continue
        try:
            yield
        finally:
            lock.release()

    def _report(self, file: RemoteFile, have: int) -> None:
        name = PurePosixPath(file.path).name
        self._on_progress(Progress(self._finished + have, self._total, name))


def _never_stop() -> None:
    """Let every piece go on."""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _existing(path: Path) -> Path:
    """Return the nearest folder above that exists: the disk that `path` will be on."""
    return path if path.exists() else _existing(path.parent)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
