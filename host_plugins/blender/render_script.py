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
from pathlib import Path
from typing import Any

import bpy

# Run as a script it is in no package; what is beside it is found by its folder.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
compat: Any = importlib.import_module("compat")


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
    scene.sequence_editor.display_stack(None)
    span = range(task["first"], task["stop"])
    isolate(scene, task, span)
    prepare(scene, task["alpha"], task["fine"])
    for place, frame in enumerate(span):
        scene.frame_set(frame)
        scene.render.filepath = str(Path(task["folder"], f"f_{place:04d}.png"))
        bpy.ops.render.render(write_still=True, scene=scene.name)


def isolate(scene: Any, task: dict[str, Any], span: range) -> None:
    """Let nothing be seen but the wanted strips, each as it is by itself.

    task: names of strips: `wanted`; `parts`, which they are made from; `around`, which they are in
    """
    every = {strip.name: strip for strip in compat.all_strips(scene.sequence_editor)}
    for name, strip in every.items():
        if name not in task["parts"]:
            strip.mute = name not in task["wanted"] and name not in task["around"]
    for name in task["wanted"]:
        every[name].mute, every[name].blend_type = False, "ALPHA_OVER"
        every[name].blend_alpha = 1.0
        switch_off_animation(scene, name, ("blend_alpha", "mute"))
    around = [every[name] for name in task["around"]]
    for meta in around:
        switch_off_animation(scene, meta.name, ("",))
        neutralise(meta, span)
    for holder in (scene.sequence_editor, *around):
        for channel in holder.channels:
            channel.mute = False


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


def switch_off_animation(scene: Any, name: str, properties: tuple[str, ...]) -> None:
    """Switch off what animates properties of a strip, by the beginnings of their names."""
    owner = f'["{bpy.utils.escape_identifier(name)}"].'
    drivers = scene.animation_data.drivers if scene.animation_data else ()
    for curve in (*compat.fcurves(scene), *drivers):
        _, found, path = curve.data_path.partition(owner)
        if found and path.startswith(properties):
            curve.mute = True


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
    """Run the task in the file `argument`; what goes wrong is the last thing that is said."""
    end_with_parent()
    try:
        run(json.loads(Path(argument).read_text(encoding="utf-8")))
    except Exception:  # whatever it is, the other Blender is told
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[-1])
    sys.stdout.flush()
    sys.stderr.flush()
    # Leaving Blender the ordinary way may crash or hang.
    os._exit(code)
