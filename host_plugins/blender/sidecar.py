# SPDX-License-Identifier: GPL-3.0-or-later
"""How a result was made, to be kept with it: on its strip, and as JSON beside its file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..link.errors import BridgeError, Code
from .desk import Card

_SUFFIX = ".json"


def facts(card: Card) -> dict[str, Any]:
    """What a result was made with: the request with all its edits, and how the file was checked."""
    info, made = card.info, card.made
    return {
        "program": "FreSCo Bridge",
        "job": card.ticket.job,
        "parent": info.parent if info else "",
        "scene": card.ticket.scene,
        "strip": card.ticket.strip,
        "timeline": {"start": card.ticket.start, "frames": len(card.ticket.frames)},
        "source": {"start": card.ticket.first, "stop": card.ticket.stop},
        "request": dict(info.request) if info else {},
        "keyframes": [each.frame for each in info.keyframes] if info else [],
        "notes": list(info.notes) if info else [],
        "report": [dict(row) for row in made.report] if made else [],
    }


def write(result: Path, told: Mapping[str, Any]) -> Path:
    """Write the facts beside a result (of images: their first), whole or not at all.

    Raises:
        BridgeError: they cannot be written there (host).
    """
    file = result.with_suffix(_SUFFIX)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        what = f"{file} cannot be written: {error}"
        raise BridgeError(
            Code.HOST, what, "see whether the disk is full or write-protected"
        ) from error
    return file
