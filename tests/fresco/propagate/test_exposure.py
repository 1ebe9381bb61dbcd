from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fresco.flow import Dis
from fresco.propagate.exposure import levelled
from tests.fresco import cases


def spread(frames: Tensor) -> float:
    means = frames.mean(dim=(2, 3))
    return float((means.amax(dim=0) / means.amin(dim=0)).max())


@pytest.mark.parametrize("size", [(64, 48), (150, 131)])
def test_gains_of_frames_and_channels_are_taken_out(size: tuple[int, int]) -> None:
    clip = cases.frames(1, *size).repeat(4, 1, 1, 1) * 0.8 + 0.1
    gains = torch.tensor([[1, 0.8, 0.9], [0.7, 0.7, 0.7], [1, 1, 1], [0.8, 0.9, 1]])
    flickering = clip * gains[..., None, None]
    assert spread(flickering) > 1.3
    assert spread(levelled(flickering, Dis())) < 1.02


def test_an_object_that_brightens_the_frame_is_no_gain() -> None:
    clip = cases.frames(1, 64, 64).repeat(2, 1, 1, 1) * 0.5
    clip[1, :, 8:40, 8:40] = 0.9
    torch.testing.assert_close(levelled(clip, Dis()), clip, rtol=0, atol=0.01)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_frames_that_say_nothing_are_left_alone(value: float) -> None:
    flat = torch.full((3, 3, 32, 32), value)
    torch.testing.assert_close(levelled(flat, Dis()), flat)
