# SPDX-License-Identifier: GPL-3.0-or-later
"""How a strip looks by itself: where it lies, whether it moves, can be seen through, or is fine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import bpy

from . import compat, movies, pictures, trees
from .frames import Unclear

#: Crop, position and so on, as a strip that lies plainly has them.
PLAIN = {
    "crop.min_x": 0, "crop.max_x": 0, "crop.min_y": 0, "crop.max_y": 0,
    "transform.offset_x": 0.0, "transform.offset_y": 0.0,
    "transform.scale_x": 1.0, "transform.scale_y": 1.0, "transform.rotation": 0.0,
    "transform.origin": [0.5, 0.5], "use_flip_x": False, "use_flip_y": False,
}  # fmt: skip
#: What leaves a picture that covers the screen covering it.
_COVERS_STILL = {"transform.scale_x", "transform.scale_y", "use_flip_x", "use_flip_y"}
#: Effects that are opaque where all that goes into them is.
_MIXES = {
    "CROSS", "GAMMA_CROSS", "WIPE", "ADD", "SUBTRACT", "MULTIPLY", "ALPHA_OVER", "ALPHA_UNDER",
    "OVER_DROP", "COLORMIX", "GLOW", "GAUSSIAN_BLUR", "SPEED",
}  # fmt: skip
#: Files whose pictures may be finer than 8 bits, and those that have no alpha.
_FINE_FILES = (".exr", ".hdr", ".tif", ".tiff", ".dpx", ".cin")
_OPAQUE_FILES = (".jpg", ".jpeg", ".bmp", ".hdr", ".dpx", ".cin")


def path_of(strip: Any, place: int = 0) -> str:
    """Return the file of a movie strip, or of the picture at `place` of an image strip."""
    if strip.type == "MOVIE":
        return absolute(strip.filepath)
    return os.path.join(absolute(strip.directory), strip.elements[place].filename)


def absolute(path: str) -> str:
    """Return a path of Blender's for other programs."""
    return os.path.abspath(bpy.path.abspath(path))


def suffix_of(strip: Any) -> str:
    """Return the suffix of a strip's files, in lower case."""
    return os.path.splitext(path_of(strip))[1].lower()


def geometry(strip: Any) -> dict[str, Any]:
    """Return what differs from a strip that lies plainly: a property's path, and its value."""
    here = {name: _value(strip.path_resolve(name)) for name in PLAIN}
    return {name: value for name, value in here.items() if value != PLAIN[name]}


def _value(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float)) else list(value)


def animated(strip: Any, scene: Any) -> Iterator[str]:
    """Yield the properties of a strip that are animated or driven, as paths from it on."""
    quoted = bpy.utils.escape_identifier(strip.name)
    owners = tuple(f'sequence_editor.{name}["{quoted}"].' for name in compat.ALL_STRIPS)
    drivers = scene.animation_data.drivers if scene.animation_data else ()
    for curve in (*compat.fcurves(scene), *drivers):
        for owner in owners:
            if curve.data_path.startswith(owner):
                yield curve.data_path.removeprefix(owner)


def stands_still(strip: Any, scene: Any) -> bool:
    """Whether one picture is all there is."""
    still = strip.type in ("COLOR", "TEXT") or (strip.type == "IMAGE" and len(strip.elements) == 1)
    moves = (path != "blend_alpha" for path in animated(strip, scene))
    return still and not any(moves) and not strip.modifiers and not trees.speeds(strip, scene)


def see_through(strip: Any, scene: Any) -> bool:
    """Whether the strip alone may leave pixels of the screen empty, somewhere in its time."""
    if strip.type == "MASK":
        return False
    if any(path.startswith(("transform", "crop")) for path in animated(strip, scene)):
        return True
    if strip.type in ("MOVIE", "IMAGE"):
        return not _covers(strip, scene) or _alpha(strip)
    if set(geometry(strip)) - {"use_flip_x", "use_flip_y"}:
        return True
    if strip.type == "SCENE":
        return strip.scene.render.film_transparent
    if strip.type == "META" or strip.type in trees.COVERING:
        return not _filled(strip, scene)
    if strip.type in _MIXES:
        return any(see_through(each, scene) for each in trees.parts(strip, scene))
    return strip.type != "COLOR"


def _covers(strip: Any, scene: Any) -> bool:
    element, render, laid = strip.elements[0], scene.render, strip.transform
    wide = element.orig_width * laid.scale_x >= render.resolution_x
    high = element.orig_height * laid.scale_y >= render.resolution_y
    return wide and high and set(geometry(strip)) <= _COVERS_STILL


def _alpha(strip: Any) -> bool:
    try:
        if strip.type == "MOVIE":
            return movies.movie(path_of(strip)).alpha
        return pictures.has_alpha(path_of(strip))
    except (Unclear, OSError):
        return strip.type == "IMAGE" and suffix_of(strip) not in _OPAQUE_FILES


def _filled(strip: Any, scene: Any) -> bool:
    """Whether at every frame of a strip something that it is made from covers the screen."""
    reached, end = compat.left_handle(strip), compat.right_handle(strip)
    for part in sorted(trees.parts(strip, scene), key=compat.left_handle):
        seen = part.type != "SOUND" and not part.mute and part.blend_alpha == 1
        if seen and compat.left_handle(part) <= reached and not see_through(part, scene):
            reached = max(reached, compat.right_handle(part))
    return reached >= end


def is_fine(strip: Any, scene: Any) -> bool:
    """Whether 8 bits would lose something of the strip's pictures."""
    return any(_fine(each) for each in trees.made_from(strip, scene))


def _fine(strip: Any) -> bool:
    if strip.type in ("SCENE", "MOVIECLIP") or getattr(strip, "use_float", False):
        return True
    try:
        if strip.type == "MOVIE":
            return compat.FINE_MOVIES and movies.movie(path_of(strip)).fine
        fine = strip.type == "IMAGE" and suffix_of(strip) in _FINE_FILES
        return fine or (strip.type == "IMAGE" and pictures.is_png16(path_of(strip)))
    except (Unclear, OSError):
        return False
