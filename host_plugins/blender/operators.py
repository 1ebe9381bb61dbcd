# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user can do with a strip and its jobs. Everything returns at once."""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy

from .. import program
from ..link.errors import BridgeError, Code
from . import compat, orders, preferences, properties, tickets, watch
from .desk import STOPPABLE, Card, Order
from .placing import PROPERTY
from .rendering import NotRendered
from .sources import Unusable

#: What is copied of a log, at most.
_LOG_LINES, _LOG_BYTES = 40, 2**16
#: What is refused with a line of its own, and not with a trace.
_REFUSALS = (BridgeError, Unusable, NotRendered, OSError)


class _Refusing:
    """An operator's `execute` whose refusals are lines in Blender's status bar."""

    report: Any
    #: Does it; raises one of `_REFUSALS`.
    act: Any

    def execute(self, context: Any) -> set[str]:
        """Do it, or say what was in the way."""
        try:
            self.act(context)
        except _REFUSALS as error:
            self.report({"ERROR"}, _in_a_line(error))
            return {"CANCELLED"}
        return {"FINISHED"}


def _in_a_line(error: Exception) -> str:
    """What went wrong, for Blender's status bar."""
    message = getattr(error, "message", "") or str(error)
    hint = getattr(error, "hint", "")
    return f"{message.rstrip('.')}; {hint}" if hint else message


def start_server() -> None:
    """Start a server, if none answers. Raises BridgeError: it cannot be started (host)."""
    if watch.connection.state.name == "down":
        watch.connection.start_server(preferences.command(), preferences.printed())


# ---------------------------------------------------------------------------------- new jobs


def _stylable(context: Any) -> list[Any]:
    """The selected strips with a picture; results of ours and sounds are left out."""
    chosen = [each for each in compat.selected(context) if each.type != "SOUND"]
    return [each for each in chosen if not orders.is_styled(each)]


class _Stylising(_Refusing):
    """Begins a job for each selected strip."""

    until = ""

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Whether a strip is selected."""
        scene = compat.scene_of(context)
        return bool(scene and scene.sequence_editor and _stylable(context))

    def act(self, context: Any) -> None:
        """Begin the jobs: all of them, or none if one of the strips cannot be styled."""
        scene = compat.scene_of(context)
        start_server()
        prepared: list[orders.Prepared] = []
        try:
            prepared.extend(orders.prepare(scene, each, self.until) for each in _stylable(context))
        except _REFUSALS:
            for each in prepared:
                orders.discard(each)
            raise
        for strip, each in zip(_stylable(context), prepared, strict=True):
            watch.remember(strip, each.ticket)
            watch.desk.begin(each.ticket, each.order, each.renderings)
            for note in each.notes:
                self.report({"INFO"}, note)


class FRESCO_OT_stylise(_Stylising, bpy.types.Operator):
    """Restyle the selected strips; the results appear above them"""

    bl_idname = "fresco.stylise"
    bl_label = "Stylise"
    bl_options = {"REGISTER", "UNDO"}


class FRESCO_OT_first_frame(_Stylising, bpy.types.Operator):
    """Style the first keyframe only, to look at it; then go on with Continue"""

    bl_idname = "fresco.first_frame"
    bl_label = "First Frame Only"
    bl_options = {"REGISTER", "UNDO"}
    until = "first_frame"


class FRESCO_OT_keyframes(_Stylising, bpy.types.Operator):
    """Style all keyframes, to look at them; then go on with Continue"""

    bl_idname = "fresco.keyframes"
    bl_label = "Keyframes Only"
    bl_options = {"REGISTER", "UNDO"}
    until = "keyframes"


# ------------------------------------------------------------------------------- jobs there are


class _OfJob(_Refusing):
    """Does something with one job: the one it is given, else the newest of the active strip."""

    job: Any

    def card(self, context: Any) -> Card:
        """The job. Raises BridgeError: there is none."""
        found = card_of(context, self.job)
        if found is None:
            raise BridgeError(Code.NOT_FOUND, "this strip has no job", "press Stylise first")
        return found


def card_of(context: Any, job: str = "") -> Card | None:
    """A job by its id, else the newest one of the active strip, which may also be its result."""
    if job:
        return watch.desk.cards.get(job)
    scene = compat.scene_of(context)
    strip = compat.active(scene.sequence_editor) if scene and scene.sequence_editor else None
    if strip is None:
        return None
    known = [each.job for each in tickets.read(strip.get(properties.TICKETS, ""))]
    if PROPERTY in strip:
        known.append(_facts(strip).get("job", ""))
    cards = [watch.desk.cards[each] for each in reversed(known) if each in watch.desk.cards]
    return cards[0] if cards else None


def _facts(strip: Any) -> Mapping[str, Any]:
    told: Any = None
    with suppress(ValueError, TypeError):
        told = json.loads(strip[PROPERTY])
    return told if isinstance(told, dict) else {}  # pyright: ignore


class FRESCO_OT_cancel(_OfJob, bpy.types.Operator):
    """Stop this job at its next step; what is done is kept"""

    bl_idname = "fresco.cancel"
    bl_label = "Cancel"
    job: bpy.props.StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # pyright: ignore

    def act(self, context: Any) -> None:
        """Stop it."""
        card = self.card(context)
        if card.state in (*STOPPABLE, "rendering", "sending"):
            watch.desk.cancel(card.ticket.job)


class FRESCO_OT_continue(_OfJob, bpy.types.Operator):
    """Go on with a job that waits to be looked at, was stopped, or failed"""

    bl_idname = "fresco.continue_job"
    bl_label = "Continue"
    job: bpy.props.StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # pyright: ignore

    def act(self, context: Any) -> None:
        """Let it go on."""
        card = self.card(context)
        start_server()
        go = {"waiting": watch.desk.approve, "paused": watch.desk.resume}
        go.get(card.state, watch.desk.retry)(card.ticket.job)


class FRESCO_OT_redo_keyframe(_OfJob, bpy.types.Operator):
    """Style the keyframe at the playhead again: another variation, another prompt or strength"""

    bl_idname = "fresco.redo_keyframe"
    bl_label = "Redo Keyframe at Playhead"
    bl_options = {"REGISTER"}
    job: bpy.props.StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # pyright: ignore
    seed: bpy.props.IntProperty(  # pyright: ignore
        name="Variation", description="Another number, another picture", min=0
    )
    prompt: bpy.props.StringProperty(  # pyright: ignore
        name="Style", description="For this keyframe only; empty: as it was", options={"SKIP_SAVE"}
    )
    strength: bpy.props.FloatProperty(  # pyright: ignore
        name="Strength", description="For this keyframe only; -1: as it was",
        min=-1.0, max=1.0, default=-1.0, options={"SKIP_SAVE"},
    )  # fmt: skip
    painted: bpy.props.StringProperty(  # pyright: ignore
        name="Painted", description="A picture to be used instead, painted in another program",
        subtype="FILE_PATH", options={"SKIP_SAVE"},
    )  # fmt: skip

    def invoke(self, context: Any, _event: Any) -> set[str]:
        """Ask what is to be different; by itself another variation."""
        self.seed = random.randrange(2**31)
        return context.window_manager.invoke_props_dialog(self)

    def act(self, context: Any) -> None:
        """Change the keyframe; of a done job a new version is begun."""
        card = self.card(context)
        scene = compat.scene_of(context)
        shown = watch.present(card.ticket).source_frame(scene.frame_current)
        frame = nearest_keyframe(card, shown)
        start_server()
        if card.state == "done":
            self._again(card, frame)
        else:
            watch.desk.edit(card.ticket.job, frame, self._changes())

    def _changes(self) -> dict[str, str]:
        if self.painted:
            return {"painted": bpy.path.abspath(self.painted)}
        told = {"seed": str(self.seed)}
        if self.prompt:
            told["prompt"] = self.prompt
        if self.strength >= 0:
            told["strength"] = f"{self.strength:.4g}"
        return told

    def _again(self, card: Card, frame: int) -> None:
        """Begin another version of a done job; what the change does not reach is taken from it."""
        ticket, order = another_version(card, frame, self._changes())
        found = watch.find(card.ticket)
        if found is not None:
            watch.remember(found[1], ticket)
        watch.desk.begin(ticket, order)


def nearest_keyframe(card: Card, frame: int) -> int:
    """The keyframe nearest to a source frame. Raises BridgeError: there is none yet."""
    frames = [each.frame for each in card.info.keyframes] if card.info else []
    if not frames:
        raise BridgeError(Code.WRONG_STATE, "this job has no keyframes yet", "wait for the first")
    return min(frames, key=lambda each: abs(each - frame))


def another_version(card: Card, frame: int, changes: Mapping[str, str]) -> tuple[Any, Order]:
    """A new job as a done one, with changes of one keyframe, in a folder of its own."""
    assert card.info is not None, "only asked of a job that is done"
    request = dict(card.info.request)
    kept = [each for each in request.get("changes", ()) if not _same(each, frame, changes)]
    new = [{"frame": frame, "what": what, "value": value} for what, value in changes.items()]
    job = uuid.uuid4().hex
    folder = Path(card.ticket.folder)
    place = folder.with_name(f"{folder.name.rpartition('_')[0] or folder.name}_{job[:8]}")
    place.mkdir(parents=True)
    request |= {"changes": kept + new, "output": str(place), "until": "done"}
    ticket = replace(card.ticket, job=job, folder=str(place), placed=False)
    return ticket, Order(request=request, title=card.info.title, parent=card.ticket.job)


def _same(change: Mapping[str, Any], frame: int, changes: Mapping[str, str]) -> bool:
    """Whether a change is of the keyframe and is replaced. A painted picture goes in any case."""
    here = change["frame"] == frame
    return here and (change["what"] in changes or "painted" in (change["what"], *changes))


class FRESCO_OT_insert(_OfJob, bpy.types.Operator):
    """Put the result on the timeline (again), on the first free channel above the strip"""

    bl_idname = "fresco.insert"
    bl_label = "Insert Result Again"
    job: bpy.props.StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # pyright: ignore

    def act(self, context: Any) -> None:
        """Ask for the files; they are placed when they are told."""
        card = self.card(context)
        if card.state != "done":
            raise BridgeError(Code.WRONG_STATE, "this job is not done", "wait for its end")
        watch.desk.collect(card.ticket.job)


class FRESCO_OT_forget(_OfJob, bpy.types.Operator):
    """Show this job no longer; its files stay"""

    bl_idname = "fresco.forget"
    bl_label = "Hide"
    job: bpy.props.StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # pyright: ignore

    def act(self, context: Any) -> None:
        """Forget it, on its strip too."""
        card = self.card(context)
        watch.forget(card.ticket)
        watch.desk.forget(card.ticket.job)


# ----------------------------------------------------------------------------- settings, server


def _active(context: Any) -> Any:
    """The active strip. Raises BridgeError: there is none."""
    editor = compat.editor_of(context)
    strip = compat.active(editor) if editor else None
    if strip is None:
        raise BridgeError(Code.NOT_FOUND, "no strip is active", "click on one")
    return strip


class FRESCO_OT_look(_Refusing, bpy.types.Operator):
    """Set a strip's style as this look has it"""

    bl_idname = "fresco.look"
    bl_label = "Use Look"
    bl_options = {"REGISTER", "UNDO"}
    look: bpy.props.StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # pyright: ignore

    def act(self, context: Any) -> None:
        """Set the parameters that the look names, of all selected strips."""
        told = watch.desk.description
        named = {each["name"]: each["values"] for each in (told.looks if told else ())}
        if self.look not in named:
            raise BridgeError(Code.NOT_FOUND, f"there is no look {self.look!r}", "start the server")
        for strip in _stylable(context):
            properties.assign(strip, named[self.look])


class FRESCO_OT_copy_settings(_Refusing, bpy.types.Operator):
    """Give the other selected strips the settings of the active one"""

    bl_idname = "fresco.copy_settings"
    bl_label = "Copy Settings to Selected"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any) -> None:
        """Copy them."""
        source = _active(context)
        for strip in _stylable(context):
            if strip != source:
                properties.copy(source, strip)


class FRESCO_OT_add_prompt(_Refusing, bpy.types.Operator):
    """Add a prompt that the strip can go over to; animate the number beside it"""

    bl_idname = "fresco.add_prompt"
    bl_label = "Add Prompt"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any) -> None:
        """Add one, to begin with as the first."""
        strip = _active(context)
        getattr(strip, properties.PROMPTS).add().text = properties.value(strip, "prompt")


class FRESCO_OT_remove_prompt(_Refusing, bpy.types.Operator):
    """Take the last prompt away"""

    bl_idname = "fresco.remove_prompt"
    bl_label = "Remove Prompt"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any) -> None:
        """Remove the last one."""
        further: Any = getattr(_active(context), properties.PROMPTS)
        if further:
            further.remove(len(further) - 1)


class FRESCO_OT_start_server(_Refusing, bpy.types.Operator):
    """Start the program that does the work; it ends by itself when there is none"""

    bl_idname = "fresco.start_server"
    bl_label = "Start"

    def act(self, context: Any) -> None:
        """Start it."""
        start_server()


class FRESCO_OT_open_panel(_Refusing, bpy.types.Operator):
    """Open the panel, a window of its own, on this job"""

    bl_idname = "fresco.open_panel"
    bl_label = "Open Panel"
    job: bpy.props.StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # pyright: ignore

    def act(self, context: Any) -> None:
        """Start the panel."""
        card = card_of(context, self.job)
        words = [*preferences.command(), "panel", *(["--job", card.ticket.job] if card else [])]
        printed = preferences.printed().with_name("panel.log")
        watch.mind(program.start(words, printed), printed)


class FRESCO_OT_copy_log(_Refusing, bpy.types.Operator):
    """Copy what went wrong, with the last lines that the server printed, for a question about it"""

    bl_idname = "fresco.copy_log"
    bl_label = "Copy Log"
    job: bpy.props.StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # pyright: ignore

    def act(self, context: Any) -> None:
        """Put it on the clipboard."""
        card = card_of(context, self.job)
        context.window_manager.clipboard = log_text(card)
        self.report({"INFO"}, "copied")


def log_text(card: Card | None) -> str:
    """What went wrong, and the ends of the logs that tell more."""
    state = watch.connection.state
    lines = [f"Blender {bpy.app.version_string}, server {state.name} {state.doing}".rstrip()]
    errors = (state.error, card.error if card else None)
    lines += [f"{error.code.value}: {error}" for error in errors if error is not None]
    files = [preferences.printed()]
    if card is not None:
        lines.append(f"job {card.ticket.job}: {card.state}")
        files.append(program.folder() / "server" / "jobs" / card.ticket.job / "log.jsonl")
    for file in files:
        if file.is_file():
            lines += [f"--- {file.name}", *_end_of(file)]
    return "\n".join(lines)


def _end_of(file: Path) -> list[str]:
    """The last lines of a log, which may have grown for months."""
    with file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - _LOG_BYTES))
        return log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]


CLASSES = (
    FRESCO_OT_stylise,
    FRESCO_OT_first_frame,
    FRESCO_OT_keyframes,
    FRESCO_OT_cancel,
    FRESCO_OT_continue,
    FRESCO_OT_redo_keyframe,
    FRESCO_OT_insert,
    FRESCO_OT_forget,
    FRESCO_OT_look,
    FRESCO_OT_copy_settings,
    FRESCO_OT_add_prompt,
    FRESCO_OT_remove_prompt,
    FRESCO_OT_start_server,
    FRESCO_OT_open_panel,
    FRESCO_OT_copy_log,
)


def register() -> None:
    """Register the operators."""
    for each in CLASSES:
        bpy.utils.register_class(each)


def unregister() -> None:
    """Take them away."""
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)
