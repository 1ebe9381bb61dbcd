"""The states of a job (PROTOCOL.md, section 8)."""

from __future__ import annotations

from collections.abc import Mapping

#: Each state, and those that may follow.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"running", "paused", "failed", "cancelled"}),
    "running": frozenset({"queued", "paused", "waiting", "done", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    "waiting": frozenset({"queued", "cancelled"}),
    "done": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
#: States in which nothing more comes of itself.
AT_REST = ("done", "failed", "cancelled")
