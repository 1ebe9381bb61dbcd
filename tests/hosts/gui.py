"""The extension in a Blender with windows: what a user sees, in pictures.

python -m tests.hosts.gui [--blender PROGRAM] [--root FOLDER] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bridge_server import config
from host_plugins.blender import build
from host_plugins.link import endpoint, messages
from host_plugins.link.messages import OfJob
from tests.bridge_server.serving import Serving
from tests.hosts.desktop import REST, Desktop, scratch_folder
from tests.hosts.environments import REPOSITORY, NotHere

DEMO = REPOSITORY / "bridge_server" / "data" / "demo.mp4"
PROMPT = "watercolour painting"
#: Seconds for a job of two seconds on a busy machine.
LONG = 1800
#: A video editor's usual start.
OPENED = 'bpy.ops.wm.read_homefile(app_template="Video_Editing", use_factory_startup=True)'
TIMELINE = """
window = bpy.context.window_manager.windows[0]
window.workspace = bpy.data.workspaces["Video Editing"]
scene = window.scene
scene.render.resolution_x, scene.render.resolution_y = 384, 256
scene.render.fps, scene.frame_end = 24, 48
strip = strips().new_movie("demo", {clip!r}, channel=1, frame_start=1)
setattr(strip, "duration" if hasattr(strip, "duration") else "frame_final_duration", 48)
strip.fresco_size = 256
editor().active_strip = strip
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
#: The sidebar's corners on the screen, from the upper left.
BOX = """
with sequencer("UI"):
    window, region = bpy.context.window, bpy.context.region
    top = window.height - region.y - region.height
    value = region.x, top, region.x + region.width, top + region.height
"""
SCROLLED = """
with sequencer("UI"):
    for _ in range(30):
        bpy.ops.view2d.scroll_down()
"""
STYLISE = """
with sequencer():
    editor().active_strip = strips()["demo"]
    bpy.ops.sequencer.select_all(action="DESELECT")
    strips()["demo"].select = True
    strips()["demo"].fresco_prompt = {prompt!r}
    bpy.ops.fresco.stylise("INVOKE_DEFAULT")
"""
RESULT = """
bpy.context.window_manager.windows[0].scene.frame_current = 30
with sequencer():
    bpy.ops.sequencer.view_all()
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
    desktop.do(TIMELINE.format(clip=str(clip), project=str(project)))
    desktop.do(SIDEBAR)
    # A sidebar has its tabs once it was drawn.
    desktop.until("part('watch').connection.state.name == 'ready'")
    desktop.do(STYLE)


def show(desktop: Desktop, pictures: Path) -> None:
    """Do what a user does with a strip, and take pictures of it."""
    desktop.do(f"strips()['demo'].fresco_prompt = {PROMPT!r}")
    desktop.picture(pictures / "blender-style.png")
    desktop.do(STYLISE.format(prompt=PROMPT))
    # Its keyframes are done then, and there is something left to do.
    desktop.until("newest().info and newest().info.stage == 'propagate'", LONG)
    desktop.do(SCROLLED)
    desktop.picture(pictures / "blender-jobs.png", desktop.do(BOX))
    desktop.until("any('fresco_bridge' in strip for strip in strips())", LONG)
    desktop.do(RESULT)
    desktop.picture(pictures / "blender-result.png")


def check_escape(desktop: Desktop, serving: Serving) -> None:
    """ESC over the timeline stops a job; the server says so."""
    desktop.do(STYLISE.format(prompt="oil painting"))
    desktop.until("newest().state == 'running'", LONG)
    desktop.key("Escape", REST)
    desktop.until("newest().state == 'cancelled'")
    with serving.client() as client:
        job = desktop.do("value = newest().ticket.job")
        assert client.ask(messages.JOB, OfJob(job=job)).state == "cancelled"


@contextmanager
def server(folder: Path) -> Generator[Serving]:
    """A real server, with all that it keeps in a folder."""
    serving = Serving(folder).start()
    try:
        yield serving
    finally:
        serving.kill()


def run(program: str, root: str, scratch: Path, pictures: Path) -> str:
    """Do everything; returns Blender's version."""
    extension = build.build(scratch, REPOSITORY / "build" / "wheels")
    environ = {endpoint.FOLDER: str(scratch / "run"), config.HOME: str(scratch / "home")}
    desktop = Desktop(program, root, scratch, **environ)
    with desktop, server(scratch) as serving:
        install(desktop, extension)
        open_project(desktop)
        show(desktop, pictures)
        check_escape(desktop, serving)
        assert desktop.end() == 0, (scratch / "blender.log").read_text()
    return desktop.version


def main(words: Sequence[str] | None = None) -> int:
    """Show the extension, and say where the pictures are."""
    parser = argparse.ArgumentParser(prog="tests.hosts.gui")
    parser.add_argument("--blender", default="blender", help="program of a Blender from 4.2 on")
    parser.add_argument("--root", default="", help="root folder of another system that has it")
    parser.add_argument("--pictures", type=Path, default=REPOSITORY / "build" / "pictures")
    chosen = parser.parse_args(words)
    chosen.pictures.mkdir(parents=True, exist_ok=True)
    with scratch_folder() as scratch:
        try:
            version = run(chosen.blender, chosen.root, Path(scratch), chosen.pictures)
        except NotHere as reason:
            print(f"not shown: {reason}", file=sys.stderr)
            return 1
    print(f"Blender {version}: {chosen.pictures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
