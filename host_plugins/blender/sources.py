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

from . import compat, frames, looks, movies, pictures, trees
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
#: Colour spaces that Blender gives files by itself.
_LINEAR, _SRGB = "Linear Rec.709", "sRGB"
#: From 5.0 on movies of high dynamic range have their own.
_HDR = ("Rec.2100-PQ", "Rec.2100-HLG")
#: Properties whose animation changes which pixels a strip shows.
_ANIMATED = (
    "color_", "use_flip", "use_reverse", "strobe", "transform", "crop", "modifiers",
    "multiply_alpha",
)  # fmt: skip
#: What strips of these kinds need to show anything.
_NEEDED = {"SCENE": "scene", "MASK": "mask"}


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
    _check_there(strip, scene)
    try:
        _check_own_picture(strip, scene)
        return _movie(strip, scene) if strip.type == "MOVIE" else _images(strip, scene)
    except Unclear as reason:
        return _rendered(strip, scene, str(reason))
    except OSError as error:
        hint = "Let it be read, or copy it elsewhere."
        raise Unusable(f"A file of {strip.name} cannot be read: {error}.", hint) from error


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
    for path in looks.animated(strip, scene):
        if path.startswith(_ANIMATED):
            raise Unclear(f"its {path} is animated")


def _retimings(strip: Any, scene: Any) -> Iterator[str]:
    if compat.is_retimed(strip):
        yield "it is retimed"
    if strip.use_reverse_frames:
        yield "it plays backwards"
    if strip.strobe > 1:
        yield "it is strobed"
    if trees.speeds(strip, scene):
        yield "a speed effect is on it"


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
    return (_LINEAR,) if looks.suffix_of(strip) == ".exr" else (_SRGB,)


def _movie(strip: Any, scene: Any) -> Source:
    path = looks.path_of(strip)
    found = movies.movie(path)
    movies.check_even(found, strip.fps)
    timing = _timing(strip)
    rate = frames.ratio(strip.fps, scene.render.fps, scene.render.fps_base)
    speed = frames.speed(timing, found.count, rate)
    if speed < 1 and compat.REPEATS_FRAMES:
        raise Unclear(
            "it is slower than the timeline, and Blender decides which frames are repeated"
        )
    shown = frames.shown(timing, found.count, speed)
    _check_alpha_mode(strip, found.alpha, "STRAIGHT")
    return Source(path, shown, timing.left, alpha=found.alpha, geometry=looks.geometry(strip))


def _images(strip: Any, scene: Any) -> Source:
    timing = _timing(strip)
    names = [element.filename for element in strip.elements]
    shown = frames.shown(timing, len(names))
    first, last = min(shown), max(shown)
    run = pictures.sequence(looks.absolute(strip.directory), names[first : last + 1])
    alpha = pictures.has_alpha(looks.path_of(strip, first))
    if looks.suffix_of(strip) not in (".tif", ".tiff"):  # a TIFF says itself which it is
        usual = "PREMUL" if looks.suffix_of(strip) == ".exr" else "STRAIGHT"
        _check_alpha_mode(strip, alpha, usual)
    counted = tuple(run.frames[frame - first] for frame in shown)
    laid = looks.geometry(strip)
    return Source(run.clip, counted, timing.left, rate_of(scene), alpha=alpha, geometry=laid)


def _check_alpha_mode(strip: Any, alpha: bool, usual: str) -> None:
    if alpha and strip.alpha_mode != usual:
        raise Unclear("its alpha mode is not its file's")


def _rendered(strip: Any, scene: Any, why: str) -> Source:
    names = (strip.name, *(each.name for each in trees.speeds(strip, scene)))
    left, right = compat.left_handle(strip), compat.right_handle(strip)
    still = looks.stands_still(strip, scene)
    shown = (0,) * (right - left) if still else range(right - left)
    alpha = looks.see_through(strip, scene)
    return Source("", shown, left, rate_of(scene), why=why, alpha=alpha, strips=names)


def _check_there(strip: Any, scene: Any) -> None:
    """Raise Unusable where a file of the strip, or of what it is made from, is missing."""
    if strip.type == "META" and not len(compat.children(strip)):
        raise Unusable(f"{strip.name} is empty.", "Put strips into it, or select another.")
    for each in trees.made_from(strip, scene):
        if each.mute and each != strip:
            continue
        for path in _files(each):
            if not os.path.isfile(path):
                hint = "Find it with File > External Data > Find Missing Files."
                raise Unusable(f"{each.name} shows nothing: {path} is not there.", hint)
        needed = _NEEDED.get(each.type)
        if needed and getattr(each, needed) is None:
            raise Unusable(
                f"{each.name} shows nothing: it has no {needed}.", f"Choose its {needed}."
            )


def _files(strip: Any) -> Iterator[str]:
    if strip.type == "MOVIE":
        yield looks.path_of(strip)
    elif strip.type == "IMAGE":
        for place in set(frames.shown(_timing(strip), len(strip.elements))):
            yield looks.path_of(strip, place)
