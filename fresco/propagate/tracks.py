"""Where every frame's pixels lie in a key frame, found walking away from the key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from fresco.flow import Dis, FlowEstimator
from fresco.frames import to_bytes
from fresco.propagate.guides import source_guide, style_guide
from fresco.propagate.sampling import sample
from fresco.propagate.search import Pair, best_of, match, mismatch, smoothed
from fresco.propagate.steady import Steadier
from fresco.warping import length

#: (pair, frame, key frame) → the flow into the key; see `by_flow` and `by_patch`.
Matcher = Callable[[Pair, Tensor, Tensor], Tensor]
#: Errors add up along a chain: near the direct flow (pixels), it has to fit better by this part.
_NEAR, _BETTER = 4.0, 0.1
#: A direct flow that lies elsewhere has to fit better by this: on a repeated pattern it jumps.
_ELSEWHERE = 1e-3


def follow(
    frames: Tensor,
    style: Tensor,
    matchers: Sequence[Matcher],
    flow: FlowEstimator,
    poll: Callable[[], None],
) -> list[list[Tensor]]:
    """Return the flows into the key from the frames behind it, nearest first, by every matcher.

    Each is sought near one of two: the flow estimated directly, and the flow to the frame before
    followed by that one's own flow into the key, which still holds where the motion is large.

    frames: (M, 3, H, W), the key frame first
    style: (3, H, W), the styled key
    poll: called before each frame, and often while it is matched
    returns: per matcher M - 1 flows (1, 2, H, W), pixels
    """
    key, before = frames[:1], frames[:1]
    source, look = source_guide(key), style_guide(style[None])
    key_guide = torch.cat((source, look), dim=1)
    found: list[list[Tensor]] = [[] for _ in matchers]
    steady = Steadier(key)
    for frame in frames[1:].split(1):
        poll()
        target, direct = source_guide(frame), flow(frame, key)
        poll()
        step = direct if before is key else flow(frame, before)
        for match_frame, flows in zip(matchers, found, strict=True):
            start = _start(target, source, direct, step, flows)
            # The previous output brought here by flow is the styled key read along the flow.
            seen = torch.cat((target, sample(look, start, "bicubic")), dim=1)
            pair = Pair(seen, key_guide, start, poll)
            flows.append(steady(frame, match_frame(pair, frame, key)))
        before = frame
    return found


def _start(
    target: Tensor, source: Tensor, direct: Tensor, step: Tensor, flows: Sequence[Tensor]
) -> Tensor:
    """Return per pixel the direct flow or the chained one, by how the source alone fits."""
    if not flows:
        return direct
    chained = step + sample(flows[-1], step)
    ours, theirs = (mismatch(target, source, found) for found in (chained, direct))
    near = length(chained - direct)[:, None] < _NEAR
    fits = torch.where(near, ours < (1 - _BETTER) * theirs, ours <= theirs + _ELSEWHERE)
    return torch.where(fits, chained, direct)


def by_flow(pair: Pair, frame: Tensor, key: Tensor) -> Tensor:
    """Return the flow that the search would start from."""
    del frame, key
    return pair.carried


def by_patch(pair: Pair, frame: Tensor, key: Tensor) -> Tensor:
    """Search patches around the flow, then make the matches smooth and exact to the subpixel."""
    flow = smoothed(pair, match(pair))
    return best_of(pair, (flow, _refined(flow, frame, key)), "bicubic")


def default_flow() -> FlowEstimator:
    """Return the flow that matches start from."""
    return Dis(fine=True)


def _refined(flow: Tensor, frame: Tensor, key: Tensor) -> Tensor:
    """Return `flow` after OpenCV's variational refinement (Brox et al., ECCV 2004), on the CPU."""
    engine: Any = cv2.VariationalRefinement.create()
    before, after = (cv2.cvtColor(to_bytes(image)[0], cv2.COLOR_RGB2GRAY) for image in (frame, key))
    start = np.ascontiguousarray(flow[0].permute(1, 2, 0).cpu().numpy())
    refined = torch.from_numpy(engine.calc(before, after, start))
    return refined.permute(2, 0, 1)[None].contiguous().to(flow.device)
