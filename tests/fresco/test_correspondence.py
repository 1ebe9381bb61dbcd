from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fresco import correspondence as c
from fresco.errors import InvalidInput
from tests.fresco import cases, plain
from tests.vectors import Vectors

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 13), st.integers(1, 13))


def test_recorded_warps(golden: Callable[[str], Vectors]) -> None:
    v = golden("a_flow_warp_consistency")
    for direction in ("fwd", "bwd"):
        warped = c.warp(v["feature"], v[f"{direction}_flow"])
        torch.testing.assert_close(warped, v[f"warped_feature_by_{direction}"], rtol=0, atol=5e-5)


def test_recorded_consistency(golden: Callable[[str], Vectors]) -> None:
    v = golden("a_flow_warp_consistency")
    occ_forward, occ_backward = c.consistency_occlusion(v["fwd_flow"], v["bwd_flow"])
    assert (occ_forward != v["fwd_occ"]).sum() <= 2
    assert (occ_backward != v["bwd_occ"]).sum() <= 2


def test_recorded_photometric_occlusion(golden: Callable[[str], Vectors]) -> None:
    v = golden("b_occlusion_attn_mask")
    forward, backward = v["fwd_flows"], v["bwd_flows"]
    consistency = c.consistency_occlusion(forward, backward)
    both = c.photometric_occlusion(v.images("images_u8"), forward, backward)
    for direction, only, coloured in zip(("fwd", "bwd"), consistency, both, strict=True):
        assert (only != v[f"{direction}_occs_consistency_only"]).sum() <= 2
        assert (coloured != v[f"{direction}_occs"]).sum() <= 2


@given(SIZES, st.integers(0, 1000))
def test_warp_equals_grid_sample_and_its_gradient(
    size: tuple[int, int, int, int], seed: int
) -> None:
    x = cases.features(*size, seed=seed).requires_grad_()
    flow = cases.flows(size[0], *size[2:], reach=6, seed=seed)
    weights = cases.features(*size, seed=seed + 1)

    (ours,) = torch.autograd.grad((c.warp(x, flow) * weights).sum(), x)
    (plainly,) = torch.autograd.grad((plain.warp(x, flow) * weights).sum(), x)

    torch.testing.assert_close(c.warp(x, flow), plain.warp(x, flow), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, plainly, rtol=1e-4, atol=1e-4)


def test_warp_moves_a_pixel_by_whole_steps() -> None:
    x = torch.zeros(1, 1, 3, 4)
    x[0, 0, 1, 2] = 5
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 1
    warped = c.warp(x, flow)
    assert warped[0, 0, 1, 1] == 5
    assert warped.sum() == 5


def test_warp_from_far_outside_is_black() -> None:
    far = torch.full((1, 2, 4, 4), 1e12)
    assert not c.warp(torch.ones(1, 1, 4, 4), far).any()
    assert not c.warp(torch.ones(1, 1, 4, 4), -far).any()


@given(SIZES)
def test_no_flow_leaves_everything_in_place(size: tuple[int, int, int, int]) -> None:
    x = cases.features(*size)
    still = cases.still(size[0], *size[2:])
    assert torch.equal(c.warp(x, still.forward), x)
    for occluded in c.consistency_occlusion(still.forward, still.backward):
        assert not occluded.any()


@settings(max_examples=10)
@given(st.integers(3, 9), st.integers(3, 9), st.integers(0, 1000))
def test_consistency_equals_pixel_by_pixel(height: int, width: int, seed: int) -> None:
    pairs = cases.correspondence(1, height, width, seed=seed)
    forward, backward = pairs.forward[0].numpy(), pairs.backward[0].numpy()
    assert np.array_equal(pairs.occ_forward[0].numpy(), plain.occlusion(forward, backward))
    assert np.array_equal(pairs.occ_backward[0].numpy(), plain.occlusion(backward, forward))


def test_another_colour_is_occluded() -> None:
    frames = torch.zeros(2, 3, 4, 4)
    frames[1, :, 0, 0] = 0.5
    frames[1, :, 1, 1] = 0.2
    still = torch.zeros(2, 2, 4, 4)
    occ_forward, occ_backward = c.photometric_occlusion(frames, still, still)
    for occluded in (occ_forward, occ_backward):
        assert occluded[0].nonzero().tolist() == [[0, 0]]


def test_reduced_halves_flows_and_keeps_any_occlusion() -> None:
    pairs = cases.correspondence(2, 16, 8)
    occluded = torch.zeros(2, 16, 8)
    occluded[0, 3, 5] = 1
    pairs = c.Correspondence(pairs.forward, pairs.backward, occluded, occluded)
    reduced = pairs.reduced(2)
    assert reduced.size == (8, 4)
    assert reduced.occ_forward[0].nonzero().tolist() == [[1, 2]]
    middle = pairs.forward[0, :, 2:4, 4:6].mean((1, 2)) / 2
    torch.testing.assert_close(reduced.forward[0, :, 1, 2], middle)
    assert pairs.reduced_to(8, 4).size == (8, 4)


def test_estimate_finds_a_shift() -> None:
    texture = cases.features(1, 3, 16, 16).sigmoid()
    image = torch.nn.functional.interpolate(texture, size=(96, 96), mode="bicubic").clamp(0, 1)
    frames = torch.cat((image, image.roll(4, dims=3)))
    pairs = c.estimate(frames)
    middle = pairs.forward[0, :, 24:72, 24:72]
    assert (middle[0] - 4).abs().mean() < 0.5
    assert middle[1].abs().mean() < 0.5
    assert (pairs.backward[0, 0, 24:72, 24:72] + 4).abs().mean() < 0.5
    assert pairs.occ_forward[0, 24:72, 24:72].mean() < 0.05


def test_one_frame_corresponds_to_itself() -> None:
    pairs = c.estimate(cases.frames(1, 32, 32))
    assert pairs.frames == 1
    assert not pairs.forward.any()
    assert not pairs.occ_backward.any()


def test_estimate_accepts_an_estimator() -> None:
    def shift(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(source), 2, *target.shape[-2:])

    assert c.estimate(cases.frames(3, 8, 8), shift).forward.mean() == 1


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([torch.zeros(3, 8, 8), torch.zeros(3, 8, 16)], "frame 1 .* resize"),
        ([], "no frames"),
        (torch.zeros(0, 3, 8, 8), "no frames"),
        (torch.full((2, 3, 8, 8), torch.nan), "frame 0 has NaN"),
        (torch.full((2, 3, 8, 8), 255.0), "divide 8-bit by 255"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "divide 8-bit by 255"),
        (torch.zeros(2, 1, 8, 8), "expected .N, 3"),
    ],
)
def test_frames_that_cannot_be_used_are_refused(
    frames: torch.Tensor | list[torch.Tensor], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        c.estimate(frames)


def test_pairs_that_do_not_belong_together_are_refused() -> None:
    flow, seen = torch.zeros(2, 2, 8, 8), torch.zeros(2, 8, 8)
    with pytest.raises(InvalidInput, match="backward flow"):
        c.Correspondence(flow, flow[:1], seen, seen)
    with pytest.raises(InvalidInput, match="occ_forward"):
        c.Correspondence(flow, flow, seen[:, :4], seen)
    with pytest.raises(InvalidInput, match="NaN"):
        c.Correspondence(flow, flow * torch.nan, seen, seen)
    with pytest.raises(InvalidInput, match="other than 0"):
        c.Correspondence(flow, flow, seen + 255, seen)
    with pytest.raises(InvalidInput, match="convert it to float"):
        c.consistency_occlusion(flow.int(), flow.int())
    with pytest.raises(InvalidInput, match="cannot warp"):
        c.warp(torch.zeros(0, 3, 8, 8), torch.zeros(0, 2, 8, 8))
    with pytest.raises(InvalidInput, match="cannot warp"):
        c.warp(torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 8, 4))
    with pytest.raises(InvalidInput, match="whole fraction"):
        c.Correspondence(flow, flow, seen, seen).reduced_to(3, 3)
