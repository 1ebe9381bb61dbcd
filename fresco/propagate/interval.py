"""One interval between two keyframes: the public entry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fresco.callbacks import CancelToken
from fresco.errors import InvalidInput
from fresco.flow import FlowEstimator
from fresco.frames import Frames, check_values, stack
from fresco.propagate.blend import Side, blend, disagreement
from fresco.propagate.exposure import levelled
from fresco.propagate.guides import source_guide
from fresco.propagate.sampling import read
from fresco.propagate.search import mismatch
from fresco.propagate.tracks import Matcher, by_flow, by_patch, default_flow, follow

#: Name → how frames are matched to a key.
MATCHERS: dict[str, Matcher] = {"flow": by_flow, "patch": by_patch}
METHODS = (*MATCHERS, "auto")


def interval(
    frames: Frames,
    left: Tensor | None,
    right: Tensor | None,
    method: str = "auto",
    *,
    flow: FlowEstimator | None = None,
    cancel: CancelToken | None = None,
) -> Tensor:
    """Propagate the styled keys at the ends of an interval to the frames between them.

    The interval must not cross a cut. Where a shot has no key at one end, that key is None: the
    frames up to that end, with it, come from the other key alone.

    frames: (M, 3, H, W) source, float RGB in [0, 1], on the device to work on; a key at each end
    left, right: (3, H, W) the styled first and last frame, from wherever they come
    method: "flow" (fast), "patch" (better where motion is large), or "auto", the one whose
        flows give the source frames back with less error
    flow: what matches start from; by default DIS, tuned finely
    cancel: polled for every frame and key
    returns: (M - 2, 3, H, W) the styled frames between, or (M - 1, 3, H, W) beside one key

    Raises:
        InvalidInput: frames, keys or a method that cannot be worked with.
        Cancelled: `cancel` was set.
    """
    batch = stack(frames).float()
    if method not in METHODS:
        raise InvalidInput(f"no propagation is called {method!r}; use one of {sorted(METHODS)}.")
    left, right = _checked(left, batch, "left"), _checked(right, batch, "right")
    work = _Interval(batch, left, right, flow or default_flow(), cancel or CancelToken())
    return work.best(tuple(MATCHERS.values()) if method == "auto" else (MATCHERS[method],))


def _checked(key: Tensor | None, batch: Tensor, name: str) -> Tensor | None:
    if key is None:
        return None
    if key.shape != batch.shape[1:]:
        raise InvalidInput(
            f"the {name} key has shape {tuple(key.shape)} but the frames have "
            f"{tuple(batch.shape[1:])}; resize it to the frames' size."
        )
    check_values(key[None])
    return key.to(batch.device, torch.float32)


class _Interval:
    """The frames, keys and tools of one interval."""

    def __init__(
        self,
        frames: Tensor,
        left: Tensor | None,
        right: Tensor | None,
        flow: FlowEstimator,
        cancel: CancelToken,
    ) -> None:
        if left is None and right is None:
            raise InvalidInput("there is no key; give the left one, the right one, or both.")
        if left is not None and right is not None and len(frames) < 2:
            raise InvalidInput("two keys need two frames to stand on; give one key for one frame.")
        self._frames, self._left, self._right = levelled(frames, flow, cancel.check), left, right
        self._flow, self._cancel = flow, cancel
        #: The indices of the frames to make.
        self._wanted = range(left is not None, len(frames) - (right is not None))

    @torch.no_grad()
    def best(self, matchers: Sequence[Matcher]) -> Tensor:
        """Make the frames by the matcher that gives the source back with the least error."""
        if not self._wanted:
            return self._frames.new_empty(0, *self._frames.shape[1:])
        return self._made(*self._best_tracks(matchers))

    def _best_tracks(self, matchers: Sequence[Matcher]) -> tuple[list[Tensor], list[Tensor]]:
        """The flows into the left and into the right key, per wanted frame; [] without that key."""
        ours = self._tracks(self._frames[: self._wanted.stop], self._left, matchers)
        theirs = self._tracks(self._frames[self._wanted.start :].flip(0), self._right, matchers)
        tracks = [(near, far[::-1]) for near, far in zip(ours, theirs, strict=True)]
        return min(tracks, key=self._error) if len(tracks) > 1 else tracks[0]

    def _tracks(
        self, frames: Tensor, key: Tensor | None, matchers: Sequence[Matcher]
    ) -> list[list[Tensor]]:
        """Per matcher the flows into a key from the frames behind it; [] without that key."""
        if key is None:
            return [[] for _ in matchers]
        return follow(frames, key, matchers, self._flow, self._cancel.check)

    def _made(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        left, right = self._left, self._right
        if left is None or right is None:
            key, flows = (right, theirs) if left is None else (left, ours)
            assert key is not None
            return torch.cat([self._read(key, flow) for flow in flows])
        strength = self._disagreement(left, right, ours, theirs)
        made: list[Tensor] = []
        for place, index in enumerate(self._wanted):
            sides = self._sides(left, right, index, ours[place], theirs[place])
            made.append(blend(*sides, index / (len(self._frames) - 1), strength))
        return torch.cat(made)

    def _disagreement(
        self, left: Tensor, right: Tensor, ours: list[Tensor], theirs: list[Tensor]
    ) -> float:
        """One strength for the whole interval, so that it cannot flicker: of its middle frame."""
        middle = len(ours) // 2
        index = self._wanted[middle]
        return disagreement(*self._sides(left, right, index, ours[middle], theirs[middle]))

    def _sides(
        self, left: Tensor, right: Tensor, index: int, ours: Tensor, theirs: Tensor
    ) -> tuple[Side, Side]:
        guide = source_guide(self._frames[index : index + 1])
        ends = (left, self._frames[:1], ours), (right, self._frames[-1:], theirs)
        return tuple(  # pyright: ignore[reportReturnType]
            Side(
                self._read(key, flow),
                mismatch(guide, source_guide(source), flow, "bicubic"),
            )
            for key, source, flow in ends
        )

    def _read(self, key: Tensor, flow: Tensor) -> Tensor:
        self._cancel.check()
        return read(key, flow)

    def _error(self, tracks: tuple[list[Tensor], list[Tensor]]) -> float:
        """The mean absolute error of the source frames read from the key frames' sources."""
        ends = (self._frames[0], self._frames[-1])
        errors = [
            (self._read(end, flow) - self._frames[index]).abs().mean()
            for end, flows in zip(ends, tracks, strict=True)
            for index, flow in zip(self._wanted, flows, strict=False)
        ]
        return float(torch.stack(errors).mean())
