# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a strip is styled: frames of its file where those are what it shows, else a rendering.

A strip's own picture counts. What only says how the strip lies on the screen (position, scale,
rotation, crop, flips) is no part of it, as long as it stands still: the result is laid likewise.
How it mixes with what is beneath (blend mode, opacity) is no part of it either. Proxies are never
a source.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import bpy

from . import compat, frames, movies, pictures
from .frames import Timing, Unclear

#: Why strips of other kinds are rendered.
_KINDS = {
    "META": "it is a meta strip",
    "SCENE": "it is a scene",
    "MOVIECLIP": "it is a movie clip of the tracker",
    "MASK": "it is a mask",
    "TEXT": "it is text",
    "COLOR": "it is a colour",
}
_LINEAR, _SRGB = "Linear Rec.709", "sRGB"
#: What movie files may have by default; from 5.0 on those of high dynamic range have their own.
_HDR = ("Rec.2100-PQ", "Rec.2100-HLG")
#: Properties whose animation changes which pixels a strip shows.
_ANIMATED = (
    "color_", "use_flip", "use_reverse", "strobe", "transform", "crop", "modifiers",
    "multiply_alpha",
)  # fmt: skip
#: Crop, position and so on, as a strip that lies plainly has them.
_PLAIN = {
    "crop.min_x": 0, "crop.max_x": 0, "crop.min_y": 0, "crop.max_y": 0,
    "transform.offset_x": 0.0, "transform.offset_y": 0.0,
    "transform.scale_x": 1.0, "transform.scale_y": 1.0, "transform.rotation": 0.0,
    "transform.origin": [0.5, 0.5], "use_flip_x": False, "use_flip_y": False,
}  # fmt: skip


class Unusable(Exception):
    """A strip that cannot be styled; `hint` says how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


@dataclass(frozen=True)
class Source:
    """What of a strip is styled.

    clip: a file, or a sequence as "folder/a.####.png", one # per digit; "" if it must be rendered
    frames: the source frame, from 0, shown at each timeline frame of the strip, in order; of what
        must be rendered, counted from `start`, so timeline frames [start + first, start + stop)
    start: the timeline frame that frames[0] is shown at: the left handle
    rate: of the source as the protocol writes rates; "" if the file says its own
    why: why it must be rendered, in plain words ("it is retimed"); "" if not
    alpha: whether it has alpha
    strips: names of the strips that are rendered together; empty if nothing is
    geometry: how the result must be laid to lie as the strip does; of `placing.place`
    """

    clip: str
    frames: tuple[int, ...] | range
    start: int
    rate: str = ""
    why: str = ""
    alpha: bool = False
    strips: tuple[str, ...] = ()
    geometry: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def first(self) -> int:
        """The first source frame that is to be styled."""
        return min(self.frames)

    @property
    def stop(self) -> int:
        """The source frame after the last that is to be styled."""
        return max(self.frames) + 1

    @property
    def plain(self) -> bool:
        """Whether each timeline frame has one source frame, in order: a movie lines up as it is."""
        return frames.in_order(self.frames)


def source_of(strip: Any, scene: Any) -> Source:
    """Return what of `strip` is styled.

    Raises:
        Unusable: it has no picture, or a file of it is missing.
    """
    if strip.type == "SOUND":
        raise Unusable(f"{strip.name} is sound.", "Select a strip that has a picture.")
    _check_there(strip)
    try:
        _check_own_picture(strip, scene)
        return _movie(strip, scene) if strip.type == "MOVIE" else _images(strip, scene)
    except Unclear as reason:
        return _rendered(strip, scene, str(reason))


def rate_of(scene: Any) -> str:
    """Return the timeline's frame rate as the protocol writes rates."""
    exact = scene.render.fps / scene.render.fps_base
    rate = Fraction(exact).limit_denominator(1001)
    return str(rate)


def _timing(strip: Any) -> Timing:
    return Timing(
        compat.content_start(strip),
        compat.left_handle(strip),
        compat.right_handle(strip),
        *compat.offsets(strip),
        *compat.trims(strip),
    )


def _check_own_picture(strip: Any, scene: Any) -> None:
    """Raise Unclear unless the strip shows frames of its file as they are."""
    if strip.type not in ("MOVIE", "IMAGE"):
        raise Unclear(_KINDS.get(strip.type, "it is an effect"))
    for reason in (*_retimings(strip, scene), *_changes(strip)):
        raise Unclear(reason)
    for path in _animated(strip, scene):
        raise Unclear(f"its {path} is animated")


def _retimings(strip: Any, scene: Any) -> Iterator[str]:
    if compat.is_retimed(strip):
        yield "it is retimed"
    if strip.use_reverse_frames:
        yield "it plays backwards"
    if strip.strobe > 1:
        yield "it is strobed"
    if _speeds(strip, scene):
        yield "a speed effect is on it"


def _speeds(strip: Any, scene: Any) -> list[Any]:
    """Speed effects on a strip: they decide when its pictures are shown."""
    around = compat.collection_of(strip, scene)
    return [each for each in around if each.type == "SPEED" and each.input_1 == strip]


def _changes(strip: Any) -> Iterator[str]:
    if any(not modifier.mute for modifier in strip.modifiers):
        yield "it has modifiers"
    if strip.color_multiply != 1 or strip.color_saturation != 1:
        yield "its colours are adjusted"
    if strip.use_multiview:
        yield "it is stereoscopic"
    if strip.type == "MOVIE" and strip.use_deinterlace:
        yield "it is deinterlaced"
    if strip.type == "MOVIE" and strip.stream_index:
        yield "it is not the first picture in its file"
    if strip.colorspace_settings.name not in _default_spaces(strip):
        yield f"its colour space is set to {strip.colorspace_settings.name}"


def _default_spaces(strip: Any) -> tuple[str, ...]:
    if strip.type == "MOVIE":
        return (_SRGB, *_HDR)
    return (_LINEAR,) if _suffix(strip) == ".exr" else (_SRGB,)


def _suffix(strip: Any) -> str:
    return os.path.splitext(strip.elements[0].filename)[1].lower()


def _animated(strip: Any, scene: Any) -> Iterator[str]:
    """Animated properties of the strip that change its pixels."""
    quoted = bpy.utils.escape_identifier(strip.name)
    owners = tuple(
        f'sequence_editor.{all_}["{quoted}"].' for all_ in ("strips_all", "sequences_all")
    )
    drivers = scene.animation_data.drivers if scene.animation_data else ()
    for curve in (*compat.fcurves(scene), *drivers):
        for owner in owners:
            path = curve.data_path.removeprefix(owner)
            if path != curve.data_path and path.startswith(_ANIMATED):
                yield path


def _movie(strip: Any, scene: Any) -> Source:
    path = _absolute(strip.filepath)
    found = movies.movie(path)
    movies.check_even(found, strip.fps)
    timing = _timing(strip)
    rate = frames.ratio(strip.fps, scene.render.fps, scene.render.fps_base)
    speed = frames.speed(timing, found.count, rate)
    shown = frames.shown(timing, found.count, speed)
    _check_alpha_mode(strip, found.alpha, "STRAIGHT")
    return Source(path, shown, timing.left, alpha=found.alpha, geometry=_geometry(strip))


def _images(strip: Any, scene: Any) -> Source:
    timing = _timing(strip)
    names = [element.filename for element in strip.elements]
    shown = frames.shown(timing, len(names))
    first, last = min(shown), max(shown)
    folder = _absolute(strip.directory)
    alpha = pictures.has_alpha(os.path.join(folder, names[first]))
    _check_alpha_mode(strip, alpha, "PREMUL" if _suffix(strip) == ".exr" else "STRAIGHT")
    run = pictures.sequence(folder, names[first : last + 1])
    counted = tuple(run.frames[frame - first] for frame in shown)
    return Source(
        run.clip, counted, timing.left, rate_of(scene), alpha=alpha, geometry=_geometry(strip)
    )


def _check_alpha_mode(strip: Any, alpha: bool, usual: str) -> None:
    # A TIFF says itself which it is.
    if alpha and strip.alpha_mode != usual and not _is_tiff(strip):
        raise Unclear("its alpha mode is not its file's")


def _is_tiff(strip: Any) -> bool:
    return strip.type == "IMAGE" and _suffix(strip) in (".tif", ".tiff")


def _absolute(path: str) -> str:
    return os.path.abspath(bpy.path.abspath(path))


def _geometry(strip: Any) -> dict[str, Any]:
    """What differs from a strip that lies plainly."""
    here = {name: _plain_value(strip.path_resolve(name)) for name in _PLAIN}
    return {name: value for name, value in here.items() if value != _PLAIN[name]}


def _plain_value(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float)) else list(value)


def _rendered(strip: Any, scene: Any, why: str) -> Source:
    names = (strip.name, *(each.name for each in _speeds(strip, scene)))
    left, right = compat.left_handle(strip), compat.right_handle(strip)
    shown = (0,) * (right - left) if _stands_still(strip, scene) else range(right - left)
    alpha = _see_through(strip, scene)
    return Source("", shown, left, rate_of(scene), why=why, alpha=alpha, strips=names)


def _stands_still(strip: Any, scene: Any) -> bool:
    """Whether one picture is all there is: it is rendered, and styled, once."""
    still = strip.type == "COLOR" or (strip.type == "IMAGE" and len(strip.elements) == 1)
    return still and not any(_animated(strip, scene)) and not strip.modifiers


def _see_through(strip: Any, scene: Any) -> bool:
    """Whether a rendering of the strip alone may leave pixels empty."""
    if strip.type == "MASK":
        return False
    if strip.type == "SCENE":
        return strip.scene.render.film_transparent
    if strip.type in ("MOVIE", "IMAGE"):
        return not _fills(strip, scene)
    return strip.type != "COLOR" or bool(_geometry(strip))


def _fills(strip: Any, scene: Any) -> bool:
    """Whether an opaque picture surely covers the whole screen."""
    element, render = strip.elements[0], scene.render
    size = (element.orig_width, element.orig_height) == (render.resolution_x, render.resolution_y)
    return size and not _geometry(strip) and not _own_alpha(strip)


def _own_alpha(strip: Any) -> bool:
    try:
        if strip.type == "MOVIE":
            return movies.movie(_absolute(strip.filepath)).alpha
        folder = _absolute(strip.directory)
        return pictures.has_alpha(os.path.join(folder, strip.elements[0].filename))
    except (Unclear, OSError):
        return _suffix(strip) not in (".jpg", ".jpeg", ".mp4", ".avi") if strip.elements else True


def _check_there(strip: Any) -> None:
    """Raise Unusable where a file of the strip, or of what it is made from, is missing."""
    for each in _made_from(strip):
        for path in _files(each):
            if not os.path.isfile(path):
                raise Unusable(
                    f"{each.name} shows nothing: {path} is not there.",
                    "Find it with File > External Data > Find Missing Files.",
                )
        if each.type in _NEEDED and getattr(each, _NEEDED[each.type]) is None:
            raise Unusable(
                f"{each.name} shows nothing: it has no {_NEEDED[each.type]}.", "Choose one."
            )


_NEEDED = {"SCENE": "scene", "MASK": "mask"}


def _made_from(strip: Any) -> Iterator[Any]:
    """The strip, and those that it shows."""
    yield strip
    inside = list(compat.children(strip)) if strip.type == "META" else []
    if strip.type == "META" and not inside:
        raise Unusable(f"{strip.name} is empty.", "Put strips into it, or select another.")
    inputs = (getattr(strip, name, None) for name in ("input_1", "input_2"))
    for each in (*inside, *inputs):
        if each is not None and not each.mute:
            yield from _made_from(each)


def _files(strip: Any) -> Iterator[str]:
    if strip.type == "MOVIE":
        yield _absolute(strip.filepath)
    elif strip.type == "IMAGE":
        folder = _absolute(strip.directory)
        shown = set(frames.shown(_timing(strip), len(strip.elements)))
        yield from (os.path.join(folder, strip.elements[place].filename) for place in shown)
