# SPDX-License-Identifier: GPL-3.0-or-later
"""A result becomes a strip above its source: on a free channel, exactly aligned."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bpy

from . import compat

#: What the strip remembers: the job and its parameters.
PROPERTY = "fresco_bridge"
_CHANNELS = 128
_NAME = 63  # bytes of UTF-8
_MOVIES = {".mp4", ".mov", ".mkv", ".webm"}


class NotPlaced(Exception):
    """A result that cannot be placed; `hint` says how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def place(
    scene: Any,
    files: Sequence[Path],
    start: int,
    name: str,
    above: Any,
    facts: Mapping[str, Any],
    *,
    length: int | None = None,
    geometry: Mapping[str, Any] | None = None,
) -> Any:
    """Return a new strip that shows `files` from timeline frame `start` on; it is made active.

    files: one movie, or one image per timeline frame, in order; a file may be named several times
    above: the source strip, whose meta strip it goes into; or a channel
    facts: kept on the strip, as JSON
    length: timeline frames that a movie must have, where that is known
    geometry: of the source, so that it lies as that one does

    Raises:
        NotPlaced: a file is missing or of another length, or no channel is free. Then all is as
            it was.
    """
    _check_files(files)
    collection, channel = _beside(scene, above)
    strip = _made(collection, files, start, name)
    try:
        _check_length(strip, files, length)
        stop = compat.right_handle(strip)
        strip.channel = free_channel(collection, channel, start, stop, besides=strip)
        _check_place(strip, start, stop)
        for path, value in (geometry or {}).items():
            _set(strip, path, value)
        strip[PROPERTY] = json.dumps(dict(facts), ensure_ascii=False)
    except BaseException:
        collection.remove(strip)
        raise
    _make_active(scene, collection, strip)
    return strip


def free_channel(
    collection: Any, above: int, start: int, stop: int, besides: Any | None = None
) -> int:
    """Return the first channel over `above` in which nothing is at timeline frames [start, stop).

    Locked channels are left alone, and in muted ones nothing would be seen.

    besides: a strip that does not count

    Raises:
        NotPlaced: there is none.
    """
    taken = {
        each.channel
        for each in collection
        if each != besides and compat.left_handle(each) < stop and compat.right_handle(each) > start
    }
    channels = _channels(collection)
    for channel in range(above + 1, _CHANNELS + 1):
        closed = channel < len(channels) and (channels[channel].lock or channels[channel].mute)
        if channel not in taken and not closed:
            return channel
    raise NotPlaced(
        f"No channel over {above} is free between frames {start} and {stop}.",
        "Move or remove a strip there, then insert the result again.",
    )


def _channels(collection: Any) -> Any:
    """What is said of the channels of the timeline or meta strip that a collection is of."""
    owner = collection.id_data.sequence_editor
    if compat.strips(owner) == collection:
        return owner.channels
    for each in compat.all_strips(owner):
        if each.type == "META" and compat.children(each) == collection:
            return each.channels
    return ()


def _check_files(files: Sequence[Path]) -> None:
    for file in {*files}:
        if not os.path.isfile(file):
            raise NotPlaced(f"{file} is not there.", "Render it again, or put it back.")
    if not files or len({file.parent for file in files}) > 1:
        raise NotPlaced("The images of a strip must be in one folder.", "Put them into one.")


def _beside(scene: Any, above: Any) -> tuple[Any, int]:
    if isinstance(above, int):
        return compat.strips(scene.sequence_editor_create()), above
    return compat.collection_of(above, scene), above.channel


def _made(collection: Any, files: Sequence[Path], start: int, name: str) -> Any:
    first = str(files[0])
    given = {"name": _shortened(name), "filepath": first, "channel": 1, "frame_start": start}
    if files[0].suffix.lower() in _MOVIES:
        strip = collection.new_movie(**given, fit_method="ORIGINAL")
        strip.filepath = _relative(first)
        return strip
    strip = collection.new_image(**given, fit_method="ORIGINAL")
    for file in files[1:]:
        strip.elements.append(file.name)
    strip.directory = os.path.join(_relative(str(files[0].parent)), "")
    return strip


def _relative(path: str) -> str:
    """The path from the .blend on, where the user keeps paths so and there is a way."""
    if not (bpy.data.is_saved and bpy.context.preferences.filepaths.use_relative_paths):
        return path
    try:
        return bpy.path.relpath(path)
    except ValueError:  # another drive
        return path


def _shortened(name: str) -> str:
    return name.encode()[:_NAME].decode(errors="ignore")


def _check_length(strip: Any, files: Sequence[Path], length: int | None) -> None:
    is_movie = strip.type == "MOVIE"
    wanted = length if length is not None or is_movie else len(files)
    if is_movie and not strip.fps:
        raise NotPlaced(f"{files[0].name} cannot be read as a movie.", "Render it again.")
    if wanted is not None and compat.duration(strip) != wanted:
        raise NotPlaced(
            f"{files[0].name} has {compat.duration(strip)} frames, not {wanted}.",
            "Render it again.",
        )


def _check_place(strip: Any, start: int, stop: int) -> None:
    if (compat.left_handle(strip), compat.right_handle(strip)) != (start, stop):
        raise NotPlaced("Blender moved the strip.", "Insert the result again.")


def _set(strip: Any, path: str, value: Any) -> None:
    holder, _, name = path.rpartition(".")
    setattr(getattr(strip, holder) if holder else strip, name, value)


def _make_active(scene: Any, collection: Any, strip: Any) -> None:
    for each in collection:
        each.select = each == strip
    scene.sequence_editor.active_strip = strip
