"""Frames into files: beside the target first, and in its place only when `verify` agreed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from bridge_server.media import formats, profiles, verify
from bridge_server.media.clip import Clip
from bridge_server.media.colour import Form
from bridge_server.media.errors import NotAsSource, NotWritten, UnsupportedMedia
from bridge_server.media.frame import Frame
from bridge_server.media.sinks import File, Images, Job, files, refusals
from bridge_server.media.verify import Report
from fresco.callbacks import CancelToken
from fresco.errors import InvalidInput

#: What a caller may do without; all else must be as in the source.
LOSSES = frozenset({"alpha", "bit depth", "pixel aspect"})

#: Takes verified parts and their targets.
OnPublish: TypeAlias = Callable[[Mapping[Path, Path]], None]


def check(
    target: Path,
    clip: Clip,
    start: int = 0,
    stop: int | None = None,
    profile: str | None = None,
    accept: Iterable[str] = (),
) -> None:
    """Refuse what can never be written, whatever becomes of the target's place until then.

    Takes what `Writer` takes.

    Raises:
        InvalidInput, UnsupportedMedia, MissingEncoder: see `Writer`.
        NotWritten: the target is the source.
    """
    job = _job(target, clip, start, stop, profile, accept)
    _check(job)
    _rehearse(job)


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
        publishing: OnPublish = lambda _files: None,
    ) -> None:
        """Check what can be checked before the work.

        profile: of `formats.PROFILES`; where None, what an editor wants back for `clip` in such a
            file as `target`
        accept: of `LOSSES`, what the result may lack
        publishing: is told of the verified parts and their targets, just before they get there

        Raises:
            InvalidInput: an unknown profile or loss, or a range outside the clip.
            UnsupportedMedia: the target cannot hold what the clip is; the message says what can.
            MissingEncoder: PyAV was built without the profile's encoder.
            NotWritten: the target exists and `overwrite` is not set, or is the source.
        """
        self._job = _job(target, clip, start, stop, profile, accept, overwrite)
        self._cancel, self._publishing = cancel or CancelToken(), publishing
        _check(self._job)
        _check_place(self._job)
        self.form: Form = profiles.form(clip, self._job.profile)
        _rehearse(self._job)
        self.report: Report | None = None
        self._sink: File | Images | None = None
        self._written = 0

    def __enter__(self) -> Writer:
        self._sink = (Images if self._job.profile.images else File)(self._job, self.form)
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

    def _finish(self, sink: File | Images) -> Report:
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
        self._publishing(sink.finished())
        sink.publish()
        return report


def _job(
    target: Path,
    clip: Clip,
    start: int,
    stop: int | None,
    profile: str | None,
    accept: Iterable[str],
    overwrite: bool = False,
) -> Job:
    chosen = formats.named(profile) if profile else profiles.default(clip, target)
    return Job(target, clip, clip.span(start, stop), chosen, frozenset(accept), overwrite)


def _rehearse(job: Job) -> None:
    """Hear what the container refuses, before there is anything to write."""
    if not job.profile.images and job.target.parent.is_dir():
        File(job, profiles.form(job.clip, job.profile), rehearsal=True).discard()


def _check(job: Job) -> None:
    clip, target = job.clip, job.target
    if unknown := job.accept - LOSSES:
        raise InvalidInput(
            f"a loss of {', '.join(map(repr, sorted(unknown)))} cannot be accepted, only of: "
            f"{', '.join(sorted(LOSSES))}."
        )
    formats.check_name(target, job.profile)
    if not job.profile.images:
        profiles.codec(job.profile)
    if clip.interlaced:
        raise UnsupportedMedia(
            f"{clip.path.name} is interlaced, and a picture of two fields cannot be restyled as "
            "one; deinterlace it first."
        )
    _check_loss(job)
    _check_sources(job)


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
    container = formats.SUFFIXES[job.target.suffix.lower()]
    no_aspect = job.clip.pixel_aspect != 1 and not profiles.holds_aspect(job.profile, container)
    if no_aspect and "pixel aspect" not in job.accept:
        raise UnsupportedMedia(
            f"the pixels of {job.clip.path.name} are {job.clip.pixel_aspect} wide, which PyAV "
            f"cannot write beside {job.profile.name} in MKV; choose prores-422-hq in a file ending "
            "in .mov, or accept the loss of 'pixel aspect'."
        )


def _check_sources(job: Job) -> None:
    sources = {_identity(source) for source in job.clip.files or (job.clip.path,)}
    named = files(job)
    with refusals(job.target):
        for file in named:
            if file.exists() and _identity(file) in sources:
                raise NotWritten(f"{file} is the source itself; choose another name.")


def _check_place(job: Job) -> None:
    target = job.target
    if not target.parent.is_dir():
        raise NotWritten(f"the folder {target.parent} is not there; make it, or choose another.")
    with refusals(target):
        for file in files(job):
            if file.exists() and not job.overwrite:
                raise NotWritten(
                    f"{file} exists; choose another name, or allow overwriting (--overwrite)."
                )


def _identity(file: Path) -> object:
    """What a file is, whatever it is called: names may differ in case, or be links."""
    known = file.stat()
    return (known.st_dev, known.st_ino) if known.st_ino else file.resolve()


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
