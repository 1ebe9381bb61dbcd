# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's settings, and what follows from them: the program, and where results go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from .. import program
from ..link.errors import BridgeError

#: The extension's own package, whatever repository it was installed from.
EXTENSION = (__package__ or "").rpartition(".")[0]
#: Folder beside a saved .blend.
_STYLED = "styled"
_HOME = "FreSCo Bridge"


class FRESCO_AP_preferences(bpy.types.AddonPreferences):
    """Settings of the add-on."""

    bl_idname = EXTENSION

    program: bpy.props.StringProperty(  # pyright: ignore
        name="Program",
        description="The file fresco-bridge; empty: it is found by itself",
        subtype="FILE_PATH",
    )
    folder: bpy.props.StringProperty(  # pyright: ignore
        name="Results",
        description="Where results go of files that are not saved yet; empty: a folder of your own",
        subtype="DIR_PATH",
    )

    def draw(self, _context: Any) -> None:
        """Draw the settings, and say whether the program was found."""
        layout: Any = self.layout
        layout.prop(self, "program")
        layout.prop(self, "folder")
        try:
            layout.label(text=f"Found: {' '.join(command())}", icon="CHECKMARK")
        except BridgeError as error:
            for text in (error.message, error.hint):
                layout.label(text=text, icon="ERROR")


def chosen(name: str) -> str:
    """A setting; empty where the add-on runs without its own settings."""
    addon = bpy.context.preferences.addons.get(EXTENSION)
    return getattr(addon.preferences, name) if addon and addon.preferences else ""


def command() -> list[str]:
    """The words that call the program. Raises BridgeError: it was not found (host)."""
    return program.command(bpy.path.abspath(chosen("program")))


def printed() -> Path:
    """The file that what the server prints is added to."""
    return program.folder() / "server" / "server.log"


def results_folder() -> tuple[Path, bool]:
    """Where results go, and whether that is beside the saved file."""
    if bpy.data.filepath:
        return Path(bpy.data.filepath).parent / _STYLED, True
    if folder := chosen("folder"):
        return Path(bpy.path.abspath(folder)), False
    films = Path.home() / ("Movies" if (Path.home() / "Movies").is_dir() else "Videos")
    return (films if films.is_dir() else Path.home()) / _HOME, False


def register() -> None:
    """Register the settings, where this is installed as an extension."""
    if EXTENSION in bpy.context.preferences.addons:
        bpy.utils.register_class(FRESCO_AP_preferences)


def unregister() -> None:
    """Take the settings away."""
    if FRESCO_AP_preferences.is_registered:
        bpy.utils.unregister_class(FRESCO_AP_preferences)
