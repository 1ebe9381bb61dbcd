"""From a settled job and its analysis to units of work, each with the key of its result.

A unit's key holds everything that its bytes depend on: the keys of the results it reads, the
parameters that matter to it, the model's files, the environment. So a unit whose result is in the
store is done, whoever did it and when; and a change reaches the units it matters to, no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from bridge_server.job import Control, Job, identity, model_facts
from bridge_server.media import confine
from bridge_server.media.transfer import is_hdr
from bridge_server.request import Keyframes, parse_cuts
from bridge_server.store import key
from fresco import batches, keyframes, samplers, weights
from fresco.errors import InvalidInput
from fresco.memory import Limits
from fresco.schedule import first_step


@dataclass(frozen=True, slots=True)
class Record:
    """A translated keyframe: `number` in the result of the unit `key`."""

    number: int
    key: str


@dataclass(frozen=True, slots=True)
class Painting:
    """A keyframe painted by hand. identity: of the picture's content."""

    number: int
    file: Path
    identity: str


#: Where a keyframe's picture is.
Styled: TypeAlias = Record | Painting


#: Frames that are measured together: so much is lost where a job is stopped meanwhile.
PIECE = 500


@dataclass(frozen=True, slots=True)
class Measure:
    """Measures the frames [start, stop) of the clip, each against the one before.

    since: the first frame to look at: the one before `start`, if that is in the span. One outside
        may be the damaged frame that the span was chosen to leave out
    """

    key: str
    since: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Analyse:
    """Measures every frame of the span: the error curve, cuts, colours.

    pieces: of the span, in order
    """

    key: str
    start: int
    stop: int
    pieces: tuple[Measure, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """Chooses what of a batch is held in memory at once.

    frames: wanted in a batch; outsiders: further ones that share their style
    """

    key: str
    frames: int
    outsiders: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Measures the depth that becomes black and white, on frames from the whole clip."""

    key: str
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Translate:
    """Translates one batch.

    anchors: records of the shot's first keyframe and of the last one of the batch before
    keyframes: the new ones
    style: the clip's first keyframe, where this is a later shot
    """

    key: str
    anchors: tuple[Record, ...]
    keyframes: tuple[int, ...]
    style: Record | None

    def records(self) -> list[Record]:
        """Where its results are."""
        return [Record(number, self.key) for number in self.keyframes]


@dataclass(frozen=True, slots=True)
class Redo:
    """Translates one keyframe again between its neighbours.

    before: what it was
    changes: what is different, of `bridge_server.request.CHANGES`
    """

    key: str
    before: Record
    neighbours: tuple[Styled, ...]
    changes: Mapping[str, str]
    style: Record | None


@dataclass(frozen=True, slots=True)
class Propagate:
    """Makes the frames [start, stop) of one interval, keys excluded. A side may have no key."""

    key: str
    start: int
    stop: int
    left: Styled | None
    right: Styled | None


Unit: TypeAlias = Measure | Analyse | Fit | Bounds | Translate | Redo | Propagate


@dataclass(frozen=True, slots=True)
class Shot:
    """One shot: its frames [start, stop).

    keyframes: all that its frames are made from
    chain: those that were proposed or asked for; they are translated, batch after batch. Painted
        ones stay among them: painting one changes nothing but the two intervals beside it
    """

    start: int
    stop: int
    keyframes: tuple[int, ...]
    chain: tuple[int, ...]

    @classmethod
    def of(cls, piece: tuple[int, int], chosen: Iterable[int], painted: Iterable[int]) -> Shot:
        """Add the painted keyframes to the chosen ones."""
        own = {number for number in painted if piece[0] <= number < piece[1]}
        chain = tuple(sorted(chosen))
        return cls(*piece, tuple(sorted({*chain, *own})), chain)


@dataclass(frozen=True, slots=True)
class Plan:
    """All units of a job, in an order in which each finds what it needs.

    keyframes: for each keyframe where its picture will be
    intervals: by shot
    """

    shots: tuple[Shot, ...]
    translations: tuple[Translate, ...]
    redone: tuple[Redo, ...]
    keyframes: Mapping[int, Styled]
    intervals: tuple[tuple[Propagate, ...], ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all units: what of the store the job stands on."""
        intervals = (unit for shot in self.intervals for unit in shot)
        return tuple(unit.key for unit in (*self.translations, *self.redone, *intervals))


def source_facts(job: Job) -> dict[str, Any]:
    """What every unit depends on: the clip's bytes, and how its frames are seen."""
    return {
        "clip": job.source,
        "rate": str(job.clip.rate),
        "hdr": job.hdr.value if is_hdr(job.clip.tags) else None,
        "size": asdict(job.size),
        "environment": job.environment.facts(),
    }


def analyse(job: Job) -> Analyse:
    """The unit that measures the clip."""
    start, stop = job.span.start, job.span.stop
    facts = source_facts(job)
    del facts["size"]  # the frames are measured as they are
    # Pieces begin at round numbers, so that spans that overlap share them.
    inner = range(start - start % PIECE + PIECE, stop, PIECE)
    pieces = tuple(
        Measure(key("measure", {**facts, "frames": [since, *ends]}), since, *ends)
        for ends in pairwise([start, *inner, stop])
        for since in (max(start, ends[0] - 1),)
    )
    return Analyse(key("analyse", {**facts, "span": [start, stop]}), start, stop, pieces)


def fit(job: Job, shots: int) -> Fit:
    """The unit that chooses the limits of memory."""
    outsiders = int(shots > 1 and job.request.shared_style)
    assert job.spec is not None, "only asked for where something is translated"
    facts = {
        "model": model_facts(job.spec),
        "settings": asdict(job.settings),
        "size": asdict(job.size),
        "frames": job.request.batch,
        "outsiders": outsiders,
        "memory": job.environment.memory,
        "environment": job.environment.facts(),
    }
    return Fit(key("fit", facts), job.request.batch, outsiders)


def bounds(job: Job) -> Bounds:
    """The unit that measures depth."""
    step = max(1, len(job.span) // 8)
    frames = tuple(job.span[::step])
    networks = [
        control.weights and weights.identity(control.weights)
        for control in job.controls
        if control.kind == "depth"
    ]
    facts = {**source_facts(job), "frames": frames, "networks": networks}
    return Bounds(key("bounds", facts), frames)


def shots(job: Job, errors: list[float], found: list[int]) -> tuple[list[Shot], list[str]]:
    """Split the span into shots and choose their keyframes; returns also what the user should know.

    errors: per frame of the span; found: cuts, in frames of the span

    Raises:
        InvalidInput: a painted shot without a key; a change of a frame that is no keyframe.
    """
    first = job.span.start
    given = parse_cuts(job.request.cuts)
    cuts = [first + cut for cut in found] if given is None else list(given)
    pieces = list(pairwise([first, *cuts, job.span.stop]))
    wanted = Keyframes.parse(job.request.keyframes)
    notes: list[str] = []
    if wanted.frames:
        keys = [_asked(job, wanted.frames, piece, notes) for piece in pieces]
    else:
        shortest, longest = (wanted.every or each for each in (wanted.shortest, wanted.longest))
        relative = [cut - first for cut in cuts]
        # A distance that was asked for is kept; what is found is found between the turns.
        turns = [] if wanted.every else [turn - first for turn in job.tracks.turns(job.span)]
        proposed = keyframes.propose_per_shot(errors, relative, shortest, longest, turns)
        keys = [[first + number for number in shot] for shot in proposed]
    painted = job.painted()
    chosen = [Shot.of(piece, own, painted) for piece, own in zip(pieces, keys, strict=True)]
    _check_changes(job, chosen)
    return _without_idle(job, chosen), notes


def _asked(
    job: Job, numbers: tuple[int, ...], piece: tuple[int, int], notes: list[str]
) -> list[int]:
    """The user's own keyframes of a shot; one that has none is given its first frame."""
    start, stop = piece
    own = [number for number in numbers if start <= number < stop]
    if own or any(start <= number < stop for number in job.painted()):
        return own
    if job.spec is None:
        raise InvalidInput(
            f"frames {start} to {stop - 1} are a shot of their own and have no key; add one, "
            "leave them out with --range, or say --cuts none if there is no cut."
        )
    notes.append(
        f"frames {start} to {stop - 1} are a shot of their own without a keyframe; frame {start} "
        "was made one"
    )
    return [start]


def _check_changes(job: Job, found: list[Shot]) -> None:
    every = [number for shot in found for number in shot.keyframes]
    for change in job.request.changes:
        if change.frame not in every:
            near = min(every, key=lambda number: abs(number - change.frame))
            raise InvalidInput(
                f"frame {change.frame}, whose {change.what} is to change, is no keyframe; "
                f"the nearest is {near}. `fresco-bridge keyframes` lists them."
            )


def _without_idle(job: Job, found: list[Shot]) -> list[Shot]:
    """Leave out translations that nothing looks at: of shots whose keyframes are all painted.

    Where other shots are translated, they look at the first one's.
    """
    painted = job.painted().keys()
    idle = [painted >= set(shot.keyframes) for shot in found]
    seen = job.request.shared_style and not all(idle)
    return [
        replace(shot, chain=()) if idle[place] and not (seen and place == 0) else shot
        for place, shot in enumerate(found)
    ]


def only_first(job: Job, found: list[Shot]) -> list[Shot]:
    """The clip's first keyframe as a shot of its own: for a quick look."""
    first = found[0].keyframes[0]
    chain = tuple(number for number in found[0].chain if number == first)
    return _without_idle(job, [Shot(first, first + 1, (first,), chain)])


def plan(
    job: Job,
    found: list[Shot],
    notes: list[str],
    limits: Limits,
    batch: int,
    depth: str = "",
) -> Plan:
    """Plan everything between the analysis and the encoder.

    limits, batch: what a batch is run with
    depth: the key of the depth's bounds, if there are any
    """
    work = _Planning(job, found, limits, batch, depth)
    translations = list(work.translations())
    redone = work.redone()
    intervals = tuple(tuple(work.intervals(shot)) for shot in found)
    return Plan(
        tuple(found), tuple(translations), redone, work.styled, intervals, (*job.notes, *notes)
    )


class _Planning:
    """Goes through the shots once, and knows where each keyframe's picture is at that point."""

    def __init__(self, job: Job, found: list[Shot], limits: Limits, batch: int, depth: str) -> None:
        self._job, self._shots, self._batch = job, found, batch
        every = {number for shot in found for number in shot.keyframes}
        self._source, self._tracks = source_facts(job), job.tracks
        self._told = self._translation_facts(limits, depth) if job.spec else {}
        self._painted = {
            number: Painting(number, file, _content(file))
            for number, file in job.painted().items()
            if number in every
        }
        self._changed = {n: own for n, own in job.changed().items() if n in every}
        self._records: dict[int, Record] = {}
        self.styled: dict[int, Styled] = {}

    def _translation_facts(self, limits: Limits, depth: str) -> dict[str, Any]:
        job, request = self._job, self._job.request
        assert job.spec is not None
        return {
            **self._source,
            "model": model_facts(job.spec),
            "settings": asdict(job.settings),
            "limits": asdict(limits),
            "controls": [_control_facts(control) for control in job.controls],
            "depth": depth,
            "beside": {
                name: [identity(own.clip), own.first] if own.first else identity(own.clip)
                for name, own in job.beside.items()
                if name != "mask"  # it acts when the file is written
            },
            "pictures": [[_content(Path(at)) for at in own.pictures] for own in request.pictures],
        }

    def _asked(self, numbers: Iterable[int]) -> dict[str, Any]:
        """What is asked of keyframes: of all the same, in the words of a job without tracks."""
        each = [asdict(self._tracks.at(number)) for number in numbers]
        asked = {name: [own[name] for own in each] for name in each[0]}
        return {name: own[0] if len(set(own)) == 1 else own for name, own in asked.items()}

    def translations(self) -> Iterator[Translate]:
        for place, shot in enumerate(self._shots):
            yield from self._shot(shot, self._style(place))

    def _style(self, place: int) -> Record | None:
        """What a later shot sees of the first: its first keyframe, as it was translated."""
        chain = self._shots[0].chain
        shared = place and chain and self._job.request.shared_style
        return self._records[chain[0]] if shared else None

    def _shot(self, shot: Shot, style: Record | None) -> Iterator[Translate]:
        planned = batches.plan(shot.chain, self._batch) if shot.chain else []
        if self._painted.keys() >= set(shot.keyframes):
            planned = planned[:1]  # later shots look at its first keyframe, and nobody at others
        for batch in planned:
            self._check_strengths(batch.keyframes)
            anchors = tuple(self._records[number] for number in batch.anchors)
            facts = {
                **self._told,
                **self._asked(batch.keyframes),
                "anchors": [asdict(anchor) for anchor in anchors],
                "keyframes": batch.keyframes,
                "style": style and asdict(style),
            }
            unit = Translate(key("translate", facts), anchors, batch.keyframes, style)
            self._records |= {record.number: record for record in unit.records()}
            yield unit

    def _check_strengths(self, numbers: Sequence[int]) -> None:
        """Refuse what the method would refuse when the batch is translated."""
        spec, steps = self._job.spec, self._job.settings.steps
        strengths = {number: self._tracks.at(number).strength for number in numbers}
        firsts = {first_step(strength, steps) for strength in strengths.values()}
        if len(firsts) > 1 and spec is not None and samplers.remembers(str(spec.sampler)):
            said = ", ".join(f"{own} at {number}" for number, own in strengths.items())
            raise InvalidInput(
                f"tracks: the sampler {spec.sampler} needs one strength for keyframes that are "
                f"translated together, and there are {said}; use one strength, or another sampler, "
                "as ddpm or lcm."
            )

    def redone(self) -> tuple[Redo, ...]:
        """The changed keyframes. Neighbours are as they were before any change, or painted."""
        changed = self._changed.items()
        made = tuple(self._redo(*change) for change in changed if change[0] not in self._painted)
        again = {unit.before.number: Record(unit.before.number, unit.key) for unit in made}
        self.styled = {**self._records, **again, **self._painted}
        return made

    def _redo(self, number: int, changes: dict[str, str]) -> Redo:
        place = next(i for i, shot in enumerate(self._shots) if number in shot.keyframes)
        keys = self._shots[place].keyframes
        k = keys.index(number)
        beside = [keys[i] for i in (k - 1, k + 1) if 0 <= i < len(keys)]
        neighbours = tuple(self._painted.get(other) or self._records[other] for other in beside)
        before, style = self._records[number], self._style(place)
        facts = {
            **self._told,
            **self._asked(sorted([number, *beside])),
            "before": asdict(before),
            "neighbours": [_said(neighbour) for neighbour in neighbours],
            "changes": changes,
            "style": style and asdict(style),
        }
        return Redo(key("redo", facts), before, neighbours, changes, style)

    def intervals(self, shot: Shot) -> Iterator[Propagate]:
        """The intervals of a shot that have frames between their keys, in order."""
        keys = shot.keyframes
        ends: list[int | None] = [None, *keys, None]
        for left, right in pairwise(ends):
            start = shot.start if left is None else left + 1
            stop = shot.stop if right is None else right
            if start < stop:
                yield self._interval(start, stop, left, right)

    def _interval(self, start: int, stop: int, left: int | None, right: int | None) -> Propagate:
        sides = [None if side is None else self.styled[side] for side in (left, right)]
        facts = {
            **self._source,
            "frames": [start, stop],
            "keys": [side and _said(side) for side in sides],
            "method": self._job.request.propagation,
        }
        return Propagate(key("propagate", facts), start, stop, *sides)


def _control_facts(control: Control) -> list[Any]:
    drawn = control.weights and weights.identity(control.weights)
    return [control.kind, control.scale, drawn, control.canny]


def _said(styled: Styled) -> list[Any]:
    """A keyframe's picture in a key."""
    if isinstance(styled, Record):
        return [styled.number, styled.key]
    return [styled.number, styled.identity]


def _content(file: Path) -> str:
    with confine.file(file) as name:
        return hashlib.sha256(name.read_bytes()).hexdigest()[:24]
