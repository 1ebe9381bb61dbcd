"""Strips rendered by another Blender, from timelines that make it hard.

Arguments: a folder with clips, one to write into, and what to do: `all`, or `leave` to end in the
midst of a rendering.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from host_plugins.blender import compat
from host_plugins.blender.rendering import NotRendered, Rendering
from tests.host_plugins.blender.inside import strips as kit

MEDIA, OUT = Path(sys.argv[1]), Path(sys.argv[2])
Told = dict[str, Any]


def hard_scene() -> Any:
    """A scene whose settings would spoil a rendering."""
    scene = kit.scene_for("hard")
    kit.sequencer(scene)
    render = scene.render
    render.resolution_percentage, render.dither_intensity, scene.frame_step = 50, 2.0, 3
    render.use_border, render.use_crop_to_border, render.border_max_x = True, True, 0.5
    render.use_stamp, render.use_multiview, render.use_placeholder = True, True, True
    scene.view_settings.view_transform, scene.view_settings.exposure = "Filmic", 2.0
    scene.view_settings.gamma = 2.0
    if hasattr(render.image_settings, "media_type"):
        render.image_settings.media_type = "VIDEO"
    render.image_settings.file_format = "FFMPEG"
    cover = compat.new_effect(kit.strips(scene), "cover", "COLOR", 20, -50, 100)
    cover.color = (1, 1, 1)
    return scene


def hard(scene: Any) -> Rendering:
    """From before frame 0 on, faded out by an animation, in a muted channel, itself muted."""
    strip = kit.animated(kit.movie("plain.mp4"), "blend_alpha", 0.0, 0.1)(scene, "hard", -7)
    strip.mute = True
    scene.sequence_editor.channels[strip.channel].mute = True
    return Rendering(scene, "hard", -7, 9, OUT / "hard")


def nested(scene: Any) -> Rendering:
    """In a meta strip in a meta strip that are changed, trimmed, animated, and being edited."""
    strip = kit.movie("plain.mp4")(scene, "nested", 10)
    inner = kit.meta_of(scene, "inner", strip)
    outer = kit.meta_of(scene, "outer", inner)
    compat.set_handles(outer, 14, 20)
    outer.transform.scale_x, outer.color_multiply, outer.blend_type = 0.5, 0.3, "MULTIPLY"
    inner.crop.max_x, inner.mute = 20, True
    path = f"{outer.path_from_id()}.transform.offset_y"
    outer.transform.offset_y = 20
    assert scene.keyframe_insert(path, frame=10)
    scene.sequence_editor.display_stack(outer)
    return Rendering(scene, "nested", 10, 26, OUT / "nested", alpha=True)


def fine(scene: Any) -> Rendering:
    """Pictures of 16 bits stay so."""
    strip = kit.images(["fine.png"])(scene, "fine", 30)
    compat.set_handles(strip, 30, 32)
    return Rendering(scene, ["fine"], 30, 32, OUT / "fine")


def adjusted(scene: Any) -> Rendering:
    """An adjustment of what is beneath it, and not of what is above."""
    kit.movie("plain.mp4")(scene, "beneath", 50)
    strip = compat.new_effect(kit.strips(scene), "adjusted", "ADJUSTMENT", 2, 50, 66)
    strip.use_flip_x = True
    return Rendering(scene, "adjusted", 50, 66, OUT / "adjusted")


def state(scene: Any) -> Told:
    """What a rendering must leave as it was."""
    return {
        "path": bpy.data.filepath, "dirty": bpy.data.is_dirty, "scenes": len(bpy.data.scenes),
        "strips": {
            each.name: [each.mute, each.blend_alpha, getattr(each, "filepath", "")]
            for each in compat.all_strips(scene.sequence_editor)
        },
        "render": [scene.render.filepath, scene.render.image_settings.file_format],
        "frame": scene.frame_current,
    }  # fmt: skip


def until(told: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(job: Rendering) -> Told:
    until(lambda: job.poll().finished)
    last = job.poll()
    return {"clip": job.clip, "done": last.done, "total": last.total, "error": last.error}


def several(scene: Any) -> Told:
    """Four at once, of which one is cancelled before it begins."""
    jobs = [Rendering(scene, "hard", -7, -5, OUT / f"several {number}") for number in range(4)]
    begun = [job._process is not None for job in jobs]
    jobs[3].cancel()
    until(lambda: all(job.poll().finished for job in jobs))
    frames = [len(list((OUT / f"several {number}").glob("f_*"))) for number in range(4)]
    left = [
        path.name for number in range(4) for path in (OUT / f"several {number}").glob("*.blend")
    ]
    errors = [job.poll().error for job in jobs]
    return {"begun": begun, "frames": frames, "errors": errors, "left": left}


def cancelled(scene: Any) -> Told:
    """Cancelled in the midst."""
    job = Rendering(scene, "hard", -7, 5000, OUT / "cancelled")
    until(lambda: job.poll().done > 2)
    process = job._process
    assert process is not None
    job.cancel()
    job.cancel()
    return ended(job) | {"code": process.poll(), "left": sorted(os.listdir(OUT / "cancelled"))[:3]}


def spoilt(scene: Any) -> Told:
    """A folder is in the way of the third frame."""
    (OUT / "spoilt" / "f_0002.png").mkdir(parents=True)
    return ended(Rendering(scene, "hard", -7, 9, OUT / "spoilt"))


def refused(scene: Any, name: str, folder: Path) -> Told:
    try:
        Rendering(scene, name, 0, 2, folder)
    except NotRendered as error:
        return {"message": error.message, "hint": error.hint}
    raise AssertionError("it was rendered")


def everything() -> None:
    scene = hard_scene()
    bpy.ops.wm.save_as_mainfile(filepath=str(OUT / "open.blend"))
    (OUT / "file").write_text("in the way", encoding="utf-8")
    jobs = {make.__name__: make(scene) for make in (hard, nested, fine, adjusted)}
    before = state(scene)
    found = {name: ended(job) for name, job in jobs.items()}
    found |= {"cancelled": cancelled(scene), "spoilt": spoilt(scene), "several": several(scene)}
    found["lost"] = refused(scene, "nobody", OUT / "lost")
    found["used"] = refused(scene, "hard", OUT / "hard")
    found["nowhere"] = refused(scene, "hard", OUT / "file" / "x")
    found["before"], found["after"] = before, state(scene)
    left = [str(path) for path in OUT.rglob("*.blend*")]
    (OUT / "found.json").write_text(json.dumps(found | {"blends": left}), encoding="utf-8")


def leave() -> None:
    """End while another Blender renders; its process is told."""
    scene = hard_scene()
    hard(scene)
    job = Rendering(scene, "hard", -7, 100000, OUT / "left")
    until(lambda: job.poll().done > 2)
    assert job._process is not None
    (OUT / "pid").write_text(str(job._process.pid), encoding="utf-8")


if __name__ == "__main__":
    kit.end_with(leave if sys.argv[3] == "leave" else everything)
