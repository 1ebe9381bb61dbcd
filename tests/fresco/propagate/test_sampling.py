"""Reading keys along flows: sharp where the flow is smooth, without specks where it is torn."""

import torch

from fresco.propagate.sampling import read, sample


def _key(height: int = 24, width: int = 32) -> torch.Tensor:
    """Dark on the left, light on the right, with a little texture."""
    generator = torch.Generator().manual_seed(3)
    key = torch.full((3, height, width), 0.2)
    key[..., width // 2 :] = 0.8
    return key + 0.02 * torch.rand(key.shape, generator=generator)


def test_a_smooth_flow_is_read_sharply() -> None:
    key, flow = _key(), torch.full((1, 2, 24, 32), 1.25)
    expected = sample(key[None], flow, "bicubic").clamp(0, 1)
    assert torch.equal(read(key, flow), expected)


def test_a_stray_place_does_not_become_a_speck() -> None:
    key, flow = _key(), torch.zeros(1, 2, 24, 32)
    flow[0, 0, 12, 6] = 18.0  # one pixel of the dark side reads the light one
    plain = sample(key[None], flow, "bicubic")[0, :, 12, 6]
    kept = read(key, flow)[0, :, 12, 6]
    assert (plain > 0.75).all()
    assert (kept < 0.4).all()


def test_the_border_of_two_motions_stays() -> None:
    key, flow = _key(), torch.zeros(1, 2, 24, 32)
    flow[0, 0, :, 16:] = 5.0  # both sides read their own: the edge of the key is the picture's
    made = read(key, flow)[0]
    assert (made[..., :15] < 0.3).all()
    assert (made[..., 17:] > 0.7).all()


def test_values_stay_in_their_range() -> None:
    generator = torch.Generator().manual_seed(5)
    key = (torch.rand(3, 24, 32, generator=generator) > 0.5).float()
    flow = 4 * torch.randn(1, 2, 24, 32, generator=generator)
    made = read(key, flow)
    assert made.shape == (1, 3, 24, 32)
    assert made.min() >= 0
    assert made.max() <= 1
