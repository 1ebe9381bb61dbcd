# SPDX-License-Identifier: GPL-3.0-or-later
"""From a strip and its settings to a job: what is asked for, and what must be rendered first."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import compat, curves, preferences, properties, sources
from .desk import Order
from .placing import PROPERTY
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
    """Make a job of a strip, in a folder of its own. If it fails, nothing is left of it.

    until: the gate to go to, instead of the one that is set

    Raises:
        Unusable: the strip, or one that is its mask or subject, has no picture for it.
        NotRendered: Blender cannot be started to render it.
        OSError: the folder for the result cannot be made.
    """
    source, beside = sources.source_of(strip, scene), _beside(scene, strip)
    why = source.why or _seen_on_screen(source, strip, scene, beside)
    job = uuid.uuid4().hex
    folder, saved = preferences.results_folder()
    place = folder / f"{_file_name(strip.name)}_{job[:8]}"
    place.mkdir(parents=True)
    preparing = _Preparing(scene, strip, place)
    try:
        if why:
            source = preparing.rendered(source, alpha=strip in beside.values())
        values = preparing.values(source, beside) | ({"until": until} if until else {})
    except Exception:
        preparing.discard()
        raise
    notes = [] if saved else [f"this file is not saved, so the result goes to {place}"]
    notes += [f"{strip.name} is rendered first: {why}"] if why else []
    prompt = properties.value(strip, "prompt")
    ticket = Ticket(
        job, scene.name, strip.name, source.start, tuple(source.frames), str(place),
        name=prompt or strip.name, geometry=dict(source.geometry),
        mute=getattr(strip, properties.MUTE), anchor=compat.content_start(strip),
    )  # fmt: skip
    order = Order(values, title=f"{strip.name}: {prompt}"[:200] if prompt else strip.name)
    return Prepared(ticket, order, tuple(preparing.renderings), tuple(notes))


def discard(prepared: Prepared) -> None:
    """Take back what `prepare` began, of a job that is not to be."""
    for rendering in prepared.renderings:
        rendering.cancel()
    shutil.rmtree(prepared.ticket.folder, ignore_errors=True)


def is_styled(strip: Any) -> bool:
    """Whether a strip is a result of ours."""
    return PROPERTY in strip


class _Preparing:
    """Renders what one job needs, into its folder."""

    def __init__(self, scene: Any, strip: Any, folder: Path) -> None:
        self._scene, self._strip, self._folder = scene, strip, folder
        self.renderings: list[Rendering] = []

    def discard(self) -> None:
        """Stop everything. The folder was made for this job, and holds nothing else."""
        for rendering in self.renderings:
            rendering.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)

    def rendered(self, source: Source, alpha: bool) -> Source:
        """Begin to render the strip, as it is seen on the screen; a file's frames are left."""
        first, stop = compat.left_handle(self._strip), compat.right_handle(self._strip)
        if source.why:
            first, stop = source.start + source.first, source.start + source.stop
            shown = source.frames
        else:
            shown = range(stop - first)
        names = source.strips or (self._strip.name,)
        clip = self._render(names, first, stop, "source", alpha or source.alpha)
        rate = sources.rate_of(self._scene)
        return replace(source, clip=clip, frames=shown, rate=rate, geometry={})

    def values(self, source: Source, beside: Mapping[str, Any]) -> dict[str, Any]:
        """The effect's values. Strips that are its mask or subject begin to be rendered."""
        told = properties.values(self._strip) | {"output": str(self._folder)}
        told |= {"Source": source.clip, "start": source.first, "stop": source.stop}
        if source.rate:
            told["rate"] = source.rate
        if not source.plain:
            told["codec"] = _IMAGES
        first, stop = source.start, source.start + len(source.frames)
        for clip, strip in beside.items():
            if strip == self._strip:
                told[clip] = _own_alpha(source, strip)
            else:
                told[clip] = self._render((strip.name,), first, stop, clip.lower(), alpha=False)
        if lines := curves.tracks(self._scene, self._strip, source.start, source.frames):
            told["tracks"] = lines
        return told

    def _render(
        self, names: tuple[str, ...], first: int, stop: int, folder: str, alpha: bool
    ) -> str:
        rendering = Rendering(self._scene, names, first, stop, self._folder / folder, alpha)
        self.renderings.append(rendering)
        return rendering.clip


def _own_alpha(source: Source, strip: Any) -> str:
    if not source.alpha:
        raise Unusable(
            f"{strip.name} is opaque everywhere, so its alpha says nothing",
            "choose another strip as its mask or subject",
        )
    return source.clip


def _beside(scene: Any, strip: Any) -> dict[str, Any]:
    """The strips that are the job's Mask and Subject; the strip itself where its alpha is meant.

    Raises:
        Unusable: there is no such strip.
    """
    every = {each.name: each for each in compat.all_strips(scene.sequence_editor)}
    found: dict[str, Any] = {}
    for clip, own, named in (
        ("Mask", properties.MASK_ALPHA, properties.MASK),
        ("Subject", properties.SUBJECT_ALPHA, properties.SUBJECT),
    ):
        name = strip.name if getattr(strip, own) else getattr(strip, named)
        if name and name not in every:
            raise Unusable(f"there is no strip {name!r} to be the {clip.lower()}", "choose another")
        if name:
            found[clip] = every[name]
    return found


def _seen_on_screen(source: Source, strip: Any, scene: Any, beside: Mapping[str, Any]) -> str:
    """Why a strip that has a file is rendered all the same: another strip is laid over it.

    That one is rendered, at the screen's size and a picture for each frame of the timeline.
    """
    if source.why or all(other == strip for other in beside.values()):
        return ""
    if not source.plain:
        return "its mask has a picture for each frame of the timeline"
    element, render = strip.elements[0], scene.render
    size = (element.orig_width, element.orig_height)
    if source.geometry or size != (render.resolution_x, render.resolution_y):
        return "its mask lies on the screen as the timeline shows it"
    return ""


def _file_name(name: str) -> str:
    """A name without what file systems do not take."""
    kept = "".join(each if each.isalnum() or each in "-_ ." else "_" for each in name)
    return kept[:_LONGEST_NAME].strip(" .") or "strip"
