# SPDX-License-Identifier: GPL-3.0-or-later
"""Small pictures of keyframes, as Blender draws them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import bpy.utils.previews

from .desk import Card

_shelf: Any = None
_folder: tempfile.TemporaryDirectory[str] | None = None


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
    _shelf = _folder = None


def icons(card: Card, count: int) -> list[tuple[int, int]]:
    """The newest `count` keyframes of a job: source frame and the number of its icon.

    Reads pictures the first time that they are asked for; called while the panel is drawn.
    """
    found = sorted(card.pictures.items())
    chosen = found if len(found) <= count else [*found[: count - 1], found[-1]]
    return [(frame, _icon(card.ticket.job, frame, picture)) for frame, picture in chosen]


def _icon(job: str, frame: int, picture: bytes | str) -> int:
    if _shelf is None:
        return 0
    file = _file(picture)
    name = f"{job} {frame} {os.path.basename(file)}"
    if name not in _shelf:
        if not os.path.isfile(file):
            return 0
        _shelf.load(name, file, "IMAGE")
    return _shelf[name].icon_id


def _file(picture: bytes | str) -> str:
    """A file with the picture: previews are read from files only."""
    if isinstance(picture, str) or _folder is None:
        return str(picture)
    file = Path(_folder.name) / f"{hashlib.sha256(picture).hexdigest()[:16]}.jpg"
    if not file.exists():
        file.write_bytes(picture)
    return str(file)
