"""Where frames go: a container or images beside the target, moved into its place at the end."""

from __future__ import annotations

import errno
import io
import shutil
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from bridge_server.errors import NotEnoughSpace
from bridge_server.media import audio, confine, parts, profiles, sequences
from bridge_server.media.clip import Clip
from bridge_server.media.colour import Form
from bridge_server.media.errors import NotWritten, UnsupportedMedia
from bridge_server.media.frame import Frame, to_av
from bridge_server.media.profiles import Profile, start_timecode
from bridge_server.media.suffixes import SUFFIXES

#: Ticks in a second that a written file has at least.
_TICKS = 90_000
#: Of fewer frames than x265 looks ahead to reorder them, it gives decoding times at random.
_REORDERED = 8
#: More than the header of an image has, and what a file system keeps beside it.
_HEADER = 1 << 16
_FAILURES = (FFmpegError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be written.

    target: a container; or a pattern of images (``name.####.exr``)
    span: source frames
    accept: properties in which the result may be less than the source ("alpha", "bit depth")
    """

    target: Path
    clip: Clip
    span: range
    profile: Profile
    accept: frozenset[str] = frozenset()
    overwrite: bool = False


def files(job: Job) -> list[Path]:
    """The files that will be there in the end."""
    if not job.profile.images:
        return [job.target]
    names = sequences.pattern(job.target)
    return [names.file(number(job, index)) for index in job.span]


def number(job: Job, index: int) -> int:
    """The number of a frame's file: the source's own where it is a sequence."""
    return sequences.number(job.clip.files[index]) if job.clip.files else index


def _container(job: Job) -> str:
    return SUFFIXES[job.target.suffix.lower()]


@contextmanager
def refusals(
    target: Path, only: type[BaseException] | tuple[type[BaseException], ...] = _FAILURES
) -> Generator[None]:
    """Say what a failing muxer, encoder or disk means."""
    try:
        yield
    except only as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughSpace(
                f"{target.name} does not fit on the disk; make room and try again."
            ) from error
        if not target.parent.is_dir():
            raise NotWritten(
                f"the folder {target.parent} is not there any more; make it, or choose another."
            ) from error
        raise NotWritten(f"{target} cannot be written: {error}") from error


def _clock(clip: Clip, lead: Fraction) -> tuple[Fraction, Fraction]:
    """Return the time base to write in, and the offset of the first frame, in seconds.

    At a constant rate a frame is a whole number of ticks; else the source's own clock is kept.
    """
    if clip.variable:
        return clip.time_base, lead
    fine = -(-_TICKS // clip.rate.numerator)
    return Fraction(1, clip.rate.numerator * fine), lead


def _muxer(job: Job) -> dict[str, str]:
    """What the containers are told.

    A stream that has ended must not make the muxer hold back ten seconds of the others. Matroska:
    no random numbers, so that the same frames make the same bytes. MP4 and MOV: the clock in which
    they say where a stream begins, whose default is milliseconds.
    """
    options = {"max_interleave_delta": "1000000"}
    if _container(job) == "matroska":
        return options | {"fflags": "+bitexact"}
    rates = [track.sample_rate for track in job.clip.audio if track.sample_rate]
    return options | {"movie_timescale": str(rates[0] if rates else _TICKS)}


class File:
    """A container being written beside its target.

    rehearsal: begin it in memory, to hear before the work what the container refuses
    """

    def __init__(self, job: Job, form: Form, rehearsal: bool = False) -> None:
        self._job, self._form = job, form
        self._copier: audio.Copier | None = None
        self._out: OutputContainer | None = None
        lead = audio.lead(job.clip) if job.span.start == 0 else Fraction(0)
        self._base, self._offset = _clock(job.clip, lead)
        self._open_until = ExitStack()
        self._folder = self._open_until.enter_context(confine.folder(job.target.parent))
        if not rehearsal:
            parts.sweep(self._folder)
        self.path = parts.name(self._folder, job.target.suffix)
        try:
            with refusals(job.target):
                self._out = av.open(
                    io.BytesIO() if rehearsal else str(self.path.absolute()),
                    "w",
                    format=_container(job),
                    options=_muxer(job),
                )
            self._open(self._out)
        except BaseException:
            self.discard()
            raise

    def _open(self, out: OutputContainer) -> None:
        job = self._job
        with refusals(job.target):
            self._stream = self._picture(out)
        self._copier = audio.Copier(job.clip, job.span, self._offset, out)
        self._chapters(out)
        try:
            with refusals(job.target, only=OSError):
                out.start_encoding()
        except FFmpegError as error:
            sound = ", ".join(track.codec for track in job.clip.audio)
            sound = sound and f" with sound {sound}; a file ending in .mkv holds most kinds of it"
            raise UnsupportedMedia(
                f"{job.target.name} cannot be begun as {job.profile.name}{sound} "
                f"({error.strerror})."
            ) from error

    def _chapters(self, out: OutputContainer) -> None:
        chapters = self._job.clip.chapters_in(self._job.span)
        out.set_chapters(
            [
                {
                    "id": number,
                    "start": round((each.start + self._offset) * 1000),
                    "end": round((each.end + self._offset) * 1000),
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": each.title},
                }
                for number, each in enumerate(chapters)
            ]
        )

    def _picture(self, out: OutputContainer) -> VideoStream:
        job, clip = self._job, self._job.clip
        rate = clip.rate.limit_denominator(1001) if clip.variable else clip.rate
        stream = out.add_stream(job.profile.encoder, rate=rate, options=dict(job.profile.options))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = clip.width, clip.height
        stream.pix_fmt = self._form.layout.name
        context = stream.codec_context
        context.time_base = self._base
        context.sample_aspect_ratio = clip.pixel_aspect
        if clip.variable or len(job.span) < _REORDERED:
            # MP4 keeps durations in the order of decoding: the last frame's would be another's.
            context.max_b_frames = 0
        tags = self._form.tags
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        context.colorspace = tags.matrix
        context.color_range = {None: 0, False: 1, True: 2}[tags.full]
        if job.profile.tag and out.format.name != "matroska":
            context.codec_tag = job.profile.tag
        stream.set_display_matrix(clip.matrix)
        timecode = start_timecode(clip, job.span.start, _container(job))
        if timecode:
            stream.metadata["timecode"] = timecode
        return stream

    def write(self, frame: Frame) -> None:
        """Encode a frame, and write the sound that belongs before it."""
        picture = to_av(frame, self._form.tags)
        picture.pts, picture.time_base = self._pts(frame.index), self._base
        with refusals(self._job.target):
            for packet in self._stream.encode(picture):
                self._mux(packet)

    def _pts(self, index: int) -> int:
        clip = self._job.clip
        first = self._job.span.start
        if clip.variable:
            moved = int(clip.pts[index] - clip.pts[first])
            return moved + round(self._offset / self._base)
        return round((Fraction(index - first) / clip.rate + self._offset) / self._base)

    def _duration(self, pts: int) -> int:
        clip, span = self._job.clip, self._job.span
        if not clip.variable:
            return int(1 / (clip.rate * self._base))
        offset = round(self._offset / self._base)
        index = int(clip.pts.searchsorted(clip.pts[span.start] + pts - offset))
        if index + 1 < clip.count:
            return int(clip.pts[index + 1] - clip.pts[index])
        return clip.last_duration

    def _mux(self, packet: Packet[VideoStream]) -> None:
        assert self._out is not None
        if packet.pts is not None:
            packet.duration = self._duration(packet.pts)
        if self._copier is not None and packet.dts is not None:
            self._copier.until(packet.dts * packet.time_base)
        self._out.mux(packet)

    def close(self) -> None:
        """Write what the encoder still holds, the rest of the sound and the index."""
        assert self._out is not None
        with refusals(self._job.target):
            for packet in self._stream.encode():
                self._mux(packet)
            if self._copier is not None:
                self._copier.until(None)
            out, self._out = self._out, None
            out.close()
            parts.to_disk(self.path)

    def finished(self) -> dict[Path, Path]:
        """What `publish` will move, and where to."""
        return {self.path: self._job.target}

    def publish(self) -> None:
        """Move the file into the target's place."""
        target = self._folder / self._job.target.name
        with refusals(self._job.target):
            if target.exists() and not self._job.overwrite:
                raise NotWritten(f"{self._job.target} appeared meanwhile; choose another name.")
            parts.move(self.path, target)
            parts.to_disk(self._folder)

    def discard(self) -> None:
        """Remove what was begun; after `publish` nothing is left to remove."""
        if self._copier is not None:
            self._copier.close()
        if self._out is not None:
            with suppress(FFmpegError, OSError, ValueError):
                self._out.close()
            self._out = None
        parts.remove(self.path)
        self._open_until.close()


class Images:
    """An image sequence being written into a folder beside its target."""

    def __init__(self, job: Job, _form: Form) -> None:
        self._job = job
        self._names = sequences.pattern(job.target)
        self._open_until = ExitStack()
        self._folder = self._open_until.enter_context(confine.folder(job.target.parent))
        parts.sweep(self._folder)
        self._desk = parts.name(self._folder)
        try:
            with refusals(job.target):
                self._desk.mkdir()
            # Opened by itself: nobody else may put another folder, or a link, in its place.
            self.path = self._open_until.enter_context(confine.folder(self._desk))
        except BaseException:
            self.discard()
            raise

    def write(self, frame: Frame) -> None:
        """Write a frame's image."""
        job = self._job
        timecode = start_timecode(job.clip, frame.index, _container(job))
        with refusals(job.target):
            _check_room(self.path, frame)
        name = self._names.file(number(job, frame.index)).name
        sequences.write(self.path / name, frame, job.clip, timecode)

    def close(self) -> None:
        """Bring the images to the disk before one gets its name."""
        with refusals(self._job.target):
            for file in self.path.iterdir():
                parts.to_disk(file)

    def finished(self) -> dict[Path, Path]:
        """What `publish` will move, and where to."""
        return {file: self._job.target.parent / file.name for file in sorted(self.path.iterdir())}

    def publish(self) -> None:
        """Move the images into their places, one after the other."""
        with refusals(self._job.target):
            for file in files(self._job):
                if (self._folder / file.name).exists() and not self._job.overwrite:
                    raise NotWritten(f"{file} appeared meanwhile; choose another name.")
            for file in self.finished():
                parts.move(file, self._folder / file.name)
            parts.to_disk(self._folder)

    def discard(self) -> None:
        """Remove what was begun; after `publish` nothing is left to remove."""
        parts.remove(self._desk)
        self._open_until.close()


def _check_room(folder: Path, frame: Frame) -> None:
    """OpenImageIO does not say why an image was not written, and of PNG not even that."""
    needed = sum(plane.nbytes for plane in (*frame.planes, *frame.extra)) + _HEADER
    if shutil.disk_usage(folder).free < needed:
        raise NotEnoughSpace(
            f"frame {frame.index} may need {needed} bytes, and the disk of {folder.parent} has "
            "fewer; make room and try again."
        )
