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


class Warp:
    """``out(p) = x(p + flow(p))`` for one image: pixel coordinates, zeros outside.

    flow: (2, h, w) float32, pixels of its own resolution, [0] = dx, [1] = dy.
    """

    def __init__(self, flow: Tensor) -> None:
        self._height, self._width = flow.shape[-2:]
        self._rows, self._weights = self._neighbours(flow)

    @property
    def tokens(self) -> int:
        """The number of pixels h * w, row-major."""
        return self._height * self._width

    def gather(self, table: Tensor) -> Tensor:
        """Warp `table` (tokens, C): each output row is a mix of four rows."""
        return F.embedding_bag(
            self._rows, table, mode="sum", per_sample_weights=self._weights.to(table.dtype)
        )

    def scatter(self, table: Tensor) -> Tensor:
        """Apply the transpose of `gather` to `table` (tokens, C): its gradient."""
        rows, offsets, weights = self._transpose
        return F.embedding_bag(
            rows, table, offsets, mode="sum", per_sample_weights=weights.to(table.dtype)
        )

    def _neighbours(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (tokens, 4) int64 and their weights (tokens, 4); weight 0 outside the image."""
        y = torch.arange(self._height, device=flow.device)[:, None]
        x = torch.arange(self._width, device=flow.device)
        columns, column_weights = _axis_neighbours(x, flow[0], self._width)
        lines, line_weights = _axis_neighbours(y, flow[1], self._height)
        rows = lines[:, :, None] * self._width + columns[:, None, :]
        weights = line_weights[:, :, None] * column_weights[:, None, :]
        return rows.flatten(1), weights.flatten(1)

    @cached_property
    def _transpose(self) -> tuple[Tensor, Tensor, Tensor]:
        """For each token the tokens that read it: rows, bag offsets, weights."""
        read, order = self._rows.flatten().sort(stable=True)
        bags = torch.arange(self.tokens, device=read.device)
        return order // _NEIGHBOURS, torch.searchsorted(read, bags), self._weights.flatten()[order]


def _axis_neighbours(start: Tensor, flow: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two nearest indices (tokens, 2) along one axis, and their bilinear weights.

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
