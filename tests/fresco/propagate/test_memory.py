"""The memory of one interval of 512 x 512, with its frames and its result, in a fresh process."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from torch import Tensor

from fresco.propagate import interval
from tests.benchmarks.measure import Measured, in_fresh_process, measure, report
from tests.fresco import cases

_SIDE, _STEP = 512, 4
#: Bytes that do not depend on the number of frames, and bytes per frame: below 1 GB for 30 frames.
_FIXED, _PER_FRAME = 250e6, 24e6

LONG = pytest.mark.skipif("FRESCO_BRIDGE_LONG" not in os.environ, reason="minutes: make test-long")


@pytest.mark.parametrize("frames", [5, pytest.param(30, marks=LONG)])
def test_thirty_frames_of_512_need_less_than_a_gigabyte(frames: int) -> None:
    assert _FIXED + 30 * _PER_FRAME < 1e9
    taken = in_fresh_process(__name__, str(frames))
    assert 0 < taken.peak_bytes < _FIXED + frames * _PER_FRAME


def _pan(frames: int) -> Tensor:
    coarse = cases.features(1, 3, _SIDE // 8, (_SIDE + _STEP * frames) // 8).sigmoid()
    scene = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic").clamp(0, 1)
    return torch.cat([scene[..., _STEP * t : _STEP * t + _SIDE] for t in range(frames)])


def _interval(frames: int) -> Tensor:
    """Both methods are tried, and the keys disagree: nothing needs more."""
    clip = _pan(frames)
    return interval(clip, clip[0], 1 - clip[-1], "auto")


def _measured(frames: int) -> Measured:
    torch.set_num_threads(1)
    return measure(lambda: _interval(frames))


if __name__ == "__main__":
    report(_measured(int(sys.argv[1])))
