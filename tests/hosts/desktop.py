"""Blender with its windows on a screen that nobody sees, steered from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image, ImageGrab

from tests.hosts.environments import REPOSITORY, NotHere

#: What a screen that nobody sees takes: commands, and Debian's packages of them.
NEEDED = {"Xvfb": "xvfb", "xdotool": "xdotool"}
#: In another root folder, these are where they are outside. One's own files are last.
MOUNTED = ("/proc", "/dev", "/sys", "/tmp")
SIZE = (1400, 1000)
#: Where the pointer calls up no hint: in the empty part of the timeline.
REST = (500, 700)
OLDEST = (4, 2)


class Desktop:
    """A screen, and a Blender on it. Blender's settings, and all that it writes, are in `scratch`.

    program: of Blender
    root: the folder of another system that has the program, "" for this one; takes the superuser

    Raises:
        NotHere: the screen's programs or Blender are missing, or Blender is too old.
    """

    def __init__(self, program: str, root: str, scratch: Path, **environ: str) -> None:
        self.scratch, self._steps, self._asked = scratch, scratch / "steps", 0
        self._inside = _inside(root)
        self._program, self._environ = program, environ
        self._stack = ExitStack()
        _check_commands()
        self.version = _check_version(self._inside([program, "--version"]))

    def __enter__(self) -> Desktop:
        self._steps.mkdir()
        self.display = self._screen()
        self.point(REST)
        self._blender = self._start_blender()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stack.close()

    def do(self, code: str, seconds: float = 600) -> Any:
        """Execute statements in Blender; returns what they call `value`."""
        words, told = (self._steps / f"{self._asked}.{kind}" for kind in ("py", "json"))
        self._asked += 1
        part = self._steps / "asked"
        part.write_text(code, encoding="utf-8")
        os.replace(part, words)
        self._wait(told.exists, f"Blender does not answer to: {code}", seconds)
        answer = json.loads(told.read_text(encoding="utf-8"))
        assert "error" not in answer, f"{code}\n{answer.get('error')}"
        return answer["value"]

    def until(self, code: str, seconds: float = 600) -> None:
        """Wait until an expression is true in Blender."""
        asked = f"value = bool({code})"
        self._wait(lambda: self.do(asked), f"it is never so: {code}", seconds, pause=0.5)

    def point(self, at: tuple[int, int]) -> None:
        """Put the pointer to a place, counted from the upper left corner."""
        self._xdotool("mousemove", *map(str, at))

    def key(self, name: str, at: tuple[int, int]) -> None:
        """Press a key while the pointer is at a place: of the window that it is meant for."""
        self.point(at)
        self.do("value = None")
        self._xdotool("key", name)

    def _xdotool(self, *words: str) -> None:
        environ = {**os.environ, "DISPLAY": self.display}
        subprocess.run(["xdotool", *words], env=environ, check=True)

    def picture(self, target: Path, box: tuple[int, int, int, int] | None = None) -> None:
        """Write what the screen shows, or a box of it, as a PNG of few colours."""
        self.point(REST)
        self.do("for area in bpy.context.window_manager.windows[0].screen.areas: area.tag_redraw()")
        # Blender draws between one step and the next but one.
        for _ in range(2):
            self.do("value = None")
        with ImageGrab.grab(xdisplay=self.display) as image:
            few = image.crop(box).quantize(256, dither=Image.Dither.NONE)
        few.save(target, optimize=True)

    def end(self) -> int:
        """Let Blender end as its menu does; returns its exit code."""
        self.do("bpy.app.timers.register(lambda: bpy.ops.wm.quit_blender() and None)")
        return self._blender.wait(300)

    def _screen(self) -> str:
        """Start a screen with a number that is free; returns its name."""
        reader, writer = os.pipe()
        words = ["Xvfb", "-displayfd", str(writer), "-nolisten", "tcp"]
        words += ["-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "+extension", "GLX"]
        with open(self.scratch / "screen.log", "wb") as log:
            screen = subprocess.Popen(words, stderr=log, pass_fds=[writer])
        self._stack.callback(_end, screen)
        os.close(writer)
        with open(reader) as pipe:
            number = pipe.readline().strip()
        assert number, (self.scratch / "screen.log").read_text()
        return f":{number}"

    def _start_blender(self) -> subprocess.Popen[bytes]:
        """Start it, and wait for its window."""
        words = [self._program, "--factory-startup", "-noaudio", "--window-geometry", "0", "0"]
        words += [*map(str, SIZE), "--python", str(Path(__file__).with_name("remote.py"))]
        words += ["--", str(self._steps)]
        environ = {
            **os.environ,
            "DISPLAY": self.display,
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "BLENDER_USER_RESOURCES": str(self.scratch / "blender"),
            **self._environ,
        }
        with open(self.scratch / "blender.log", "wb") as log:
            blender = subprocess.Popen(self._inside(words), env=environ, stdout=log, stderr=log)
        self._stack.callback(_end, blender)
        self._blender = blender
        self.do("value = None")
        return blender

    def _wait(
        self, holds: Callable[[], Any], why: str, seconds: float, pause: float = 0.05
    ) -> None:
        end = time.monotonic() + seconds
        while not holds():
            log = self.scratch / "blender.log"
            assert self._blender.poll() is None, f"Blender has ended:\n{log.read_text()}"
            assert time.monotonic() < end, f"{why}\n{log.read_text()}"
            time.sleep(pause)


def _inside(root: str) -> Callable[[list[str]], list[str]]:
    """Return how a command is said so that it runs in a root folder, with our files where they are.

    The mounts are of that command alone, and end with it.
    """
    if not root:
        return list
    places = [*MOUNTED, str(REPOSITORY)]
    mounts = [f'mkdir -p "$0{place}" && mount --rbind {place} "$0{place}"' for place in places]
    script = " && ".join([*mounts, 'exec chroot "$0" "$@"'])
    return lambda words: ["unshare", "--mount", "sh", "-c", script, root, *words]


def _check_commands() -> None:
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        packages = " ".join(NEEDED[name] for name in missing)
        raise NotHere(f"{', '.join(missing)}: not found; `apt-get install {packages}` brings them")


def _check_version(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotHere(f"{words[0]} cannot be started: {error}") from error
    name, _, version = done.stdout.partition("\n")[0].partition(" ")
    if name != "Blender":
        raise NotHere(f"{' '.join(words)} is no Blender: {(done.stderr or done.stdout).strip()}")
    if tuple(map(int, version.split()[0].split(".")[:2])) < OLDEST:
        raise NotHere(f"Blender {version} has no extensions; {'.'.join(map(str, OLDEST))} has")
    return version


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder with a path that is short enough for sockets, and is also in other roots."""
    return tempfile.TemporaryDirectory(prefix="fb", dir="/tmp")
