"""What the scripts about jobs have in common: the installed extension, a timeline, and patience."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy  # isort: split

NAME = "bl_ext.user_default.fresco_bridge"


def installed(extension: str) -> Callable[[str], Any]:
    """Install the extension as a user does; returns its parts by their names."""
    bpy.ops.extensions.package_install_files(
        filepath=extension, repo="user_default", enable_on_install=True, overwrite=True
    )
    return lambda part: sys.modules[f"{NAME}.blender.{part}"]


def edited() -> Any:
    """The scene of the file that is open, as the one whose sequencer is edited."""
    scene = bpy.context.scene
    if hasattr(bpy.context.workspace, "sequencer_scene"):
        bpy.context.workspace.sequencer_scene = scene
    return scene


def timeline(width: int = 96, height: int = 64, fps: int = 24, base: float = 1.001) -> Any:
    """The scene with an empty sequencer, which is also the one that is edited."""
    scene = edited()
    scene.sequence_editor_clear()
    scene.sequence_editor_create()
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.fps, scene.render.fps_base = fps, base
    return scene


def strips(scene: Any) -> Any:
    editor = scene.sequence_editor
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def movie(scene: Any, file: str, channel: int, start: int, before: int = 0, after: int = 0) -> Any:
    """A movie strip, trimmed by so many frames, selected alone and active."""
    strip = strips(scene).new_movie("shot", file, channel, start)
    strip.frame_offset_start, strip.frame_offset_end = before, after
    return only(scene, strip)


def only(scene: Any, *chosen: Any) -> Any:
    for each in strips(scene):
        each.select = each in chosen
    scene.sequence_editor.active_strip = chosen[0]
    return chosen[0]


def until(watch: Any, holds: Callable[[], Any], seconds: float = 400.0) -> None:
    """Do what the timer would, until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        cards = {job: (card.state, str(card.error)) for job, card in watch.desk.cards.items()}
        assert time.monotonic() < end, cards
        watch.tick()
        time.sleep(0.02)


def rendered(scene: Any, strip: Any, folder: Path) -> list[str]:
    """What Blender shows of one strip alone, at each frame of the timeline that it is at."""
    folder.mkdir(parents=True)
    first, stop = strip.frame_final_start, strip.frame_final_end
    muted = {each.name: each.mute for each in strips(scene)}
    for each in strips(scene):
        each.mute = each != strip
    render, image = scene.render, scene.render.image_settings
    if hasattr(image, "media_type"):
        image.media_type = "IMAGE"
    image.file_format, image.color_mode = "PNG", "RGB"
    render.use_sequencer, render.use_compositing, render.resolution_percentage = True, False, 100
    render.filepath = str(folder / "f_")
    scene.view_settings.view_transform = "Standard"
    scene.frame_start, scene.frame_end = first, stop - 1
    bpy.ops.render.render(animation=True, scene=scene.name)
    for each in strips(scene):
        each.mute = muted[each.name]
    return [str(folder / f"f_{frame:04d}.png") for frame in range(first, stop)]


def described(strip: Any) -> dict[str, object]:
    """Where a strip is and what it shows."""
    element = strip.elements[0].filename
    return {
        "name": strip.name,
        "type": strip.type,
        "channel": strip.channel,
        "start": strip.frame_final_start,
        "stop": strip.frame_final_end,
        "file": bpy.path.abspath(
            strip.filepath if strip.type == "MOVIE" else strip.directory + "/" + element
        ),
        "images": [each.filename for each in strip.elements] if strip.type == "IMAGE" else [],
        "facts": json.loads(strip["fresco_bridge"]),
    }


def say(told: Any) -> None:
    print("TOLD", json.dumps(told), flush=True)
