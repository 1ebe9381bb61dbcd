"""Whether the user accepted a model's licence, and when."""

from __future__ import annotations

from dataclasses import replace

from bridge_server.catalogue import Entry
from bridge_server.config import Config
from bridge_server.errors import LicenceNotAccepted
from bridge_server.lock import Accepted, Lock


def accept(entry: Entry, config: Config, accepted: bool) -> None:
    """Record that the licence of `entry` is accepted, or check that it was.

    Raises:
        LicenceNotAccepted: it was not.
    """
    if not needs_acceptance(entry, config):
        return
    assert entry.licence is not None, "or there would be nothing to accept"
    if not accepted:
        raise LicenceNotAccepted(
            f"{entry.name} comes under the licence {entry.licence.id}, which binds whoever uses "
            f"it: read {entry.licence.url or 'it'}, and accept it with "
            f"`{entry.command} --accept-licence`."
        )
    record = Accepted.now(entry.licence.id)
    Lock(config.lock_file).update(entry.name, lambda known: replace(known, accepted=record))


def needs_acceptance(entry: Entry, config: Config) -> bool:
    """Whether the licence of `entry` must be accepted and was not yet."""
    if entry.licence is None or not entry.licence.accept:
        return False
    accepted = Lock(config.lock_file).get(entry.name).accepted
    return accepted is None or accepted.id != entry.licence.id
