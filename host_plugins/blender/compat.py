# SPDX-License-Identifier: GPL-3.0-or-later
"""What Blender calls otherwise in other versions: 4.2 to 5.x.

Newer names are tried first, with `hasattr`: an empty collection of strips counts as false. What
comes out of bpy has no types, so it is `Any` here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import bpy

#: The class that properties of strips are registered on.
STRIP_TYPE: Any = getattr(bpy.types, "Strip", None) or getattr(bpy.types, "Sequence", None)

#: What the collection of all strips is called, in paths of animated properties too.
ALL_STRIPS = ("strips_all", "sequences_all")
#: Whether movies keep more than 8 bits when they are decoded.
FINE_MOVIES = bpy.app.version >= (4, 5)
#: Whether a movie that is slower than the timeline shows a frame again that was shown shortly
#: before, so that what is seen depends on what was seen.
REPEATS_FRAMES = bpy.app.version >= (5, 0)

#: Names of timing until 5.0, and from 5.1 on.
_TIMING = {
    "content_start": "frame_start",
    "content_duration": "frame_duration",
    "left_handle": "frame_final_start",
    "right_handle": "frame_final_end",
    "duration": "frame_final_duration",
    "left_handle_offset": "frame_offset_start",
    "right_handle_offset": "frame_offset_end",
    "content_trim_start": "animation_offset_start",
    "content_trim_end": "animation_offset_end",
}


def strips(editor: Any) -> Any:
    """Return the collection of strips on top level; what is in meta strips is not in it."""
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def all_strips(editor: Any) -> Any:
    """Return all strips, also those in meta strips."""
    return editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all


def paths_of(strip: Any, name: str) -> list[str]:
    """Return what an F-curve of a strip's property may be said to be of, also of an older file."""
    quoted = bpy.utils.escape_identifier(strip.name)
    return [f'sequence_editor.{each}["{quoted}"].{name}' for each in ALL_STRIPS]


def children(meta: Any) -> Any:
    """Return the collection of strips in a meta strip."""
    return strips(meta)


def parent(strip: Any) -> Any | None:
    """Return the meta strip that `strip` is in, or None."""
    return strip.parent_meta()


def collection_of(strip: Any, scene: Any) -> Any:
    """Return the collection that `strip` is in."""
    meta = parent(strip)
    return strips(scene.sequence_editor) if meta is None else children(meta)


def scene_of(context: Any) -> Any:
    """Return the scene whose timeline is edited; from 5.0 on another than the active one."""
    return getattr(context, "sequencer_scene", None) or context.scene


def editor_of(context: Any) -> Any | None:
    """Return the sequence editor that is edited, or None where the scene has none."""
    scene = scene_of(context)
    return scene and scene.sequence_editor


def selected(context: Any) -> list[Any]:
    """Return the selected strips, lower channels first; wherever the operator was called from."""
    editor = editor_of(context)
    if editor is None:
        return []
    shown = children(editor.meta_stack[-1]) if editor.meta_stack else strips(editor)
    return sorted((each for each in shown if each.select), key=_place)


def _place(strip: Any) -> tuple[int, int]:
    return strip.channel, left_handle(strip)


def active(editor: Any) -> Any | None:
    """Return the active strip, or None."""
    return editor.active_strip


def _timing(strip: Any, name: str) -> Any:
    return getattr(strip, name) if hasattr(strip, name) else getattr(strip, _TIMING[name])


def left_handle(strip: Any) -> int:
    """Return the timeline frame that the strip begins at."""
    return _timing(strip, "left_handle")


def right_handle(strip: Any) -> int:
    """Return the timeline frame after the strip's last one."""
    return _timing(strip, "right_handle")


def duration(strip: Any) -> int:
    """Return how many timeline frames the strip is shown for."""
    return _timing(strip, "duration")


def content_start(strip: Any) -> float:
    """Return the timeline frame at which the content would begin, were it not trimmed."""
    return _timing(strip, "content_start")


def content_duration(strip: Any) -> int:
    """Return the length of the content; what it counts differs where there is a playback rate."""
    return _timing(strip, "content_duration")


def offsets(strip: Any) -> tuple[float, float]:
    """Return the timeline frames trimmed off left and right; below 0 a frame is held."""
    return _timing(strip, "left_handle_offset"), _timing(strip, "right_handle_offset")


def trims(strip: Any) -> tuple[int, int]:
    """Return the source frames that a hard split took away, left and right."""
    if strip.type not in ("MOVIE", "IMAGE", "META", "SCENE", "MOVIECLIP", "MASK"):
        return 0, 0
    return _timing(strip, "content_trim_start"), _timing(strip, "content_trim_end")


def is_retimed(strip: Any) -> bool:
    """Whether a strip has keys that change its speed; in 4.2 only movies and sound can."""
    return len(getattr(strip, "retiming_keys", ())) > 0


def set_handles(strip: Any, left: int, right: int) -> None:
    """Let a strip be shown over timeline frames [left, right)."""
    new = hasattr(strip, "left_handle")
    setattr(strip, "left_handle" if new else "frame_final_start", left)
    setattr(strip, "right_handle" if new else "frame_final_end", right)


def set_content_start(strip: Any, frame: float) -> None:
    """Move a strip so that its content begins at timeline frame `frame`."""
    setattr(strip, "content_start" if hasattr(strip, "content_start") else "frame_start", frame)


def new_effect(
    collection: Any,
    name: str,
    kind: str,
    channel: int,
    start: int,
    stop: int,
    first: Any | None = None,
    second: Any | None = None,
) -> Any:
    """Add an effect strip over timeline frames [start, stop); a generator has no inputs."""
    known = collection.bl_rna.functions["new_effect"].parameters.keys()
    given = {"name": name, "type": kind, "channel": channel, "frame_start": start}
    given |= {"length": stop - start} if "length" in known else {"frame_end": stop}
    for names, strip in ((("input1", "seq1"), first), (("input2", "seq2"), second)):
        if strip is not None:
            given[next(each for each in names if each in known)] = strip
    return collection.new_effect(**given)


def fcurves(owner: Any) -> Iterator[Any]:
    """Yield the F-curves of what animates `owner`, a scene for its strips.

    From 4.4 on an action has layers, and each animated thing its slot in them.
    """
    animation = owner.animation_data
    action = animation and animation.action
    if not action:
        return
    if not hasattr(animation, "action_slot"):
        yield from action.fcurves
        return
    for bag in _channelbags(action, animation.action_slot):
        yield from bag.fcurves


def _channelbags(action: Any, slot: Any | None) -> Iterable[Any]:
    pieces = (strip for layer in action.layers for strip in layer.strips)
    bags = (piece.channelbag(slot) for piece in pieces if slot is not None)
    return (bag for bag in bags if bag is not None)


def write_images(settings: Any) -> None:
    """Let a scene's output be images; from 5.0 on their formats are hidden while it is video."""
    if hasattr(settings, "media_type"):
        settings.media_type = "IMAGE"
