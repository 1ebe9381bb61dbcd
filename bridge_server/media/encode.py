"""Frames into files: beside the target first, and in its place only when `verify` agreed."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from bridge_server.errors import NotEnoughSpace
from bridge_server.media import audio, profiles, sequences, verify
from bridge_server.media.clip import Clip
from bridge_server.media.colour import Form
from bridge_server.media.errors import NotAsSource, NotWritten, UnsupportedMedia
from bridge_server.media.frame import Frame, to_av
from bridge_server.media.profiles import Profile
from bridge_server.media.timecode import advance
from bridge_server.media.verify import Report
from fresco.callbacks import CancelToken
from fresco.errors import InvalidInput

#: Ticks in a second that a written file has at least.
_TICKS = 90_000
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


class Writer:
    """Writes the frames of a clip's range; a context manager.

    Leaving it without an error flushes, verifies and puts the file in its place; `report` then
    says what was kept. Leaving it with one removes what was begun and nothing else.
    """

    def __init__(
        self,
        target: Path,
        clip: Clip,
        start: int = 0,
        stop: int | None = None,
        profile: str | None = None,
        accept: Iterable[str] = (),
        overwrite: bool = False,
        cancel: CancelToken | None = None,
    ) -> None:
        """Check what can be checked before the work.

        profile: of `profiles.PROFILES`; what an editor wants back for `clip` where None
        accept: names of properties whose loss is accepted: "alpha", "bit depth"

        Raises:
            InvalidInput: an unknown profile, or a range outside the clip.
            UnsupportedMedia: the target cannot hold what the clip is; the message says what can.
            MissingEncoder: PyAV was built without the profile's encoder.
            NotWritten: the target exists and `overwrite` is not set, or is the source.
        """
        chosen = profiles.named(profile) if profile else profiles.default(clip)
        span = clip.span(start, stop)
        self._job = Job(target, clip, span, chosen, frozenset(accept), overwrite)
        self._cancel = cancel or CancelToken()
        _check(self._job)
        self.form: Form = profiles.form(clip, chosen)
        self.report: Report | None = None
        self._sink: _File | _Images | None = None
        self._written = 0

    def __enter__(self) -> Writer:
        self._sink = (_Images if self._job.profile.images else _File)(self._job, self.form)
        return self

    def write(self, frame: Frame) -> None:
        """Write the next frame.

        frame: in the form `form`; see `colour.from_rgb` and `colour.convert`

        Raises:
            InvalidInput: not the next frame, or of another size or layout.
            NotWritten: the file cannot be written. NotEnoughSpace: the disk is full.
            Cancelled: the token was set.
        """
        self._cancel.check()
        assert self._sink is not None, "a Writer is used as a context manager"
        _check_frame(frame, self._job, self.form, self._written)
        self._sink.write(frame)
        self._written += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._sink is not None
        try:
            if error is None:
                self.report = self._finish(self._sink)
        finally:
            self._sink.discard()

    def _finish(self, sink: _File | _Images) -> Report:
        job = self._job
        if self._written != len(job.span):
            raise NotAsSource(
                f"{self._written} of {len(job.span)} frames were handed over for "
                f"{job.target.name}; it was not written."
            )
        sink.close()
        report = verify.verify(
            job.clip, sink.path, job.span, self.form.layout, job.profile, job.accept, self._cancel
        )
        if not report.ok:
            raise NotAsSource(
                f"{job.target.name} is not as its source, and was not kept:\n{report}"
            )
        sink.publish()
        return report


def _check(job: Job) -> None:
    clip, target = job.clip, job.target
    container = profiles.SUFFIXES.get(target.suffix.lower())
    if container not in job.profile.containers:
        names = [end for end, name in profiles.SUFFIXES.items() if name in job.profile.containers]
        raise UnsupportedMedia(
            f"{job.profile.name} is not written to {target.name}; end it in {' or '.join(names)}."
        )
    if not job.profile.images:
        profiles.codec(job.profile)
    if clip.interlaced:
        raise UnsupportedMedia(
            f"{clip.path.name} is interlaced, and a picture of two fields cannot be restyled as "
            "one; deinterlace it first."
        )
    _check_loss(job)
    _check_place(job)


def _check_loss(job: Job) -> None:
    form = profiles.form(job.clip, job.profile)
    if job.clip.alpha and not form.layout.alpha and "alpha" not in job.accept:
        raise UnsupportedMedia(
            f"{job.profile.name} has no alpha and {job.clip.path.name} has; choose prores-4444, "
            "ffv1 or images, or accept the loss of 'alpha'."
        )
    if verify.shallower(job.clip, form.layout, job.profile) and "bit depth" not in job.accept:
        raise UnsupportedMedia(
            f"{job.profile.name} holds {form.layout.bits} bits and {job.clip.path.name} has "
            f"{job.clip.layout.bits}; choose a deeper profile, or accept the loss of 'bit depth'."
        )
    no_aspect = job.profile.encoder == "ffv1" and job.clip.pixel_aspect != 1
    if no_aspect and "pixel aspect" not in job.accept:
        raise UnsupportedMedia(
            f"the pixels of {job.clip.path.name} are {job.clip.pixel_aspect} wide, which PyAV "
            "cannot write beside FFV1; choose prores-422-hq, or accept the loss of 'pixel aspect'."
        )


def _check_place(job: Job) -> None:
    target = job.target
    if not target.parent.is_dir():
        raise NotWritten(f"the folder {target.parent} is not there; make it, or choose another.")
    sources = {source.resolve() for source in job.clip.files or (job.clip.path,)}
    for file in _files(job):
        if file.resolve() in sources:
            raise NotWritten(f"{file} is the source itself; choose another name.")
        if file.exists() and not job.overwrite:
            raise NotWritten(f"{file} exists; choose another name, or allow overwriting.")


def _files(job: Job) -> list[Path]:
    """The files that will be there in the end."""
    if not job.profile.images:
        return [job.target]
    names = sequences.pattern(job.target)
    return [names.file(_number(job, index)) for index in job.span]


def _number(job: Job, index: int) -> int:
    """The number of a frame's file: the source's own where it is a sequence."""
    return sequences.number(job.clip.files[index]) if job.clip.files else index


def _check_frame(frame: Frame, job: Job, form: Form, written: int) -> None:
    if written == len(job.span) or frame.index != job.span[written]:
        raise InvalidInput(
            f"frame {frame.index} was handed over as number {written} of {len(job.span)} from "
            f"frame {job.span.start} on; hand them over in order."
        )
    if frame.layout != form.layout:
        raise InvalidInput(
            f"frame {frame.index} is {frame.layout.name}, the file takes {form.layout.name}; "
            "convert it to the writer's form."
        )
    if frame.planes[0].shape != (job.clip.height, job.clip.width):
        raise InvalidInput(
            f"frame {frame.index} has shape {frame.planes[0].shape}, the clip "
            f"{(job.clip.height, job.clip.width)}; scale it to the source's size."
        )


def start_timecode(job: Job) -> str | None:
    """Return the timecode of the first frame that is written."""
    if job.clip.timecode is None or job.clip.variable:
        return job.clip.timecode if job.span.start == 0 else None
    return advance(job.clip.timecode, job.span.start, job.clip.rate)


@contextmanager
def _refusals(
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
    """MP4 and MOV say in their own clock where a stream begins: its default is milliseconds."""
    if profiles.SUFFIXES[job.target.suffix.lower()] == "matroska":
        return {}
    rates = [track.sample_rate for track in job.clip.audio if track.sample_rate]
    return {"movie_timescale": str(rates[0] if rates else _TICKS)}


class _File:
    """A container being written beside its target."""

    def __init__(self, job: Job, form: Form) -> None:
        self._job, self._form = job, form
        token = secrets.token_hex(4)
        self.path = job.target.with_name(f".{job.target.stem}.{token}{job.target.suffix}")
        self._copier: audio.Copier | None = None
        lead = audio.lead(job.clip) if job.span.start == 0 else Fraction(0)
        self._base, self._offset = _clock(job.clip, lead)
        with _refusals(job.target):
            self._out: OutputContainer | None = av.open(
                str(self.path.resolve()),
                "w",
                format=profiles.SUFFIXES[job.target.suffix.lower()],
                options=_muxer(job),
            )
        try:
            self._open(self._out)
        except BaseException:
            self.discard()
            raise

    def _open(self, out: OutputContainer) -> None:
        job = self._job
        with _refusals(job.target):
            self._stream = self._picture(out)
        self._copier = audio.Copier(job.clip, job.span, self._offset, out)
        try:
            with _refusals(job.target, only=OSError):
                out.start_encoding()
        except FFmpegError as error:
            sound = ", ".join(track.codec for track in job.clip.audio) or "none"
            raise UnsupportedMedia(
                f"{job.target.name} cannot be begun as {job.profile.name} with sound {sound}: "
                f"{error}. A file ending in .mkv holds most kinds of sound."
            ) from error

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
        tags = self._form.tags
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        context.colorspace = tags.matrix
        context.color_range = {None: 0, False: 1, True: 2}[tags.full]
        if job.profile.tag and out.format.name != "matroska":
            context.codec_tag = job.profile.tag
        stream.set_display_matrix(clip.matrix)
        timecode = start_timecode(job)
        if timecode:
            stream.metadata["timecode"] = timecode
        return stream

    def write(self, frame: Frame) -> None:
        picture = to_av(frame, self._form.tags)
        picture.pts, picture.time_base = self._pts(frame.index), self._base
        with _refusals(self._job.target):
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
        assert self._out is not None
        with _refusals(self._job.target):
            for packet in self._stream.encode():
                self._mux(packet)
            if self._copier is not None:
                self._copier.until(None)
            out, self._out = self._out, None
            out.close()
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())

    def publish(self) -> None:
        with _refusals(self._job.target):
            if self._job.target.exists() and not self._job.overwrite:
                raise NotWritten(f"{self._job.target} appeared meanwhile; choose another name.")
            self.path.replace(self._job.target)

    def discard(self) -> None:
        if self._copier is not None:
            self._copier.close()
        if self._out is not None:
            with suppress(FFmpegError, OSError, ValueError):
                self._out.close()
            self._out = None
        self.path.unlink(missing_ok=True)


class _Images:
    """An image sequence being written into a folder beside its target."""

    def __init__(self, job: Job, _form: Form) -> None:
        self._job = job
        self._names = sequences.pattern(job.target)
        self._folder = job.target.parent / f".{self._names.prefix}{secrets.token_hex(4)}"
        with _refusals(job.target):
            self._folder.mkdir()

    @property
    def path(self) -> Path:
        """Where the images are until they are verified."""
        return self._folder

    def write(self, frame: Frame) -> None:
        job = self._job
        timecode = start_timecode(job)
        if timecode and not job.clip.variable:
            timecode = advance(timecode, frame.index - job.span.start, job.clip.rate)
        name = self._names.file(_number(job, frame.index)).name
        sequences.write(self._folder / name, frame, job.clip, timecode)

    def close(self) -> None:
        """Nothing is pending: every image is whole when it is written."""

    def publish(self) -> None:
        with _refusals(self._job.target):
            _check_place(self._job)
            for file in sorted(self._folder.iterdir()):
                file.replace(self._job.target.parent / file.name)

    def discard(self) -> None:
        for file in self._folder.iterdir() if self._folder.is_dir() else ():
            file.unlink()
        with suppress(FileNotFoundError):
            self._folder.rmdir()
