"""Recorded arrays as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Vectors:
    """The arrays of one .npz file, as tensors: integers as int64, floats as float32."""

    def __init__(self, path: Path) -> None:
        self._arrays = np.load(path)

    def __getitem__(self, name: str) -> Tensor:
        array = self._arrays[name]
        if array.dtype == np.bool_:
            return torch.from_numpy(array)
        return torch.from_numpy(array.astype(np.int64 if array.dtype.kind in "iu" else np.float32))

    def images(self, name: str) -> Tensor:
        """8-bit frames (N, H, W, 3) as (N, 3, H, W) in [0, 1]."""
        return self[name].permute(0, 3, 1, 2).float() / 255
