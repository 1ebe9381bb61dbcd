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
from fresco.propagate.search import Pair, best_of, match, smoothed

#: (pair, candidates, frame, key frame) → the flow into the key; see `by_flow` and `by_patch`.
Matcher = Callable[[Pair, Sequence[Tensor], Tensor, Tensor], Tensor]


def follow(
    frames: Tensor,
    style: Tensor,
    match_frame: Matcher,
    flow: FlowEstimator,
    poll: Callable[[], None],
) -> list[Tensor]:
    """Return the flows into the key from the frames behind it, nearest first.

    Each is sought near two: the flow estimated directly, and the flow to the frame before followed
    by that one's own flow into the key, which still holds where the motion is large.

    frames: (M, 3, H, W), the key frame first
    style: (3, H, W), the styled key
    poll: called before each frame
    returns: M - 1 flows (1, 2, H, W), pixels
    """
    key, before = frames[:1], frames[:1]
    key_guide = torch.cat((source_guide(key), style_guide(style[None])), dim=1)
    found: list[Tensor] = []
    for frame in frames[1:].split(1):
        poll()
        chained = direct = flow(frame, key)
        if found:
            step = flow(frame, before)
            chained = step + sample(found[-1], step)
        # The previous output brought here by flow is the styled key read along the chain.
        previous = style_guide(sample(style[None], chained, "bicubic"))
        pair = Pair(torch.cat((source_guide(frame), previous), dim=1), key_guide, chained)
        found.append(match_frame(pair, (chained, direct), frame, key))
        before = frame
    return found


def by_flow(pair: Pair, candidates: Sequence[Tensor], frame: Tensor, key: Tensor) -> Tensor:
    """Return for each pixel the flow that fits better."""
    del frame, key
    return best_of(pair, candidates)


def by_patch(pair: Pair, candidates: Sequence[Tensor], frame: Tensor, key: Tensor) -> Tensor:
    """Search patches around the flows, then make the matches smooth and exact to the subpixel."""
    flow = smoothed(pair, match(pair, candidates))
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
