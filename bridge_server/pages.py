"""Long replies in pages (PROTOCOL.md, section 4): as much of their lists as one message holds.

The parts of a list have keys that rise. A page begins behind the key that the one before ended at,
so that nothing is told twice or left out where the list changes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgpack

from host_plugins.link.wire import LIMITS

Table: TypeAlias = dict[str, Any]
#: A part's key, and what it is on the wire.
Part: TypeAlias = tuple[str, Any]
#: Bytes and values that are left for the envelope, and for what holds the parts.
_ENVELOPE = (1024, 64)


def page(rest: Mapping[str, Any], parts: Iterable[Part]) -> tuple[list[Part], str]:
    """Return the first parts, as many as fit into a message beside `rest`, and what comes `next`.

    At least one, if there are any; `next` is empty if these are all.
    """
    room = LIMITS.header - _ENVELOPE[0] - _bytes(rest)
    values = LIMITS.items - _ENVELOPE[1] - _values(rest)
    taken: list[Part] = []
    for key, value in parts:
        room -= _bytes(value)
        values -= _values(value)
        if taken and (room < 0 or values < 0):
            return taken, taken[-1][0]
        taken.append((key, value))
    return taken, ""


def paged(
    rest: Table,
    name: str,
    parts: Iterable[Part],
    put: Callable[[Sequence[Part]], Any] | None = None,
) -> Table:
    """Return a reply: `rest`, with as many parts as fit under `name`, and `next` if there are more.

    put: makes of the parts what stands there; a list of them where None
    """
    taken, following = page(rest, parts)
    whole: Table = {**rest}
    if taken:
        whole[name] = put(taken) if put else [value for _, value in taken]
    return whole | ({"next": following} if following else {})


def numbered(values: Sequence[Any], after: str) -> Iterable[Part]:
    """Return parts whose keys are their places, behind the place `after`."""
    first = int(after) + 1 if after.isdecimal() else 0
    return ((str(place), values[place]) for place in range(first, len(values)))


def size(value: Any) -> tuple[int, int]:
    """Return how many bytes and values something is on the wire."""
    return _bytes(value), _values(value)


def _bytes(value: Any) -> int:
    return len(msgpack.packb(value) or b"")


def _values(value: Any) -> int:
    """Count a value and those in it, keys too."""
    if isinstance(value, Mapping):
        return 1 + sum(1 + _values(each) for each in value.values())
    if isinstance(value, list | tuple):
        return 1 + sum(map(_values, value))
    return 1
