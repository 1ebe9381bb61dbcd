"""Files and frames from clients that share no disk with the server (PROTOCOL.md, section 10).

Each owner has a folder, and each upload one in it, both named by hashes: ids of two owners never
meet, nor do ids that a file system takes for the same (`a` and `A`) or for a device (`con`). What
is in a folder is told in `incoming`. One process at a time works in a folder of uploads, with any
number of threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bridge_server import incoming
from bridge_server.incoming import FileUpload, FramesUpload, Need, Source
from bridge_server.media import parts
from bridge_server.upload_limits import Limits
from fresco.errors import InvalidInput
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import (
    OfUpload,
    UploadBegin,
    UploadChunk,
    UploadFrame,
    UploadInfo,
)
from host_plugins.link.wire import Buffer

__all__ = ["Limits", "Need", "Source", "Uploads"]

_PREFIX = "upload:"
#: What a frame's or file's folder takes beside it, bytes.
_STATE_ROOM = 1 << 16
#: Views that nobody asked for within this time are removed, seconds; they are made again.
_VIEW_S = 3600.0
#: Requests for different uploads seldom wait for each other with so many locks.
_LOCKS = 64


class Uploads:
    """The uploads in one folder. All functions block, and may be called from any thread.

    Beside what they say themselves, those of requests raise BridgeError: no_space (the disk is
    full), forbidden (a link in the folder, which the server has not made).
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make the folder, for this user only.

        clock: seconds since 1970

        Raises:
            InvalidInput: it belongs to another user.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.limits = limits or Limits()
        self._clock = clock
        _make_private(self.folder)
        self._known: dict[str, dict[str, FileUpload | FramesUpload]] = {}
        self._guard = threading.Lock()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    # ------------------------------------------------------------------------------- requests

    def begin(self, owner: str, asked: UploadBegin) -> UploadInfo:
        """Begin to take a file, or go on.

        Raises:
            BridgeError: invalid (a name that is none, a size below 0), conflict (the id stands for
                something else), too_large, no_space, busy (too many uploads).
        """
        suffix = incoming.checked_suffix(asked.name)
        if asked.size < 0:
            raise BridgeError(Code.INVALID, f"size: {asked.size} is below 0")
        with self._turn(owner, asked.upload) as place:
            found = self._get(place)
            if found is None:
                self._admit(place, asked.size)
                incoming.check_room(self.folder, asked.size + _STATE_ROOM + self.limits.spare)
                found = FileUpload(self._make(place), owner, asked)
                assert found.file.suffix == suffix
                found.save()
                self._put(place, found)
            elif not isinstance(found, FileUpload) or found.asked != asked:
                raise _conflict(asked.upload)
            incoming.check_room(self.folder, asked.size - found.here)
            incoming.touch(place)
            return found.info()

    def chunk(self, owner: str, asked: UploadChunk) -> UploadInfo:
        """Take over what is new of a chunk.

        Raises:
            BridgeError: not_found, too_large, invalid (an offset below 0), bad_request (not one
                payload), conflict (beyond what is there, or beyond the size; or an id of frames).
        """
        data = _payload(asked.payloads)
        if memoryview(data).nbytes > self.limits.chunk:
            raise BridgeError(Code.TOO_LARGE, f"a chunk has at most {self.limits.chunk} bytes")
        if asked.offset < 0:
            raise BridgeError(Code.INVALID, f"offset: {asked.offset} is below 0")
        with self._turn(owner, asked.upload) as place:
            found = self._file(place, asked.upload)
            incoming.check_room(self.folder, memoryview(data).nbytes + self.limits.spare)
            found.write(asked.offset, data)
            return found.info()

    def end(self, owner: str, asked: OfUpload) -> UploadInfo:
        """Compare the file with its hash; then it can be used.

        Of a file that began to arrive before this process, all bytes are read again.

        Raises:
            BridgeError: not_found, wrong_state (bytes are missing), corrupt (another hash: it was
                thrown away), conflict (an id of frames).
        """
        with self._turn(owner, asked.upload) as place:
            found = self._file(place, asked.upload)
            try:
                found.end()
            except BridgeError as error:
                if error.code is Code.CORRUPT:
                    self._drop(place)
                raise
            incoming.touch(place)
            return found.info()

    def frame(self, owner: str, asked: UploadFrame) -> UploadInfo:
        """Take a frame; one of the same number is replaced, in one step.

        Raises:
            BridgeError: invalid (a number, form or size that cannot be), conflict (another form or
                rate than the first frame's; or an id of a file), bad_request (not one payload),
                too_large, no_space, busy (too many uploads).
        """
        data = _payload(asked.payloads)
        size = memoryview(data).nbytes
        with self._turn(owner, asked.upload) as place:
            found = self._get(place)
            if found is None:
                fresh = FramesUpload.of(place, owner, asked)
                fresh.check(asked)
                self._admit(place, size)
                self._make(place)
                fresh.save()
                self._put(place, fresh)
                found = fresh
            elif not isinstance(found, FramesUpload):
                raise _conflict(asked.upload)
            found.check(asked)
            self._admit(place, size, found)
        # Other frames of the clip are encoded at the same time.
        with _refusals():
            part = found.encode(asked, self.limits.spare)
        with self._turn(owner, asked.upload) as place:
            if self._get(place) is not found:
                parts.remove(part)
                raise BridgeError(
                    Code.BUSY, f"upload {asked.upload} was just removed", "send the frame again"
                )
            found.keep(part, asked.frame)
            incoming.touch(place)
            return found.info()

    # ----------------------------------------------------------------------------------- jobs

    def path(self, owner: str, ref: str) -> Path:
        """Return what a request's file name `upload:ID` stands for: a file, or a whole clip.

        Raises:
            BridgeError: see `source`.
        """
        return self.source(owner, ref).path

    def source(self, owner: str, ref: str, start: int = 0, stop: int | None = None) -> Source:
        """Return what `upload:ID` stands for in a request, and the rate to read it with.

        Of frames it is an image sequence whose frame 0 is the lowest number that was sent, and that
        ends at `stop`. It does not change while a job works on it, whatever is sent meanwhile.

        start, stop: frames that a job needs, its handles among them; None: all that are here

        Raises:
            BridgeError: not_found, wrong_state (not complete; says which frames are missing).
        """
        upload = self._id(ref)
        with self._turn(owner, upload) as place:
            found = self._need(place, upload)
            incoming.touch(place)
            return found.source(start, stop)

    def span(self, owner: str, ref: str, need: Need, clip: str = "") -> tuple[int, int | None]:
        """Return the frames [start, stop) of `upload:ID` that a request needs; see `source`.

        Of a file it is all of it.

        clip: what the request names as its clip

        Raises:
            BridgeError: not_found; invalid (a clip of frames, and no stop).
        """
        like_clip = clip.startswith(_PREFIX) and isinstance(
            self._get(self._place(owner, self._id(clip))), FramesUpload
        )
        upload = self._id(ref)
        with self._turn(owner, upload) as place:
            found = self._need(place, upload)
            return found.span(need, like_clip) if isinstance(found, FramesUpload) else (0, None)

    def touch(self, owner: str, ref: str) -> None:
        """Note that `upload:ID` is used now.

        Raises:
            BridgeError: not_found.
        """
        upload = self._id(ref)
        with self._turn(owner, upload) as place:
            self._need(place, upload)
            incoming.touch(place)

    def missing(
        self, owner: str, ref: str, start: int = 0, stop: int | None = None
    ) -> tuple[range, ...]:
        """Return the frames of [start, stop) that a job on `upload:ID` must still wait for.

        They are counted from the lowest number that is here. Of a complete file there are none. To
        look is no use of the upload: a job that waits in vain must not keep it for ever.

        Raises:
            BridgeError: not_found, wrong_state (a file that is not complete), invalid (no span).
        """
        upload = self._id(ref)
        with self._turn(owner, upload) as place:
            return self._need(place, upload).missing(start, stop)

    def key(self, owner: str, ref: str) -> str:
        """Return a name of the upload `upload:ID`, for `expire`, that no other owner's has.

        Raises:
            BridgeError: not_found (no such form of a name).
        """
        return self._place(owner, self._id(ref)).relative_to(self.folder).as_posix()

    def expire(self, in_use: Collection[str], now: float | None = None) -> tuple[str, ...]:
        """Remove the uploads that were not used for `upload_s` seconds, and return their keys.

        in_use: keys of uploads that jobs need; their time begins anew
        now: seconds since 1970; the clock's where None
        """
        now = self._clock() if now is None else now
        needed, gone = frozenset(in_use), list[str]()
        for place in _places(self.folder):
            name = place.relative_to(self.folder).as_posix()
            with self._lock(place):
                if name in needed:
                    incoming.touch(place)
                    continue
                found = self._get(place)
                if now - incoming.last_used(place) > self.limits.upload_s:
                    self._drop(place)
                    gone += [name] if found else []
                elif isinstance(found, FramesUpload):
                    found.prune(now - _VIEW_S)
        return tuple(gone)

    # ----------------------------------------------------------------------------- bookkeeping

    @staticmethod
    def _id(ref: str) -> str:
        if not ref.startswith(_PREFIX):
            raise BridgeError(Code.NOT_FOUND, f"{ref!r} names no upload")
        return OfUpload.from_table({"upload": ref.removeprefix(_PREFIX)}).upload

    def _place(self, owner: str, upload: str) -> Path:
        return self.folder / _hashed(owner) / _hashed(upload)

    def _lock(self, place: Path) -> threading.Lock:
        return self._locks[int(place.name, 16) % _LOCKS]

    @contextmanager
    def _turn(self, owner: str, upload: str) -> Generator[Path]:
        """Have an upload to oneself, and say what a failing disk means."""
        place = self._place(owner, upload)
        with self._lock(place), _refusals():
            for folder in (place.parent, place):
                if os.path.lexists(folder):
                    incoming.check_folder(folder)
            yield place

    def _of_owner(self, place: Path) -> dict[str, FileUpload | FramesUpload]:
        """The uploads of an owner, by the names of their folders; read once."""
        if place.parent.name not in self._known:
            mine: dict[str, FileUpload | FramesUpload] = {}
            for each in _folders(place.parent):
                found = incoming.load(each)
                if found is not None and self._place(found.owner, _id_of(found)) == each:
                    mine[each.name] = found
            self._known[place.parent.name] = mine
        return self._known[place.parent.name]

    def _get(self, place: Path) -> FileUpload | FramesUpload | None:
        with self._guard:
            return self._of_owner(place).get(place.name)

    def _put(self, place: Path, upload: FileUpload | FramesUpload) -> None:
        with self._guard:
            self._of_owner(place)[place.name] = upload

    def _drop(self, place: Path) -> None:
        with self._guard:
            self._of_owner(place).pop(place.name, None)
        incoming.clear(place)

    def _need(self, place: Path, upload: str) -> FileUpload | FramesUpload:
        found = self._get(place)
        if found is None:
            raise BridgeError(
                Code.NOT_FOUND, f"there is no upload {upload}", "begin it; unused ones are removed"
            )
        return found

    def _file(self, place: Path, upload: str) -> FileUpload:
        found = self._need(place, upload)
        if not isinstance(found, FileUpload):
            raise _conflict(upload)
        return found

    def _make(self, place: Path) -> Path:
        """Make an upload's folder, without what an interrupted removal may have left in it."""
        incoming.folder_in(self.folder, place.parent.name)
        incoming.folder_in(place.parent, place.name)
        incoming.clear(place)
        return incoming.folder_in(place.parent, place.name)

    def _admit(self, place: Path, more: int, upload: FramesUpload | None = None) -> None:
        """Check the limits for `more` bytes, of a new upload or beside what is there of one."""
        with self._guard:
            mine = self._of_owner(place)
            count, held = len(mine), sum(each.claim for each in mine.values())
        own = upload.claim if upload else 0
        for what, size, limit in (
            ("an upload", own + more, self.limits.upload),
            ("all your uploads", held + more, self.limits.owner),
        ):
            if size > limit:
                raise BridgeError(
                    Code.TOO_LARGE, f"{what} may have {limit} bytes, and this makes {size}"
                )
        if upload is None and count >= self.limits.count:
            raise BridgeError(
                Code.BUSY,
                f"there are {count} uploads of yours",
                f"unused ones are removed after {self.limits.upload_s:.0f} s",
            )


def _make_private(folder: Path) -> None:
    if os.name == "nt":  # the user's own folders are private there
        return
    known = folder.stat()
    if known.st_uid != os.geteuid():
        raise InvalidInput(f"{folder} belongs to another user; name another folder.")
    if known.st_mode & 0o077:
        folder.chmod(0o700)


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _id_of(upload: FileUpload | FramesUpload) -> str:
    return upload.upload if isinstance(upload, FramesUpload) else upload.asked.upload


def _folders(folder: Path) -> list[Path]:
    """The folders named by a hash in a folder; links are none."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if _is_hash(path.name))
    return [path for path in named if path.is_dir() and not path.is_symlink()]


def _places(folder: Path) -> list[Path]:
    return [place for owner in _folders(folder) for place in _folders(owner)]


def _is_hash(name: str) -> bool:
    return len(name) == 32 and not set(name) - set("0123456789abcdef")


def _payload(payloads: Sequence[Buffer]) -> Buffer:
    if len(payloads) != 1:
        raise BridgeError(Code.BAD_REQUEST, f"one payload is needed, and {len(payloads)} came")
    return payloads[0]


def _conflict(upload: str) -> BridgeError:
    return BridgeError(
        Code.CONFLICT, f"upload {upload} is another file or clip", "use another id for this one"
    )


@contextmanager
def _refusals() -> Generator[None]:
    """Say what a failing disk means."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BridgeError(
                Code.NO_SPACE, "the server's disk is full", "make room there, and send it again"
            ) from error
        raise
