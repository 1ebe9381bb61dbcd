# SPDX-License-Identifier: GPL-3.0-or-later
"""The effect's parameters as properties of a strip, made from the effect descriptor.

They stand on the strip itself and not in a group of their own: only so can Blender animate them
from its interface.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import bpy

from . import compat

PREFIX = "fresco_"
#: Blender's enumerations have no empty key.
_USUAL = "USUAL"
#: What this host decides itself, or shows in its own way.
_OWN = frozenset({"start", "stop", "rate", "output", "overwrite", "tracks"})
#: Beside the effect's parameters.
MASK, MASK_ALPHA = PREFIX + "mask", PREFIX + "mask_alpha"
SUBJECT, SUBJECT_ALPHA = PREFIX + "subject", PREFIX + "subject_alpha"
PROMPTS, PROMPT_NUMBER = PREFIX + "prompts", PREFIX + "prompt_number"
MUTE = PREFIX + "mute_original"
TICKETS = "fresco_jobs"

Parameter = Mapping[str, Any]


@cache
def effect() -> Mapping[str, Any]:
    """The effect descriptor (PROTOCOL.md, section 9)."""
    file = Path(__file__).parents[1] / "link" / "effect.json"
    return json.loads(file.read_text(encoding="utf-8"))


@cache
def parameters() -> Mapping[str, Parameter]:
    """The parameters that are properties here, by name."""
    every = effect()["parameters"]
    return {each["name"]: each for each in every if _wanted(each)}


def _wanted(parameter: Parameter) -> bool:
    ours = parameter["type"] != "PushButton" and parameter["name"] not in _OWN
    shown = parameter.get("enabled", True) and not parameter.get("secret", False)
    return ours and shown and "blender" in parameter.get("hosts", ["blender"])


def key(name: str) -> str:
    """What the property of a parameter is called on a strip."""
    return PREFIX + name


def values(strip: Any) -> dict[str, Any]:
    """The parameters that are set otherwise than usual, as the protocol wants them."""
    every = {name: value(strip, name) for name in parameters()}
    return {name: own for name, own in every.items() if own != parameters()[name]["default"]}


def value(strip: Any, name: str) -> Any:
    """The value of one parameter: of a choice its key."""
    found = getattr(strip, key(name))
    if parameters()[name]["type"] == "Choice":
        return "" if found == _USUAL else found
    if parameters()[name]["type"] == "Double":
        return _short(found)
    return found


def assign(strip: Any, told: Mapping[str, Any]) -> None:
    """Set parameters, of a look or of another strip; those that are not known are left out."""
    for name, given in told.items():
        if name in parameters():
            choice = parameters()[name]["type"] == "Choice"
            setattr(strip, key(name), (given or _USUAL) if choice else given)


def _short(number: float) -> float:
    """A number of single precision as a person wrote it: 0.35, not 0.3499999940395355."""
    return float(f"{number:.6g}")


def copy(source: Any, target: Any) -> None:
    """Give a strip the settings of another."""
    for name in (*map(key, parameters()), MASK, MASK_ALPHA, SUBJECT, SUBJECT_ALPHA, MUTE):
        setattr(target, name, getattr(source, name))
    getattr(target, PROMPTS).clear()
    for each in getattr(source, PROMPTS):
        getattr(target, PROMPTS).add().text = each.text


# ------------------------------------------------------------------------------------ registering


def _options(parameter: Parameter) -> dict[str, Any]:
    told = {"name": parameter["label"], "description": parameter["hint"]}
    return {**told, "options": {"ANIMATABLE"} if parameter["animates"] else set()}  # pyright: ignore


def _limits(parameter: Parameter) -> dict[str, Any]:
    names = {"min": "min", "max": "max", "soft_min": "displayMin", "soft_max": "displayMax"}
    return {ours: parameter[theirs] for ours, theirs in names.items() if theirs in parameter}


def _text(parameter: Parameter) -> Any:
    file = {"subtype": "FILE_PATH"} if parameter["stringMode"] == "FilePath" else {}
    search = {"search": _searched(parameter["models"])} if "models" in parameter else {}
    more = {"search_options": {"SUGGESTION"}} if search else {}
    return bpy.props.StringProperty(
        default=parameter["default"], **_options(parameter), **file, **search, **more
    )


#: Told by `watch`: the models that the server knows, as rows of PROTOCOL.md's `models`.
known_models: Callable[[], tuple[Mapping[str, Any], ...]] = tuple


def _searched(role: str) -> Callable[..., list[str]]:
    """What Blender offers while a model's name is written."""

    def search(_strip: Any, _context: Any, text: str) -> list[str]:
        names = [str(row["name"]) for row in known_models() if row.get("role") == role]
        return [name for name in names if text.lower() in name.lower()]

    return search


def _choice(parameter: Parameter) -> Any:
    items = [
        (each["key"] or _USUAL, each["label"], each["label"], place)
        for place, each in enumerate(parameter["choices"])
    ]
    return bpy.props.EnumProperty(
        items=items, default=parameter["default"] or _USUAL, **_options(parameter)
    )


def _float(parameter: Parameter) -> Any:
    told = {**_options(parameter), **_limits(parameter)}
    return bpy.props.FloatProperty(default=parameter["default"], precision=3, **told)


def _int(parameter: Parameter) -> Any:
    told = {**_options(parameter), **_limits(parameter)}
    return bpy.props.IntProperty(default=parameter["default"], **told)


def _bool(parameter: Parameter) -> Any:
    return bpy.props.BoolProperty(default=parameter["default"], **_options(parameter))


_MAKERS = {"String": _text, "Choice": _choice, "Double": _float, "Integer": _int, "Boolean": _bool}


class FRESCO_PG_prompt(bpy.types.PropertyGroup):
    """A further prompt of a strip, for `prompt_number`."""

    text: bpy.props.StringProperty(name="Style")  # pyright: ignore


def _further() -> Iterator[tuple[str, Any]]:
    """What a strip has beside the effect's parameters."""
    fixed: Any = {"options": set()}
    texts = {
        MASK: ("Mask", "Another strip: where it is white the style shows, black stays untouched"),
        SUBJECT: ("Subject", "Another strip: what is not background is white in it"),
    }
    for name, (label, hint) in texts.items():
        yield name, bpy.props.StringProperty(name=label, description=hint, **fixed)
    switches = {
        MASK_ALPHA: ("Own Alpha", "The style shows where the strip itself is opaque"),
        SUBJECT_ALPHA: ("Own Alpha", "What is opaque in the strip itself is not background"),
        MUTE: ("Mute Original", "Mute this strip once the result stands above it"),
    }
    for name, (label, hint) in switches.items():
        yield name, bpy.props.BoolProperty(name=label, description=hint, **fixed)
    yield PROMPTS, bpy.props.CollectionProperty(type=FRESCO_PG_prompt)
    hint = "Which of the prompts holds; animate it to go from one to the other"
    yield (
        PROMPT_NUMBER,
        bpy.props.IntProperty(
            name="Prompt", description=hint, min=1, default=1, soft_max=8, options={"ANIMATABLE"}
        ),
    )


def register() -> None:
    """Give every strip the properties."""
    bpy.utils.register_class(FRESCO_PG_prompt)
    for name, parameter in parameters().items():
        setattr(compat.STRIP_TYPE, key(name), _MAKERS[parameter["type"]](parameter))
    for name, made in _further():
        setattr(compat.STRIP_TYPE, name, made)


def unregister() -> None:
    """Take them away again; what is set in a file stays in it."""
    for name in (*map(key, parameters()), *dict(_further())):
        delattr(compat.STRIP_TYPE, name)
    bpy.utils.unregister_class(FRESCO_PG_prompt)
