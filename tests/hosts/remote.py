"""Runs inside Blender: does what the files of a folder say, one after the other.

blender --python remote.py -- FOLDER. `0.py` is executed in the main thread, with the functions here
at hand; what it calls `value` is written to `0.json`, or the trace of what went wrong; then `1.py`.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import bpy

FOLDER = Path(sys.argv[sys.argv.index("--") + 1])
EVERY = 0.05
_done = 0


def sequencer(region: str = "WINDOW") -> Any:
    """Return a context in the sequencer's timeline, as if the pointer were over a region of it."""
    window = bpy.context.window_manager.windows[0]
    areas = [area for area in window.screen.areas if area.type == "SEQUENCE_EDITOR"]
    area = max(areas, key=lambda area: area.spaces.active.view_type == "SEQUENCER")
    (inside,) = [one for one in area.regions if one.type == region]
    return bpy.context.temp_override(window=window, screen=window.screen, area=area, region=inside)


def editor() -> Any:
    """Return the sequence editor of the scene in the window."""
    return bpy.context.window_manager.windows[0].scene.sequence_editor_create()


def strips() -> Any:
    """Return the strips on its timeline, which newer Blenders call otherwise."""
    found = editor()
    return found.strips if hasattr(found, "strips") else found.sequences


def part(name: str) -> Any:
    """Return a module of the installed extension."""
    return sys.modules[f"bl_ext.user_default.fresco_bridge.blender.{name}"]


def newest() -> Any:
    """Return what the extension knows of the newest job."""
    return list(part("watch").desk.cards.values())[-1]


def step() -> float:
    """Do the next file, if it is there."""
    global _done
    if (words := FOLDER / f"{_done}.py").is_file():
        names: dict[str, Any] = {**globals(), "value": None}
        try:
            exec(compile(words.read_text(encoding="utf-8"), words.name, "exec"), names)
            told = {"value": names["value"]}
        except Exception:
            told = {"error": traceback.format_exc()}
        part = FOLDER / "part"
        part.write_text(json.dumps(told), encoding="utf-8")
        os.replace(part, FOLDER / f"{_done}.json")
        _done += 1
    return EVERY


bpy.app.timers.register(step, persistent=True)
