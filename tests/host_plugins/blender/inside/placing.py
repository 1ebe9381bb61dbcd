"""Results are placed above strips; the timeline is rendered after each.

Arguments: a folder with clips and results, and one to write into.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from host_plugins.blender import compat, placing, sources
from tests.host_plugins.blender.inside import strips as kit

MEDIA, OUT = Path(sys.argv[1]), Path(sys.argv[2])
FACTS = {"job": "a1", "prompt": "naïve"}
Told = dict[str, Any]


def fresh() -> Any:
    """A timeline with one strip of 16 frames at frame 10, in channel 2."""
    scene = kit.scene_for("timeline")
    kit.sequencer(scene)
    kit.movie("plain.mp4", 2)(scene, "source", 10)
    return scene


def source_in(scene: Any) -> Any:
    return compat.all_strips(scene.sequence_editor)["source"]


def result(name: str) -> list[Path]:
    """Files of a result: a movie, or images by their numbers."""
    return [MEDIA / name]


def numbered(*numbers: int) -> list[Path]:
    return [MEDIA / "styled" / f"s_{number:04}.png" for number in numbers]


def placed(scene: Any, files: list[Path], above: Any, **more: Any) -> Any:
    return placing.place(scene, files, 10, "a naïve painting", above, FACTS, **more)


def told(scene: Any, strip: Any, name: str) -> Told:
    kit.see(scene, OUT / name)
    return {
        "channel": strip.channel, "left": compat.left_handle(strip),
        "right": compat.right_handle(strip), "name": strip.name, "type": strip.type,
        "facts": strip[placing.PROPERTY], "active": scene.sequence_editor.active_strip == strip,
        "selected": [each.name for each in compat.all_strips(scene.sequence_editor) if each.select],
        "path": strip.filepath if strip.type == "MOVIE" else strip.directory,
        "in": parent.name if (parent := compat.parent(strip)) else "",
    }  # fmt: skip


def movie(scene: Any) -> Any:
    return placed(scene, result("styled.mov"), source_in(scene), length=16)


def faster_movie(scene: Any) -> Any:
    """Of 50 frames a second on a timeline of 25: every frame is shown."""
    return placed(scene, result("styled50.mp4"), source_in(scene), length=16)


def images(scene: Any) -> Any:
    return placed(scene, numbered(*range(101, 117)), source_in(scene))


def repeated(scene: Any) -> Any:
    shown = [101, 101, 102, 103, 103, 104, 106, 106, 107, 108, 108, 109, 111, 111, 112, 113]
    return placed(scene, numbered(*shown), source_in(scene))


def crowded(scene: Any) -> Any:
    """Something at each end of the span, a locked and a muted channel: the seventh is free."""
    kit.movie("plain.mp4", 3)(scene, "before", -5)
    kit.movie("plain.mp4", 4)(scene, "after", 25)
    kit.movie("plain.mp4", 7)(scene, "beside", 26)
    channels = scene.sequence_editor.channels
    channels[5].lock, channels[6].mute = True, True
    return placed(scene, result("styled.mov"), source_in(scene), length=16)


def on_channel(scene: Any) -> Any:
    return placed(scene, result("styled.mov"), 4)


def in_meta(scene: Any) -> Any:
    kit.meta_of(scene, "meta", source_in(scene))
    return placed(scene, numbered(*range(101, 117)), source_in(scene))


def laid(scene: Any) -> Any:
    """The strip is scaled, moved and cropped, and so is the result."""
    strip = source_in(scene)
    strip.transform.scale_x, strip.transform.offset_x, strip.crop.max_y = 0.5, 7, 6
    strip.use_flip_x = True
    source = sources.source_of(strip, scene)
    assert not source.why
    kit.see(scene, OUT / "laid source")
    return placed(scene, result("prores.mov"), strip, length=16, geometry=source.geometry)


def saved(scene: Any) -> Any:
    """In a .blend that is saved, paths are kept relative to it."""
    bpy.ops.wm.save_as_mainfile(filepath=str(OUT / "saved.blend"))
    return placed(scene, result("styled.mov"), source_in(scene), length=16)


def long(scene: Any) -> Any:
    """A long list of images, of which few are files."""
    return placed(scene, numbered(*(101 + place // 20 % 16 for place in range(5000))), 40)


GOOD: list[Callable[[Any], Any]] = [
    movie, faster_movie, images, repeated, crowded, on_channel, in_meta, laid, saved,
]  # fmt: skip


def refused(scene: Any, files: list[Path], above: Any, **more: Any) -> Told:
    """What is said, and whether all is as it was."""
    before = sorted(each.name for each in compat.all_strips(scene.sequence_editor))
    try:
        placed(scene, files, above, **more)
    except placing.NotPlaced as error:
        after = sorted(each.name for each in compat.all_strips(scene.sequence_editor))
        return {"message": error.message, "hint": error.hint, "same": before == after}
    raise AssertionError("it was placed")


def bad() -> dict[str, Told]:
    scene = fresh()
    strip = source_in(scene)
    full = fresh()
    for channel in range(100, 129):
        full.sequence_editor.channels[channel].lock = channel % 2 == 0
        if channel % 2:
            kit.colour(full, f"at {channel}", 10).channel = channel
    return {
        "missing": refused(scene, result("nowhere.mov"), strip),
        "one missing": refused(scene, [*numbered(101), MEDIA / "styled" / "none.png"], strip),
        "short": refused(scene, result("styled.mov"), strip, length=17),
        "no movie": refused(scene, result("broken.mov"), strip),
        "scattered": refused(scene, [*numbered(101), MEDIA / "title.png"], strip),
        "full": refused(full, result("styled.mov"), 99),
    }


def main() -> None:
    found: dict[str, Told] = {}
    for make in GOOD:
        scene = fresh()
        found[make.__name__] = told(scene, make(scene), make.__name__)
    scene = fresh()
    strip = long(scene)
    found["long"] = {"duration": compat.duration(strip), "elements": len(strip.elements)}
    text = json.dumps({"good": found, "bad": bad()})
    (OUT / "found.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    kit.end_with(main)
