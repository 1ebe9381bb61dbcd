"""A request with everything decided that it left open, before any work is done.

What is decided comes, in this order, from the request, its preset, what the catalogue recommends
for the model, and the method.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bridge_server import catalogue, library, resolve, sources
from bridge_server import config as configuration
from bridge_server.catalogue import USUAL_CONTROL
from bridge_server.config import Config
from bridge_server.environment import Environment
from bridge_server.errors import SourceChanged
from bridge_server.footage import Beside, WorkSize, beside, painting, stretched
from bridge_server.media import confine, encode, formats, profiles
from bridge_server.media.clip import Clip
from bridge_server.media.encode import OnPublish, Writer
from bridge_server.media.errors import NotWritten
from bridge_server.media.probe import probe
from bridge_server.media.transfer import Hdr
from bridge_server.records import read_picture
from bridge_server.request import ControlChoice, Request, check_frames, parse_rate
from bridge_server.sources import Source, stats
from bridge_server.tracks import Asked, Tracks
from fresco import loading, samplers, weights
from fresco.adapters import Inversion, IPAdapter, Lora
from fresco.callbacks import CancelToken
from fresco.control import ESTIMATORS
from fresco.errors import InvalidInput, MissingWeights
from fresco.schedule import Settings
from fresco.warm import ModelSpec
from host_plugins.link import words

_METHOD = Settings()
_STRENGTH = 0.75
#: Short sides that models were trained on, by family; the catalogue may know better.
_SIZES = {"sd15": 512, "sd2": 512, "sdxl": 1024}


@dataclass(frozen=True, slots=True)
class Control:
    """One ControlNet and its maps.

    kind: of the estimator; where there are `maps` nothing is estimated
    maps: the user's own, a file, or empty
    canny: the thresholds of edges that the network is best shown; None: the usual ones
    weights: of the network that draws the maps, if there is one
    """

    kind: str
    scale: float
    maps: str
    weights: Path | None = None
    canny: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What is to be done, settled. Nothing here changes while it runs.

    clip: the source
    span: its frames that are wanted, handles included
    output: the file to write
    spec: the model, as files of this machine; None where every keyframe is painted
    model: what the catalogue calls the model; empty where every keyframe is painted
    draft: whether that is the draft model, whose pictures are for trying the program
    source: a word for the clip's content (`identity`)
    beside: the mask, the subject and the controls' maps, by their fields' names and numbers
    read: all files that the work reads, as they were
    notes: what the user should know before the work
    """

    request: Request
    clip: Clip
    span: range
    output: Path
    size: WorkSize
    spec: ModelSpec | None
    model: str
    controls: tuple[Control, ...]
    settings: Settings
    strength: float
    environment: Environment
    source: str
    beside: Mapping[str, Beside]
    draft: bool = False
    notes: tuple[str, ...] = ()
    read: tuple[Source, ...] = ()

    @property
    def title(self) -> str:
        """The model as people are told of it."""
        return words.title(self.model, self.draft)

    @property
    def hdr(self) -> Hdr:
        """What becomes of PQ and HLG."""
        return Hdr.TONE_MAP if self.request.hdr == "tone-map" else Hdr.REFUSE

    @property
    def tracks(self) -> Tracks:
        """What is asked of each frame, before anything is changed at a single one."""
        asked = self.request
        usual = Asked(asked.prompt, asked.negative, self.strength, asked.seed)
        return Tracks(asked.tracks, usual)

    def painted(self) -> dict[int, Path]:
        """The keyframes that were painted by hand: frame → picture."""
        return {
            change.frame: Path(change.value)
            for change in self.request.changes
            if change.what == "painted"
        }

    def changed(self) -> dict[int, dict[str, str]]:
        """What else was changed: frame → its changes."""
        found: dict[int, dict[str, str]] = {}
        for change in self.request.changes:
            if change.what != "painted":
                found.setdefault(change.frame, {})[change.what] = change.value
        return found

    def check_sources(self) -> None:
        """Check that what the work reads is what it was when the job was settled.

        Raises:
            SourceChanged: a file was replaced, changed or removed.
        """
        for source in self.read:
            source.check()

    def writer(
        self, cancel: CancelToken | None = None, publishing: OnPublish = lambda _files: None
    ) -> Writer:
        """Make the writer of the output; what can be refused before the work is refused here."""
        request = self.request
        if self.output != Path(request.output):  # only the name is ours, not the place
            with confine.folder(self.output.parent.parent) as folder:
                (folder / self.output.parent.name).mkdir(exist_ok=True)
        if self.output.parent.is_dir() and not os.access(self.output.parent, os.W_OK):
            raise NotWritten(f"{self.output.parent} may not be written to; choose another folder.")
        return Writer(
            self.output,
            self.clip,
            self.span.start,
            self.span.stop,
            request.codec or None,
            request.accept,
            request.overwrite,
            cancel,
            publishing,
        )

    def check_output(self) -> None:
        """Refuse an output that can never be written, where only keyframes are asked for yet.

        Raises:
            UnsupportedMedia, InvalidInput, NotWritten: see `media.encode.check`.
        """
        wanted = self.request
        span, codec = self.span, wanted.codec or None
        encode.check(self.output, self.clip, span.start, span.stop, codec, wanted.accept)


def settle(
    request: Request,
    environment: Environment,
    config: Config | None = None,
    cancel: CancelToken | None = None,
    folder: Path | None = None,
    whole: bool = True,
) -> Job:
    """Decide what `request` left open, and check all that can be checked before the work.

    folder: for the result of a request that names none; beside the source where None
    whole: whether the whole clip is wanted, now or once its keyframes were looked at

    Raises:
        UnreadableMedia, UnsupportedMedia, NotWritten: the clip, or the file to write.
        SourceChanged: the clip was replaced while it was looked at.
        MissingWeights, InvalidInput, UnsupportedModel: says how it is mended.
        Cancelled: `cancel` was set.
    """
    config = config or configuration.load()
    cancel = cancel or CancelToken()
    clip, source = _looked_at(request, cancel)
    span = _span(clip, request)
    check_frames(request, span)
    model = _Model(request, config) if request.translates else None
    short = request.size or (model.short if model else None)
    others = dict(_beside(request, model.controls if model else (), clip, cancel))
    job = Job(
        request=request,
        clip=clip,
        span=span,
        output=_output(request, clip, folder),
        size=WorkSize.of(clip, short),
        spec=model.spec if model else None,
        model=request.model if model else "",
        draft=model.draft if model else False,
        controls=model.controls if model else (),
        settings=model.settings if model else _METHOD,
        strength=model.strength if model else _STRENGTH,
        environment=environment,
        source=source.word,
        beside=others,
        notes=(
            *((*model.notes, *_unsaid(request)) if model else _idle(request)),
            *_unused(request, clip),
            *_stretched(others, clip),
            *_missing_handles(clip, request),
        ),
    )
    for number, picture in job.painted().items():
        painting(picture, number, job.clip)
    painted = ((picture,) for picture in job.painted().values())
    files = (*(_files(own.clip) for own in others.values()), *painted)
    job = replace(job, read=(source, *map(Source.of, files)))
    if request.until == "done":
        job.writer()
    elif whole:
        job.check_output()
    return job


def _looked_at(request: Request, cancel: CancelToken) -> tuple[Clip, Source]:
    """Probe the clip; returns it with what its files were while that was done."""
    path = Path(request.clip)
    before = stats([path]) if path.is_file() else ()
    clip = probe(path, parse_rate(request.rate), cancel)
    source = Source.of(_files(clip))
    if before and not clip.files and before != source.stats:
        raise SourceChanged(f"{path} was changed while it was looked at; try again when it stays.")
    return clip, source


def _files(clip: Clip) -> tuple[Path, ...]:
    return clip.files or (clip.path,)


def _span(clip: Clip, request: Request) -> range:
    wanted = clip.span(request.start, request.stop)
    start = max(0, wanted.start - request.handles)
    return range(start, min(clip.count, wanted.stop + request.handles))


def _beside(
    request: Request, controls: tuple[Control, ...], clip: Clip, cancel: CancelToken
) -> Iterator[tuple[str, Beside]]:
    named = {"mask": request.mask, "subject": request.subject}
    named |= {f"control {place}": control.maps for place, control in enumerate(controls)}
    wanted = clip.span(request.start, request.stop)
    for name, path in named.items():
        if path:
            yield name, beside(Path(path), clip, wanted, name, cancel)


def _idle(request: Request) -> Iterator[str]:
    """What has nothing to act on where every keyframe is painted."""
    if request.tracks:
        yield "every keyframe is painted, so nothing comes of what changes over time (tracks)"


def _unsaid(request: Request) -> Iterator[str]:
    """What is left to chance where nothing tells how the clip is to look."""
    changes = (*request.changes, *request.tracks)
    prompts = (request.prompt, *(own.value for own in changes if own.what == "prompt"))
    if not any(map(str.strip, prompts)) and not (request.loras or request.pictures):
        yield "there is no prompt, so nothing tells how the clip is to look"


def _unused(request: Request, clip: Clip) -> Iterator[str]:
    """What was asked for and has nothing to act on."""
    if request.rate and not clip.files and parse_rate(request.rate) != clip.rate:
        yield f"the rate {request.rate} is for images; the clip has its own, {float(clip.rate):g}"
    if request.feather and not request.mask:
        yield "there is no mask, so nothing is feathered"


def _stretched(others: Mapping[str, Beside], clip: Clip) -> Iterator[str]:
    """What has another shape than the clip."""
    for name, own in others.items():
        if stretched(own.clip, clip):
            yield f"{own.clip.path.name} ({name}) has another shape than the clip; it is stretched"


def _missing_handles(clip: Clip, request: Request) -> Iterator[str]:
    wanted = clip.span(request.start, request.stop)
    before, after = wanted.start, clip.count - wanted.stop
    if min(before, after) < request.handles:
        yield (
            f"the clip has {before} frames before and {after} after the range, fewer than the "
            f"{request.handles} asked for as handles"
        )


def _output(request: Request, clip: Clip, folder: Path | None) -> Path:
    """Where the result goes.

    The request names a file, or a folder that is there; else it is `folder`, or beside the source.
    """
    if request.output:
        folder = Path(request.output)
        if not folder.is_dir():
            return folder
    profile = formats.named(request.codec) if request.codec else profiles.default(clip)
    suffix = profiles.suffix(clip, profile)
    source = clip.path if folder is None else folder / clip.path.name
    if profile.images:
        # Into a folder of its own: two sequences in one would be hard to tell apart.
        images = clip.files[0] if clip.files else clip.path
        beside = images.parent if clip.files else source
        own = (folder or beside.parent) / f"{beside.stem} restyled"
        return own / f"{images.stem.rstrip('0123456789')}####{suffix}"
    return source.with_name(f"{source.stem} restyled{suffix}")


class _Model:
    """The model that a request names, with all that belongs to it."""

    def __init__(self, request: Request, config: Config) -> None:
        self._request, self._config = request, config
        self.notes: list[str] = []
        self._known = catalogue.load(config)
        self._entry = self._known.get(request.model)
        self._best = self._entry.recommended if self._entry else catalogue.Settings()
        best = self._best
        chosen = self._choices()
        self.controls = tuple(control for control, _ in chosen)
        spec = self._named([name for _, name in chosen])
        preset = samplers.preset(request.preset) if request.preset else None
        if request.preset:
            spec = resolve.with_preset(spec, request.preset, config)
        sampler = request.sampler or (preset.sampler if preset else best.sampler)
        spec = replace(spec, sampler=sampler or samplers.DEFAULT)
        self.spec = resolve.resolve(spec, config)
        steps = preset.steps if preset else best.steps
        guidance = preset.guidance_scale if preset else best.guidance
        self.settings = replace(
            _METHOD,
            steps=_first(request.steps, steps, _METHOD.steps),
            guidance_scale=_first(request.guidance, guidance, _METHOD.guidance_scale),
            temporal_until=_first(best.temporal_until, _METHOD.temporal_until),
            repeat_step_noise=_first(best.repeat_step_noise, _METHOD.repeat_step_noise),
        )
        self.settings = replace(self.settings, **request.method.said())
        self.strength = _first(request.strength, best.strength, _STRENGTH)
        self.short: int = best.size or _SIZES[self.family]

    @property
    def draft(self) -> bool:
        """Whether it is the package's own."""
        return self._entry is not None and self._entry.bundled

    @property
    def family(self) -> str:
        if self._entry is not None and self._entry.family is not None:
            return self._entry.family.value
        place = resolve.resolve(ModelSpec(self._request.model), self._config).base
        return loading.family_of(place).name

    def _named(self, controlnets: list[str]) -> ModelSpec:
        request = self._request
        return ModelSpec(
            base=request.model,
            vae=request.vae or self._installed(self._best.vae) or None,
            controlnets=controlnets,
            preview_vae=None,
            clip_skip=request.clip_skip,
            loras=[Lora(lora.name, lora.weight) for lora in request.loras],
            inversions=[Inversion(name) for name in request.embeddings],
            ip_adapters=[
                IPAdapter(own.name, [read_picture(Path(at)) for at in own.pictures], own.scale)
                for own in request.pictures
            ],
        )

    def _installed(self, name: str | None) -> str:
        """Return the name of what is recommended beside a model, if it is on this machine."""
        if not name:
            return ""
        entry = self._known.find(name)
        try:
            library.find(entry, self._config)
        except MissingWeights:
            self.notes.append(
                f"{self._request.model} is better with {name}, which is not on this machine; "
                f"fetch it with `{entry.command}`"
            )
            return ""
        return name

    def _choices(self) -> list[tuple[Control, str]]:
        """The controls asked for, or what the model is best led by, with their networks."""
        asked = self._request.controls
        if [choice.kind for choice in asked] == ["none"]:
            return []
        if not asked:
            if self._best.controls is None:
                return [self._choice(ControlChoice(USUAL_CONTROL), recommended=True)]
            asked = tuple(ControlChoice.parse(own) for own in self._best.controls)
        return [self._choice(choice) for choice in asked]

    def _choice(self, choice: ControlChoice, recommended: bool = False) -> tuple[Control, str]:
        if not choice.maps and choice.kind not in ESTIMATORS:
            raise InvalidInput(
                f"no control is called {choice.kind!r}; use one of {', '.join(ESTIMATORS)} or none."
            )
        drawn = None if choice.maps else resolve.annotator(choice.kind, self._config)
        named = self._known.get(choice.model)
        if choice.model:
            canny = named.recommended.canny if named else None
            return Control(choice.kind, choice.scale, choice.maps, drawn, canny), choice.model
        entry = self._known.network(choice.kind, self._request.model, self.family)
        best = entry.recommended
        scale = best.scale if recommended and best.scale is not None else choice.scale
        return Control(choice.kind, scale, choice.maps, drawn, best.canny), entry.name


def identity(clip: Clip) -> str:
    """A word for the content of a clip, however it is called."""
    return sources.identity(_files(clip))


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def model_facts(spec: ModelSpec) -> dict[str, Any]:
    """Return what a translation depends on in a model, for keys: files as they are now."""

    def file(ref: str | Path | None) -> str | None:
        return None if ref is None else weights.identity(Path(ref))

    return {
        "base": file(spec.base),
        "vae": file(spec.vae),
        "controlnets": [file(ref) for ref in spec.controlnets],
        "sampler": spec.sampler,
        "prediction": spec.prediction,
        "clip_skip": spec.clip_skip,
        "config": file(spec.config),
        "loras": [[file(lora.file), lora.weight, lora.text_weight] for lora in spec.loras],
        "inversions": [[file(own.file), own.word] for own in spec.inversions],
        "ip_adapters": [[file(own.file), own.scale] for own in spec.ip_adapters],
        "image_encoder": file(spec.image_encoder),
        "free_u": spec.free_u and asdict(spec.free_u),
    }
