from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scenedetect import ContentDetector, FrameTimecode
from torch import Tensor

from fresco.errors import InvalidInput
from fresco.frames import to_bytes
from fresco.shots import SHORTEST, THRESHOLD, find_cuts, jumps
from tests import clips
from tests.fresco import cases

NTSC = Fraction(30000, 1001)


def two_shots(first: int, second: int) -> Iterator[Tensor]:
    yield from cases.frames(first, 64, 96, seed=1) * 0.4
    yield from 1 - cases.frames(second, 64, 96, seed=2) * 0.4


def test_a_cut_is_found_at_its_first_frame() -> None:
    assert find_cuts(two_shots(24, 31), NTSC) == [24]


def test_one_shot_has_no_cut() -> None:
    assert find_cuts(cases.frames(30, 64, 64), NTSC) == []
    assert find_cuts(cases.frames(1, 64, 64), NTSC) == []


@pytest.mark.parametrize("name", ["dog.mp4", "music.mp4"])
def test_the_real_clips_are_one_shot_each(clip: Callable[[str], Path], name: str) -> None:
    assert find_cuts(clips.frames(clip(name)), Fraction(25)) == []


def test_real_clips_joined_are_cut_where_they_meet(clip: Callable[[str], Path]) -> None:
    def joined() -> Iterator[Tensor]:
        for name in ("dog.mp4", "music.mp4"):
            for index, frame in enumerate(clips.frames(clip(name))):
                if index == 20:
                    break
                yield torch.nn.functional.interpolate(frame[None], size=(96, 128))[0]

    assert find_cuts(joined(), Fraction(25)) == [20]


def test_pieces_with_a_frame_in_common_have_the_jumps_of_the_whole() -> None:
    frames = list(two_shots(24, 31))
    whole = jumps(frames)

    assert [index for index, jump in enumerate(whole) if jump] == [24]
    for end in (23, 24, 25):
        assert jumps(frames[:end]) + jumps(frames[end - 1 :])[1:] == whole
    assert jumps([]) == []


def test_of_a_flash_one_cut_is_left() -> None:
    """As PySceneDetect itself finds them, frame by frame."""
    frames = list(two_shots(20, 30))
    for index in (32, 34, 35):
        frames[index] = torch.ones_like(frames[index])
    detector = ContentDetector(threshold=THRESHOLD, min_scene_len=SHORTEST)
    expected = [
        cut.frame_num
        for index, image in enumerate(to_bytes(frames))
        for cut in detector.process_frame(
            FrameTimecode(index, fps=NTSC), np.ascontiguousarray(image[..., ::-1])
        )
    ]

    assert sum(jumps(frames)) > len(expected) > 1
    assert find_cuts(frames, NTSC) == expected


def test_no_frames_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no frames"):
        find_cuts([], NTSC)


def test_frames_of_different_sizes_and_no_rate_are_refused() -> None:
    with pytest.raises(InvalidInput, match="frame 1 has shape"):
        find_cuts([torch.zeros(3, 8, 8), torch.zeros(3, 8, 16)], NTSC)
    with pytest.raises(InvalidInput, match="must be positive"):
        find_cuts([torch.zeros(3, 8, 8)], Fraction(0))
