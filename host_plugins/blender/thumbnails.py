# SPDX-License-Identifier: GPL-3.0-or-later
"""Small pictures of keyframes, as Blender draws them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Container
from pathlib import Path
from typing import Any

import bpy.utils.previews

from .desk import Card

_shelf: Any = None
_folder: Any = None
#: What is on the shelf, by job and frame.
_names: dict[tuple[str, int], str] = {}


def register() -> None:
    """Make room for pictures."""
    global _shelf, _folder
    _shelf = bpy.utils.previews.new()
    _folder = tempfile.TemporaryDirectory(prefix="fresco-thumbnails-")


def unregister() -> None:
    """Forget all pictures."""
    global _shelf, _folder
    if _shelf is not None:
        bpy.utils.previews.remove(_shelf)
    if _folder is not None:
        _folder.cleanup()
    _names.clear()
    _shelf = _folder = None


def icons(card: Card, count: int) -> list[tuple[int, int]]:
    """At most `count` keyframes of a job, its first and its last: source frame, number of its icon.

    Reads pictures the first time that they are asked for; called while the panel is drawn.
    """
    found = sorted(card.pictures.items())
    chosen = found if len(found) <= count else [*found[: count - 1], found[-1]]
    return [(frame, _icon((card.ticket.job, frame), picture)) for frame, picture in chosen]


def keep(jobs: Container[str]) -> None:
    """Forget the pictures of other jobs."""
    for place in [each for each in _names if each[0] not in jobs]:
        _drop(place)


def _icon(place: tuple[str, int], picture: bytes | str) -> int:
    if _shelf is None:
        return 0
    name = _name(place, picture)
    if _names.get(place) != name:
        file = _file(name, picture)
        if not os.path.isfile(file):
            return 0
        _drop(place)
        _shelf.load(name, file, "IMAGE")
        _names[place] = name
    return _shelf[name].icon_id


def _drop(place: tuple[str, int]) -> None:
    """Forget the picture that is at a place: previews of a long job are many."""
    name = _names.pop(place, None)
    if name is not None:
        del _shelf[name]
        Path(_folder.name, f"{name}.jpg").unlink(missing_ok=True)


def _name(place: tuple[str, int], picture: bytes | str) -> str:
    content = picture.encode() if isinstance(picture, str) else picture
    return hashlib.sha256(repr(place).encode() + content).hexdigest()[:24]


def _file(name: str, picture: bytes | str) -> str:
    """A file with the picture: previews are read from files only."""
    if isinstance(picture, str):
        return picture
    file = Path(_folder.name, f"{name}.jpg")
    file.write_bytes(picture)
    return str(file)
