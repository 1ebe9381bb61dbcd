"""How the keyframes of a clip are split into batches that fit in memory (method, section 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from fresco.errors import InvalidInput

#: Anchors in front of every batch but the first: the clip's first keyframe and the previous last.
_ANCHORS = 2
#: Fewer frames than this leave no room beside the anchors.
SMALLEST_BATCH = _ANCHORS + 1
#: A last batch brings at least this many new keyframes, if need be from the batch before.
_FEWEST = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """Keyframes that are translated together.

    anchors: keyframes of earlier batches, replayed from their records; none in the first batch
    keyframes: the new ones, ascending
    """

    anchors: tuple[int, ...]
    keyframes: tuple[int, ...]

    @property
    def frames(self) -> tuple[int, ...]:
        """All frames of the batch, in running order."""
        return self.anchors + self.keyframes


def plan(keyframes: Iterable[int], size: int) -> list[Batch]:
    """Split `keyframes` into batches of at most `size` frames, anchors included.

    With a `size` under 5 the last batch is larger where its three new keyframes ask for it.

    keyframes: ascending frame numbers, from 0 on
    size: frames in a batch, at least 3

    Raises:
        InvalidInput: no keyframes, keyframes not ascending, or a size under 3.
    """
    keyframes = list(keyframes)
    if not keyframes:
        raise InvalidInput("there are no keyframes to plan batches for; choose at least one.")
    if any(first >= second for first, second in pairwise(keyframes)):
        raise InvalidInput(f"keyframes {keyframes} are not ascending; sort them first.")
    if keyframes[0] < 0:
        raise InvalidInput(f"keyframe {keyframes[0]} is before the clip's first frame, 0.")
    if size < SMALLEST_BATCH:
        raise InvalidInput(f"a batch of {size} has no room beside its {_ANCHORS} anchors; use 3+.")
    groups = _fill_last(_split(keyframes, size))
    first = groups[0][0]
    batches = [Batch((), tuple(groups[0]))]
    for before, group in pairwise(groups):
        # After a first batch of one keyframe both anchors are that one.
        anchors = tuple(dict.fromkeys((first, before[-1])))
        batches.append(Batch(anchors, tuple(group)))
    return batches


def _split(keyframes: list[int], size: int) -> list[list[int]]:
    step = size - _ANCHORS
    later = range(size, len(keyframes), step)
    return [keyframes[:size], *(keyframes[start : start + step] for start in later)]


def _fill_last(groups: list[list[int]]) -> list[list[int]]:
    """Let a short last group borrow from those before it; one that is emptied goes."""
    *earlier, last = groups
    while earlier and len(last) < _FEWEST:
        last.insert(0, earlier[-1].pop())
        if not earlier[-1]:
            earlier.pop()
    return [*earlier, last]
