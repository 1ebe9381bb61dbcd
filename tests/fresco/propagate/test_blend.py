from __future__ import annotations

import torch

from fresco.propagate.blend import Side, blend, disagreement, share_of_right
from fresco.propagate.lab import to_lab, to_rgb
from fresco.propagate.sampling import gaussian
from tests.fresco import cases


def side(image: torch.Tensor, cost: float = 1e-5) -> Side:
    return Side(image, torch.full((1, 1, *image.shape[-2:]), cost))


def test_lab_there_and_back() -> None:
    rgb = cases.frames(2, 24, 20)
    torch.testing.assert_close(to_rgb(to_lab(rgb)), rgb, rtol=0, atol=2e-5)
    white = to_lab(torch.ones(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(white, torch.tensor([100.0, 0, 0]), rtol=0, atol=1e-3)


def test_keys_that_agree_are_mixed_plainly() -> None:
    image = cases.frames(1, 48, 48)
    assert disagreement(side(image), side(image)) == 0
    joined = blend(side(image), side(image), 0.3, 0.0)
    torch.testing.assert_close(joined, image)


def test_displaced_strokes_agree_but_a_texture_of_its_own_does_not() -> None:
    image = cases.frames(1, 64, 64) * 0.8
    noise = torch.randn(2, *image.shape[1:], generator=torch.Generator().manual_seed(0))
    first, second = (image + 0.2 * gaussian(noise, 1.2)).clamp(0, 1).split(1)
    assert disagreement(side(first), side(first.roll(1, dims=-1))) < 0.05
    assert disagreement(side(first), side(second)) > 0.95


def test_a_part_that_only_seems_to_match_is_no_disagreement() -> None:
    image = cases.frames(1, 64, 64)
    other = image.clone()
    other[..., :24] = 1 - other[..., :24]
    assert disagreement(side(image), side(other)) == 0


def test_opposites_mix_to_grey_without_their_noise_being_raised() -> None:
    image = 0.2 + 0.6 * cases.frames(1, 64, 64)
    noisy = (image + 0.004 * torch.randn(image.shape)).clamp(0, 1)
    joined = blend(side(noisy), side(1 - image), 0.5, 1.0)
    assert float((joined - 0.5).abs().mean()) < 0.15


def test_joining_two_equal_sides_changes_nothing_at_full_strength() -> None:
    image = cases.frames(1, 48, 48)
    joined = blend(side(image), side(image), 0.3, 1.0)
    torch.testing.assert_close(joined, image, rtol=0, atol=1e-3)


def test_contrast_survives_the_mixture_of_two_textures() -> None:
    left, right = (0.3 + 0.4 * torch.rand(1, 3, 64, 64) for _ in range(2))
    joined = blend(side(left), side(right), 0.5, 1.0)
    plain = blend(side(left), side(right), 0.5, 0.0)
    assert float(plain.std()) < 0.8 * float(left.std())
    assert 0.85 * float(left.std()) < float(joined.std()) < 1.15 * float(left.std())


def test_where_only_one_side_matches_it_is_chosen() -> None:
    left, right = side(cases.frames(1, 16, 16), 0.2), side(cases.frames(1, 16, 16))
    assert float(share_of_right(left, right, 0.1, 1.0).min()) > 0.99


def test_a_seam_between_the_sides_is_removed() -> None:
    left, right = torch.full((1, 3, 64, 64), 0.4), torch.full((1, 3, 64, 64), 0.6)
    cost = torch.full((1, 1, 64, 64), 1e-5)
    hidden = cost.clone()
    hidden[..., 32:] = 1.0  # the right half is only seen from the right key
    sides = Side(left, hidden), Side(right, cost)
    step = {s: float(blend(*sides, 0.2, s).diff(dim=-1).abs().max()) for s in (0.0, 1.0)}
    assert step[1.0] < 0.5 * step[0.0]
