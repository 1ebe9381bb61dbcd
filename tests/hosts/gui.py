"""The extension in a Blender with windows: what a user sees, in pictures.

python -m tests.hosts.gui [--blender PROGRAM] [--root FOLDER] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from host_plugins.blender import build
from tests.hosts.desktop import Desktop, scratch_folder
from tests.hosts.environments import REPOSITORY, NotHere

DEMO = REPOSITORY / "bridge_server" / "data" / "demo.mp4"
#: A video editor's usual start: the clip on the timeline, and the sidebar opened.
OPENED = """
bpy.ops.wm.read_homefile(app_template="Video_Editing", use_factory_startup=True)
"""
TIMELINE = """
window = bpy.context.window_manager.windows[0]
window.workspace = bpy.data.workspaces["Video Editing"]
scene = window.scene
scene.render.resolution_x, scene.render.resolution_y = {size}
scene.render.fps, scene.frame_end = {rate}, {frames}
editor = scene.sequence_editor_create()
strips = editor.strips if hasattr(editor, "strips") else editor.sequences
editor.active_strip = strips.new_movie("demo", {clip!r}, channel=1, frame_start=1)
bpy.ops.wm.save_as_mainfile(filepath={project!r})
"""
SIDEBAR = """
with sequencer():
    bpy.context.space_data.show_region_ui = True
    bpy.ops.sequencer.view_all()
"""
STYLE = """
with sequencer("UI"):
    bpy.context.region.active_panel_category = "Style"
"""


def install(desktop: Desktop, extension: Path) -> None:
    """Install the zip as a user does, by Blender's installer."""
    desktop.do(
        f"bpy.ops.extensions.package_install_files(filepath={str(extension)!r},"
        " repo='user_default', enable_on_install=True)"
    )


def open_project(desktop: Desktop) -> None:
    """Show the sample clip on the timeline of a saved project, with the sidebar at *Style*."""
    project = desktop.scratch / "project" / "film.blend"
    project.parent.mkdir()
    clip = project.with_name("demo.mp4")
    clip.write_bytes(DEMO.read_bytes())
    desktop.do(OPENED)
    facts = {"size": (384, 256), "rate": 24, "frames": 96}
    desktop.do(TIMELINE.format(clip=str(clip), project=str(project), **facts))
    desktop.do(SIDEBAR)
    desktop.until("[one for one in dir(bpy.types) if one.startswith('FRESCO_PT')]")
    desktop.do(STYLE)


def show(desktop: Desktop, extension: Path, pictures: Path) -> None:
    """Do what a user does, and take pictures of it."""
    install(desktop, extension)
    open_project(desktop)
    desktop.picture(pictures / "blender-panel.png")
    assert desktop.end() == 0, (desktop.scratch / "blender.log").read_text()


def main(words: Sequence[str] | None = None) -> int:
    """Show the extension, and say where the pictures are."""
    parser = argparse.ArgumentParser(prog="tests.hosts.gui")
    parser.add_argument("--blender", default="blender", help="program of a Blender from 4.2 on")
    parser.add_argument("--root", default="", help="root folder of another system that has it")
    parser.add_argument("--pictures", type=Path, default=REPOSITORY / "build" / "pictures")
    chosen = parser.parse_args(words)
    chosen.pictures.mkdir(parents=True, exist_ok=True)
    with scratch_folder() as folder:
        extension = build.build(Path(folder), REPOSITORY / "build" / "wheels")
        try:
            with Desktop(chosen.blender, chosen.root, Path(folder)) as desktop:
                show(desktop, extension, chosen.pictures)
        except NotHere as reason:
            print(f"not shown: {reason}", file=sys.stderr)
            return 1
    print(f"Blender {desktop.version}: {chosen.pictures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
