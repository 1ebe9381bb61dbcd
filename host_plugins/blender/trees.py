# SPDX-License-Identifier: GPL-3.0-or-later
"""Which strips a strip is made from, and which it is in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import compat

#: These show whatever lies beneath them.
COVERING = {"ADJUSTMENT", "MULTICAM"}


def ancestors(strip: Any) -> Iterator[Any]:
    """Yield the meta strips that a strip is in, the innermost first."""
    meta = compat.parent(strip)
    while meta is not None:
        yield meta
        meta = compat.parent(meta)


def parts(strip: Any, scene: Any) -> list[Any]:
    """Return the strips that `strip` is made from: what is in it, beneath it, or goes into it."""
    if strip.type == "META":
        return list(compat.children(strip))
    if strip.type in COVERING:
        beside = compat.collection_of(strip, scene)
        return [each for each in beside if each.channel < strip.channel]
    inputs = (getattr(strip, name, None) for name in ("input_1", "input_2"))
    return [each for each in inputs if each is not None]


def made_from(strip: Any, scene: Any) -> Iterator[Any]:
    """Yield the strip, and all that it is made from."""
    yield strip
    for each in parts(strip, scene):
        yield from made_from(each, scene)


def speeds(strip: Any, scene: Any) -> list[Any]:
    """Return the speed effects on a strip: they decide when its pictures are shown."""
    beside = compat.collection_of(strip, scene)
    return [each for each in beside if each.type == "SPEED" and each.input_1 == strip]
