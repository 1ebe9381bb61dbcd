from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fresco import features as f
from fresco.blocks import block_input
from fresco.correspondence import Correspondence
from fresco.errors import InvalidInput, UnsupportedModel
from fresco.guidance import FeatureGuidance, guided_features
from fresco.reference import record
from tests.fresco import cases, plain, tiny
from tests.vectors import Vectors

#: variant → temporal, spatial weight
VARIANTS = {"temporal": (True, 0.0), "spatial": (False, 100.0), "both": (True, 100.0)}


def recorded_pairs(v: Vectors) -> Correspondence:
    return Correspondence(v["fwd_flows"], v["bwd_flows"], v["fwd_occs"], v["bwd_occs"])


def factored(gram: Tensor, height: int, width: int) -> Tensor:
    """Features (B, C, h, w) whose cosine Gram matrix is `gram`: its scaled eigenvectors."""
    values, vectors = torch.linalg.eigh(gram.double())
    features = vectors * values.clamp_min(0).sqrt()[:, None]
    return features.transpose(1, 2).unflatten(2, (height, width)).float()


@pytest.fixture
def recorded(golden: Callable[[str], Vectors]) -> tuple[Vectors, Tensor, Correspondence, Tensor]:
    v = golden("e_optimize_feature")
    x = v["sample"]
    return v, x, recorded_pairs(v), factored(v["correlation_matrix"], *x.shape[-2:])


Recorded = tuple[Vectors, Tensor, Correspondence, Tensor]


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_first_loss_and_gradient(recorded: Recorded, variant: str) -> None:
    v, x, pairs, target = recorded
    temporal, weight = VARIANTS[variant]
    x.requires_grad_()
    loss = x.new_zeros(())
    if temporal:
        loss = loss + f.temporal_loss(x, pairs)
    if weight:
        loss = loss + weight * f.gram_loss(x, target)
    (gradient,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(loss, v[f"{variant}_losses"][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, v[f"{variant}_grad_iter1"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_descent(recorded: Recorded, variant: str) -> None:
    v, x, pairs, target = recorded
    temporal, weight = VARIANTS[variant]
    moved, losses = f.descend(x, pairs, target, temporal, weight)
    torch.testing.assert_close(losses, v[f"{variant}_losses"], rtol=2e-3, atol=0)
    assert (moved - v[f"{variant}_pre_adain"]).abs().mean() < 0.02
    one, _ = f.descend(x, pairs, target, temporal, weight, iterations=1)
    # Adam divides a gradient near its epsilon of 1e-8 by itself: rounding there is magnified.
    torch.testing.assert_close(one, v[f"{variant}_pre_adain_iters1"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_output(recorded: Recorded, variant: str) -> None:
    v, x, pairs, target = recorded
    temporal, weight = VARIANTS[variant]
    distance = (f.optimise(x, pairs, target, temporal, weight) - v[f"{variant}_out"]).abs()
    mean, largest = (1e-3, 0.5) if variant == "temporal" else (0.02, 1.0)
    assert distance.mean() < mean
    assert distance.max() < largest


@pytest.mark.parametrize(("scale", "halves"), [(1, 1), (8, 2)])
def test_recorded_background_fuse(
    golden: Callable[[str], Vectors], scale: int, halves: int
) -> None:
    v = golden("f_warp_tensor")
    x = v[f"sample_scale{scale}"]
    kept = x.clone()
    pairs = recorded_pairs(v)
    assert len(x) == halves * pairs.frames
    fused = f.fuse_background(x, pairs, v["saliency"])
    torch.testing.assert_close(fused, v[f"out_scale{scale}"], rtol=0, atol=1e-4)
    assert torch.equal(x, kept)


@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 200),
    st.integers(0, 1000),
)
def test_row_blocks_equal_whole_gram_matrices(
    samples: int, channels: int, height: int, width: int, block: int, seed: int
) -> None:
    x = cases.features(samples, channels, height, width, seed).requires_grad_()
    target = cases.features(samples, channels + 1, height, width, seed + 1)
    whole = plain.gram_loss(x, plain.gram(target))
    blocked = f.gram_loss(x, target, gram_block=block)
    # A sign is not defined where a difference is rounding alone (one channel: cosines of ±1).
    difference = (plain.gram(x.detach()) - plain.gram(target)).abs()
    off = ~torch.eye(height * width, dtype=torch.bool)
    assume(bool((difference[:, off] > 1e-5).all()))
    torch.testing.assert_close(blocked, whole, rtol=1e-4, atol=1e-6)
    (ours,), (plainly,) = torch.autograd.grad(blocked, x), torch.autograd.grad(whole, x)
    # Short tokens magnify rounding by their inverse length.
    length = x.detach().norm(dim=1, keepdim=True)
    torch.testing.assert_close(ours * length, plainly * length, rtol=1e-3, atol=1e-6)


@given(st.integers(1, 3), st.sampled_from([1, 2]), st.integers(1, 3), st.integers(0, 1000))
def test_temporal_loss_equals_the_one_written_out(
    frames: int, halves: int, rows: int, seed: int
) -> None:
    pairs = cases.correspondence(frames, rows * 4, 8, seed)
    x = cases.features(frames * halves, 3, rows * 4, 8, seed).requires_grad_()
    hidden = (pairs.occ_forward[:, None], pairs.occ_backward[:, None])
    plainly = plain.temporal_loss(x, pairs.forward, pairs.backward, *hidden)
    ours = f.temporal_loss(x, pairs)
    torch.testing.assert_close(ours, plainly, rtol=1e-4, atol=1e-5)
    (gradient,), (expected,) = torch.autograd.grad(ours, x), torch.autograd.grad(plainly, x)
    # Where a residual is rounding alone its sign is chance: allow such single entries.
    wrong = (gradient - expected).abs() > 1e-5
    assert wrong.float().mean() < 0.02


@settings(max_examples=10)
@given(st.integers(2, 4), st.integers(0, 100))
def test_optimisation_equals_the_plain_one(frames: int, seed: int) -> None:
    pairs = cases.correspondence(frames, 32, 32, seed)
    x = cases.features(2 * frames, 6, 8, 8, seed)
    target = cases.features(2 * frames, 6, 8, 8, seed + 1)
    quadruple = (pairs.forward, pairs.backward, pairs.occ_forward, pairs.occ_backward)
    expected = plain.optimise(x, quadruple, plain.gram(target), iterations=3)
    result = f.optimise(x, pairs, target, iterations=3)
    assert (result - expected).abs().mean() < 5e-3
    assert (result - x).abs().mean() > 0.1  # both did move


def test_both_losses_fall() -> None:
    pairs = cases.correspondence(3, 64, 64)
    x, target = cases.features(6, 8, 8, 8), cases.features(6, 8, 8, 8, seed=9)
    for temporal, weight in VARIANTS.values():
        _, losses = f.descend(x, pairs, target, temporal, weight)
        assert losses[-1] < 0.8 * losses[0]


def test_equal_frames_that_do_not_move_are_at_rest() -> None:
    x = cases.features(1, 4, 8, 8).repeat(6, 1, 1, 1)
    still = cases.still(3, 64, 64)
    assert f.temporal_loss(x, still) == 0
    moved, losses = f.descend(x, still)
    assert not losses.any()
    torch.testing.assert_close(moved, x)


def test_output_has_the_statistics_of_the_input() -> None:
    pairs, x = cases.correspondence(2, 64, 64), cases.features(4, 5, 8, 8) * 3 + 1
    target = cases.features(4, 5, 8, 8, seed=1)
    for epsilon in (1.0, 1e-5):
        out = f.optimise(x, pairs, target, adain_epsilon=epsilon)
        torch.testing.assert_close(out.mean((2, 3)), x.mean((2, 3)), rtol=1e-3, atol=1e-3)
        expected = (x.var((2, 3)) + epsilon).sqrt()
        torch.testing.assert_close(out.std((2, 3)), expected, rtol=1e-3, atol=1e-3)


def test_nothing_to_minimise_returns_the_input_itself() -> None:
    pairs, x = cases.correspondence(2, 64, 64), cases.features(4, 5, 8, 8)
    assert f.optimise(x, pairs, temporal=False) is x
    assert f.optimise(x, pairs, x, temporal=False, spatial_weight=0) is x
    assert f.optimise(x, pairs, x, iterations=0) is x


def test_same_bits_every_time_and_whatever_the_half() -> None:
    pairs, x = cases.correspondence(3, 64, 64), cases.features(3, 8, 16, 16)
    target = cases.features(3, 8, 16, 16, seed=1)
    first = f.optimise(torch.cat((x, x)), pairs, torch.cat((target, target)))
    second = f.optimise(torch.cat((x, x)), pairs, torch.cat((target, target)))
    assert torch.equal(first, second)
    assert torch.equal(first[:3], first[3:])


def test_half_precision_stays_half_precision() -> None:
    pairs, x = cases.correspondence(2, 64, 64), cases.features(4, 5, 8, 8)
    target = cases.features(4, 5, 8, 8, seed=1)
    out = f.optimise(x.bfloat16(), pairs, target.bfloat16())
    assert out.dtype == torch.bfloat16
    expected = f.optimise(x.bfloat16().float(), pairs, target.bfloat16().float())
    torch.testing.assert_close(out, expected.bfloat16())


def test_one_token_and_empty_tokens_stay_finite() -> None:
    pairs = cases.correspondence(2, 64, 64)
    one = cases.features(4, 5, 1, 1)
    assert torch.isfinite(f.optimise(one, pairs, one.roll(1, 0))).all()
    empty = torch.zeros(4, 5, 8, 8)
    assert torch.isfinite(f.optimise(empty, pairs, cases.features(4, 5, 8, 8))).all()


def test_an_iteration_can_stop_it() -> None:
    calls: list[int] = []

    def stop_at_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    x = cases.features(4, 5, 8, 8)
    with pytest.raises(KeyboardInterrupt):
        f.optimise(x, cases.correspondence(2, 64, 64), x, on_iteration=stop_at_third)
    assert len(calls) == 3


def test_hooks_optimise_every_block_and_are_taken_away() -> None:
    unet = tiny.unet()
    latents, text = torch.randn(4, 4, 8, 8), tiny.text(4)
    reference = record(unet, latents[:2], 1, text)
    guidance = FeatureGuidance(cases.correspondence(2, 64, 64), reference.features, iterations=2)
    calls: list[int] = []
    guidance.on_iteration = lambda: calls.append(1)

    def run() -> Tensor:
        with torch.no_grad():
            return unet(latents, 500, encoder_hidden_states=text).sample

    plainly = run()
    with guided_features(unet, guidance):
        optimised = run()
        assert len(calls) == 4 * 2 * 2  # blocks, halves, iterations
        guidance.enabled = False
        assert torch.equal(run(), plainly)
    assert (optimised - plainly).abs().max() > 1e-4
    assert torch.equal(run(), plainly)
    assert not any(module._forward_pre_hooks for module in unet.modules())


def test_a_block_called_by_position_is_optimised_too() -> None:
    class Block(torch.nn.Module):
        def forward(self, features: Tensor, skip: int) -> Tensor:
            return features + skip

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up_blocks = torch.nn.ModuleList([Block() for _ in range(4)])

    model, x = Model(), cases.features(2, 4, 8, 8)
    guidance = FeatureGuidance(cases.correspondence(2, 64, 64), iterations=1)
    with guided_features(model, guidance):
        result = model.up_blocks[2](x, 1)
    torch.testing.assert_close(result, guidance.optimise(x, 2) + 1)
    with pytest.raises(UnsupportedModel, match="without hidden_states"):
        block_input((), {"sample": x})


def test_fuse_carries_the_background_and_leaves_the_subject() -> None:
    still = cases.still(3, 64, 64)
    x = cases.features(3, 2, 8, 8)
    background = torch.ones(3, 1, 64, 64)
    background[..., 32:] = 0
    fused = f.fuse_background(x, still, background)
    assert torch.equal(fused[..., :4], x[:1, ..., :4].expand(3, -1, -1, -1))
    assert torch.equal(fused[..., 4:], x[..., 4:])


def test_what_does_not_belong_together_is_refused() -> None:
    pairs, x = cases.correspondence(2, 64, 64), cases.features(4, 5, 8, 8)
    with pytest.raises(InvalidInput, match="do not hold 2 frames"):
        f.optimise(x[:3], pairs)
    with pytest.raises(InvalidInput, match="do not belong to features"):
        f.optimise(x, pairs, x[:2])
    with pytest.raises(InvalidInput, match="whole fraction"):
        f.optimise(cases.features(4, 5, 7, 7), pairs)
    with pytest.raises(InvalidInput, match="background matte"):
        f.fuse_background(x, pairs, torch.ones(3, 1, 8, 8))


def test_autocast_does_not_reach_inside() -> None:
    pairs, x = cases.correspondence(2, 64, 64), cases.features(4, 5, 8, 8)
    target = cases.features(4, 5, 8, 8, seed=1)
    expected, loss = f.optimise(x, pairs, target), f.gram_loss(x, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(f.optimise(x, pairs, target), expected)
        assert torch.equal(f.gram_loss(x, target), loss)


def test_nothing_is_remembered_for_gradients() -> None:
    pairs, x = cases.correspondence(2, 64, 64), cases.features(4, 5, 8, 8).requires_grad_()
    target = cases.features(4, 5, 8, 8, seed=1).requires_grad_()
    assert not f.optimise(x, pairs, target).requires_grad
    assert not f.fuse_background(x, pairs, torch.ones(2, 1, 8, 8)).requires_grad


def test_half_precision_flow_is_widened_first() -> None:
    pairs, x = cases.correspondence(1, 8, 512), cases.features(1, 2, 8, 512)
    flows = [pairs.forward.half(), pairs.backward.half()]
    occlusions = [pairs.occ_forward, pairs.occ_backward]
    halved = f.temporal_loss(x, Correspondence(*flows, *occlusions))
    widened = f.temporal_loss(x, Correspondence(*(flow.float() for flow in flows), *occlusions))
    assert torch.equal(halved, widened)


def test_a_model_that_pads_its_features_is_refused() -> None:
    guidance = FeatureGuidance(cases.correspondence(1, 96, 96))
    with pytest.raises(InvalidInput, match="multiples of 64"):
        guidance.optimise(cases.features(2, 4, 2, 2), 0)
