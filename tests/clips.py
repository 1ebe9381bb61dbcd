"""Frames of real clips, decoded one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import torch
from torch import Tensor


def frames(path: Path) -> Iterator[Tensor]:
    """Yield the frames of a clip as (3, H, W) float RGB in [0, 1]."""
    with av.open(path) as container:
        for frame in container.decode(video=0):
            image = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            yield image.permute(2, 0, 1).float() / 255
