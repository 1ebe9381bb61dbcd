"""Strips of every kind, one after the other on a timeline: what source_of says, and what is seen.

Arguments: a folder with the clips that test_sources makes, and one to write into.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy

from host_plugins.blender import compat, sources
from host_plugins.blender.rendering import Rendering

MEDIA, OUT = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else ".")
GAP = 3
Maker = Callable[[Any, str, int], Any]


def scene_for(name: str) -> Any:
    scene: Any = bpy.data.scenes.new(name)
    render, view = scene.render, scene.view_settings
    render.resolution_x, render.resolution_y, render.resolution_percentage = 64, 36, 100
    render.fps, render.fps_base = 25, 1
    compat.write_images(render.image_settings)
    render.image_settings.file_format, render.image_settings.color_mode = "PNG", "RGBA"
    render.dither_intensity = 0
    view.view_transform = "Standard"
    scene.sequence_editor_create()
    return scene


def strips(scene: Any) -> Any:
    return compat.strips(scene.sequence_editor)


def movie(file: str, channel: int = 1) -> Maker:
    def make(scene: Any, name: str, start: int) -> Any:
        path = str(MEDIA / file)
        return strips(scene).new_movie(
            name=name, filepath=path, channel=channel, frame_start=start, fit_method="ORIGINAL"
        )

    return make


def images(files: list[str], channel: int = 1) -> Maker:
    def make(scene: Any, name: str, start: int) -> Any:
        first, *rest = files
        strip = strips(scene).new_image(
            name=name, filepath=str(MEDIA / first), channel=channel, frame_start=start,
            fit_method="ORIGINAL",
        )  # fmt: skip
        for file in rest:
            strip.elements.append(os.path.basename(file))
        return strip

    return make


def changed(make: Maker, **values: Any) -> Maker:
    """`make`'s strip with properties set: "transform__scale_x" is its transform's."""

    def made(scene: Any, name: str, start: int) -> Any:
        strip = make(scene, name, start)
        for path, value in values.items():
            *holders, last = path.split("__")
            holder = strip
            for each in holders:
                holder = getattr(holder, each)
            setattr(holder, last, value)
        return strip

    return made


def trimmed(make: Maker, left: int, right: int) -> Maker:
    """`make`'s strip with its handles moved inwards by so much; outwards where below 0."""

    def made(scene: Any, name: str, start: int) -> Any:
        strip = make(scene, name, start + max(-left, 0))
        ends = compat.left_handle(strip) + left, compat.right_handle(strip) - right
        compat.set_handles(strip, *ends)
        return strip

    return made


def split(make: Maker, at: int, method: str, keep_right: bool) -> Maker:
    def made(scene: Any, name: str, start: int) -> Any:
        left = make(scene, name, start)
        right = left.split(frame=start + at, split_method=method)
        keep, lose = (right, left) if keep_right else (left, right)
        strips(scene).remove(lose)
        keep.name = name
        return keep

    return made


def with_modifier(make: Maker) -> Maker:
    def made(scene: Any, name: str, start: int) -> Any:
        strip = make(scene, name, start)
        modifier = strip.modifiers.new("m", "BRIGHT_CONTRAST")
        modifier.bright = 20
        return strip

    return made


def animated(make: Maker, path: str, first: float, last: float) -> Maker:
    def made(scene: Any, name: str, start: int) -> Any:
        strip = make(scene, name, start)
        whole = f"{strip.path_from_id()}.{path}"
        for frame, value in ((start, first), (start + 9, last)):
            changed(lambda *_: strip, **{path.replace(".", "__"): value})(scene, name, start)
            assert scene.keyframe_insert(whole, frame=frame)
        return strip

    return made


def retimed(make: Maker) -> Maker:
    """At double speed, by the operator: adding keys from Python crashes Blender up to 5.0."""

    def made(scene: Any, name: str, start: int) -> Any:
        strip = make(scene, name, start)
        for each in strips(scene):
            each.select = False
        strip.select = True
        scene.sequence_editor.active_strip = strip
        with sequencer(scene):
            assert bpy.ops.sequencer.retiming_segment_speed_set(speed=200.0) == {"FINISHED"}
        assert len(strip.retiming_keys)
        return strip

    return made


def sequencer(scene: Any) -> Any:
    window = bpy.context.window_manager.windows[0]
    window.scene = scene
    if hasattr(window.workspace, "sequencer_scene"):
        window.workspace.sequencer_scene = scene
    area = window.screen.areas[0]
    area.type = "SEQUENCE_EDITOR"
    region = next(each for each in area.regions if each.type == "WINDOW")
    return bpy.context.temp_override(window=window, area=area, region=region, scene=scene)


def effect(kind: str, *inputs: Maker, **values: Any) -> Maker:
    """An effect over ten frames, on strips that are one frame longer at either end."""

    def made(scene: Any, name: str, start: int) -> Any:
        made_from = [make(scene, f"{name} {place}", start) for place, make in enumerate(inputs, 1)]
        for place, each in enumerate(made_from, 1):
            each.channel = place
        strip = compat.new_effect(
            strips(scene), name, kind, len(inputs) + 1, start, start + 10, *made_from
        )
        for path, value in values.items():
            setattr(strip, path, value)
        return strip

    return made


def under_speed(make: Maker) -> Maker:
    def made(scene: Any, name: str, start: int) -> Any:
        strip = make(scene, name, start)
        speed = compat.new_effect(strips(scene), f"{name} speed", "SPEED", 2, start, start, strip)
        speed.speed_control, speed.speed_factor = "MULTIPLY", 0.5
        return strip

    return made


def meta(*inside: Maker) -> Maker:
    def made(scene: Any, name: str, start: int) -> Any:
        children = [make(scene, f"{name} {place}", start) for place, make in enumerate(inside)]
        return meta_of(scene, name, *children)

    return made


def meta_of(scene: Any, name: str, *children: Any) -> Any:
    """A meta strip of strips, by the operator: `new_meta` makes one that does not grow."""
    for each in compat.all_strips(scene.sequence_editor):
        each.select = each in children
    with sequencer(scene):
        assert bpy.ops.sequencer.meta_make() == {"FINISHED"}
    strip = compat.parent(children[0])
    strip.name = name
    return strip


def other_scene(scene: Any, name: str, start: int) -> Any:
    inner = scene_for("inner")
    movie("plain.mp4")(inner, "inside", 1)
    inner.frame_start, inner.frame_end = 1, 12
    strip = strips(scene).new_scene(name=name, scene=inner, channel=1, frame_start=start)
    strip.scene_input = "SEQUENCER"
    return strip


def tracked(scene: Any, name: str, start: int) -> Any:
    clip = bpy.data.movieclips.load(str(MEDIA / "plain.mp4"))
    return strips(scene).new_clip(name=name, clip=clip, channel=1, frame_start=start)


def mask(scene: Any, name: str, start: int) -> Any:
    made: Any = bpy.data.masks.new("mask")
    made.frame_start, made.frame_end = 1, 10
    spline = made.layers.new().splines.new()
    spline.use_cyclic = True
    spline.points.add(3)
    corners = ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))
    for point, corner in zip(spline.points, corners, strict=True):
        point.co = point.handle_left = point.handle_right = corner
    return strips(scene).new_mask(name=name, mask=made, channel=1, frame_start=start)


def text(scene: Any, name: str, start: int) -> Any:
    strip = compat.new_effect(strips(scene), name, "TEXT", 1, start, start + 10)
    strip.text, strip.font_size = "ab", 30
    return strip


def colour(scene: Any, name: str, start: int) -> Any:
    strip = compat.new_effect(strips(scene), name, "COLOR", 1, start, start + 10)
    strip.color = (0.8, 0.2, 0.1)
    return strip


def names(folder: str, form: str, numbers: Iterator[int] | range | list[int]) -> list[str]:
    return [f"{folder}/{form.format(number)}" for number in numbers]


PLAIN = movie("plain.mp4")
CASES: dict[str, Maker] = {
    "movie": PLAIN,
    "movie of 50": movie("fifty.mp4"),
    "prores": movie("prores.mov"),
    "mkv": movie("plain.mkv"),
    "webm": movie("plain.webm"),
    "open groups": movie("open.mov"),
    "longer sound": movie("sound.mkv"),
    "uneven": movie("uneven.mp4"),
    "fragments": movie("fragments.mp4"),
    "avi": movie("plain.avi"),
    "soft trim": trimmed(PLAIN, 3, 4),
    "held": trimmed(PLAIN, -4, -5),
    "soft left": split(PLAIN, 8, "SOFT", False),
    "hard left": split(PLAIN, 8, "HARD", False),
    "hard right": split(PLAIN, 8, "HARD", True),
    "hard right held": trimmed(split(PLAIN, 8, "HARD", True), -3, -3),
    "images": images(names("run", "a.{:04}.png", range(5, 15))),
    "images trimmed": trimmed(images(names("run", "a.{:04}.png", range(5, 15))), 2, -3),
    "exr": images(names("exr", "e{:03}.exr", range(1, 9))),
    "tiff": images(names("tiff", "t{:02}.tif", range(1, 5))),
    "still": trimmed(images(["title.png"]), 0, -9),
    "numbered still": trimmed(images(["run/a.0007.png"]), 0, -9),
    "backwards": images(names("run", "a.{:04}.png", list(range(14, 4, -1)))),
    "every second": images(names("run", "a.{:04}.png", range(5, 15, 2))),
    "broken run": images(names("broken", "b{}.png", [1, 2])),
    "jpeg": images(names("jpeg", "j{}.jpg", range(1, 5))),
    "layers": trimmed(images(["layers.exr"]), 0, -3),
    "reversed": changed(PLAIN, use_reverse_frames=True),
    "strobed": changed(PLAIN, strobe=3),
    "modifier": with_modifier(PLAIN),
    "saturated": changed(PLAIN, color_saturation=0.5),
    "colour space": changed(PLAIN, colorspace_settings__name="Non-Color"),
    "moving": animated(PLAIN, "transform.offset_x", 0, 30),
    "retimed": retimed(movie("long.mp4")),
    "under speed": under_speed(PLAIN),
    "blur": effect("GAUSSIAN_BLUR", PLAIN, size_x=4, size_y=4),
    "cross": effect("GAMMA_CROSS", PLAIN, movie("other.mp4")),
    "meta": meta(PLAIN),
    "scene": other_scene,
    "clip": tracked,
    "mask": mask,
    "text": text,
    "colour": colour,
    "moved": changed(PLAIN, transform__scale_x=0.5, transform__scale_y=0.5, crop__min_x=8),
    "faded": changed(PLAIN, blend_alpha=1.0),
    "proxy": changed(PLAIN, use_proxy=True),
}
#: Rendered by a Blender of their own.
ALONE = {"retimed", "under speed", "cross", "meta", "scene", "mask"}


def build(scene: Any) -> dict[str, Any]:
    """All cases, one after the other."""
    made, start = dict[str, Any](), 5
    for name, make in CASES.items():
        made[name] = make(scene, name, start)
        start = max(map(compat.right_handle, strips(scene))) + GAP
    return made


def see(scene: Any, folder: Path) -> None:
    """Render the timeline."""
    scene.frame_start = 0
    scene.frame_end = max(map(compat.right_handle, strips(scene)))
    scene.render.filepath = str(folder / "f_")
    bpy.ops.render.render(animation=True, scene=scene.name)


def wait(jobs: list[Rendering]) -> list[str]:
    """What went wrong with each, once all are done."""
    deadline = time.monotonic() + 900
    while not all(job.poll().finished for job in jobs):
        assert time.monotonic() < deadline, "the renderings take too long"
        time.sleep(0.1)
    return [job.poll().error for job in jobs]


def render(scene: Any, found: dict[str, Any]) -> None:
    """What must be rendered is: some by themselves, the others in one go."""
    needed = {name: each for name, each in found.items() if each["why"]}
    groups = [[name] for name in needed if name in ALONE]
    groups.append([name for name in needed if name not in ALONE])
    jobs = [start(scene, [needed[name] for name in group]) for group in groups]
    for group, job, error in zip(groups, jobs, wait(jobs), strict=True):
        for name in group:
            found[name] |= {"clip": job.clip, "begin": job_begin(needed, group), "error": error}


def job_begin(needed: dict[str, Any], group: list[str]) -> int:
    """The timeline frame that a group's rendering begins at."""
    return min(needed[name]["start"] + needed[name]["first"] for name in group)


def start(scene: Any, group: list[dict[str, Any]]) -> Rendering:
    names = [name for each in group for name in each["strips"]]
    begin = min(each["start"] + each["first"] for each in group)
    stop = max(each["start"] + each["stop"] for each in group)
    alpha = any(each["alpha"] for each in group)
    return Rendering(scene, names, begin, stop, OUT / "rendered" / names[0], alpha)


def refused(scene: Any) -> dict[str, Any]:
    """Strips that cannot be styled, and what is said of them."""
    made = {
        "no movie": movie("nowhere.mp4"),
        "no picture": trimmed(images(["run/a.0001.png", "run/none.png"]), 1, -2),
        "empty": lambda scene, name, start: strips(scene).new_meta(
            name=name, channel=1, frame_start=start
        ),
        "in a meta": meta(PLAIN, movie("nowhere.mp4", 2)),
        "input": effect("GAUSSIAN_BLUR", movie("nowhere.mp4")),
    }
    if bpy.app.version >= (4, 5):  # without sound before
        made["sound"] = lambda scene, name, start: strips(scene).new_sound(
            name=name, filepath=str(MEDIA / "sound.mkv"), channel=1, frame_start=start
        )
    return {name: refusal(make(scene, name, 5), scene) for name, make in made.items()}


def refusal(strip: Any, scene: Any) -> dict[str, str]:
    try:
        sources.source_of(strip, scene)
    except sources.Unusable as error:
        return {"message": error.message, "hint": error.hint}
    return {}


def main() -> None:
    scene = scene_for("timeline")
    # Without a scene that is edited, modifiers crash Blender 5.0.
    sequencer(scene)
    made = build(scene)
    see(scene, OUT / "seen")
    found: dict[str, Any] = {}
    for name, strip in made.items():
        source = sources.source_of(strip, scene)
        found[name] = dataclasses.asdict(source) | {
            "frames": list(source.frames), "plain": source.plain,
            "first": source.first, "stop": source.stop,
        }  # fmt: skip
    # None of it may be in a rendering.
    cover = compat.new_effect(strips(scene), "cover", "COLOR", 20, 0, scene.frame_end)
    cover.color = (1, 1, 1)
    render(scene, found)
    other = scene_for("other")
    sequencer(other)
    told = json.dumps({"found": found, "refused": refused(other)})
    (OUT / "found.json").write_text(told, encoding="utf-8")


def end_with(do: Callable[[], None]) -> None:
    """Do it and end the process: leaving Blender the ordinary way may crash or hang."""
    code = 1
    try:
        do()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end_with(main)
