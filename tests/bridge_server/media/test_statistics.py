from __future__ import annotations

import pytest
import torch

from bridge_server.media.statistics import ColourStatistics, match
from fresco.errors import InvalidInput


def shot(seed: int, scale: float, shift: float, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.rand(3, 3, generator=generator) * scale
    return [
        (torch.einsum("ij,jhw->ihw", mix, torch.rand(3, 20, 30, generator=generator)) + shift)
        for _ in range(count)
    ]


def gathered(frames: list[torch.Tensor]) -> ColourStatistics:
    statistics = ColourStatistics()
    for frame in frames:
        statistics.add(frame)
    return statistics


def test_frame_by_frame_is_as_all_at_once() -> None:
    frames = shot(1, 0.3, 0.1)
    flat = torch.cat([frame.flatten(1) for frame in frames], dim=1).double()
    statistics = gathered(frames)
    assert torch.allclose(statistics.mean, flat.mean(dim=1))
    assert torch.allclose(statistics.covariance, flat.cov(correction=0), atol=1e-5)


def test_a_matched_shot_has_the_sources_mean_and_covariance() -> None:
    source, styled = shot(2, 0.2, 0.3), shot(3, 0.3, 0.05)
    change = match(gathered(source), gathered(styled))
    after = gathered([change(frame) for frame in styled])
    assert torch.allclose(after.mean, gathered(source).mean, atol=1e-3)
    assert torch.allclose(after.covariance, gathered(source).covariance, atol=1e-3)


def test_a_shot_that_has_the_colours_is_left_alone() -> None:
    frames = shot(4, 0.3, 0.1)
    change = match(gathered(frames), gathered(frames))
    assert (change(frames[0]) - frames[0]).abs().max() < 1e-5


def test_a_flat_shot_gives_numbers() -> None:
    flat = [torch.full((3, 4, 4), 0.5)]
    change = match(gathered(shot(5, 0.2, 0.2)), gathered(flat))
    assert change(flat[0]).isfinite().all()


def test_nothing_seen() -> None:
    with pytest.raises(InvalidInput, match="before"):
        _ = ColourStatistics().mean
