# SPDX-License-Identifier: GPL-3.0-or-later
"""FreSCo Bridge in Blender's video sequencer: a strip in, a restyled strip out.

Parts, each on what stands before it:

    compat     what is called otherwise in other versions of Blender
    frames     which source frame a strip shows; sources: what a strip is made of
    rendering  a strip as images, by another Blender in the background
    placing    a result as a strip
    properties the effect's parameters on every strip; curves: those that are animated
    tickets    what a strip remembers of its jobs
    connection the server, in a thread; desk: the jobs on it
    orders     from a strip to a job; watch: what happens by itself
    operators, escape, panels: what the user sees
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

_PARTS = ("preferences", "properties", "thumbnails", "operators", "escape", "panels", "watch")


def _parts() -> Iterator[Any]:
    """What is registered. Imported when it is: the parts that know no Blender work without it."""
    return (import_module(f".{name}", __package__) for name in _PARTS)


def register() -> None:
    """Called by Blender when the add-on is switched on."""
    for part in _parts():
        part.register()


def unregister() -> None:
    """Called by Blender when it is switched off, and at the end."""
    for part in reversed([*_parts()]):
        part.unregister()
