# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompt, strength and seed that are animated, as tracks over the source's frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from . import compat, properties

#: Changes of strength that nobody sees are left out, or every frame would be an entry.
_STEP = 0.005


def tracks(scene: Any, strip: Any, start: int, frames: Sequence[int]) -> list[str]:
    """Sample what is animated at each frame of a strip.

    start: the first timeline frame; frames: the source frame that is shown at each from there on
    returns: lines as "strength@48=0.5": from source frame 48 on, until the next one
    """
    found: list[str] = []
    for name, read, told, far in _ANIMATED:
        curve = _curve(scene, strip, name)
        if curve is not None:
            at = _by_source(start, frames)
            values = [(source, read(strip, curve.evaluate(timeline))) for source, timeline in at]
            found += [f"{told}@{source}={value}" for source, value in _changes(values, far)]
    return found


def _curve(scene: Any, strip: Any, name: str) -> Any:
    """The F-curve of a strip's property, if it is animated, and not muted."""
    paths = compat.paths_of(strip, name)
    curves = (curve for curve in compat.fcurves(scene) if curve.data_path in paths)
    return next((curve for curve in curves if not curve.mute), None)


def driven(scene: Any, strip: Any) -> list[str]:
    """What of it has a driver, as the user knows it: a driver's later values cannot be told."""
    drivers = scene.animation_data.drivers if scene.animation_data else ()
    paths = {driver.data_path for driver in drivers}
    names = [name for name, *_ in _ANIMATED if paths & {*compat.paths_of(strip, name)}]
    return [strip.bl_rna.properties[name].name for name in names]


def _by_source(start: int, frames: Sequence[int]) -> list[tuple[int, int]]:
    """Each source frame and the first timeline frame that shows it, in the source's order."""
    first: dict[int, int] = {}
    for place, source in enumerate(frames):
        first.setdefault(source, start + place)
    return sorted(first.items())


def _changes(
    values: Sequence[tuple[int, Any]], far: Callable[[Any, Any], bool]
) -> Iterator[tuple[int, Any]]:
    """Leave out what holds on from before."""
    last: Any = None
    for source, value in values:
        if last is None or far(last, value):
            yield source, value
            last = value


def _strength(_strip: Any, value: float) -> float:
    return round(min(1.0, max(0.0, value)), 4)


def _seed(_strip: Any, value: float) -> int:
    return max(0, round(value))


def _prompt(strip: Any, value: float) -> str:
    """The prompt of that number: 1 is the strip's own; behind the last one it stays that."""
    every = [properties.value(strip, "prompt")]
    every += [each.text for each in getattr(strip, properties.PROMPTS)]
    return every[min(max(round(value), 1), len(every)) - 1]


def _differ(one: Any, other: Any) -> bool:
    return one != other


def _far(one: float, other: float) -> bool:
    # The ends count as they are: 0 is the source itself.
    return abs(one - other) >= _STEP or (one != other and other in (0.0, 1.0))


_ANIMATED: tuple[tuple[str, Callable[[Any, float], Any], str, Callable[[Any, Any], bool]], ...] = (
    (properties.PROMPT_NUMBER, _prompt, "prompt", _differ),
    (properties.key("strength"), _strength, "strength", _far),
    (properties.key("seed"), _seed, "seed", _differ),
)
