# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens by itself: replies are taken, results put on the timeline, the panel drawn anew.

All of it runs on Blender's main thread, from a timer; in the background, where timers never tick,
whoever runs Blender calls `tick`.
"""

from __future__ import annotations

import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
from bpy.app.handlers import persistent

from ..link.errors import BridgeError, Code
from ..link.messages import File
from . import compat, placing, properties, sidecar, thumbnails, tickets
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
#: Add-ons are switched on while the open file must not be looked at: the first tick does.
_unread = True


def _ask(op: Any, message: Any, then: Any) -> None:
    connection.ask(op, message, then)


def _see() -> None:
    global _changed
    _changed = True


def register() -> None:
    """Begin to follow the jobs."""
    global connection, desk, _unread
    desk = Desk(_ask, _see)
    client = f"Blender {bpy.app.version_string}"
    connection = Connection(client, lambda event: desk.on_event(event), lambda: desk.on_up())
    connection.open()
    properties.known_models = lambda: desk.models
    bpy.app.handlers.load_post.append(_loaded)
    bpy.app.handlers.undo_post.append(_undone)
    bpy.app.handlers.redo_post.append(_undone)
    _unread = True
    if not bpy.app.background:
        bpy.app.timers.register(_timed, first_interval=_IDLE, persistent=True)


def unregister() -> None:
    """Follow them no longer; the server goes on with them."""
    if bpy.app.timers.is_registered(_timed):
        bpy.app.timers.unregister(_timed)
    for handlers, own in (
        (bpy.app.handlers.load_post, _loaded),
        (bpy.app.handlers.undo_post, _undone),
        (bpy.app.handlers.redo_post, _undone),
    ):
        if own in handlers:
            handlers.remove(own)
    for card in desk.cards.values():
        for rendering in card.renderings:
            rendering.cancel()
    connection.close()


def _timed() -> float:
    try:
        tick()
    except Exception:  # Blender would call a timer that fails never again
        traceback.print_exc()
    busy = connection.state.name == "starting" or any(each.active for each in desk.cards.values())
    return _BUSY if busy else _IDLE


def tick() -> None:
    """Take what has come, put results into their places, and have the panel drawn anew."""
    global _changed
    if _unread:
        adopt()
    before = connection.state
    connection.collect()
    desk.advance()
    _listen()
    for card in () if at_work() else desk.arrived():
        card.arrived = False
        _place(card)
    if _changed or connection.state is not before:
        _changed = False
        _redraw()


def at_work() -> bool:
    """Whether Blender renders the strips, or somebody moves them: then none is added."""
    windows = bpy.context.window_manager.windows
    modal = (own for window in windows for own in getattr(window, "modal_operators", ()))
    moved = any(own.bl_idname.startswith(("TRANSFORM_OT", "SEQUENCER_OT")) for own in modal)
    return moved or bpy.app.is_job_running("RENDER")


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
    thumbnails.keep(desk.cards)
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "SEQUENCE_EDITOR":
                area.tag_redraw()


# ------------------------------------------------------------------------ what strips remember


@persistent
def _loaded(_file: Any, _more: Any = None) -> None:
    desk.leave()
    adopt()


@persistent
def _undone(_scene: Any, _more: Any = None) -> None:
    """Undo takes no job from the list: strips remember it, and a result that was placed, again."""
    current = {job: card.ticket for job, card in desk.cards.items() if card.here}
    lost = dict(current)
    for _, strip, known in _memories():
        now = [current.get(each.job, each) for each in known]
        if now != known:
            strip[properties.TICKETS] = tickets.write(now)
        for each in known:
            lost.pop(each.job, None)
    for ticket in lost.values():
        if found := _named(ticket):
            remember(found[1], ticket)


def adopt() -> None:
    """Follow the jobs that the opened file remembers."""
    global _unread
    _unread = False
    for _, _, known in _memories():
        desk.adopt(known)


def _memories() -> Iterator[tuple[Any, Any, list[Ticket]]]:
    """Every scene and strip of this file with what the strip remembers, if that is something.

    What is linked from another file is that one's.
    """
    own = (scene for scene in bpy.data.scenes if scene.library is None)
    for scene in own:
        for strip in every_strip(scene):
            if known := tickets.read(strip.get(properties.TICKETS, "")):
                yield scene, strip, known


def every_strip(scene: Any) -> Iterator[Any]:
    """Every strip of a scene, those in metas too."""
    editor = scene.sequence_editor
    return iter(compat.all_strips(editor) if editor else ())


def remember(strip: Any, ticket: Ticket) -> None:
    """Let a strip keep a ticket."""
    known = tickets.read(strip.get(properties.TICKETS, ""))
    strip[properties.TICKETS] = tickets.write(tickets.renewed(known, ticket))


def renew(ticket: Ticket) -> None:
    """Let all that remember a job keep its new ticket: the strip, and copies and halves of it."""
    for _, strip in _remembering(ticket):
        remember(strip, ticket)


def forget(ticket: Ticket) -> None:
    """Let no strip remember a job."""
    for _, strip in _remembering(ticket):
        known = tickets.read(strip[properties.TICKETS])
        left = [each for each in known if each.job != ticket.job]
        strip[properties.TICKETS] = tickets.write(left)


def find(ticket: Ticket) -> tuple[Any, Any] | None:
    """The scene and the strip of a job, by what the strip remembers, else by their names.

    Of copies the one that has the name, so of a strip that was split its left half.
    """
    found = _remembering(ticket)
    return found[0] if found else _named(ticket)


def present(ticket: Ticket) -> Ticket:
    """The ticket as its strip lies now: it may have been moved since."""
    found = find(ticket)
    return ticket.moved(compat.content_start(found[1])) if found else ticket


def _remembering(ticket: Ticket) -> list[tuple[Any, Any]]:
    """The scenes and strips that remember a job, those that are named in its ticket first."""
    found = [
        (scene, strip)
        for scene, strip, known in _memories()
        if any(each.job == ticket.job for each in known)
    ]
    return sorted(
        found, key=lambda each: (each[0].name != ticket.scene, each[1].name != ticket.strip)
    )


def _named(ticket: Ticket) -> tuple[Any, Any] | None:
    scene = bpy.data.scenes.get(ticket.scene)
    named = [each for each in every_strip(scene) if each.name == ticket.strip] if scene else []
    return (scene, named[0]) if named else None


# -------------------------------------------------------------------------------- the result


def _place(card: Card) -> None:
    """Put a job's result above its strip; what goes wrong is said at the job."""
    try:
        _put(card)
    except BridgeError as error:
        card.error = error
    except placing.NotPlaced as error:
        card.error = BridgeError(Code.HOST, error.message, error.hint)
    except Exception as error:
        # Blender says with many exceptions that it cannot; the other jobs must not suffer.
        traceback.print_exc()
        card.error = BridgeError(Code.HOST, f"the result cannot be placed: {error}")
    _see()


def _put(card: Card) -> None:
    """Put a result onto the timeline, and remember it. Raises: see `_place`."""
    found = find(card.ticket)
    if found is None:
        raise placing.NotPlaced(
            f"the strip {card.ticket.strip!r} is not in this file any more",
            f"the result is in {card.ticket.folder}",
        )
    scene, strip = found
    card.ticket = ticket = card.ticket.moved(compat.content_start(strip))
    facts, files = sidecar.facts(card), outputs(card)
    placing.place(
        scene, files, ticket.start, ticket.name, strip, facts,
        length=len(ticket.frames), geometry=ticket.geometry,
    )  # fmt: skip
    if ticket.mute:
        strip.mute = True
    card.ticket = tickets.placed(ticket)
    remember(strip, card.ticket)
    renew(card.ticket)
    bpy.ops.ed.undo_push(message="Styled strip")
    sidecar.write(files[0], facts)


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
