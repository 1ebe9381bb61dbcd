"""The effect as a table, for every host; and its parameters' values as a request, both ways.

`python -m bridge_server.descriptor` writes the table beside the link, where plugins read it with no
server running.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

from bridge_server.parameters import CLIPS, PAGES, PARAMETERS, Clip, Group, Kind, Page, Parameter
from bridge_server.request import LOSSES, ControlChoice, Keyframes, Request, parse_cuts
from fresco.errors import InvalidInput
from host_plugins import link

ID = "io.fresco.Stylise"
#: Of the effect: the first number changes only if old projects could no longer be read.
VERSION = (1, 0)
FILE = Path(link.__file__).with_name("effect.json")

Values = Mapping[str, Any]

# ----------------------------------------------------------------------------- values and requests


class Binding(Protocol):
    """How some parameters and a field of the request say the same.

    names: of the parameters; field: of the request, or "method.name"
    """

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def field(self) -> str: ...  # noqa: D102

    def told(self, values: Values) -> Any:
        """What the parameters' values are in the request's table; None: left open."""
        ...

    def values(self, given: Any) -> dict[str, Any]:
        """The parameters' values for what the field holds."""
        ...


@dataclass(frozen=True, slots=True)
class Same:
    """One parameter, one field. empty: the value at which the field is left open."""

    name: str
    empty: Any = None
    inside: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The parameter."""
        return (self.name,)

    @property
    def field(self) -> str:
        """The field of the same name."""
        return f"{self.inside}.{self.name}" if self.inside else self.name

    def told(self, values: Values) -> Any:
        """The value itself."""
        value = values[self.name]
        return None if value == self.empty else value

    def values(self, given: Any) -> dict[str, Any]:
        """The value itself."""
        return {self.name: self.empty if given is None else given}


@dataclass(frozen=True, slots=True)
class Automatic:
    """A value that counts only where the switch beside it, "recommended", is off."""

    name: str
    inside: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The switch and the value."""
        return (f"auto_{self.name}", self.name)

    @property
    def field(self) -> str:
        """The field of the same name."""
        return f"{self.inside}.{self.name}" if self.inside else self.name

    def told(self, values: Values) -> Any:
        """The value, if it counts."""
        return None if values[f"auto_{self.name}"] else values[self.name]

    def values(self, given: Any) -> dict[str, Any]:
        """The value, and whether there is one."""
        value = PARAMETERS[self.name].default if given is None else given
        return {f"auto_{self.name}": given is None, self.name: value}


@dataclass(frozen=True, slots=True)
class Lines:
    """Several of a kind, one in each line; a line that begins with a space goes on with the last.

    Programs may give a list of tables or texts instead.
    """

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The text."""
        return (self.name,)

    @property
    def field(self) -> str:
        """The field of the same name."""
        return self.name

    def told(self, values: Values) -> Any:
        """The lines."""
        return _items(values[self.name])

    def values(self, given: Any) -> dict[str, Any]:
        """What is in the field, a line each."""
        return {self.name: _lines(given)}


class Controls:
    """The control that is chosen from a list, its strength, and further ones in words."""

    names = ("control", "control_scale", "more_controls")
    field = "controls"

    def told(self, values: Values) -> Any:
        """All of them; none at all if the model's own is wanted."""
        kind, more = values["control"], _items(values["more_controls"])
        if kind == "none" and more:
            raise InvalidInput("control is none, and yet more_controls names some; empty one.")
        first = [{"kind": kind, "scale": values["control_scale"]}] if kind != "auto" else []
        return [*first, *more]

    def values(self, given: tuple[ControlChoice, ...]) -> dict[str, Any]:
        """The first of them from the list, if it is there, and the others in words."""
        plain = bool(given) and not given[0].model and not given[0].maps
        kind, scale = (given[0].kind, given[0].scale) if plain else ("auto", 1.0)
        told = {"control": kind, "control_scale": scale}
        return {**told, "more_controls": _lines(given[1:] if plain else given)}


class KeyframeWishes:
    """Which frames are keyframes."""

    names = (
        "keyframe_mode",
        "keyframe_every",
        "keyframe_shortest",
        "keyframe_longest",
        "keyframe_list",
    )
    field = "keyframes"

    def told(self, values: Values) -> str:
        """In words."""
        if values["keyframe_mode"] == "every":
            return f"every:{values['keyframe_every']}"
        if values["keyframe_mode"] == "list":
            return _spaceless(values["keyframe_list"])
        shortest, longest = values["keyframe_shortest"], values["keyframe_longest"]
        return f"auto:{shortest}-{longest}"

    def values(self, given: str) -> dict[str, Any]:
        """From words; what does not matter is as usual."""
        wanted = Keyframes.parse(given)
        mode = "every" if wanted.every else "list" if wanted.frames else "auto"
        return {
            "keyframe_mode": mode,
            "keyframe_every": wanted.every or PARAMETERS["keyframe_every"].default,
            "keyframe_shortest": wanted.shortest,
            "keyframe_longest": wanted.longest,
            "keyframe_list": ",".join(map(str, wanted.frames)),
        }


class CutWishes:
    """Where the cuts are."""

    names = ("cut_mode", "cut_list")
    field = "cuts"

    def told(self, values: Values) -> str:
        """In words."""
        mode = values["cut_mode"]
        return _spaceless(values["cut_list"]) if mode == "list" else mode

    def values(self, given: str) -> dict[str, Any]:
        """From words."""
        frames = ",".join(map(str, parse_cuts(given) or ()))
        return {"cut_mode": "list" if frames else given, "cut_list": frames}


class Losses:
    """What the written file may lose, a switch for each."""

    names = tuple(f"accept_{loss.replace(' ', '_')}" for loss in LOSSES)
    field = "accept"

    def told(self, values: Values) -> Any:
        """The losses whose switches are on."""
        return [loss for loss, name in zip(LOSSES, self.names, strict=True) if values[name]]

    def values(self, given: tuple[str, ...]) -> dict[str, Any]:
        """The switches."""
        return {name: loss in given for loss, name in zip(LOSSES, self.names, strict=True)}


class Smoothing:
    """Whether the background is smoothed, and at which steps."""

    names = ("smooth_background", "smooth_steps")
    field = "method.smooth_at"

    def told(self, values: Values) -> Any:
        """Shares of the schedule; none: never; as usual: left open."""
        if not values["smooth_background"]:
            return []
        text = values["smooth_steps"]
        return None if text == PARAMETERS["smooth_steps"].default else _shares(text)

    def values(self, given: tuple[float, ...] | None) -> dict[str, Any]:
        """The switch and the words."""
        text = ", ".join(map(repr, given)) if given else PARAMETERS["smooth_steps"].default
        return {"smooth_background": given != (), "smooth_steps": text}


def _method(name: str) -> Same:
    """A switch of the method that is left open at its usual value."""
    return Same(name, PARAMETERS[name].default, "method")


BINDINGS: tuple[Binding, ...] = (
    *map(Same, ("prompt", "negative", "seed", "model", "preset", "vae", "clip_skip", "sampler")),
    *map(Same, ("feather", "preserve_colour", "batch", "shared_style", "until", "propagation")),
    *map(Same, ("output", "codec", "hdr", "overwrite", "start", "handles", "rate")),
    *(Same(name, 0) for name in ("steps", "guidance", "size", "stop")),
    *map(Lines, ("loras", "pictures", "embeddings", "changes", "tracks")),
    *map(_method, ("spatial", "spatial_steps", "cross_frame", "temporal", "temporal_loss")),
    *map(_method, ("spatial_weight", "iterations", "optimise_until", "lr", "adain_epsilon")),
    _method("repeat_start_noise"),
    Automatic("strength"),
    Automatic("temporal_until", "method"),
    Automatic("repeat_step_noise", "method"),
    Controls(),
    KeyframeWishes(),
    CutWishes(),
    Losses(),
    Smoothing(),
)
#: Clips that are files, and their fields.
_CLIPS = {"Source": "clip", "Mask": "mask", "Subject": "subject"}
_OF = {name: binding for binding in BINDINGS for name in binding.names}
#: Buttons, and what a host shows or keeps for itself.
HOST_ONLY = frozenset(PARAMETERS) - frozenset(_OF)


def to_request(values: Values) -> dict[str, Any]:
    """Return the request's table for values by parameter or clip; what is not given is as usual.

    Raises:
        InvalidInput: a parameter that there is not, or a value that it cannot have; names it.
    """
    given = {name: _checked(name, value) for name, value in values.items()}
    every = {name: given.get(name, each.default) for name, each in PARAMETERS.items()}
    table: dict[str, Any] = {}
    for binding in BINDINGS:
        if given.keys() & set(binding.names):
            told = binding.told(every)
            if told is not None:
                _put(table, binding.field, told)
    return table | {_CLIPS[name]: given[name] for name in _CLIPS if given.get(name)}


def to_values(request: Request) -> dict[str, Any]:
    """Return the values of all parameters and clips that say what `request` says."""
    values = {name: getattr(request, field) for name, field in _CLIPS.items()}
    for binding in BINDINGS:
        inside, _, name = binding.field.rpartition(".")
        values |= binding.values(getattr(getattr(request, inside) if inside else request, name))
    return values


def check(values: Values) -> None:
    """Check values without making a request of them.

    Raises:
        InvalidInput: see `to_request`.
    """
    for name, value in values.items():
        _checked(name, value)


def _put(table: dict[str, Any], field: str, told: Any) -> None:
    inside, _, name = field.rpartition(".")
    (table.setdefault(inside, {}) if inside else table)[name] = told


def _checked(name: str, value: Any) -> Any:
    parameter = PARAMETERS.get(name)
    if parameter is None and name not in _CLIPS:
        raise InvalidInput(f"{name} is no parameter of {ID}; see `describe`.")
    if isinstance(_OF.get(name), Lines) and isinstance(value, list):
        return cast("list[Any]", value)
    kind = parameter.kind if parameter else Kind.STRING
    wanted, word = _TYPES[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not Kind.BOOLEAN):
        raise InvalidInput(f"{name}: {value!r} cannot be; use {word}.")
    if parameter is not None:
        _check_choice(parameter, value)
    return value


def _check_choice(parameter: Parameter, value: Any) -> None:
    """Check what is known here; keys that other modules know are checked by them."""
    if isinstance(parameter.choices, tuple) and parameter.choices:
        keys = [choice.key for choice in parameter.choices]
        if value not in keys:
            raise InvalidInput(
                f"{parameter.name}: {value!r} cannot be; use one of {', '.join(keys)}."
            )


_TYPES: dict[Kind, tuple[tuple[type, ...], str]] = {
    Kind.STRING: ((str,), "a text"),
    Kind.CHOICE: ((str,), "a choice's key"),
    Kind.DOUBLE: ((int, float), "a number"),
    Kind.INTEGER: ((int,), "a whole number"),
    Kind.BOOLEAN: ((bool,), "true or false"),
    Kind.PUSH_BUTTON: ((), "no value: a button is pressed"),
}


def _items(told: str | list[Any]) -> list[Any]:
    if isinstance(told, list):
        return told
    lines = re.split(r"\n(?! )", told.replace("\r\n", "\n"))
    return [line.replace("\n ", "\n") for line in lines if line.strip()]


def _lines(given: Iterable[object]) -> str:
    return "\n".join(str(each).replace("\n", "\n ") for each in given)


def _spaceless(text: str) -> str:
    return "".join(text.split())


def _shares(text: str) -> list[float]:
    try:
        return [float(share) for share in text.replace(",", " ").split()]
    except ValueError as error:
        raise InvalidInput(f"smooth_steps: {text!r} cannot be; write 0.8, 0.85.") from error


# --------------------------------------------------------------------------------------- the table


def to_table() -> dict[str, Any]:
    """Return the descriptor: plain tables, lists and values, named as OpenFX names them.

    Brings the modules along that know samplers, controls and codecs; `load` does not.
    """
    return {
        "id": ID,
        "version": list(VERSION),
        "label": "FreSCo Stylise",
        "grouping": "FreSCo Bridge",
        "hint": "Restyles a clip by a description, steadily from frame to frame.",
        "contexts": ["Filter", "General"],
        "depths": ["Byte", "Short", "Float"],
        "clips": [_clip(clip) for clip in CLIPS],
        "pages": [_page(page) for page in PAGES],
        "groups": [_group(group) for page in PAGES for group in page.groups],
        "parameters": [
            _parameter(each, group.name, page.name)
            for page in PAGES
            for group in page.groups
            for each in group.parameters
        ],
    }


@cache
def load() -> dict[str, Any]:
    """Read the descriptor as it is shipped; a test holds it to `to_table`."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def keys(parameter: str) -> tuple[str, ...]:
    """Return the keys of a choice, as it is shipped."""
    (found,) = [each for each in load()["parameters"] if each["name"] == parameter]
    return tuple(choice["key"] for choice in found["choices"])


def written() -> str:
    """Return the descriptor as the file's text."""
    return json.dumps(to_table(), indent=1, ensure_ascii=False) + "\n"


def _clip(clip: Clip) -> dict[str, Any]:
    return {
        "name": clip.name,
        "label": clip.label,
        "hint": clip.hint,
        "optional": clip.optional,
        "components": list(clip.components),
        "temporal": True,
        "field": _CLIPS.get(clip.name, ""),
    }


def _page(page: Page) -> dict[str, Any]:
    names = [group.name for group in page.groups]
    return {"name": page.name, "label": page.label, "hint": page.hint, "children": names}


def _group(group: Group) -> dict[str, Any]:
    names = [each.name for each in group.parameters]
    return {"name": group.name, "label": group.label, "children": names}


def _parameter(each: Parameter, group: str, page: str) -> dict[str, Any]:
    table: dict[str, Any] = {
        "name": each.name,
        "type": each.kind.value,
        "label": each.label,
        "hint": each.hint,
        "parent": group,
        "page": page,
        "field": _OF[each.name].field if each.name in _OF else "",
    }
    if each.default is not None:
        table |= {"default": each.default, "animates": each.animates}
    if each.low is not None and each.shown is not None:
        table |= {"min": each.low, "max": each.high}
        table |= {"displayMin": each.shown[0], "displayMax": each.shown[1]}
    if each.kind is Kind.CHOICE:
        choices = each.choices if isinstance(each.choices, tuple) else each.choices()
        table["choices"] = [{"key": choice.key, "label": choice.label} for choice in choices]
    return table | _seldom(each)


def _seldom(each: Parameter) -> dict[str, Any]:
    """What most parameters do not have."""
    told: dict[str, Any] = {"stringMode": each.mode, "models": each.models}
    told |= {"secret": each.secret, "hosts": list(each.hosts)}
    if each.enabled_when is not None:
        told["enabledWhen"] = {"name": each.enabled_when[0], "value": each.enabled_when[1]}
    return {name: value for name, value in told.items() if value} | (
        {} if each.enabled else {"enabled": False}
    )


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
