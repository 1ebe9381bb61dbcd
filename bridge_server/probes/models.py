"""Which models are on this machine, and whether there is room for more."""

from __future__ import annotations

from collections.abc import Iterator

from bridge_server import catalogue, library
from bridge_server.catalogue import Entry, Role
from bridge_server.config import Config
from bridge_server.errors import NotAsPinned
from bridge_server.lock import Lock
from bridge_server.probes.finding import Finding, State
from bridge_server.probes.places import free_space, nearest
from fresco.errors import MissingWeights

AREA = "models"
#: What comes with the program, and what should be fetched first beside it.
DRAFTS, FIRST = ("fresco-draft", "fresco-draft-tile"), "sd15"
#: Bytes: a first set for Stable Diffusion 1.5, and one for XL.
_ROOM = 12 * 10**9


def drafts(settings: Config) -> Iterator[Finding]:
    """Whether the models that come with the program are there."""
    known = catalogue.load(settings)
    for name in DRAFTS:
        try:
            found = library.find(known[name], settings)
        except MissingWeights as error:
            hint = "pip install --force-reinstall --no-deps fresco-bridge"
            yield Finding(AREA, name, State.PROBLEM, str(error), hint)
            continue
        size = sum((found.root / file).stat().st_size for file in found.files)
        yield Finding(AREA, name, State.OK, f"here, {size / 1e6:.0f} MB")


def fetched(settings: Config) -> Iterator[Finding]:
    """Which other models of the catalogue are here, whole and unchanged in size."""
    here: list[Entry] = []
    for entry in catalogue.load(settings).values():
        if entry.bundled:
            continue
        try:
            library.find(entry, settings)
            here.append(entry)
        except NotAsPinned as error:
            hint = f"{entry.command} --repair"
            yield Finding(AREA, entry.name, State.PROBLEM, str(error), hint)
        except MissingWeights as error:
            if hint := _lost(entry, settings):
                yield Finding(AREA, entry.name, State.PROBLEM, str(error), hint)
    names = ", ".join(entry.name for entry in here) or "none"
    if any(entry.role is Role.BASE for entry in here):
        yield Finding(AREA, "fetched", State.OK, names)
    else:
        text = f"{names}; no base model beside the draft one"
        hint = f"for pictures to keep: fresco-bridge models download {FIRST}"
        yield Finding(AREA, "fetched", State.NOTE, text, hint)


def _lost(entry: Entry, settings: Config) -> str:
    """Say what to do about a model that was here once; nothing if it never was."""
    if entry.path:
        return f"bring it back, or: fresco-bridge models remove {entry.name}"
    return entry.command if Lock(settings.lock_file).get(entry.name).revision else ""


def room(settings: Config) -> Iterator[Finding]:
    """Whether the models' folder has room for more."""
    free = free_space(nearest(settings.folder))
    text = f"{settings.folder}, {free / 1e9:.1f} GB free"
    if free < _ROOM:
        hint = "make room, or set another folder (docs/models.md, Settings)"
        yield Finding(AREA, "folder", State.NOTE, f"{text}: too little for several models", hint)
    else:
        yield Finding(AREA, "folder", State.OK, text)
