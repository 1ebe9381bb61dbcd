# SPDX-License-Identifier: GPL-3.0-or-later
"""ESC over the timeline stops the jobs.

It is a key of the sequencer's, and no modal operator: while one of those runs, Blender saves no
copy of the file by itself, and jobs may take hours.
"""

from __future__ import annotations

from typing import Any

import bpy

from . import watch

_KEYMAP = "Sequencer"
_added: list[tuple[Any, Any]] = []


class FRESCO_OT_escape(bpy.types.Operator):
    """Stop all jobs of this file; what is done is kept"""

    bl_idname = "fresco.escape"
    bl_label = "Stop All"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Whether there is something to stop. While the film plays, ESC stops the film."""
        plays = context.screen is not None and context.screen.is_animation_playing
        return not plays and bool(running())

    def execute(self, _context: Any) -> set[str]:
        """Stop them."""
        jobs = running()
        for job in jobs:
            watch.desk.cancel(job)
        count = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
        self.report({"INFO"}, f"{count} stopped; Continue goes on")
        return {"FINISHED"}


def running() -> list[str]:
    """The jobs of this file that go on by themselves."""
    return [job for job, card in watch.desk.cards.items() if card.here and card.active]


def register() -> None:
    """Register the operator and its key."""
    bpy.utils.register_class(FRESCO_OT_escape)
    settings = bpy.context.window_manager.keyconfigs.addon
    if settings is not None:  # there is none in some background processes
        keymap = settings.keymaps.new(_KEYMAP, space_type="SEQUENCE_EDITOR")
        item = keymap.keymap_items.new(FRESCO_OT_escape.bl_idname, "ESC", "PRESS")
        _added.append((keymap, item))


def unregister() -> None:
    """Take both away."""
    while _added:
        keymap, item = _added.pop()
        keymap.keymap_items.remove(item)
    bpy.utils.unregister_class(FRESCO_OT_escape)
