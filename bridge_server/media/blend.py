"""Putting a restyled frame over its source inside a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bridge_server.media import orient
from bridge_server.media.clip import Clip
from bridge_server.media.errors import UnsupportedMedia
from bridge_server.media.frame import Frame
from bridge_server.media.layout import Layout
from fresco.errors import InvalidInput


def blend(source: Frame, styled: Frame, mask: Tensor, clip: Clip) -> Frame:
    """Return `styled` where `mask` is 1 and the very samples of `source` where it is 0.

    mask: (H, W) float in [0, 1], upright. Between 0 and 1 the codes are mixed, which is how an
        editor dissolves. A chroma sample counts for all pixels around it: it is the source's
        wherever it is shared with a pixel whose mask is 0.

    Raises:
        InvalidInput: a mask of another size.
        UnsupportedMedia: the frames have different layouts (see `colour.convert`).
    """
    if source.layout != styled.layout:
        raise UnsupportedMedia(
            f"a frame of {styled.layout.name} cannot go over one of {source.layout.name}; "
            "convert the source first."
        )
    inside = orient.stored(mask, clip.matrix).detach().float().cpu().numpy()
    if inside.shape != source.planes[0].shape:
        raise InvalidInput(
            f"the mask has shape {tuple(mask.shape)}, the frame {source.planes[0].shape} (as "
            "stored); scale it to the source's size."
        )
    planes = tuple(
        _mixed(old, new, _share(inside, source.layout, component))
        for component, (old, new) in enumerate(zip(source.planes, styled.planes, strict=True))
    )
    return source.with_planes(planes, source.layout)


def _mixed(old: NDArray[Any], new: NDArray[Any], share: NDArray[np.float32]) -> NDArray[Any]:
    mixed = old.astype(np.float64) * (1 - share) + new.astype(np.float64) * share
    whole = mixed if np.issubdtype(old.dtype, np.floating) else np.rint(mixed)
    return np.where(share <= 0, old, np.where(share >= 1, new, whole.astype(old.dtype)))


def _share(inside: NDArray[np.float32], layout: Layout, component: int) -> NDArray[np.float32]:
    """The mask at a component's samples: the least of the pixels that a sample colours."""
    rows, columns = layout.plane_size(component, *inside.shape[::-1])
    if (rows, columns) == inside.shape:
        return inside
    # The sample colours its own pixels and, by interpolation, the next ones on every side.
    step_y, step_x = 1 << layout.shift[1], 1 << layout.shift[0]
    pad = ((step_y, 2 * step_y), (step_x, 2 * step_x))
    edged = np.pad(inside, pad, "edge")
    share = np.ones((rows, columns), np.float32)
    for y in range(3 * step_y if step_y > 1 else 1):
        for x in range(3 * step_x if step_x > 1 else 1):
            oy = y if step_y > 1 else step_y
            ox = x if step_x > 1 else step_x
            view = edged[oy : oy + rows * step_y : step_y, ox : ox + columns * step_x : step_x]
            share = np.minimum(share, view)
    return share
