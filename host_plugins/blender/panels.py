# SPDX-License-Identifier: GPL-3.0-or-later
"""The tab *Style* in the sequencer's sidebar, drawn from the effect descriptor."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import bpy

from ..link import words as link_words
from . import compat, orders, properties, thumbnails, watch
from .desk import STOPPABLE, Card

_CATEGORY = "Style"
_SERVER = {
    "down": ("Server not running", "CANCEL"),
    "starting": ("Server starting ...", "SORTTIME"),
    "loading": ("Loading model", "SORTTIME"),
    "ready": ("Server ready", "CHECKMARK"),
}
_STATES = {
    "rendering": "Rendering the strip",
    "sending": "Being sent",
    "queued": "Waits for its turn",
    "running": "Running",
    "paused": "Paused",
    "waiting": "Look at the keyframes",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "unknown": "Will be known once the server runs",
}
_STAGES = {
    "analyse": "Looking at the clip",
    "translate": "Styling keyframes",
    "propagate": "Styling the frames between",
    "encode": "Writing the file",
}
#: What the server says that it is at, see PROTOCOL.md's `Pong`; its workers may be at several.
_DOING = {"starting": "Server starting ...", "beginning": "Loading model", **_STAGES}
#: Keyframes that are shown of a job, and their size in Blender's units.
_SHOWN, _LARGE = 6, 4.0
#: Groups that are drawn by hand, or that other hosts need.
_NOT_DRAWN = frozenset({"group_run", "group_openfx", "group_range"})
#: Parameters that stand above the buttons, and so not in their page again.
_ON_TOP = ("prompt", "model", "preset")
#: Jobs that are shown beside those under way: a film may have hundreds.
_CARDS = 20
#: Letters that are shown of a prompt.
_PROMPT = 120
#: Letters of a line in the sidebar.
_LINE = 42


class _InSidebar:
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = _CATEGORY

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Whether this is a sequencer with a scene."""
        return compat.scene_of(context) is not None


def _strip(context: Any) -> Any:
    """The active strip, if it can be styled."""
    editor = compat.scene_of(context).sequence_editor
    strip = compat.active(editor) if editor else None
    return None if strip is None or strip.type == "SOUND" or orders.is_styled(strip) else strip


class FRESCO_PT_main(_InSidebar, bpy.types.Panel):
    """The strip, the look, and the buttons."""

    bl_idname = "FRESCO_PT_main"
    bl_label = "Restyle"

    def draw(self, context: Any) -> None:
        """Draw it."""
        layout: Any = self.layout
        _draw_server(layout)
        strip = _strip(context)
        if strip is None:
            layout.label(text=_nothing_to_style(context), icon="INFO")
            return
        _draw_prompts(layout, strip)
        row = layout.row(align=True)
        row.menu("FRESCO_MT_looks", icon="PRESET")
        row.operator("fresco.copy_settings", text="", icon="PASTEDOWN")
        for name in _ON_TOP[1:]:
            _draw_parameter(layout, strip, name)
        column = layout.column(align=True)
        column.scale_y = 1.3
        column.operator("fresco.stylise", icon="PLAY")
        row = column.row(align=True)
        row.operator("fresco.first_frame")
        row.operator("fresco.keyframes")


def _nothing_to_style(context: Any) -> str:
    editor = compat.editor_of(context)
    strip = compat.active(editor) if editor else None
    if strip is not None and orders.is_styled(strip):
        return "This is a result; select its source"
    return "Select a strip with a picture"


def _draw_server(layout: Any) -> None:
    state = watch.connection.state
    text, icon = _SERVER[state.name]
    row = layout.row()
    row.label(text=doing(state.doing) or text, icon=icon)
    if state.name == "down":
        row.operator("fresco.start_server")
    if watch.said:
        _draw_text(layout, watch.said, "ERROR")
    if state.error is not None:
        _draw_text(layout, str(state.error), "ERROR")
        layout.operator("fresco.copy_log", icon="COPYDOWN")


def doing(told: str) -> str:
    """What the server is at, in the words that the jobs have for it."""
    return ", ".join(dict.fromkeys(_DOING.get(each, each) for each in told.split(", ")))


def _draw_prompts(layout: Any, strip: Any) -> None:
    layout.prop(strip, properties.key("prompt"), text="", placeholder="watercolour painting")
    further = getattr(strip, properties.PROMPTS)
    for place, each in enumerate(further, 2):
        layout.prop(each, "text", text=f"{place}")
    row = layout.row(align=True)
    if further:
        row.prop(strip, properties.PROMPT_NUMBER)
        row.operator("fresco.remove_prompt", text="", icon="REMOVE")
    row.operator("fresco.add_prompt", text="" if further else "Another Prompt Later", icon="ADD")


class FRESCO_MT_looks(bpy.types.Menu):
    """The looks that the server knows."""

    bl_idname = "FRESCO_MT_looks"
    bl_label = "Looks"

    def draw(self, _context: Any) -> None:
        """List them."""
        layout: Any = self.layout
        told = watch.desk.description
        if told is None:
            layout.label(text="They are known once the server runs")
        for each in told.looks if told else ():
            layout.operator("fresco.look", text=each["title"]).look = each["name"]


# ------------------------------------------------------------------------------------------ jobs


class FRESCO_PT_jobs(_InSidebar, bpy.types.Panel):
    """What is under way."""

    bl_idname = "FRESCO_PT_jobs"
    bl_label = "Jobs"

    def draw(self, _context: Any) -> None:
        """Draw every job, the newest first."""
        layout: Any = self.layout
        cards = list(watch.desk.cards.values())
        if not cards:
            layout.label(text="None yet")
        shown = [card for card in cards[:-_CARDS] if card.active] + cards[-_CARDS:]
        for card in reversed(shown):
            _draw_card(layout.box(), card)
        if left := len(cards) - len(shown):
            layout.label(text=f"{left} older ones, once these are hidden")


def _draw_card(box: Any, card: Card) -> None:
    job = card.ticket.job
    row = box.row()
    whose = card.ticket.strip if card.here else f"{card.ticket.strip} (of another file)"
    row.label(text=whose, icon="SEQUENCE")
    if card.state in (*STOPPABLE, "rendering", "sending"):
        row.operator("fresco.cancel", text="", icon="X").job = job
    else:
        row.operator("fresco.forget", text="", icon="TRASH").job = job
    if card.ticket.name != card.ticket.strip:
        _draw_text(box, textwrap.shorten(card.ticket.name, _PROMPT, placeholder=" ..."), "NONE")
    if model := styled_by(card):
        box.label(text=model)
    _draw_progress(box, card)
    _draw_pictures(box, card)
    for note in card.info.notes if card.info else ():
        _draw_text(box, note, "INFO")
    if card.error is not None:
        _draw_text(box, str(card.error), "ERROR")
        box.operator("fresco.copy_log", icon="COPYDOWN").job = job
    row = box.row(align=True)
    for name in _buttons(card):
        row.operator(name).job = job
    row.operator("fresco.open_panel", text="", icon="WINDOW").job = job


def styled_by(card: Card) -> str:
    """Which model styles a job; empty where that is not known."""
    return "" if card.info is None else link_words.styled_by(card.info)


def _buttons(card: Card) -> Iterator[str]:
    if card.state in ("waiting", "paused", "failed", "cancelled") and card.info is not None:
        yield "fresco.continue_job"
    if card.info is not None and card.info.keyframes:
        yield "fresco.redo_keyframe"
    if card.state == "done":
        yield "fresco.insert"


def _draw_progress(box: Any, card: Card) -> None:
    text = words(card)
    if card.active:
        box.progress(factor=card.share, text=text)
    else:
        box.label(text=text)


def words(card: Card) -> str:
    """How far a job is, in words."""
    info = card.info
    if info is None or card.state != "running":
        return _STATES[card.state]
    text = _STAGES.get(info.stage, _STATES["running"])
    if info.total:
        text += f" {100 * card.share:.0f} %"
    return f"{text}, {_left(info.eta_s)}" if info.eta_s is not None else text


def _left(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min left"


def _draw_pictures(box: Any, card: Card) -> None:
    found = thumbnails.icons(card, _SHOWN)
    grid = box.grid_flow(columns=3, even_columns=True, align=True)
    for frame, icon in found:
        column = grid.column(align=True)
        if icon:
            column.template_icon(icon_value=icon, scale=_LARGE)
        column.label(text=f"{frame}")


def _draw_text(layout: Any, text: str, icon: str) -> None:
    """Draw a text that may be longer than a line."""
    column = layout.column(align=True)
    line = ""
    for word in text.split():
        if line and len(line) + len(word) >= _LINE:
            column.label(text=line, icon=icon)
            line, icon = "", "BLANK1" if icon != "NONE" else icon
        line = f"{line} {word}".strip()
    column.label(text=line, icon=icon)


# ----------------------------------------------------------------------------- the other pages


def _draw_parameter(layout: Any, strip: Any, name: str) -> None:
    """Draw one parameter, greyed out where another one makes it meaningless."""
    if name not in properties.parameters():
        return
    parameter = properties.parameters()[name]
    row = layout.row()
    needs = parameter.get("enabledWhen")
    row.enabled = needs is None or properties.value(strip, needs["name"]) == needs["value"]
    row.prop(strip, properties.key(name))


def _page(page: Mapping[str, Any]) -> type:
    """A panel for a page of the descriptor, folded in."""

    def poll(_cls: Any, context: Any) -> bool:
        return compat.scene_of(context) is not None and _strip(context) is not None

    def draw(self: Any, context: Any) -> None:
        strip = _strip(context)
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = True
        groups = {each["name"]: each for each in properties.effect()["groups"]}
        for name in page["children"]:
            if name not in _NOT_DRAWN:
                _draw_group(layout, strip, groups[name])
        if page["name"] == "page_structure":
            _draw_mattes(layout, compat.scene_of(context), strip)
        if page["name"] == "page_output":
            layout.prop(strip, properties.MUTE)

    parts = {
        "bl_idname": f"FRESCO_PT_{page['name']}",
        "bl_label": page["label"],
        "bl_description": page["hint"],
        "bl_parent_id": FRESCO_PT_main.bl_idname,
        "bl_options": {"DEFAULT_CLOSED"},
        "poll": classmethod(poll),
        "draw": draw,
    }
    return type(f"FRESCO_PT_{page['name']}", (_InSidebar, bpy.types.Panel), parts)


def _draw_group(layout: Any, strip: Any, group: Mapping[str, Any]) -> None:
    box = layout.column()
    box.label(text=group["label"])
    for name in (each for each in group["children"] if each not in _ON_TOP):
        _draw_parameter(box, strip, name)


def _draw_mattes(layout: Any, scene: Any, strip: Any) -> None:
    """Draw the choice of the strips that say where the effect is, and what is the subject."""
    editor = scene.sequence_editor
    # Those in metas too: one of them may be open.
    strips = next(name for name in compat.ALL_STRIPS if hasattr(editor, name))
    for named, own in (
        (properties.MASK, properties.MASK_ALPHA),
        (properties.SUBJECT, properties.SUBJECT_ALPHA),
    ):
        column = layout.column(align=True)
        row = column.row()
        row.enabled = not getattr(strip, own)
        row.prop_search(strip, named, editor, strips, icon="SEQ_STRIP_META")
        column.prop(strip, own)


CLASSES = (
    FRESCO_MT_looks,
    FRESCO_PT_main,
    FRESCO_PT_jobs,
    *map(_page, properties.effect()["pages"]),
)


def register() -> None:
    """Register the panels."""
    for each in CLASSES:
        bpy.utils.register_class(each)


def unregister() -> None:
    """Take them away."""
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)
