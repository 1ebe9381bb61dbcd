"""What a user asks for: a clip, a prompt, and everything that may be said beside them.

One description for the command line, a job file (TOML) and the server (plain tables). Nothing is
looked up here; names of models stay names, and what is left open is decided by the plan.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from fresco.errors import InvalidInput
from host_plugins.link import timing

#: Of Stable Diffusion's training; no schedule has more.
_STEPS = 1000
#: How far a job goes before it waits for the user.
GATES = ("first_frame", "keyframes", "done")
#: What may differ from keyframe to keyframe.
CHANGES = ("prompt", "negative", "strength", "seed", "painted")
PROPAGATIONS = ("auto", "flow", "patch")
HDR = ("refuse", "tone-map")
#: What a written file may lose, if the user accepts it.
LOSSES = ("alpha", "bit depth", "pixel aspect")


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """A LoRA by name, and its weight."""

    name: str
    weight: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}:{self.weight}"

    @classmethod
    def parse(cls, text: str) -> LoraChoice:
        """Read "name" or "name:0.8"; the name may hold colons ("owner/name:file.safetensors")."""
        name, colon, number = text.rpartition(":")
        if colon and _is_number(number):
            return cls(name, float(number))
        return cls(text)


@dataclass(frozen=True, slots=True)
class ControlChoice:
    """A kind of control map, its strength, and the ControlNet if not the usual one.

    maps: the user's own maps, a file or folder; then `kind` says what the ControlNet takes
    """

    kind: str
    scale: float = 1.0
    model: str = ""
    maps: str = ""

    def __str__(self) -> str:
        text = f"{self.kind}:{self.scale}"
        maps = f"={self.maps}" if self.maps else ""
        return f"{text}:{self.model}{maps}" if self.model or self.maps else text

    @classmethod
    def parse(cls, text: str) -> ControlChoice:
        """Read "canny", "canny:0.8", "canny:0.8:model" or "depth:0.8:model=maps".

        Raises:
            InvalidInput: it cannot be read so.
        """
        kind, _, rest = text.partition(":")
        number, _, names = rest.partition(":")
        model, _, maps = names.partition("=")
        if not kind or (number and not _is_number(number)):
            raise InvalidInput(
                f"control {text!r} cannot be read; write for example canny, canny:0.8 or "
                "canny:0.8:control-canny."
            )
        return cls(kind, float(number) if number else 1.0, model, maps)


@dataclass(frozen=True, slots=True)
class PictureChoice:
    """An IP-Adapter and the pictures that it takes the style from."""

    name: str
    pictures: tuple[str, ...]
    scale: float = 0.6

    def __str__(self) -> str:
        return f"{self.name}:{self.scale}={','.join(self.pictures)}"

    @classmethod
    def parse(cls, text: str) -> PictureChoice:
        """Read "name=a.png,b.png" or "name:0.5=a.png".

        Raises:
            InvalidInput: it cannot be read so.
        """
        named, _, files = text.partition("=")
        name, colon, number = named.rpartition(":")
        if not named or not files:
            raise InvalidInput(
                f"reference {text!r} cannot be read; write NAME=picture.png or "
                "NAME:0.6=a.png,b.png with the name of an IP-Adapter."
            )
        if colon and _is_number(number):
            return cls(name, tuple(files.split(",")), float(number))
        return cls(named, tuple(files.split(",")))


def _is_seed(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,19}", text) is not None and int(text) < 2**63


def _is_share(text: str) -> bool:
    return _is_number(text) and 0 <= float(text) <= 1


#: What the value of a change must be, and the words for it.
_VALUES = {
    "seed": (_is_seed, "a whole number from 0"),
    "strength": (_is_share, "a number from 0 to 1"),
    "painted": (bool, "the name of a picture"),
}


def _in_words(value: object) -> str:
    """A value as the user wrote it: of lists, their parts."""
    return repr(", ".join(map(str, value)) if isinstance(value, tuple) else value)


@dataclass(frozen=True, slots=True)
class Change:
    """What is different at one keyframe; in `Request.tracks`: from one frame on.

    frame: its number in the source
    what: one of `CHANGES`
    """

    frame: int
    what: str
    value: str

    def __post_init__(self) -> None:
        if self.what not in CHANGES or self.frame < 0:
            raise InvalidInput(
                f"{self.what}@{self.frame} is no change; write one of {', '.join(CHANGES)}, and a "
                "frame from 0."
            )
        good = _VALUES.get(self.what)
        if good is not None and not good[0](self.value):
            raise InvalidInput(f"{self}: use {good[1]}.")

    def __str__(self) -> str:
        return f"{self.what}@{self.frame}={self.value}"

    @classmethod
    def parse(cls, text: str) -> Change:
        """Read "prompt@48=a rainy street".

        Raises:
            InvalidInput: it cannot be read so.
        """
        match = re.fullmatch(r"(\w+)@([0-9]{1,18})=(.*)", text, re.DOTALL)
        if match is None or match[1] not in CHANGES:
            raise InvalidInput(
                f"{text!r} cannot be read; write WHAT@FRAME=VALUE with WHAT one of "
                f"{', '.join(CHANGES)}, for example prompt@48=a rainy street."
            )
        return cls(int(match[2]), match[1], match[3])


@dataclass(frozen=True, slots=True)
class Keyframes:
    """Which frames are translated.

    every: a fixed distance; 0 = none
    frames: exactly these; neither = found by the error curve
    shortest, longest: intervals that are found, frames (method, section 12)
    """

    every: int = 0
    frames: tuple[int, ...] = ()
    shortest: int = 10
    longest: int = 30

    def __str__(self) -> str:
        if self.every:
            return f"every:{self.every}"
        if self.frames:
            return ",".join(map(str, self.frames))
        usual = self == Keyframes()
        return "auto" if usual else f"auto:{self.shortest}-{self.longest}"

    @classmethod
    def parse(cls, text: str) -> Keyframes:
        """Read "auto", "auto:10-30", "every:12" or "0,24,60".

        Raises:
            InvalidInput: it cannot be read so.
        """
        if text == "auto":
            return cls()
        if match := re.fullmatch(r"auto:([1-9]\d*)-([1-9]\d*)", text):
            shortest, longest = int(match[1]), int(match[2])
            if shortest <= longest:
                return cls(shortest=shortest, longest=longest)
        if match := re.fullmatch(r"every:([1-9]\d*)", text):
            return cls(every=int(match[1]))
        if re.fullmatch(r"\d+(,\d+)*", text):
            return cls(frames=tuple(sorted({int(number) for number in text.split(",")})))
        raise InvalidInput(
            f"keyframes {text!r} cannot be read; write auto, auto:10-30 (the shortest and the "
            "longest interval), every:12, or frames as 0,24,60."
        )


def parse_cuts(text: str) -> tuple[int, ...] | None:
    """Read "auto" (None: they are to be found), "none", or frames as "96,140".

    Raises:
        InvalidInput: it cannot be read so.
    """
    if text == "auto":
        return None
    if text == "none":
        return ()
    if re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        return tuple(sorted({int(number) for number in text.split(",")}))
    raise InvalidInput(
        f"cuts {text!r} cannot be read; write auto, none, or the first frames of the later shots "
        "as 96,140."
    )


def parse_rate(text: str) -> Fraction | None:
    """Read frames per second: "24", "23.976" (which means 24000/1001), "30000/1001"; "" is None.

    Raises:
        InvalidInput: it is no rate.
    """
    if not text:
        return None
    try:
        return timing.parse_rate(text)
    except ValueError as error:
        raise InvalidInput(f"rate: {error}; write 24 or 24000/1001.") from error


@dataclass(frozen=True, slots=True)
class Method:
    """Parts of FRESCO that are wanted otherwise: see `fresco.schedule.Settings`. None: as usual.

    Raises:
        InvalidInput: a value that cannot be; names it.
    """

    spatial: bool | None = None
    cross_frame: bool | None = None
    temporal: bool | None = None
    spatial_steps: int | None = None
    temporal_until: float | None = None
    temporal_loss: bool | None = None
    spatial_weight: float | None = None
    iterations: int | None = None
    lr: float | None = None
    adain_epsilon: float | None = None
    optimise_until: float | None = None
    smooth_at: tuple[float, ...] | None = None
    repeat_start_noise: bool | None = None
    repeat_step_noise: bool | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value, kind = getattr(self, each.name), str(each.type).removesuffix(" | None")
            if value is not None and not _can_be(each.name, kind, value):
                low, high = _RANGES.get(each.name, _FROM_ZERO)
                wanted = "true or false" if kind == "bool" else f"{low} to {high}"
                raise InvalidInput(f"{each.name}: {value!r} cannot be; use {wanted}.")

    def said(self) -> dict[str, Any]:
        """What is wanted otherwise, by the names of the method's settings."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in every.items() if value is not None}


def _can_be(name: str, kind: str, value: Any) -> bool:
    """Whether `value` is of the type written so, and in the range of the field."""
    if kind.startswith("tuple"):
        return isinstance(value, tuple) and all(_can_be(name, "float", one) for one in value)
    low, high = _RANGES.get(name, _FROM_ZERO)
    return _is_a(kind, value) and (kind == "bool" or low <= value <= high)


_FROM_ZERO = (0, math.inf)
_RANGES = {
    "temporal_until": (0, 1),
    "iterations": (0, 1000),
    "lr": (1e-6, 100),
    "adain_epsilon": (1e-9, 100),
    "optimise_until": (0, 1),
    "smooth_at": (0, 1),
}


@dataclass(frozen=True, slots=True)
class Request:
    """A job as it was asked for. None and empty mean: as the model, the preset or the clip has it.

    clip: the source; start, stop: the frames of it that are wanted, stop excluded
    handles: frames more at both ends, for transitions
    shared_style: later shots see the clip's first keyframe
    rate: of an image sequence that does not say its own, frames per second
    cuts: "auto", "none", or the first frames of the later shots
    size: the short side that is worked at, pixels
    mask: where the effect is (white); feather: of its edge, pixels
    subject: what is not background (white)
    changes: what is different at single keyframes
    tracks: what changes over time: each value holds from its frame on, until the next of its kind
    method: parts of FRESCO that are wanted otherwise
    hdr: what becomes of PQ and HLG: "refuse" or "tone-map"
    accept: what the written file may lose: "alpha", "bit depth", "pixel aspect"
    until: one of `GATES`

    Raises:
        InvalidInput: a value that cannot be; names the field.
    """

    clip: str
    prompt: str = ""
    negative: str = ""
    output: str = ""
    model: str = "fresco-draft"
    vae: str = ""
    preset: str = ""
    loras: tuple[LoraChoice, ...] = ()
    controls: tuple[ControlChoice, ...] = ()
    pictures: tuple[PictureChoice, ...] = ()
    embeddings: tuple[str, ...] = ()
    clip_skip: int = 1
    sampler: str = ""
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    seed: int = 0
    keyframes: str = "auto"
    cuts: str = "auto"
    shared_style: bool = True
    batch: int = 8
    start: int = 0
    stop: int | None = None
    handles: int = 0
    rate: str = ""
    size: int | None = None
    mask: str = ""
    feather: float = 0.0
    subject: str = ""
    changes: tuple[Change, ...] = ()
    tracks: tuple[Change, ...] = ()
    method: Method = field(default_factory=Method)
    propagation: str = "auto"
    preserve_colour: bool = False
    codec: str = ""
    hdr: str = "refuse"
    accept: tuple[str, ...] = ()
    until: str = "done"
    overwrite: bool = False

    def __post_init__(self) -> None:
        Keyframes.parse(self.keyframes)
        parse_cuts(self.cuts)
        parse_rate(self.rate)
        _check_once("changes", self.changes)
        _check_once("tracks", self.tracks)
        rules = {
            "clip": bool(self.clip),
            "until": self.until in GATES,
            "propagation": self.propagation in PROPAGATIONS,
            "hdr": self.hdr in HDR,
            "accept": set(self.accept) <= set(LOSSES),
            "steps": self.steps is None or 1 <= self.steps <= _STEPS,
            "strength": self.strength is None or 0 <= self.strength <= 1,
            "guidance": self.guidance is None or 0 <= self.guidance < math.inf,
            "loras": all(math.isfinite(lora.weight) for lora in self.loras),
            "controls": all(0 <= control.scale < math.inf for control in self.controls),
            "pictures": all(0 <= own.scale < math.inf for own in self.pictures),
            "seed": 0 <= self.seed < 2**63,
            "batch": self.batch >= 3,
            "start": self.start >= 0,
            "stop": self.stop is None or self.stop > self.start,
            "handles": self.handles >= 0,
            "size": self.size is None or self.size >= 64,
            "feather": 0 <= self.feather < math.inf,
            "clip_skip": self.clip_skip >= 1,
        }
        for name, holds in rules.items():
            if not holds:
                raise InvalidInput(
                    f"{name}: {_in_words(getattr(self, name))} cannot be; {_HELP[name]}"
                )

    def table(self) -> dict[str, Any]:
        """Plain tables, lists and values: what `from_table` reads. Without what is as usual."""
        usual = Request(clip=self.clip)
        said = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != getattr(usual, field.name)
        }
        # Tracks in words: a value for every frame of a long clip still fits into a message then.
        words = list(map(str, said.pop("tracks", ())))
        table = {name: _plain(value) for name, value in said.items()}
        return {"clip": self.clip, **table, **({"tracks": words} if words else {})}

    @property
    def translates(self) -> bool:
        """Whether any keyframe is left to the model."""
        painted = {change.frame for change in self.changes if change.what == "painted"}
        asked = set(Keyframes.parse(self.keyframes).frames)
        return not asked or not asked <= painted

    def to_toml(self) -> str:
        """A job file."""
        return tomlkit.dumps(self.table())


def check_frames(request: Request, span: range) -> None:
    """Check that what is said of single frames is said of frames that there are.

    span: the source's frames that are worked on, handles included

    Raises:
        InvalidInput: keyframes, cuts or changes outside the span.
    """
    first, last = span.start, span.stop - 1
    cuts = [cut for cut in parse_cuts(request.cuts) or () if not first < cut <= last]
    if cuts:
        raise InvalidInput(f"cuts {cuts} are not between the frames {first} and {last}.")
    asked = Keyframes.parse(request.keyframes).frames
    for what, numbers in (
        ("keyframes", asked),
        ("changes at", [change.frame for change in request.changes]),
    ):
        outside = [number for number in numbers if number not in span]
        if outside:
            raise InvalidInput(f"{what} {outside} are not among the frames {first} to {last}.")


_HELP = {
    "clip": "name a file.",
    "until": f"use one of {', '.join(GATES)}.",
    "propagation": f"use one of {', '.join(PROPAGATIONS)}.",
    "hdr": f"use one of {', '.join(HDR)}.",
    "accept": f"use some of {', '.join(LOSSES)}.",
    "steps": "use 1 to 1000.",
    "strength": "use 0 (the source itself) to 1.",
    "guidance": "use 0 or more.",
    "loras": "use numbers as weights.",
    "controls": "use strengths of 0 or more.",
    "pictures": "use strengths of 0 or more.",
    "seed": "use a whole number from 0 to 9223372036854775807.",
    "batch": "use 3 keyframes or more.",
    "start": "frames count from 0.",
    "stop": "it must lie behind start.",
    "handles": "use 0 or more frames.",
    "size": "use 64 pixels or more.",
    "feather": "use 0 or more pixels.",
    "clip_skip": "use 1 (none) or 2.",
}


def _check_once(name: str, said: Sequence[Change]) -> None:
    seen: set[tuple[int, str]] = set()
    for own in said:
        if name == "tracks" and own.what == "painted":
            raise InvalidInput(
                f"tracks: {own} is of one keyframe only; put it into changes (--set)."
            )
        if (own.frame, own.what) in seen:
            raise InvalidInput(
                f"{name}: {own.what}@{own.frame} is there twice; say each thing at a frame once."
            )
        seen.add((own.frame, own.what))


_PARTS: dict[str, Any] = {
    f"tuple[{part.__name__}, ...]": part
    for part in (LoraChoice, ControlChoice, PictureChoice, Change)
}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}


def from_table(table: Mapping[str, Any], source: str = "the request") -> Request:
    """Read a request from plain tables.

    source: where it is from, for messages

    Raises:
        InvalidInput: a field that is unknown, missing or of another type; a value that cannot be.
    """
    kinds = {field.name: str(field.type) for field in fields(Request)}
    unknown = sorted(set(table) - set(kinds))
    if unknown:
        raise InvalidInput(f"{source}: {unknown[0]} is no field; there are {', '.join(kinds)}.")
    if "clip" not in table:
        raise InvalidInput(f"{source}: clip is missing; name the file to restyle.")
    values = {name: _value(name, kinds[name], given, source) for name, given in table.items()}
    try:
        return Request(**values)
    except InvalidInput as error:
        raise InvalidInput(f"{source}: {error}") from error


def read(file: Path) -> Request:
    """Read a job file; relative paths in it count from where it is.

    Raises:
        InvalidInput: it cannot be read, or says something that cannot be.
    """
    try:
        table = tomlkit.parse(file.read_text(encoding="utf-8")).unwrap()
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}") from error
    return _placed(from_table(table, str(file)), file.parent)


def absolute(request: Request, folder: Path, is_path: Callable[[str], bool]) -> Request:
    """Return `request` for another process: with every path absolute, relative ones in `folder`.

    is_path: whether a model's name is one
    """

    def at(name: str) -> str:
        return os.path.abspath(folder / Path(name).expanduser()) if is_path(name) else name

    placed = _placed(request, folder)
    return replace(
        placed,
        **{name: os.path.abspath(own) for name in ("clip", "output", "mask", "subject")
           if (own := getattr(placed, name))},
        model=at(placed.model),
        vae=at(placed.vae),
        embeddings=tuple(map(at, placed.embeddings)),
        loras=tuple(replace(own, name=at(own.name)) for own in placed.loras),
        controls=tuple(replace(own, model=at(own.model)) for own in placed.controls),
        pictures=tuple(replace(own, name=at(own.name)) for own in placed.pictures),
    )  # fmt: skip


def _placed(request: Request, folder: Path) -> Request:
    """Let the relative paths in `request` count from `folder`. Names of models stay as they are."""

    def at(path: str) -> str:
        return str(folder / Path(path).expanduser()) if path else ""

    return with_files(request, at)


def with_files(request: Request, at: Callable[[str], str]) -> Request:
    """Return `request` with `at` of each file that it names; also of "", where it names none."""
    return replace(
        request,
        **{name: at(getattr(request, name)) for name in ("clip", "output", "mask", "subject")},
        controls=tuple(replace(own, maps=at(own.maps)) for own in request.controls),
        pictures=tuple(
            replace(own, pictures=tuple(map(at, own.pictures))) for own in request.pictures
        ),
        changes=tuple(
            replace(own, value=at(own.value)) if own.what == "painted" else own
            for own in request.changes
        ),
    )


def with_models(request: Request, at: Callable[[str], str]) -> Request:
    """Return `request` with `at` of each model that it names; also of "", where it names none."""
    return replace(
        request,
        model=at(request.model),
        vae=at(request.vae),
        embeddings=tuple(map(at, request.embeddings)),
        loras=tuple(replace(own, name=at(own.name)) for own in request.loras),
        pictures=tuple(replace(own, name=at(own.name)) for own in request.pictures),
        controls=tuple(replace(own, model=at(own.model)) for own in request.controls),
    )


def _value(name: str, kind: str, given: Any, source: str) -> Any:
    where = f"{source}, {name}"
    if kind in _PARTS:
        return tuple(_part(_PARTS[kind], item, where) for item in _list(given, where))
    if kind == "Method":
        return _part(Method, given, where)
    kind = kind.removesuffix(" | None")
    if kind.startswith("tuple"):
        inner = kind.removeprefix("tuple[").partition(",")[0]
        return tuple(_value(name, inner, item, source) for item in _list(given, where))
    if not _is_a(kind, given):
        raise InvalidInput(f"{where}: {given!r} should be {_NAMES[kind]}.")
    return given


def _is_a(kind: str, given: Any) -> bool:
    """Whether a value is of the type that is written so."""
    wanted = _TYPES[kind]
    return isinstance(given, wanted) and (bool in wanted or not isinstance(given, bool))


def _part(kind: Any, given: Any, where: str) -> Any:
    """Read one of `_PARTS`, said in words or as a table of its fields."""
    if isinstance(given, str) and hasattr(kind, "parse"):
        return _made(kind.parse, where, given)
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{where}: {given!r} cannot be read; write a table of its fields.")
    table: dict[str, Any] = dict(given)  # pyright: ignore
    kinds = {field.name: str(field.type) for field in fields(kind)}
    unknown = sorted(set(table) - set(kinds))
    if unknown:
        raise InvalidInput(
            f"{where}: {given!r} cannot be read; {unknown[0]} is no field, there are "
            f"{', '.join(kinds)}."
        )
    values = {key: _value(key, kinds[key], own, where) for key, own in table.items()}
    return _made(kind, f"{where}: {given!r} cannot be read", **values)


def _made(part: Any, where: str, /, *words: str, **values: Any) -> Any:
    try:
        return part(*words, **values)
    except (InvalidInput, TypeError) as error:  # a type error: a field is missing
        raise InvalidInput(f"{where}: {error}") from error


def _list(given: Any, where: str) -> Sequence[Any]:
    if not isinstance(given, list | tuple):
        raise InvalidInput(f"{where}: {given!r} should be a list.")
    return given  # pyright: ignore[reportUnknownVariableType]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if hasattr(value, "__dataclass_fields__"):
        return {key: _plain(one) for key, one in asdict(value).items() if one is not None}
    return value


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", text) is not None


_NAMES = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}
