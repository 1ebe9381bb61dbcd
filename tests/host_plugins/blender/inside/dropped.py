"""Movies dropped onto timelines of another rate: they play at their own, and no property says so.

Arguments: `make`, clips and a .blend to save, up to Blender 4.5, whose operator is no longer
there for scripts after that; or `look`, the .blend and a folder to write into.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bpy

from host_plugins.blender import compat, sources
from tests.host_plugins.blender.inside import strips as kit

RATES = {"23.976": (24, 1.001), "25": (25, 1), "29.97": (30, 1.001), "30": (30, 1)}
START = 8


def drop(scene: Any, file: Path) -> Any:
    with kit.sequencer(scene):
        told = bpy.ops.sequencer.movie_strip_add(
            filepath=str(file), frame_start=START, channel=1, sound=False,
            adjust_playback_rate=True, set_view_transform=False, fit_method="ORIGINAL",
        )  # fmt: skip
    assert told == {"FINISHED"}
    return kit.strips(scene)[0]


def make(clips: Path, blend: Path) -> None:
    for name, rate in RATES.items():
        for file in sorted(clips.glob("rate*.mp4")):
            for way in ("whole", "trimmed", "split"):
                scene = kit.scene_for(f"{file.stem} at {name} {way}")
                scene.render.fps, scene.render.fps_base = rate
                strip = drop(scene, file)
                # The operator may take the file's rate for the scene.
                scene.render.fps, scene.render.fps_base = rate
                change(scene, strip, way)
    bpy.ops.wm.save_as_mainfile(filepath=str(blend), relative_remap=False)


def change(scene: Any, strip: Any, way: str) -> None:
    if way == "trimmed":
        compat.set_handles(strip, START + 5, compat.right_handle(strip) + 4)
    elif way == "split":
        right = strip.split(frame=START + 9, split_method="HARD")
        kit.strips(scene).remove(strip)
        compat.set_handles(right, compat.left_handle(right) - 3, compat.right_handle(right) - 2)


def look(blend: Path, out: Path) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(blend), load_ui=False)
    found: dict[str, Any] = {}
    for scene in list(bpy.data.scenes):
        if " at " not in scene.name:
            continue
        strip = kit.strips(scene)[0]
        source = sources.source_of(strip, scene)
        kit.see(scene, out / scene.name)
        found[scene.name] = {
            "why": source.why, "frames": list(source.frames), "start": source.start
        }  # fmt: skip
    (out / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    do = {"make": make, "look": look}[sys.argv[1]]
    kit.end_with(lambda: do(Path(sys.argv[2]), Path(sys.argv[3])))
