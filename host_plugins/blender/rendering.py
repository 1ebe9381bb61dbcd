# SPDX-License-Identifier: GPL-3.0-or-later
"""Strips rendered to images by another Blender in the background; nothing here waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from . import compat, looks, trees

_SCRIPT = Path(__file__).with_name("render_script.py")
#: Lines of what Blender said that are told when it failed.
_TOLD = 3
#: Seconds that a killed process is given to be gone.
_GONE = 5.0
#: So many other Blenders work side by side: each holds the film, and wants all of the processor.
_AT_ONCE = 2
_at_work: list[Rendering] = []


class NotRendered(Exception):
    """The rendering cannot be started; `hint` says how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


@dataclass(frozen=True, slots=True)
class Progress:
    """Frames that are there, of `total`; `error` is empty unless it ended badly."""

    done: int
    total: int
    finished: bool
    error: str = ""


class Rendering:
    """Timeline frames [first, stop) of strips of a scene, alone, becoming PNG files in `folder`.

    The pictures have the scene's size; 16 bits where a strip is finer than 8, RGBA where `alpha`.
    Strips in meta strips are rendered without what the meta strip does to them. The file that is
    open is not changed; a copy of it is in `folder` for a moment.

    clip: the images as a sequence, "folder/f_####.png"; frame i of it is timeline frame first + i
    """

    def __init__(
        self,
        scene: Any,
        strip_names: str | Sequence[str],
        first: int,
        stop: int,
        folder: Path,
        alpha: bool = False,
    ) -> None:
        """Save the copy and start the other Blender, now or when others are through.

        strip_names: of strips that are seen together; of effects their inputs come along

        Raises:
            NotRendered: a strip is gone, the folder holds frames of another rendering, the copy
                cannot be saved, or Blender not be started.
        """
        self.total = stop - first
        self.clip = str(folder / "f_####.png")
        self._folder, self._done, self._error = folder, 0, ""
        self._blend, self._log = folder / "copy.blend", folder / "log.txt"
        self._task = folder / "task.json"
        self._process: subprocess.Popen[bytes] | None = None
        names = [strip_names] if isinstance(strip_names, str) else list(strip_names)
        if self._file(0).exists():
            raise NotRendered(f"{folder} holds another rendering.", "Choose an empty folder.")
        told = _strips(scene, names) | {
            "blend": str(self._blend), "scene": scene.name, "first": first, "stop": stop,
            "folder": str(folder), "alpha": alpha, "scripts": _scripts_allowed(),
        }  # fmt: skip
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._task.write_text(json.dumps(told), encoding="utf-8")
            bpy.ops.wm.save_as_mainfile(filepath=str(self._blend), copy=True, check_existing=False)
            self._begin()
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                self._blend.unlink()
            raise NotRendered(
                f"The strip cannot be rendered: {error}",
                "Look for free space on the disk, or choose another folder for results.",
            ) from error

    def poll(self) -> Progress:
        """Return how far it is; never blocks."""
        if self._process is None:
            return self._waiting()
        code = self._process.poll()
        while self._done < self.total and self._file(self._done).exists():
            self._done += 1
        if code is None:
            # The last of them may not be whole yet.
            return Progress(max(self._done - 1, 0), self.total, False)
        self._clear()
        if not self._error and (code or self._done < self.total):
            self._error = self._said() or f"Blender ended with {code}."
        return Progress(self._done, self.total, True, self._error)

    def cancel(self) -> None:
        """End the process; frames that are there stay. Harmless when it has ended."""
        if self._process is None:
            self._error = self._error or "It was cancelled."
        elif self._process.poll() is None:
            self._error = "It was cancelled."
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GONE)
        self._clear()

    def _begin(self) -> None:
        """Start the other Blender, if few enough are at work. Raises OSError: it cannot be."""
        _at_work[:] = [each for each in _at_work if each._works]
        if len(_at_work) < _AT_ONCE:
            self._process = _started(self._task, self._log)
            _at_work.append(self)

    @property
    def _works(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _waiting(self) -> Progress:
        """How far one is that has not begun; it begins if it may."""
        if not self._error:
            try:
                self._begin()
            except OSError as error:
                self._error = f"Blender cannot be started: {error}"
                self._clear()
        return Progress(0, self.total, bool(self._error), self._error)

    def _file(self, place: int) -> Path:
        return self._folder / f"f_{place:04d}.png"

    def _clear(self) -> None:
        if self._process is not None and self._process.stdin:
            self._process.stdin.close()
        with suppress(OSError):
            self._blend.unlink()

    def _said(self) -> str:
        with suppress(OSError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            # Of a trace only what went wrong, not where.
            words = [line for line in lines if line.strip() and line[0] not in " T"]
            return "\n".join(words[-_TOLD:])
        return ""


def _strips(scene: Any, names: Sequence[str]) -> dict[str, Any]:
    """Which strips the other Blender shows, by name, and whether any of them is fine."""
    every = compat.all_strips(scene.sequence_editor)
    if lost := [name for name in names if name not in every]:
        raise NotRendered(f"There is no strip {lost[0]} any more.", "Select a strip again.")
    wanted = [every[name] for name in names]
    made_from = [each for strip in wanted for each in trees.made_from(strip, scene)]
    return {
        "wanted": list(names),
        "parts": sorted({each.name for each in made_from} - set(names)),
        "around": sorted({each.name for strip in wanted for each in trees.ancestors(strip)}),
        "fine": any(looks.is_fine(strip, scene) for strip in wanted),
    }


def _scripts_allowed() -> bool:
    return bool(bpy.context.preferences.filepaths.use_scripts_auto_execute)


def _started(task: Path, log: Path) -> subprocess.Popen[bytes]:
    """The other Blender. It ends itself when its input is closed, so also when this one is gone."""
    with log.open("wb") as said:
        return subprocess.Popen(
            [*_blender(), str(task)],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            # No black window on Windows.
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )


def _blender() -> list[str]:
    """How a Blender like this one runs the script. As a Python module it has no program."""
    if not bpy.app.binary_path:
        return [sys.executable, str(_SCRIPT)]
    plain = ["--background", "--factory-startup", "--python-exit-code", "1"]
    return [bpy.app.binary_path, *plain, "--python", str(_SCRIPT), "--"]
