"""A job from its request to the written file, in this process.

Every stage goes through the store: what is there is not made again, so the same job goes on where
it was stopped, and a changed one does only what the change reaches.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from bridge_server import plan as planning
from bridge_server.config import STORE
from bridge_server.errors import NotEnoughSpace
from bridge_server.events import (
    Expected,
    KeyframeDone,
    Note,
    Planned,
    Publishing,
    Watch,
    ignore,
)
from bridge_server.footage import Footage, resized, upright_size
from bridge_server.job import Job
from bridge_server.media.blend import blend
from bridge_server.media.colour import convert, from_rgb
from bridge_server.media.statistics import ColourStatistics, match
from bridge_server.media.verify import Report
from bridge_server.pictures import contact_sheet
from bridge_server.plan import Analyse, Painting, Plan, Propagate, Shot, Translate
from bridge_server.publish import keyframe_name, publish
from bridge_server.records import PICTURE, encoded
from bridge_server.stages import FRAME_BYTES, Analysis, Bench
from bridge_server.store import Store
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled, FrescoError, OutOfMemory
from fresco.warm import WarmModels

#: Bytes that an interval takes per pixel of each of its frames, at its highest.
_INTERVAL_BYTES = 80
#: Keyframes at which a mask is looked at, at most about so many; of which a note names so many.
_LOOKED, _NAMED = 32, 8

Recolour = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of a job.

    picture: reads a styled keyframe by its frame, (3, height, width) in [0, 1] at the working size
    report: how the written file compares with its source; None where the job stopped before
    """

    plan: Plan
    analysis: Analysis
    picture: Callable[[int], Tensor]
    report: Report | None

    @property
    def keyframes(self) -> list[int]:
        """The frames that were styled, ascending."""
        return sorted(self.plan.keyframes)


def render(
    job: Job,
    store: Store,
    models: WarmModels,
    watch: Watch = ignore,
    cancel: CancelToken | None = None,
) -> Outcome:
    """Do what is missing of `job`, as far as its request says (`until`).

    Raises:
        FrescoError: of any stage; what was done is in the store.
        SourceChanged: the clip, or what is beside it, is not what it was any more.
        Cancelled: `cancel` was set; the same.
    """
    try:
        return _rendered(job, store, models, watch, cancel or CancelToken())
    except Cancelled:
        raise
    except (FrescoError, OSError):
        job.check_sources()  # what looks like damage may be a clip that was replaced
        raise


def _rendered(
    job: Job, store: Store, models: WarmModels, watch: Watch, cancel: CancelToken
) -> Outcome:
    torch.set_num_threads(job.environment.threads)
    bench = Bench(job, store, models, watch, cancel)
    analysis = _analysed(bench, planning.analyse(job))
    plan = _planned(bench, analysis)
    for note in (*plan.notes, *_masked_out(bench, plan)):
        watch(Note(note))
    watch(Planned(plan.keys))
    units = [unit for shot in plan.intervals for unit in shot]
    whole = job.request.until == "done"
    workers = _workers(job, units) if whole else 0
    if whole:
        _check_disk(job, units, store)
    watch(_expected(bench, plan, len(analysis.errors)))
    report = None
    with store.in_use(plan.keys):
        _translate(bench, plan)
        if whole:
            bench.propagate(units, workers)
            report = _encode(bench, plan, analysis)
    return Outcome(plan, analysis, lambda number: bench.picture(plan.keyframes[number]), report)


def render_alone(job: Job, folder: Path, watch: Watch, cancel: CancelToken) -> Outcome:
    """`render`, with a store in `folder` and models that are read for this job only.

    Raises:
        FrescoError, Cancelled: see `render`.
    """
    place = job.environment
    models = WarmModels(place.memory, place.torch_device, place.torch_dtype)
    return render(job, Store(folder), models, watch, cancel)


def analyse(
    job: Job, store: Store, watch: Watch = ignore, cancel: CancelToken | None = None
) -> tuple[Analysis, list[Shot]]:
    """Measure the clip and propose keyframes, without translating anything.

    Raises:
        FrescoError, Cancelled: see `render`.
    """
    bench = Bench(job, store, WarmModels(0), watch, cancel or CancelToken())
    analysis = _analysed(bench, planning.analyse(job))
    return analysis, planning.shots(job, analysis.errors, analysis.cuts)[0]


def sources(job: Job, numbers: Sequence[int]) -> Iterator[Tensor]:
    """Yield frames of the source as `Outcome.keyframes` shows the styled ones."""
    footage = Footage(job.clip, job.size, job.hdr, CancelToken())
    for number in numbers:
        yield job.size.crop(footage.at([number])[0])


def sheet(job: Job, outcome: Outcome) -> Image:
    """Draw the keyframes beside their sources."""
    numbers = outcome.keyframes
    rows = (
        (f"frame {number}, {float(job.clip.seconds(number)):.2f} s", own, outcome.picture(number))
        for number, own in zip(numbers, sources(job, numbers), strict=True)
    )
    tracks = job.tracks
    prompts = dict.fromkeys(tracks.at(number).prompt for number in numbers)
    return contact_sheet(rows, f"{' / '.join(filter(None, prompts)) or 'no prompt'}\n{job.title}")


def export(outcome: Outcome, folder: Path) -> dict[int, Path]:
    """Write the translated keyframes into `folder`, to look at and to paint over.

    A name holds the frame and what the picture was made from: another version has another name,
    and nothing is written over.

    Raises:
        NotWritten, NotEnoughSpace, OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[int, Path] = {}
    for number, at in outcome.plan.keyframes.items():
        if isinstance(at, Painting):
            files[number] = at.file
        else:
            files[number] = folder / keyframe_name(number, at.key)
            if not files[number].exists():
                # Over what another process wrote meanwhile: it is the same.
                publish(encoded(outcome.picture(number)), files[number], overwrite=True)
    return files


def _analysed(bench: Bench, unit: Analyse) -> Analysis:
    found = [unit] if bench.store.sound(unit.key) else unit.pieces
    done = sum(each.stop - each.start for each in found if bench.store.sound(each.key))
    bench.begin("analyse", done, unit.stop - unit.start)
    return bench.analysis(unit)


def _planned(bench: Bench, analysis: Analysis) -> Plan:
    job = bench.job
    found, notes = planning.shots(job, analysis.errors, analysis.cuts)
    if job.request.until == "first_frame":
        found = planning.only_first(job, found)
    batch, depth = job.request.batch, ""
    if any(shot.chain for shot in found):
        bench.limits, batch = bench.fitted(planning.fit(job, len(found)))
        if any(control.kind == "depth" and not control.maps for control in job.controls):
            unit = planning.bounds(job)
            bench.depth, depth = bench.bounds(unit), unit.key
    return planning.plan(job, found, notes, bench.limits, batch, depth)


def _masked_out(bench: Bench, plan: Plan) -> Iterator[str]:
    """What is to be known of a mask that leaves nothing to restyle, before the work begins.

    Of a long clip some keyframes are looked at: each costs a seek in the mask.
    """
    mask, numbers = bench.job.beside.get("mask"), sorted(plan.keyframes)
    if mask is None or not numbers:
        return
    looked = numbers[:: -(-len(numbers) // _LOOKED)]
    name, nothing = mask.clip.path.name, "transparent" if mask.clip.alpha else "black"
    if mask.clip.count == 1 and bench.masked_out(looked[:1]):
        yield f"{name} (mask) is {nothing} all over, so nothing will be restyled"
    elif mask.clip.count > 1 and bench.masked_out(looked):
        frames = ", ".join(map(str, looked[:_NAMED])) + (" ..." if len(looked) > _NAMED else "")
        yield (
            f"{name} (mask) is {nothing} all over at every keyframe that was looked at ({frames}), "
            "so perhaps nothing will be restyled"
        )


def _translate(bench: Bench, plan: Plan) -> None:
    """Translate the batches, and what was changed of them."""
    changed = {unit.before.number for unit in plan.redone}
    units = [*plan.translations, *plan.redone]
    sizes = {unit.key: len(_numbers(unit)) for unit in units}
    known = {unit.key for unit in units if bench.store.sound(unit.key)}
    bench.begin("translate", sum(sizes[key] for key in known), sum(sizes.values()))
    for unit in units:
        folder = bench.result(unit)
        if unit.key not in known:
            bench.finish(sizes[unit.key])
        for number in _numbers(unit):
            final = not isinstance(unit, Translate) or number not in changed
            bench.watch(KeyframeDone(number, folder / str(number) / PICTURE, final))


def _numbers(unit: Translate | planning.Redo) -> tuple[int, ...]:
    return unit.keyframes if isinstance(unit, Translate) else (unit.before.number,)


def _expected(bench: Bench, plan: Plan, frames: int) -> Expected:
    """Count what is missing, until the gate and after it.

    frames: of the span
    """
    job, find = bench.job, bench.store.find
    styled = sum(len(_numbers(unit)) for unit in (*plan.translations, *plan.redone)
                 if find(unit.key) is None)  # fmt: skip
    units = [unit for shot in plan.intervals for unit in shot if find(unit.key) is None]
    between = sum(unit.stop - unit.start for unit in units)
    longest = max((unit.stop - unit.start + 2 for unit in units), default=0)
    pixels = job.size.height * job.size.width
    first = {"translate": styled}
    later = {"propagate": between, "encode": frames}
    if job.request.until == "first_frame":  # the plan knows of no others
        later = {"propagate": frames, "encode": frames}
    side = min(job.environment.threads, max(1, len(units)))
    translating = bench.memory if styled else 0
    propagating = min(longest * pixels * _INTERVAL_BYTES * side, job.environment.memory)
    disk = later["propagate"] * pixels * FRAME_BYTES
    if job.request.until == "done":
        return Expected(first | later, {}, max(translating, propagating), 0, disk, 0)
    return Expected(first, later, translating, propagating, 0, disk)


def _check_disk(job: Job, units: Sequence[Propagate], store: Store) -> None:
    """Check that the frames between the keyframes will have room in the store.

    Raises:
        NotEnoughSpace: they have not.
    """
    frames = sum(unit.stop - unit.start for unit in units if store.find(unit.key) is None)
    needed = frames * job.size.height * job.size.width * FRAME_BYTES
    free = shutil.disk_usage(store.folder).free
    if needed > free:
        raise NotEnoughSpace(
            f"the frames between the keyframes take {needed / 1e9:.1f} GB in {store.folder}, where "
            f"{free / 1e9:.1f} GB are free; make room, or name another folder in {STORE}."
        )


def _workers(job: Job, units: Sequence[Propagate]) -> int:
    """How many intervals fit into the memory side by side.

    Raises:
        OutOfMemory: not a single one.
    """
    if not units:
        return 1
    longest = max(units, key=lambda unit: unit.stop - unit.start)
    pixels = (longest.stop - longest.start + 2) * job.size.height * job.size.width
    fitting = job.environment.memory // (pixels * _INTERVAL_BYTES)
    if not fitting:
        raise OutOfMemory(
            f"the frames {longest.start} to {longest.stop - 1} between two keyframes take "
            f"{pixels * _INTERVAL_BYTES / 1e9:.1f} GB at {job.size.width} x {job.size.height}; "
            "choose more keyframes, or a smaller --size."
        )
    return min(job.environment.threads, fitting)


def _encode(bench: Bench, plan: Plan, analysis: Analysis) -> Report:
    """Write the file: every frame of the span, styled, at the source's size."""
    job = bench.job
    start, stop = job.span.start, job.span.stop
    height, width = upright_size(job.clip)
    bench.begin("encode", 0, stop - start)
    masks = bench.mask(start, stop, height, width)

    def publishing(parts: Mapping[Path, Path]) -> None:
        job.check_sources()
        bench.watch(Publishing(parts))

    with job.writer(bench.cancel, publishing) as writer:
        sources = bench.footage.source(start, stop)
        for source, styled in zip(sources, _styled(bench, plan, analysis), strict=True):
            picture = resized(styled, height, width)
            frame = from_rgb(picture, source, job.clip, writer.form, job.hdr)
            if masks is not None:
                below = convert(source, job.clip, writer.form)
                frame = blend(below, frame, next(masks), job.clip)
            writer.write(frame)
            bench.finish(1)
    assert writer.report is not None, "it was left without an error"
    return writer.report


def _styled(bench: Bench, plan: Plan, analysis: Analysis) -> Iterator[Tensor]:
    """Yield every styled frame of the span in order, (3, height, width) in [0, 1]."""
    for shot, units in zip(plan.shots, plan.intervals, strict=True):
        recolour = _recolour(bench, plan, analysis, shot, units)
        for frame in _shot(bench, plan, shot, units):
            yield recolour(frame)


def _shot(bench: Bench, plan: Plan, shot: Shot, units: tuple[Propagate, ...]) -> Iterator[Tensor]:
    """Yield a shot's frames: keyframes, and the intervals between them."""
    intervals = {unit.start: unit for unit in units}
    frame = shot.start
    while frame < shot.stop:
        if frame in plan.keyframes:
            yield bench.picture(plan.keyframes[frame])
            frame += 1
        else:
            yield from bench.propagated(intervals[frame])
            frame = intervals[frame].stop


def _recolour(
    bench: Bench, plan: Plan, analysis: Analysis, shot: Shot, units: tuple[Propagate, ...]
) -> Recolour:
    """Return what gives a shot's frames the colours of the source, if that is wanted."""
    if not bench.job.request.preserve_colour:
        return lambda frame: frame
    first = bench.job.span.start
    source = ColourStatistics.of(analysis.colours[shot.start - first : shot.stop - first])
    styled = ColourStatistics()
    for frame in _shot(bench, plan, shot, units):
        styled.add(frame)
    return match(source, styled)
