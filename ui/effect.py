"""The effect's descriptor as a form: pages, groups and parameters; no Qt.

Everything that the window asks is taken from it, so that a parameter that is added there is here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import host_plugins.link

#: Beside the link, wherever it was copied to.
FILE = Path(host_plugins.link.__file__).with_name("effect.json")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What can be set (PROTOCOL.md, section 9).

    choices: keys and labels; bounds: of numbers; shown: the bounds of a slider
    mode: of a text; models: the role of the models that it names; empty: none
    needs: another parameter and its value, without which this one means nothing
    """

    name: str
    kind: str
    label: str
    hint: str
    default: Any
    field: str
    animates: bool = False
    bounds: tuple[float, float] = (0, 0)
    shown: tuple[float, float] = (0, 0)
    choices: tuple[tuple[str, str], ...] = ()
    mode: str = ""
    models: str = ""
    needs: tuple[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """A file that the effect takes."""

    name: str
    label: str
    hint: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that belong together."""

    label: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Groups that are shown together."""

    label: str
    hint: str
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """What can be asked for."""

    id: str
    clips: tuple[Clip, ...]
    pages: tuple[Page, ...]

    def parameters(self) -> Iterator[Parameter]:
        """Return every parameter, in the order that they are shown in."""
        for page in self.pages:
            for group in page.groups:
                yield from group.parameters

    @property
    def animated(self) -> tuple[Parameter, ...]:
        """Those that may differ from keyframe to keyframe."""
        return tuple(each for each in self.parameters() if each.animates)

    def set_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of `values` that are not the default, and the clips that are named."""
        usual = {each.name: each.default for each in self.parameters()}
        clips = {each.name: "" for each in self.clips}
        return {name: value for name, value in values.items() if value != (usual | clips)[name]}


def shipped() -> Effect:
    """Return the effect as this version of the program has it."""
    return read(json.loads(FILE.read_text(encoding="utf-8")))


def read(table: Mapping[str, Any]) -> Effect:
    """Read a descriptor; what only other hosts have, or what cannot be set, is left out."""
    ours = {each["name"]: _parameter(each) for each in table["parameters"] if _is_ours(each)}
    groups = {each["name"]: _group(each, ours) for each in table["groups"]}
    pages = (_page(each, groups) for each in table["pages"])
    clips = (
        Clip(each["name"], each["label"], each["hint"], each["optional"])
        for each in table["clips"]
        if each["field"]
    )
    return Effect(table["id"], tuple(clips), tuple(page for page in pages if page.groups))


def _is_ours(table: Mapping[str, Any]) -> bool:
    """Whether a person sets it here: no button, nothing that only shows, no other host's."""
    shown = table.get("enabled", True) and not table.get("secret") and "hosts" not in table
    return bool(shown and table["field"] and table["type"] != "PushButton")


def _parameter(table: Mapping[str, Any]) -> Parameter:
    needs = table.get("enabledWhen")
    bounds = (table.get("min", 0), table.get("max", 0))
    return Parameter(
        name=table["name"],
        kind=table["type"],
        label=table["label"],
        hint=table["hint"],
        default=table["default"],
        field=table["field"],
        animates=table.get("animates", False),
        bounds=bounds,
        shown=(table.get("displayMin", bounds[0]), table.get("displayMax", bounds[1])),
        choices=tuple((each["key"], each["label"]) for each in table.get("choices", ())),
        mode=table.get("stringMode", ""),
        models=table.get("models", ""),
        needs=(needs["name"], needs["value"]) if needs else None,
    )


def _group(table: Mapping[str, Any], ours: Mapping[str, Parameter]) -> Group:
    return Group(table["label"], tuple(ours[name] for name in table["children"] if name in ours))


def _page(table: Mapping[str, Any], groups: Mapping[str, Group]) -> Page:
    found = (groups[name] for name in table["children"])
    return Page(table["label"], table["hint"], tuple(each for each in found if each.parameters))
