"""The bilinear backward warp as a sparse linear map, with a deterministic transpose.

A warp reads four neighbours for every token. Written as a weighted bag of table rows, its transpose
(the gradient) is again a weighted bag: the rows that read a token, found once by sorting. Neither
direction scatters, so both sum in a fixed order on every device. Rows hold all channels of one
token, so each read is one contiguous run of memory.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

_NEIGHBOURS = 4


def length(flow: Tensor) -> Tensor:
    """Return how long the vectors of a flow (N, 2, H, W) are, (N, H, W)."""
    return torch.hypot(flow[:, 0], flow[:, 1])  # a hundred times as fast as `Tensor.norm`


class Warp:
    """``out(p) = x(p + flow(p))`` for a stack of images: pixel coordinates, zeros outside.

    flow: (N, 2, h, w) float, pixels of its own resolution, [0] = dx, [1] = dy
    source: (N,) int64, which image of the table each warped image reads; by default its own
    """

    def __init__(self, flow: Tensor, source: Tensor | None = None) -> None:
        self._count, _, self._height, self._width = flow.shape
        if source is None:
            source = torch.arange(self._count)
        self._rows, self._weights = self._neighbours(flow, source.to(flow.device))

    def gather(self, table: Tensor) -> Tensor:
        """Warp `table` (N * h * w, C): each output row is a mix of four rows."""
        return F.embedding_bag(
            self._rows, table, mode="sum", per_sample_weights=self._weights.to(table.dtype)
        )

    def scatter(self, table: Tensor) -> Tensor:
        """Apply the transpose of `gather` to `table` (N * h * w, C): its gradient."""
        rows, offsets, weights = self._transpose
        return F.embedding_bag(
            rows, table, offsets, mode="sum", per_sample_weights=weights.to(table.dtype)
        )

    def _neighbours(self, flow: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (N * h * w, 4) int64 and their weights; weight 0 outside the image."""
        y = torch.arange(self._height, device=flow.device)[:, None]
        x = torch.arange(self._width, device=flow.device)
        columns, column_weights = _axis_neighbours(x, flow[:, 0], self._width)
        lines, line_weights = _axis_neighbours(y, flow[:, 1], self._height)
        rows = lines[:, :, None] * self._width + columns[:, None, :]
        first = source * self._height * self._width
        rows = rows.unflatten(0, (self._count, -1)) + first[:, None, None, None]
        weights = line_weights[:, :, None] * column_weights[:, None, :]
        return rows.flatten(0, 1).flatten(1), weights.flatten(1)

    @cached_property
    def _transpose(self) -> tuple[Tensor, Tensor, Tensor]:
        """For each row the rows that read it: rows, bag offsets, weights."""
        read, order = self._rows.flatten().sort(stable=True)
        bags = torch.arange(len(self._rows), device=read.device)
        return order // _NEIGHBOURS, torch.searchsorted(read, bags), self._weights.flatten()[order]


def _axis_neighbours(start: Tensor, flow: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two nearest indices (places, 2) along one axis, and their bilinear weights.

    The fraction is taken from the flow before the pixel's own place is added: it is exact then.
    """
    # Clamping keeps the far outside (weight 0 either way) within the range of an index.
    whole = flow.floor().clamp(-size - 2, size + 2)
    fraction = (flow - flow.floor()).flatten()
    lower = (start + whole.long()).flatten()
    index = torch.stack((lower, lower + 1), dim=1)
    weight = torch.stack((1 - fraction, fraction), dim=1)
    inside = (index >= 0) & (index < size)
    return index.clamp(0, size - 1), weight * inside
