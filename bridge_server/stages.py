"""How each unit of a plan is made: from the store and the clip, into an empty folder.

A unit reads what it needs from the store, also where the same process has just made it: so a run
that was interrupted goes on from the very numbers that an undisturbed one works with.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import singledispatchmethod
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridge_server import records, resolve
from bridge_server.errors import OutsideFolders, ResultsGone
from bridge_server.events import Note, Preview, Progress, Watch
from bridge_server.footage import Footage, Matte, coverage, painting, resized
from bridge_server.job import Control, Job
from bridge_server.media import confine
from bridge_server.media.statistics import ColourStatistics
from bridge_server.plan import (
    Analyse,
    Bounds,
    Fit,
    Measure,
    Painting,
    Propagate,
    Record,
    Redo,
    Styled,
    Translate,
    Unit,
)
from bridge_server.store import Store
from fresco import planner, shots
from fresco.callbacks import CancelToken, Step
from fresco.control import Canny, ControlEstimator, Depth, Supplied, control_maps
from fresco.errors import InvalidInput, is_out_of_memory
from fresco.keyframes import measured
from fresco.memory import Limits, free_caches
from fresco.propagate.parallel import Job as Interval
from fresco.propagate.parallel import intervals
from fresco.request import Keyframe, Options, Translation, keyframes
from fresco.schedule import first_step
from fresco.translate import redo, translate_batch
from fresco.warm import ModelSpec, Ready, WarmModels

_ANALYSIS, _MEASURED = "analysis.json", "measured.json"
_FIT, _BOUNDS, _SHRUNK = "fit.json", "bounds.json", "shrunk.json"
_COLOURS, _FRAMES = "colours.npy", "frames.npy"
_WHITE = 2**16 - 1
#: What a frame takes in the store per pixel, bytes: three colours of 16 bits.
FRAME_BYTES = 6
#: Colours are counted on pictures of this short side.
_COLOUR_SIDE = 256
#: Below this a mask is black: what a codec leaves of black is no wish, and nobody would see it.
_DARK = 0.02
#: Numbers that `ColourStatistics` keeps of a picture.
_COUNTS = 13


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What was measured of a span.

    errors: per frame, the change since the one before
    cuts: the first frames of the later shots, counted from the span's first
    colours: (frames, 13) float64, what `ColourStatistics` counts in each
    """

    errors: list[float]
    cuts: list[int]
    colours: NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Bench:
    """Where the units of one job are made, one after the other.

    models: kept warm from job to job
    limits: what a batch is run with, once that is known; memory: what it then takes, bytes
    depth: the bounds of depth maps, where there are any
    """

    job: Job
    store: Store
    models: WarmModels
    watch: Watch
    cancel: CancelToken
    limits: Limits = field(default_factory=Limits)
    memory: int = 0
    depth: tuple[float, float] | None = None
    footage: Footage = field(init=False)
    _mattes: dict[str, Matte] = field(init=False)
    _stage: str = ""
    _done: float = 0
    _total: float = 0

    def __post_init__(self) -> None:
        self.footage = Footage(self.job.clip, self.job.size, self.job.hdr, self.cancel)
        self._mattes = {name: Matte(own, self.cancel) for name, own in self.job.beside.items()}

    def begin(self, stage: str, done: float, total: float) -> None:
        """Count what follows as work of `stage`, of which `done` was there already."""
        self._stage, self._done, self._total = stage, done, total
        self.watch(Progress(stage, done, total))

    def move(self, share: float) -> None:
        """Say that beside what is done, `share` more is underway."""
        self.watch(Progress(self._stage, self._done + share, self._total))

    def finish(self, share: float) -> None:
        """Count `share` as done."""
        self._done += share
        self.move(0)

    def result(self, unit: Unit) -> Path:
        """Return the folder with the unit's result; make it if it is not there, or damaged.

        Raises:
            FrescoError: of the stage; nothing is kept of the unit then.
        """
        found = self.store.sound(unit.key)
        if found is None:
            self.cancel.check()
            with self.store.writing(unit.key) as desk:
                self.make(unit, desk)
                self.job.check_sources()
            found = self.store.find(unit.key)
            if found is None:  # it was just written
                raise ResultsGone(f"results were removed from {self.store.folder} meanwhile.")
        return found

    @singledispatchmethod
    def make(self, unit: Any, desk: Path) -> None:
        """Make the result of `unit` in the empty folder `desk`."""
        raise TypeError(f"{type(unit).__name__} is no unit; nothing can be put into {desk}")

    # ------------------------------------------------------------------------------- analysis

    @make.register
    def _measure(self, unit: Measure, desk: Path) -> None:
        """Measure the frames of a piece in one pass."""
        errors: list[float] = []
        # One table for all frames. A small array kept from each would lie between the pictures, and
        # the memory that those leave could not be used again: 40 kB per frame of 64 x 64, measured.
        colours = np.empty((unit.stop - unit.start, _COUNTS))

        def pictures() -> Iterator[Tensor]:
            for frame in self.footage.source(unit.since, unit.stop):
                picture = self.footage.picture(frame).rgb
                yield picture
                if frame.index >= unit.start:
                    colours[frame.index - unit.start] = _counted(picture)
                    self.finish(1)

        jumps = shots.jumps(measured(pictures(), errors))
        own = slice(unit.start - unit.since, None)
        _write(desk / _MEASURED, {"errors": errors[own], "jumps": jumps[own]})
        save(desk / _COLOURS, colours)

    @make.register
    def _analyse(self, unit: Analyse, desk: Path) -> None:
        """Measure the pieces that are missing, and put all together."""
        errors: list[float] = []
        jumps: list[bool] = []
        colours: list[NDArray[np.float64]] = []
        for piece in unit.pieces:
            folder = self.result(piece)
            with _reading(folder):
                found = _read(folder / _MEASURED)
                errors += found["errors"]
                jumps += found["jumps"]
                colours.append(np.load(folder / _COLOURS))
        cuts = shots.cuts(jumps, self.job.clip.rate)
        _write(desk / _ANALYSIS, {"errors": errors, "cuts": cuts})
        save(desk / _COLOURS, np.concatenate(colours))

    def analysis(self, unit: Analyse) -> Analysis:
        """Measure the clip, or read what was measured."""
        folder = self.result(unit)
        with _reading(folder):
            found = _read(folder / _ANALYSIS)
            return Analysis(found["errors"], found["cuts"], np.load(folder / _COLOURS))

    # ---------------------------------------------------------------------------- translation

    @make.register
    def _fit(self, unit: Fit, desk: Path) -> None:
        """Choose blocks, tiles and the batch by a forecast of memory."""
        job = self.job
        found = planner.plan(
            self.ready().model,
            job.size.padded_height,
            job.size.padded_width,
            unit.frames,
            job.environment.memory,
            job.settings,
            job.environment.torch_dtype,
            job.environment.device,
            unit.outsiders,
            self.cancel.check,
        )
        facts = {"frames": found.frames, "limits": asdict(found.limits), "memory": found.peak,
                 "said": str(found)}  # fmt: skip
        _write(desk / _FIT, facts)

    def fitted(self, unit: Fit) -> tuple[Limits, int]:
        """The limits, and the size of a batch, that fit into the memory."""
        folder = self.result(unit)
        with _reading(folder):
            found = _read(folder / _FIT)
            self.memory = found["memory"]
            return Limits(**found["limits"]), found["frames"]

    @make.register
    def _bounds(self, unit: Bounds, desk: Path) -> None:
        """Measure the depth of the whole clip."""
        estimate = resolve.control_estimator("depth")
        assert isinstance(estimate, Depth)
        bounds = estimate.measure(self.footage.at(unit.frames), self.cancel.check)
        _write(desk / _BOUNDS, {"bounds": bounds})

    def bounds(self, unit: Bounds) -> tuple[float, float]:
        """The depths that become black and white."""
        folder = self.result(unit)
        with _reading(folder):
            low, high = _read(folder / _BOUNDS)["bounds"]
            return low, high

    @make.register
    def _translate(self, unit: Translate, desk: Path) -> None:
        """Translate one batch."""
        job, ready = self.job, self.ready()
        frames, tracks = self.footage.at(unit.keyframes), job.tracks
        asked = [tracks.at(number) for number in unit.keyframes]
        new = keyframes(
            frames,
            ready.model,
            prompts=[own.prompt for own in asked],
            negative=[own.negative for own in asked],
            controls=self.maps(frames, unit.keyframes),
            seeds=[own.seed for own in asked],
            strengths=[own.strength for own in asked],
            background=self.background(unit.keyframes),
            numbers=unit.keyframes,
            settings=job.settings,
        )
        anchors = [self.read(anchor) for anchor in unit.anchors]
        style = unit.style and self.read(unit.style)
        options = self.options(ready, unit.keyframes)
        self.keep(translate_batch([*anchors, *new], ready.model, options, style=style), desk)

    @make.register
    def _redo(self, unit: Redo, desk: Path) -> None:
        """Translate one keyframe again; what is not changed stays as it was."""
        number, told, ready = unit.before.number, unit.changes, self.ready()
        shot = [self.read(each) for each in (*unit.neighbours, unit.before)]
        shot.sort(key=lambda keyframe: keyframe.number)
        done = redo(
            shot,
            [keyframe.number for keyframe in shot].index(number),
            ready.model,
            self.options(ready, [number]),
            prompt=told.get("prompt"),
            negative=told.get("negative"),
            seed=int(told["seed"]) if "seed" in told else None,
            strength=float(told["strength"]) if "strength" in told else None,
            style=unit.style and self.read(unit.style),
        )
        self.keep(Translation((done,)), desk)

    def ready(self) -> Ready:
        """The model, dressed as the job wants it."""
        assert self.job.spec is not None, "only asked for where something is translated"
        try:
            with confine.steady(_places(self.job.spec)):
                found = self.models.get(self.job.spec, self.job.settings.halves)
        except OutsideFolders:
            self.models.forget()  # what was read may be another's
            raise
        self.cancel.check()  # to read it may have taken long
        return found

    def options(self, ready: Ready, numbers: Sequence[int]) -> Options:
        """How a batch is run; its steps are told as shares of its keyframes."""
        job, tracks = self.job, self.job.tracks
        strongest = max(tracks.at(number).strength for number in numbers)
        first = first_step(strongest, job.settings.steps)

        def on_step(step: Step) -> None:
            share = (step.index + 1 - first) / max(1, step.last + 1 - first)
            self.move(max(0.0, min(share, 1.0)) * len(numbers))
            self.watch(Preview(tuple(numbers), step.index, step.last, step.preview))

        return Options(
            settings=job.settings,
            control_scales=[control.scale for control in job.controls],
            limits=self.limits,
            added=ready.added,
            on_step=on_step,
            cancel=self.cancel,
        )

    def maps(self, frames: Tensor, numbers: Sequence[int]) -> list[Tensor]:
        """The control maps of frames (N, 3, H, W), per ControlNet."""
        controls = enumerate(self.job.controls)
        return [
            control_maps(frames, self._estimator(place, control, numbers), self.cancel)
            for place, control in controls
        ]

    def _estimator(self, place: int, control: Control, numbers: Sequence[int]) -> ControlEstimator:
        if control.maps:
            matte = self._mattes[f"control {place}"]
            return Supplied([self.job.size.fit(matte.at(number)) for number in numbers])
        if control.kind == "canny" and control.canny:
            return Canny(*control.canny)
        estimate = resolve.control_estimator(control.kind)
        if isinstance(estimate, Depth):
            estimate.bounds = self.depth
        return estimate

    def background(self, numbers: Sequence[int]) -> Tensor | None:
        """Where the subject is not, (N, 1, H, W); None without a subject's matte."""
        matte = self._mattes.get("subject")
        if matte is None:
            return None
        subjects = [self.job.size.fit(matte.at(number)) for number in numbers]
        return 1 - torch.stack(subjects).mean(dim=1, keepdim=True).clamp(0, 1)

    def keep(self, done: Translation, desk: Path) -> None:
        """Write the keyframes of a batch, each into a folder with its number."""
        for keyframe in done.keyframes:
            place = desk / str(keyframe.number)
            place.mkdir()
            image = None if keyframe.image is None else self.job.size.crop(keyframe.image)
            records.write(replace(keyframe, image=image), place)
        if done.shrunk:
            _write(desk / _SHRUNK, {"shrunk": done.shrunk})
            for text in done.shrunk:
                self.watch(Note(f"memory ran out, so the work was made smaller: {text}"))

    def read(self, styled: Styled) -> Keyframe:
        """Read a keyframe as a done one."""
        frames = self.footage.at([styled.number])
        if isinstance(styled, Painting):
            asked = self.job.tracks.at(styled.number)
            blank = keyframes(
                frames,
                self.ready().model,
                prompts=asked.prompt,
                negative=asked.negative,
                controls=self.maps(frames, [styled.number]),
                numbers=[styled.number],
                settings=self.job.settings,
            )[0]
            picture = painting(styled.file, styled.number, self.job.clip)
            return blank.painted(self.job.size.fit(picture))
        found = records.read(
            self.place(styled),
            frames[0],
            tuple(own[0] for own in self.maps(frames, [styled.number])),
        )
        background = self.background([styled.number])
        return replace(found, background=None if background is None else background[0])

    def place(self, record: Record) -> Path:
        """Where a translated keyframe is.

        Raises:
            ResultsGone: it was removed meanwhile.
        """
        folder = self.store.find(record.key)
        if folder is None:
            raise ResultsGone(f"keyframe {record.number} is gone from {self.store.folder}.")
        return folder / str(record.number)

    def picture(self, styled: Styled) -> Tensor:
        """A styled keyframe at the working size, (3, height, width) in [0, 1]."""
        size = self.job.size
        if isinstance(styled, Painting):
            picture = painting(styled.file, styled.number, self.job.clip)
            return resized(picture, size.height, size.width)
        folder = self.place(styled)
        with _reading(folder):
            return records.read_picture(folder / records.PICTURE)

    # ---------------------------------------------------------------------------- propagation

    @make.register
    def _propagate(self, unit: Propagate, desk: Path) -> None:
        """Make the frames of one interval."""
        with _one_thread():
            (frames,) = intervals([self._interval(unit)], cancel=self.cancel)
        _write_frames(desk, frames)

    def propagate(self, units: Sequence[Propagate], workers: int) -> None:
        """Make the intervals that are missing, `workers` at once; each is kept as it is done.

        Where memory runs out, half as many are made at once, and that is said: the result is the
        same.
        """
        while True:
            try:
                self._propagate_missing(units, workers)
            except Exception as error:
                if workers == 1 or not is_out_of_memory(error):
                    raise
            else:
                return
            # Outside the except block: the traceback no longer holds the frames.
            workers //= 2
            self.watch(Note(f"memory ran out, so {workers} at once are propagated from here on"))
            free_caches()

    def _propagate_missing(self, units: Sequence[Propagate], workers: int) -> None:
        missing = [unit for unit in units if self.store.find(unit.key) is None]
        done = sum(unit.stop - unit.start for unit in units if unit not in missing)
        self.begin("propagate", done, sum(unit.stop - unit.start for unit in units))
        with _one_thread():
            jobs = map(self._interval, missing)
            for unit, frames in zip(missing, intervals(jobs, workers, self.cancel), strict=True):
                with self.store.writing(unit.key) as desk:
                    _write_frames(desk, frames)
                    self.job.check_sources()
                self.finish(unit.stop - unit.start)

    def _interval(self, unit: Propagate) -> Interval:
        """The frames of an interval with the keys at its ends."""
        start = unit.start - (unit.left is not None)
        stop = unit.stop + (unit.right is not None)
        frames = [self.job.size.crop(frame) for frame in self.footage.frames(start, stop)]
        left, right = (key and self.picture(key) for key in (unit.left, unit.right))
        return Interval(frames, left, right, self.job.request.propagation)

    def propagated(self, unit: Propagate) -> Iterator[Tensor]:
        """Yield the frames of an interval that is done, (3, height, width) in [0, 1]."""
        folder = self.result(unit)
        with _reading(folder):
            frames = np.load(folder / _FRAMES, mmap_mode="r")
        for frame in frames:
            yield torch.from_numpy(frame.astype(np.float32)) / _WHITE

    def mask(self, start: int, stop: int, height: int, width: int) -> Iterator[Tensor] | None:
        """Yield where the effect is, (height, width) in [0, 1]; None: everywhere."""
        matte = self._mattes.get("mask")
        if matte is None:
            return None
        feather = self.job.request.feather
        return (coverage(each, height, width, feather) for each in matte.frames(start, stop))

    def masked_out(self, numbers: Sequence[int]) -> bool:
        """Whether there is a mask, and it leaves nothing of these frames; reads up to the first."""
        matte = self._mattes.get("mask")
        return matte is not None and all(
            matte.at(number).mean(dim=0).max() < _DARK for number in numbers
        )


def _places(spec: ModelSpec) -> Iterator[Path]:
    """The files and folders that a model is read from."""
    places = (spec.base, spec.vae, *spec.controlnets, spec.preview_vae, spec.image_encoder)
    yield from (Path(place) for place in places if place is not None)
    yield from (Path(own.file) for own in (*spec.loras, *spec.inversions, *spec.ip_adapters))


def _counted(picture: Tensor) -> NDArray[np.float64]:
    """What `ColourStatistics` counts in a small copy, (13,)."""
    height, width = picture.shape[-2:]
    factor = min(1.0, _COLOUR_SIDE / min(height, width))
    counted = ColourStatistics()
    counted.add(resized(picture, round(height * factor), round(width * factor)))
    return counted.row()


def _write_frames(desk: Path, frames: Tensor) -> None:
    save(desk / _FRAMES, (frames.cpu() * _WHITE).round_().numpy().astype(np.uint16))


def save(file: Path, numbers: NDArray[Any]) -> None:
    """Write what `np.save` writes; its own error does not say that the disk is full."""
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(numbers))
    with file.open("wb") as out:
        out.write(head.getvalue())
        out.write(np.ascontiguousarray(numbers).data)


def _write(file: Path, facts: Any) -> None:
    file.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


@contextmanager
def _reading(folder: Path) -> Generator[None]:
    """Say of a result that cannot be read what to do about it."""
    try:
        yield
    except FileNotFoundError as error:
        raise ResultsGone(f"{error.filename or folder} was removed during the work.") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidInput(
            f"the result in {folder} is damaged ({error}); remove the folder, and it is made anew."
        ) from error


@contextmanager
def _one_thread() -> Generator[None]:
    """Let the workers be what runs side by side; and a sum has one order then."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
