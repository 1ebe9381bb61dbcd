# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Blender in the background runs: some strips of a scene, alone, to one PNG per frame.

It is started by `rendering`, with a table of what to do in a JSON file as the last argument, and
ends with the Blender that started it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import bpy

# Run as a script it is in no package; what is beside it is found by its folder.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
compat: Any = importlib.import_module("compat")

#: Of these kinds every picture may be finer than 8 bits.
_FINE_KINDS = {"SCENE", "MOVIECLIP"}
_FINE_FILES = {".exr", ".hdr", ".tif", ".tiff", ".dpx", ".cin"}
#: These show what lies beneath them.
_COVERING = {"ADJUSTMENT", "MULTICAM"}
_BITS = 24  # where a PNG says how many bits its samples have


def end_with_parent() -> None:
    """End this process when the other Blender is gone: then its end of our input is closed."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run(task: dict[str, Any]) -> None:
    """Do what `rendering.Rendering` asks for."""
    bpy.ops.wm.open_mainfile(filepath=task["blend"], load_ui=False, use_scripts=task["scripts"])
    os.unlink(task["blend"])
    scene: Any = bpy.data.scenes[task["scene"]]
    editor = scene.sequence_editor
    editor.display_stack(None)
    wanted = [compat.all_strips(editor)[name] for name in task["strips"]]
    span = range(task["first"], task["stop"])
    isolate(scene, wanted, span)
    fine = any(is_fine(each) for strip in wanted for each in made_from(strip, editor))
    prepare(scene, task["alpha"], fine)
    for place, frame in enumerate(span):
        scene.frame_set(frame)
        scene.render.filepath = str(Path(task["folder"], f"f_{place:04d}.png"))
        bpy.ops.render.render(write_still=True, scene=scene.name)


def isolate(scene: Any, wanted: list[Any], span: range) -> None:
    """Let nothing be seen but the wanted strips, each as it is by itself."""
    editor = scene.sequence_editor
    around = [meta for strip in wanted for meta in ancestors(strip)]
    needed = {each.name for strip in wanted for each in made_from(strip, editor)}
    shown = {strip.name for strip in (*wanted, *around)}
    for strip in compat.all_strips(editor):
        if strip.name in shown:
            strip.mute = False
        elif strip.name not in needed:
            strip.mute = True
    for meta in around:
        neutralise(meta, span)
    for strip in wanted:
        strip.blend_type, strip.blend_alpha = "ALPHA_OVER", 1.0
        still(scene, strip, "blend_alpha")
        still(scene, strip, "mute")
    for meta in around:
        still(scene, meta, "")
    for holder in (editor, *around):
        for channel in holder.channels:
            channel.mute = False


def ancestors(strip: Any) -> Iterator[Any]:
    """The meta strips that a strip is in."""
    meta = compat.parent(strip)
    while meta is not None:
        yield meta
        meta = compat.parent(meta)


def made_from(strip: Any, editor: Any) -> Iterator[Any]:
    """The strip and all that it shows."""
    yield strip
    for each in parts(strip, editor):
        yield from made_from(each, editor)


def parts(strip: Any, editor: Any) -> Iterable[Any]:
    """The strips that a strip is made from."""
    if strip.type == "META":
        return list(compat.children(strip))
    if strip.type in _COVERING:
        meta = compat.parent(strip)
        beside = compat.strips(editor) if meta is None else compat.children(meta)
        return [each for each in beside if each.channel < strip.channel]
    inputs = (getattr(strip, name, None) for name in ("input_1", "input_2"))
    return [each for each in inputs if each is not None]


def neutralise(meta: Any, span: range) -> None:
    """Let a meta strip show what is in it, unchanged, over all of `span`."""
    if compat.is_retimed(meta):
        meta.retiming_keys.reset()
    left, right = compat.left_handle(meta), compat.right_handle(meta)
    compat.set_handles(meta, min(left, span.start), max(right, span.stop))
    crop, transform = meta.crop, meta.transform
    crop.min_x = crop.max_x = crop.min_y = crop.max_y = 0
    transform.offset_x = transform.offset_y = transform.rotation = 0
    transform.scale_x = transform.scale_y = meta.color_multiply = meta.color_saturation = 1
    meta.use_flip_x = meta.use_flip_y = meta.use_reverse_frames = False
    meta.strobe, meta.blend_type, meta.blend_alpha = 0, "ALPHA_OVER", 1.0
    for modifier in meta.modifiers:
        modifier.mute = True


def still(scene: Any, strip: Any, name: str) -> None:
    """Switch off what animates a property of a strip; all of them where `name` is empty."""
    quoted = bpy.utils.escape_identifier(strip.name)
    drivers = scene.animation_data.drivers if scene.animation_data else ()
    for curve in (*compat.fcurves(scene), *drivers):
        if f'["{quoted}"].{name}' in curve.data_path:
            curve.mute = True


def is_fine(strip: Any) -> bool:
    """Whether a strip's pictures may be finer than 8 bits."""
    if strip.type in _FINE_KINDS or getattr(strip, "use_float", False):
        return True
    if strip.type != "IMAGE":
        return False
    name = strip.elements[0].filename
    return os.path.splitext(name)[1].lower() in _FINE_FILES or _png16(strip.directory, name)


def _png16(folder: str, name: str) -> bool:
    if not name.lower().endswith(".png"):
        return False
    with open(os.path.join(bpy.path.abspath(folder), name), "rb") as file:
        return file.read(_BITS + 1)[_BITS:] == b"\x10"


def prepare(scene: Any, alpha: bool, fine: bool) -> None:
    """Write whole frames of the timeline as they are: nothing looked up, dithered or burnt in."""
    render, images, view = scene.render, scene.render.image_settings, scene.view_settings
    compat.write_images(images)
    images.file_format, images.compression = "PNG", 15
    images.color_mode, images.color_depth = "RGBA" if alpha else "RGB", "16" if fine else "8"
    images.color_management = "FOLLOW_SCENE"
    scene.display_settings.display_device = "sRGB"
    view.view_transform, view.look = "Standard", "None"
    view.exposure, view.gamma, view.use_curve_mapping = 0.0, 1.0, False
    if hasattr(view, "use_white_balance"):
        view.use_white_balance = False
    render.use_sequencer, render.use_compositing = True, False
    render.resolution_percentage, render.dither_intensity = 100, 0.0
    for off in ("border", "crop_to_border", "multiview", "stamp", "placeholder"):
        setattr(render, f"use_{off}", False)
    render.use_overwrite = render.use_file_extension = True


def main(argument: str) -> int:
    """Run the task in the file `argument`; what goes wrong is the last line that is said."""
    end_with_parent()
    try:
        run(json.loads(Path(argument).read_text(encoding="utf-8")))
    except Exception as error:  # whatever it is, the other Blender is told
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[-1])
    sys.stdout.flush()
    sys.stderr.flush()
    # Leaving Blender the ordinary way may crash or hang.
    os._exit(code)
