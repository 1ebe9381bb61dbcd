from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fresco.flow import Dis
from fresco.propagate import interval
from fresco.propagate.sampling import gaussian, sample
from fresco.propagate.steady import Steadier, noise


def cloud(seed: int, side: int = 96, blur: float = 2.0) -> Tensor:
    """A picture of soft spots, (1, 3, side, side)."""
    raw = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
    soft = gaussian(raw, blur)
    return (soft - soft.amin()) / (soft.amax() - soft.amin()) * 0.8 + 0.1


def noisy(image: Tensor, deviation: float, seed: int) -> Tensor:
    drawn = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + deviation * drawn).clamp(0, 1)


def trembling(deviation: float, side: int = 96) -> Tensor:
    drawn = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(3))
    return gaussian(drawn, 1.5) * deviation / gaussian(drawn, 1.5).std()


def _psnr(made: Tensor, truth: Tensor) -> float:
    return float(-10 * (made - truth).square().mean().log10())


@pytest.mark.parametrize("deviation", [0.01, 0.04])
def test_noise_is_measured_beside_detail(deviation: float) -> None:
    image = cloud(1, blur=4.0)
    assert noise(noisy(image, deviation, 2)) == pytest.approx(3 * deviation**2, rel=0.3)


def test_a_clean_slope_has_no_noise() -> None:
    slope = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert noise(slope) < 1e-9


def test_a_tremble_that_only_fits_the_noise_is_taken_out() -> None:
    image = cloud(1)
    target, key = (noisy(image, 0.05, seed) for seed in (4, 5))
    torn = trembling(0.4)
    calm = Steadier(key)(target, torn)
    assert calm.norm(dim=1).mean() < 0.2 * torn.norm(dim=1).mean()


def test_motion_of_its_own_is_kept_in_noise() -> None:
    ground, thing = cloud(1), cloud(2)
    inside = torch.zeros(1, 1, 96, 96)
    inside[..., 30:66, 30:66] = 1
    truth = inside * torch.tensor([6.0, 0.0])[:, None, None]
    frame = torch.where(inside.bool(), sample(thing, truth), ground)
    moved = torch.roll(inside, 6, dims=-1).bool()
    target, key = (
        noisy(image, 0.05, seed)
        for seed, image in ((4, frame), (5, torch.where(moved, thing, ground)))
    )
    calm = Steadier(key)(target, truth + trembling(0.3))
    assert (calm - truth)[..., 40:56, 40:56].norm(dim=1).mean() < 0.15


def test_without_noise_a_flow_is_left_alone() -> None:
    slope, flow = torch.linspace(0, 1, 96).expand(1, 3, 96, 96), trembling(0.4)
    clean = (slope * 8).floor() / 8
    assert torch.equal(Steadier(clean)(clean, flow), flow)


@pytest.mark.parametrize("method", ["flow", "patch", "auto"])
def test_a_still_and_noisy_shot_keeps_its_strokes(method: str) -> None:
    style = cloud(9, blur=0.8)[0]
    frames = torch.cat([noisy(cloud(1), 0.04, seed) for seed in range(5)])
    middle, ends = frames[2:3], (frames[:1], frames[-1:])
    made = interval(frames, style, style, method)
    warped = [sample(style[None], Dis()(middle, end)) for end in ends]
    plain = _psnr((warped[0] + warped[1])[0] / 2, style)
    assert _psnr(made[1], style) > max(plain, 35)
