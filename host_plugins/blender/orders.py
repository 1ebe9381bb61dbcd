# SPDX-License-Identifier: GPL-3.0-or-later
"""From a strip and its settings to a job: what is asked for, and what must be rendered first."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import bpy

from . import compat, curves, preferences, properties, sources
from .desk import Order
from .rendering import Rendering
from .sources import Source, Unusable
from .tickets import Ticket

#: Images for strips whose frames do not go side by side with the source's.
_IMAGES = "png"
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Prepared:
    """A job that can begin. renderings: what it waits for; notes: what the user should know."""

    ticket: Ticket
    order: Order
    renderings: tuple[Rendering, ...]
    notes: tuple[str, ...]


def prepare(scene: Any, strip: Any, until: str = "") -> Prepared:
    """Make a job of a strip.

    until: the gate to go to, instead of the one that is set

    Raises:
        Unusable: the strip, or one that is named as its mask, has no picture to be styled.
        BridgeError: the program was not found (host).
        OSError: the folder for the result cannot be made.
    """
    job = uuid.uuid4().hex
    source = sources.source_of(strip, scene)
    beside = _beside(scene, strip)
    must = source.why or _must_be_rendered(source, beside)
    folder, saved = preferences.results_folder()
    place = folder / f"{_file_name(strip.name)}_{job[:8]}"
    place.mkdir(parents=True)
    notes = [] if saved else [f"this file is not saved, so the result goes to {place}"]
    renderings: list[Rendering] = []
    values = properties.values(strip) | {"output": str(place), "until": until or _until(strip)}
    if must:
        alpha = bool(
            getattr(strip, properties.MASK_ALPHA) or getattr(strip, properties.SUBJECT_ALPHA)
        )
        source, rendering = _rendered(scene, strip, place / "source", alpha)
        renderings.append(rendering)
        notes.append(f"{strip.name} is rendered first: {must}")
    values |= {"Source": source.clip, "start": source.first, "stop": source.stop}
    if source.rate:
        values["rate"] = source.rate
    if not source.plain:
        values["codec"] = _IMAGES
    for clip, other in beside.items():
        if other is strip:
            values[clip] = source.clip
        else:
            rendering = _rendering(scene, other, strip, place / clip.lower())
            renderings.append(rendering)
            values[clip] = rendering.clip
    if lines := curves.tracks(scene, strip, source.start, source.frames):
        values["tracks"] = lines
    prompt = properties.value(strip, "prompt")
    title = f"{strip.name}: {prompt}" if prompt else strip.name
    ticket = Ticket(
        job, scene.name, strip.name, source.start, tuple(source.frames), str(place),
        name=prompt or strip.name, mute=getattr(strip, properties.MUTE),
    )  # fmt: skip
    return Prepared(ticket, Order(values, title=title[:200]), tuple(renderings), tuple(notes))


def discard(prepared: Prepared) -> None:
    """Take back what `prepare` began, of a job that is not to be: nothing is in its folder yet."""
    for rendering in prepared.renderings:
        rendering.cancel()
    shutil.rmtree(prepared.ticket.folder, ignore_errors=True)


def _until(strip: Any) -> str:
    return properties.value(strip, "until")


def _file_name(name: str) -> str:
    """A name without what file systems do not take."""
    kept = "".join(each if each.isalnum() or each in "-_ ." else "_" for each in name)
    return kept.strip(" .")[:_LONGEST_NAME] or "strip"


def _beside(scene: Any, strip: Any) -> dict[str, Any]:
    """The strips that are the job's Mask and Subject; the strip itself where its alpha is meant.

    Raises:
        Unusable: there is no such strip.
    """
    found: dict[str, Any] = {}
    for clip, own, named in (
        ("Mask", properties.MASK_ALPHA, properties.MASK),
        ("Subject", properties.SUBJECT_ALPHA, properties.SUBJECT),
    ):
        name = getattr(strip, named)
        if getattr(strip, own):
            found[clip] = strip
        elif name:
            every = {each.name: each for each in compat.all_strips(scene.sequence_editor)}
            if name not in every:
                raise Unusable(
                    f"there is no strip {name!r} to be the {clip.lower()}", "choose another"
                )
            found[clip] = every[name]
    return found


def _must_be_rendered(source: Source, beside: dict[str, Any]) -> str:
    """Why a strip that could be read from its file must be rendered for the sake of its mask."""
    if beside and not source.plain:
        return "its mask has a picture for each frame of the timeline"
    return ""


def _rendered(scene: Any, strip: Any, folder: Path, alpha: bool) -> tuple[Source, Rendering]:
    rendering = _rendering(scene, strip, strip, folder, alpha)
    first, stop = compat.left_handle(strip), compat.right_handle(strip)
    render = scene.render
    rate = Fraction(render.fps) / Fraction(str(round(render.fps_base, 6)))
    source = Source(
        clip=rendering.clip, frames=range(stop - first), start=first, rate=_rate(rate), why="",
        alpha=alpha,
    )  # fmt: skip
    return source, rendering


def _rendering(scene: Any, shown: Any, over: Any, folder: Path, alpha: bool = False) -> Rendering:
    """Render the strip `shown` at every timeline frame of the strip `over`."""
    first, stop = compat.left_handle(over), compat.right_handle(over)
    return Rendering(scene, shown.name, first, stop, folder, alpha)


def _rate(rate: Fraction) -> str:
    """A scene's rate as the protocol writes it; Blender's 1.001 in it is meant exactly."""
    return str(rate.limit_denominator(100000))


def names(strips: Sequence[Any]) -> str:
    """Strips in words."""
    return ", ".join(each.name for each in strips)


def user_error(error: Exception) -> str:
    """What went wrong, in one line for Blender's status bar."""
    hint = getattr(error, "hint", "")
    message = getattr(error, "message", "") or str(error)
    return f"{message}; {hint}" if hint else message


def is_styled(strip: Any) -> bool:
    """Whether a strip is a result of ours."""
    return "fresco_bridge" in strip


def scene_frame() -> int:
    """The timeline frame at the playhead."""
    return compat.scene_of(bpy.context).frame_current
