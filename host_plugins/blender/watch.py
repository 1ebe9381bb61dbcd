# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens by itself: replies are taken, results put on the timeline, the panel drawn anew.

All of it runs on Blender's main thread, from a timer; in the background, where timers never tick,
whoever runs Blender calls `tick`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
from bpy.app.handlers import persistent

from ..link.errors import BridgeError, Code
from ..link.messages import File
from . import compat, placing, properties, sidecar, tickets
from .connection import Connection
from .desk import Card, Desk
from .tickets import Ticket

#: Seconds between looks, while something happens and else.
_BUSY, _IDLE = 0.1, 0.5

connection: Connection
desk: Desk
#: What a program that was started from here said when it could not go on, for the user.
said = ""
_started: list[tuple[subprocess.Popen[bytes], Path]] = []
_changed = True


def _ask(op: Any, message: Any, then: Any) -> None:
    connection.ask(op, message, then)


def _see() -> None:
    global _changed
    _changed = True


def register() -> None:
    """Begin to follow the jobs."""
    global connection, desk
    desk = Desk(_ask, _see)
    client = f"Blender {bpy.app.version_string}"
    connection = Connection(client, lambda event: desk.on_event(event), lambda: desk.on_up())
    connection.open()
    properties.known_models = lambda: desk.models
    bpy.app.handlers.load_post.append(_loaded)
    bpy.app.handlers.undo_post.append(_undone)
    if not bpy.app.background:
        bpy.app.timers.register(_timed, first_interval=_IDLE, persistent=True)
    adopt()


def unregister() -> None:
    """Follow them no longer; the server goes on with them."""
    if bpy.app.timers.is_registered(_timed):
        bpy.app.timers.unregister(_timed)
    for handlers, own in (
        (bpy.app.handlers.load_post, _loaded),
        (bpy.app.handlers.undo_post, _undone),
    ):
        if own in handlers:
            handlers.remove(own)
    for card in desk.cards.values():
        for rendering in card.renderings:
            rendering.cancel()
    connection.close()


def _timed() -> float:
    tick()
    busy = connection.state.name == "starting" or any(each.active for each in desk.cards.values())
    return _BUSY if busy else _IDLE


def tick() -> None:
    """Take what has come, put results into their places, and have the panel drawn anew."""
    global _changed
    before = connection.state
    connection.collect()
    desk.advance()
    _listen()
    for card in desk.arrived():
        card.arrived = False
        _place(card)
    if _changed or connection.state is not before:
        _changed = False
        _redraw()


def mind(process: subprocess.Popen[bytes], printed: Path) -> None:
    """Look after a program that was started; printed: the file that it writes to."""
    global said
    said = ""
    _started.append((process, printed))


def _listen() -> None:
    """Take down what programs said that ended badly."""
    global said
    for each in list(_started):
        process, printed = each
        if process.poll() is not None:
            _started.remove(each)
            if process.returncode:
                lines = printed.read_text(encoding="utf-8", errors="replace").split("\n")
                said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
                _see()


def _redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "SEQUENCE_EDITOR":
                area.tag_redraw()


# ------------------------------------------------------------------------ what strips remember


@persistent
def _loaded(_file: Any, _more: Any = None) -> None:
    adopt()


@persistent
def _undone(_scene: Any, _more: Any = None) -> None:
    """What was placed counts as placed, also where the step that placed it was undone."""
    for card in desk.cards.values():
        found = find(card.ticket)
        if card.ticket.placed and found is not None:
            remember(found[1], card.ticket)


def adopt() -> None:
    """Follow the jobs that the opened file remembers."""
    if not isinstance(bpy.data, bpy.types.BlendData):  # while add-ons are registered at the start
        return
    for scene in bpy.data.scenes:
        for strip in every_strip(scene):
            desk.adopt(tickets.read(strip.get(properties.TICKETS, "")))


def every_strip(scene: Any) -> Iterator[Any]:
    """Every strip of a scene, those in metas too."""
    editor = scene.sequence_editor
    return iter(compat.all_strips(editor) if editor else ())


def remember(strip: Any, ticket: Ticket) -> None:
    """Let a strip keep a ticket."""
    known = tickets.read(strip.get(properties.TICKETS, ""))
    strip[properties.TICKETS] = tickets.write(tickets.renewed(known, ticket))


def find(ticket: Ticket) -> tuple[Any, Any] | None:
    """The scene and the strip of a job, by what the strip remembers, else by their names."""
    scenes = sorted(bpy.data.scenes, key=lambda scene: scene.name != ticket.scene)
    for scene in scenes:
        for strip in every_strip(scene):
            known = tickets.read(strip.get(properties.TICKETS, ""))
            if any(each.job == ticket.job for each in known):
                return scene, strip
    scene = bpy.data.scenes.get(ticket.scene)
    named = [each for each in every_strip(scene) if each.name == ticket.strip] if scene else []
    return (scene, named[0]) if scene and named else None


# -------------------------------------------------------------------------------- the result


def _place(card: Card) -> None:
    """Put a job's result above its strip; what goes wrong is said at the job."""
    ticket = card.ticket
    try:
        found = find(ticket)
        if found is None:
            raise placing.NotPlaced(
                f"the strip {ticket.strip!r} is not in this file",
                "open the file it is in, or take the result from its folder",
            )
        scene, strip = found
        facts = sidecar.facts(card)
        files = outputs(card)
        sidecar.write(files[0], facts)
        length = len(ticket.frames)
        placing.place(
            scene, files, ticket.start, ticket.name, strip, facts,
            length=length, geometry=ticket.geometry,
        )  # fmt: skip
        if ticket.mute:
            strip.mute = True
        card.ticket = tickets.placed(ticket)
        remember(strip, card.ticket)
        bpy.ops.ed.undo_push(message="Styled strip")
    except BridgeError as error:
        card.error = error
    except placing.NotPlaced as error:
        card.error = BridgeError(Code.HOST, error.message, error.hint)
    _see()


def outputs(card: Card) -> list[Path]:
    """The files of a done job: one movie, or an image for each timeline frame.

    Raises:
        BridgeError: there are none, or not those that were asked for (host).
    """
    made: list[File] = [] if card.made is None else [
        file for file in card.made.files if file.role == "output"
    ]  # fmt: skip
    if not made:
        raise BridgeError(Code.HOST, "the job has no result", "style the strip again")
    images = {file.frame: Path(file.path) for file in made if file.frame is not None}
    if not images:
        return [Path(made[0].path)]
    missing = set(card.ticket.frames) - images.keys()
    if missing:
        what = f"the result has no frame {min(missing)}"
        raise BridgeError(Code.HOST, what, "style the strip again")
    return [images[frame] for frame in card.ticket.frames]
