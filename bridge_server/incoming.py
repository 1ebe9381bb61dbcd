"""One upload on the disk: a file that grows by chunks, or a clip's frames in any order.

    state.json      what it is; renamed into its place, so that it is whole or not there
    file.mp4        of a file: its bytes so far. Its length is how much arrived, without a gap
    frames/         of frames: an image for each
    views/          of frames: runs of them under numbers from 0, as hard links, for jobs

A server may be killed at any moment: what is here then is all that the next one needs. Nothing here
is reached through a link, and no name comes from a client but a checked suffix.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from bridge_server import raster
from bridge_server.media import parts, sequences
from bridge_server.media.errors import NotWritten
from host_plugins.link import timing
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import UploadBegin, UploadFrame, UploadInfo
from host_plugins.link.wire import Buffer

STATE, _FRAMES, _VIEWS = "state.json", "frames", "views"
#: What lies in an upload's folder, and in the folders in it; nothing else is ever removed.
_OURS = re.compile(r"state\.json|file(\.[a-z0-9]{1,16})?|\.fresco-.*")
_IMAGE = re.compile(r"frame\.(\d{10})\.(png|exr)")
_VIEW = re.compile(r"[0-9a-f]{32}|\.fresco-.*")
_VIEWED = re.compile(r"frame\.\d{6,}\.(png|exr)")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")
#: Names that Windows keeps for devices, whatever their suffix.
_DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I | re.S
)
#: Frames have numbers from -2^31 to 2^31 - 1; files' names begin with 0 at the lowest of them.
_BIAS = 1 << 31
#: No view is longer, frames.
_LONGEST = 1 << 20
#: A state is small; more is none of ours.
_STATE_BYTES = 1 << 16
_PIECE = 1 << 20
#: What an image has beside its samples, bytes.
_HEADER = 1 << 16
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_FLAGS = _NO_FOLLOW | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, slots=True)
class Source:
    """A clip for a request. rate: frames per second as a text; empty: the file says its own."""

    path: Path
    rate: str = ""


def checked_suffix(name: str) -> str:
    """Return the suffix of a client's file, in small letters; empty where it has no plain one.

    Raises:
        BridgeError: it is no name of a file on every system (invalid).
    """
    why = _wrong(name)
    if why:
        told = repr(name if len(name) <= 60 else f"{name[:57]}...")
        raise BridgeError(
            Code.INVALID, f"name: {told} {why}", "give the file's name without its folder"
        )
    suffix = Path(name).suffix
    return suffix.lower() if _SUFFIX.fullmatch(suffix) else ""


def _wrong(name: str) -> str:
    """What is wrong with a file's name; empty: nothing."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is no text"
    if not name or size > 255:
        return "is empty, or longer than 255 bytes"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "has control characters"
    if "/" in name or "\\" in name or re.match("[A-Za-z]:", name) or name in (".", ".."):
        return "has a folder or a drive in it"
    if name != name.rstrip(". "):
        return "ends in a dot or a space"
    return "is kept for a device on Windows" if _DEVICES.fullmatch(name) else ""


# ------------------------------------------------------------------------------------------- files


@dataclass(slots=True, eq=False)
class FileUpload:
    """A file on its way. Not for several threads at once.

    place: its folder
    digest, hashed: the hash of as many bytes from the beginning, kept up while they arrive
    """

    place: Path
    owner: str
    asked: UploadBegin
    ended: bool = False
    _digest: Any = field(default_factory=hashlib.sha256)
    _hashed: int = 0

    @property
    def file(self) -> Path:
        """Where its bytes are."""
        return self.place / f"file{checked_suffix(self.asked.name)}"

    @property
    def claim(self) -> int:
        """Bytes that it takes when it is complete."""
        return self.asked.size

    @property
    def here(self) -> int:
        """Bytes that are on the disk."""
        with suppress(FileNotFoundError):
            return _plain_file(self.file).st_size
        return 0

    @property
    def complete(self) -> bool:
        """Whether all is here, and has the hash that was said."""
        return self.ended and self.here == self.asked.size

    def info(self) -> UploadInfo:
        """Return how far it is."""
        name = f"upload:{self.asked.upload}" if self.complete else ""
        return UploadInfo(upload=self.asked.upload, offset=self.here, file=name)

    def save(self) -> None:
        """Write what it is."""
        facts = {**self.asked.table(), "kind": "file", "owner": self.owner, "ended": self.ended}
        _write_state(self.place, facts)

    def write(self, offset: int, data: Buffer) -> None:
        """Append what is new of a chunk.

        Raises:
            BridgeError: it begins beyond what is here, or ends beyond the size (conflict).
        """
        with opened(self.file, os.O_RDWR | os.O_CREAT) as handle:
            here = os.fstat(handle).st_size
            end = offset + memoryview(data).nbytes
            if offset > here or end > self.asked.size:
                raise BridgeError(
                    Code.CONFLICT,
                    f"bytes {offset} to {end} came, where {here} of {self.asked.size} are here",
                    "go on at the offset that upload.begin says",
                )
            if end > here:
                os.lseek(handle, here, os.SEEK_SET)
                self._append(handle, memoryview(data).cast("B")[here - offset :], here)

    def _append(self, handle: int, data: memoryview, here: int) -> None:
        while data:
            written = os.write(handle, data[:_PIECE])
            if self._hashed == here:
                self._digest.update(data[:written])
                self._hashed += written
            here, data = here + written, data[written:]

    def end(self) -> None:
        """Compare the file with its hash, bring it to the disk and note that it is complete.

        Raises:
            BridgeError: bytes are missing (wrong_state), or it has another hash (corrupt); then
                it is for the caller to remove it.
        """
        if self.complete:
            return
        if self.here != self.asked.size:
            raise BridgeError(
                Code.WRONG_STATE,
                f"{self.here} of {self.asked.size} bytes are here",
                "send the rest, from the offset that upload.begin says",
            )
        with opened(self.file, os.O_RDWR | os.O_CREAT) as handle:
            self._catch_up(handle)
            if self._digest.hexdigest() != self.asked.sha256:
                raise BridgeError(
                    Code.CORRUPT,
                    f"{self.asked.name} has another hash than was said, and was thrown away",
                    "send it again",
                )
            os.fsync(handle)
        self.ended = True
        self.save()

    def _catch_up(self, handle: int) -> None:
        """Hash what arrived before this process, or was not hashed for another reason."""
        if self._hashed > os.fstat(handle).st_size:
            self._digest, self._hashed = hashlib.sha256(), 0
        os.lseek(handle, self._hashed, os.SEEK_SET)
        while piece := os.read(handle, _PIECE):
            self._digest.update(piece)
            self._hashed += len(piece)

    def missing(self, start: int, stop: int | None) -> tuple[range, ...]:
        """Nothing, once it is complete; `start` and `stop` do not matter.

        Raises:
            BridgeError: it is not complete (wrong_state).
        """
        del start, stop
        if not self.complete:
            raise BridgeError(
                Code.WRONG_STATE, f"upload {self.asked.upload} is not complete", "upload.end first"
            )
        return ()

    def source(self, start: int, stop: int | None) -> Source:
        """Return the file.

        Raises:
            BridgeError: see `missing`.
        """
        self.missing(start, stop)
        return Source(self.file)


# ------------------------------------------------------------------------------------------ frames


@dataclass(frozen=True, slots=True)
class Need:
    """What a request needs of an upload.

    role: what it is there for: "clip", "beside" (a mask, a subject, maps) or "picture"
    start, stop, handles: of the request
    """

    role: str = "clip"
    start: int = 0
    stop: int | None = None
    handles: int = 0

    @property
    def of_clip(self) -> tuple[int, int | None]:
        """The clip's frames that are read: [first, behind the last)."""
        stop = None if self.stop is None else self.stop + self.handles
        return max(0, self.start - self.handles), stop


@dataclass(slots=True, eq=False)
class FramesUpload:
    """A clip whose frames are sent one by one. Not for several threads at once, but `encode`.

    form: of every frame; rate: as the first frame said it
    numbers: of the frames that are here, ascending; sizes: bytes of their files
    """

    place: Path
    owner: str
    upload: str
    form: raster.Form
    rate: str
    numbers: list[int] = field(default_factory=list[int])
    sizes: dict[int, int] = field(default_factory=dict[int, int])

    @classmethod
    def of(cls, place: Path, owner: str, asked: UploadFrame) -> FramesUpload:
        """Return an upload of frames such as `asked`.

        Raises:
            BridgeError: a form or rate that cannot be (invalid).
        """
        form = form_of(asked)
        _rate(asked.rate)
        return cls(place, owner, asked.upload, form, asked.rate)

    @property
    def claim(self) -> int:
        """Bytes that its frames take."""
        return sum(self.sizes.values())

    @property
    def _suffix(self) -> str:
        return raster.suffix(self.form)

    def info(self) -> UploadInfo:
        """Return how many frames are here."""
        name = f"upload:{self.upload}" if self.numbers else ""
        return UploadInfo(upload=self.upload, offset=len(self.numbers), file=name)

    def check(self, asked: UploadFrame) -> None:
        """Check that another frame goes with those that are here.

        Raises:
            BridgeError: another form or rate (conflict), a number or size that is none (invalid).
        """
        raster.check_size(asked.payloads[0], form_of(asked))
        if not -_BIAS <= asked.frame < _BIAS:
            raise BridgeError(Code.INVALID, f"frame: {asked.frame} is not in 32 bits")
        if form_of(asked) != self.form or _rate(asked.rate) != _rate(self.rate):
            raise BridgeError(
                Code.CONFLICT,
                f"frame {asked.frame} of upload {self.upload} has another form or rate than the "
                "first one",
                "use another id for another clip",
            )

    def save(self) -> None:
        """Write what it is."""
        facts = {name: getattr(self.form, name) for name in self.form.__slots__}
        facts |= {"upload": self.upload, "rate": self.rate, "frame": 0}
        _write_state(self.place, {**facts, "kind": "frames", "owner": self.owner})

    def encode(self, asked: UploadFrame, spare: int) -> Path:
        """Write a frame as an image beside the others, and return it; `keep` takes it over.

        spare: bytes that must stay free on the disk

        Raises:
            BridgeError: the disk is full (no_space).
        """
        pixels, layout = raster.kept(asked.payloads[0], self.form)
        folder = folder_in(self.place, _FRAMES)
        check_room(folder, pixels.nbytes + _HEADER + spare)
        part = parts.name(folder, self._suffix)
        try:
            sequences.write_new(part, pixels, layout, _rate(self.rate))
            parts.to_disk(part)
        except NotWritten as error:
            parts.remove(part)
            check_room(folder, pixels.nbytes + _HEADER)
            raise BridgeError(Code.INTERNAL, f"frame {asked.frame}: {error}") from error
        except BaseException:
            parts.remove(part)
            raise
        return part

    def keep(self, part: Path, number: int) -> None:
        """Make an image the frame `number`; one of the same content stays as it is.

        So a frame that is only sent again does not make the clip another one.
        """
        folder_in(self.place, _FRAMES)
        target = self._image(number)
        if _is_plain(target) and _same(part, target):
            parts.remove(part)
        else:
            parts.move(part, target)
        if number not in self.sizes:
            self.numbers.insert(bisect_left(self.numbers, number), number)
        self.sizes[number] = target.lstat().st_size

    def _image(self, number: int) -> Path:
        return self.place / _FRAMES / f"frame.{number + _BIAS:010d}{self._suffix}"

    def scan(self) -> None:
        """Look which frames are here."""
        folder = self.place / _FRAMES
        if not _is_folder(folder):
            return
        parts.sweep(folder)
        for path in folder.iterdir():
            found = _IMAGE.fullmatch(path.name)
            if found and path.suffix == self._suffix and _is_plain(path):
                self.sizes[int(found[1]) - _BIAS] = path.lstat().st_size
        self.numbers = sorted(self.sizes)

    def span(self, need: Need, like_clip: bool) -> tuple[int, int | None]:
        """Return the frames [start, stop) that a request needs, counted from the lowest one here.

        What is beside the clip is an image, or as long as what is wanted of the clip, or as long as
        the clip (PROTOCOL.md, section 9); which of them is seen from how much is here.

        like_clip: the clip is sent as frames too, and so ends where its last one is needed

        Raises:
            BridgeError: a clip, and where it ends was not said (invalid).
        """
        if need.role == "picture":
            return 0, 1
        if need.role == "clip":
            if need.stop is None:
                raise BridgeError(
                    Code.INVALID,
                    f"stop: upload {self.upload} is sent as frames, and which one is the last is "
                    "not said",
                    "give stop, the first frame behind those that are wanted",
                )
            return need.of_clip
        here = self.numbers[-1] + 1 - self.numbers[0] if self.numbers else 0
        if here == 1:
            return 0, 1
        if need.stop is not None and here <= need.stop - need.start:
            return 0, need.stop - need.start
        return need.of_clip if like_clip and need.stop is not None else (0, None)

    def missing(self, start: int, stop: int | None) -> tuple[range, ...]:
        """Return the frames of [start, stop) that are not here, counted from the lowest one here.

        stop: None: up to the highest one here

        Raises:
            BridgeError: no span (invalid).
        """
        first = self.numbers[0] if self.numbers else 0
        end = self.numbers[-1] + 1 - first if stop is None and self.numbers else stop or 0
        if not 0 <= start <= end:
            raise BridgeError(Code.INVALID, f"there are no frames from {start} to {end}")
        found, expected = list[range](), start
        for number in self._between(start, end):
            if number > expected:
                found.append(range(expected, number))
            expected = number + 1
        return tuple(found + [range(expected, end)] * (expected < end))

    def _between(self, start: int, end: int) -> Iterator[int]:
        first = self.numbers[0] if self.numbers else 0
        for place in range(bisect_left(self.numbers, first + start), len(self.numbers)):
            if self.numbers[place] >= first + end:
                return
            yield self.numbers[place] - first

    def source(self, start: int, stop: int | None) -> Source:
        """Return the frames up to `stop` as an image sequence, the lowest one being its frame 0.

        The sequence does not change, also where a frame is sent again later. A frame before `start`
        that is not here is shown as the next one that is.

        Raises:
            BridgeError: frames are missing, or there is none (wrong_state); too many (too_large).
        """
        missing = self.missing(start, stop)
        if missing or not self.numbers:
            told = ", ".join(f"{each.start} to {each.stop - 1}" for each in missing[:5])
            raise BridgeError(
                Code.WRONG_STATE, f"upload {self.upload} lacks the frames {told or 'of a clip'}"
            )
        end = self.numbers[-1] + 1 - self.numbers[0] if stop is None else stop
        if end > _LONGEST:
            raise BridgeError(Code.TOO_LARGE, f"a clip of {end} frames; at most {_LONGEST}")
        return Source(self._view(self._files(end)) / f"frame.######{self._suffix}", self.rate)

    def _files(self, end: int) -> list[Path]:
        """The image of every frame of [0, end)."""
        places = (bisect_left(self.numbers, self.numbers[0] + frame) for frame in range(end))
        return [self._image(self.numbers[place]) for place in places]

    def _view(self, files: Sequence[Path]) -> Path:
        folder = folder_in(self.place, _VIEWS)
        folder_in(self.place, _FRAMES)
        place = folder / _fingerprint(files)
        if not _is_folder(place):
            desk = parts.name(folder)
            desk.mkdir(mode=0o700)
            for number, file in enumerate(files):
                _link(file, desk / f"frame.{number:06d}{self._suffix}")
            desk.rename(place)
        os.utime(place)
        return place

    def prune(self, before: float) -> None:
        """Remove the views that were last asked for before `before`, seconds since 1970."""
        folder = self.place / _VIEWS
        for view in _children(folder, _VIEW):
            if view.lstat().st_mtime < before:
                _clear_folder(view, _VIEWED)


def form_of(asked: UploadFrame) -> raster.Form:
    """Return the form of a frame.

    Raises:
        BridgeError: it cannot be (invalid).
    """
    return raster.Form(asked.width, asked.height, asked.depth, asked.components, asked.colour)


def _rate(told: str) -> Fraction | None:
    try:
        return timing.parse_rate(told) if told else None
    except ValueError as error:
        raise BridgeError(Code.INVALID, f"rate: {error}", 'write "24" or "30000/1001"') from error


def _fingerprint(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        known = file.lstat()
        digest.update(f"{file.name}:{known.st_size}:{known.st_mtime_ns}|".encode())
    return digest.hexdigest()[:32]


def _link(file: Path, name: Path) -> None:
    if not _is_plain(file):
        raise _not_ours(file)
    try:
        os.link(file, name)
    except OSError:  # a disk without links
        shutil.copy2(file, name, follow_symlinks=False)


def _same(first: Path, second: Path) -> bool:
    return first.stat().st_size == second.stat().st_size and (
        first.read_bytes() == second.read_bytes()
    )


# ----------------------------------------------------------------------------------------- folders


def load(place: Path) -> FileUpload | FramesUpload | None:
    """Return the upload in a folder as it was left; None if there is none that can be read."""
    facts = _read_state(place)
    try:
        owner, upload = str(facts["owner"]), str(facts["upload"])
        if facts["kind"] == "frames":
            found = FramesUpload.of(place, owner, UploadFrame.from_table(facts))
            found.scan()
            return found
        asked = UploadBegin.from_table(facts)
        checked_suffix(asked.name)
        return FileUpload(place, owner, asked, facts["ended"] is True) if upload else None
    except (BridgeError, KeyError):
        return None


def last_used(place: Path) -> float:
    """When something was last done with the upload in a folder, seconds since 1970."""
    times = [place.lstat().st_mtime]
    for name in (STATE, _FRAMES, *(path.name for path in _children(place, _OURS))):
        with suppress(OSError):
            times.append((place / name).lstat().st_mtime)
    return max(times)


def touch(place: Path) -> None:
    """Note that the upload in a folder is used now."""
    with suppress(OSError):
        if _is_plain(place / STATE):
            os.utime(place / STATE)


def clear(place: Path) -> None:
    """Remove the upload in a folder, its state first, and nothing that is not its own."""
    with suppress(FileNotFoundError):
        (place / STATE).unlink()
    for view in _children(place / _VIEWS, _VIEW):
        _clear_folder(view, _VIEWED)
    for folder, names in ((_VIEWS, _VIEW), (_FRAMES, re.compile(f"{_IMAGE.pattern}|\\.fresco-.*"))):
        _clear_folder(place / folder, names)
    _clear_folder(place, _OURS)


def _clear_folder(folder: Path, names: re.Pattern[str]) -> None:
    """Remove the files of those names, and the folder if nothing is left; of a link the link."""
    with suppress(OSError):
        if stat.S_ISLNK(folder.lstat().st_mode):
            folder.unlink()
    for path in _children(folder, names):
        with suppress(OSError):  # of a folder; or, on Windows, somebody reads it: the next time
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def _children(folder: Path, names: re.Pattern[str]) -> list[Path]:
    if not _is_folder(folder):
        return []
    return [path for path in folder.iterdir() if names.fullmatch(path.name)]


def folder_in(place: Path, name: str) -> Path:
    """Return a folder in `place`, made if it is not there.

    Raises:
        BridgeError: something else is there, or a link to a folder (forbidden).
    """
    folder = place / name
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    check_folder(folder)
    return folder


def check_folder(folder: Path) -> None:
    """Check that a folder is one.

    Raises:
        BridgeError: it is something else, or a link (forbidden).
    """
    if not _is_folder(folder):
        raise _not_ours(folder)


def _is_folder(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISDIR(path.lstat().st_mode)
    return False


def _is_plain(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def _plain_file(path: Path) -> os.stat_result:
    """What is known of a file that is no link, and no second name of another one."""
    known = path.lstat()
    if not stat.S_ISREG(known.st_mode) or known.st_nlink > 1:
        raise _not_ours(path)
    return known


def _not_ours(path: Path) -> BridgeError:
    return BridgeError(
        Code.FORBIDDEN,
        f"{path.name} in the folder of uploads is a link, or another thing than the server made",
        "look who has put it there, and remove it",
    )


@contextmanager
def opened(path: Path, flags: int) -> Generator[int]:
    """Open a file of an upload, and never what a link leads to.

    Raises:
        BridgeError: it is a link, or no file (forbidden).
        OSError: it cannot be opened.
    """
    try:
        handle = os.open(path, flags | _FLAGS, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _not_ours(path) from error
        raise
    try:
        known = os.fstat(handle)
        if not stat.S_ISREG(known.st_mode) or known.st_nlink > 1 or path.is_symlink():
            raise _not_ours(path)
        yield handle
    finally:
        os.close(handle)


def check_room(folder: Path, needed: int) -> None:
    """Check that so many bytes are free.

    Raises:
        BridgeError: they are not (no_space).
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BridgeError(
            Code.NO_SPACE,
            f"the upload needs {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free",
            "make room on the server's disk",
        )


def _write_state(place: Path, facts: dict[str, Any]) -> None:
    part = place / f".fresco-{secrets.token_hex(8)}"
    try:
        with opened(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as handle:
            os.write(handle, json.dumps(facts).encode())
            os.fsync(handle)
        parts.move(part, place / STATE)
        parts.to_disk(place)
    finally:
        part.unlink(missing_ok=True)


def _read_state(place: Path) -> dict[str, Any]:
    try:
        if not _is_folder(place):
            return {}
        with opened(place / STATE, os.O_RDONLY) as handle:
            facts = json.loads(os.read(handle, _STATE_BYTES))
    except (OSError, ValueError, BridgeError):
        return {}
    return facts if isinstance(facts, dict) else {}
