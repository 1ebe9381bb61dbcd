from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fresco.errors import InvalidInput
from fresco.paths import link, unique_tokens
from tests.fresco import cases, plain
from tests.vectors import Vectors


@pytest.mark.parametrize("scale", [8, 16, 32])
def test_recorded_unique_tokens(golden: Callable[[str], Vectors], scale: int) -> None:
    v = golden("b_occlusion_attn_mask")
    assert torch.equal(unique_tokens(v["bwd_occs"], scale), v[f"attn_mask_s{scale}"])


@pytest.mark.parametrize("scale", [8, 16])
def test_recorded_paths(golden: Callable[[str], Vectors], scale: int) -> None:
    v = golden("c_flatten_mapping")
    paths = link(v["bwd_flows"], v["bwd_occs"], v.images("images_u8"), scale)
    assert torch.equal(paths.order, v[f"fwd_mappings_s{scale}"][:, 0])
    assert torch.equal(paths.inverse, v[f"bwd_mappings_s{scale}"][:, 0])
    assert torch.equal(paths.mask, v[f"interattn_masks_s{scale}"][:, 0])


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("scale", [8, 16])
def test_recorded_paths_with_rounding_ties(
    golden: Callable[[str], Vectors], batch: int, scale: int
) -> None:
    v, b = golden(f"i_end_to_end_batch{batch}"), f"b{batch}"
    occluded = v[f"{b}_bwd_occs"].float()
    paths = link(v[f"{b}_bwd_flows"], occluded, v.images(f"{b}_images_u8"), scale)
    assert torch.equal(paths.order, v[f"{b}_fwd_mapping_s{scale}"][:, 0])
    assert torch.equal(paths.inverse, v[f"{b}_bwd_mapping_s{scale}"][:, 0])
    assert torch.equal(paths.mask, v[f"{b}_interattn_mask_s{scale}"][:, 0])
    assert torch.equal(unique_tokens(occluded, scale), v[f"{b}_attn_mask_s{scale}"])


@given(
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([2, 4, 8]),
    st.floats(0, 12),
    st.integers(0, 10_000),
)
def test_paths_equal_the_walk_token_by_token(
    count: int, rows: int, columns: int, scale: int, reach: float, seed: int
) -> None:
    height, width = rows * scale, columns * scale
    generator = torch.Generator().manual_seed(seed)
    # Coarse values make ties of colours, targets and roundings common.
    frames = torch.randint(0, 3, (count, 3, height, width), generator=generator) / 2
    flow = (cases.flows(count, height, width, reach, seed) * 2).round() / 2
    occluded = (torch.rand(count, height, width, generator=generator) < 0.3).float()

    paths = link(flow, occluded, frames, scale)
    order, inverse, mask = plain.link(flow, occluded, frames, scale)

    assert torch.equal(paths.order, order)
    assert torch.equal(paths.inverse, inverse)
    assert torch.equal(paths.mask, mask)


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0, 12), st.integers(0, 10_000))
def test_paths_are_permutations_and_masks_block_diagonal(
    count: int, rows: int, reach: float, seed: int
) -> None:
    frames = cases.frames(count, rows * 8, 40, seed)
    flow = cases.flows(count, rows * 8, 40, reach, seed)
    occluded = (torch.rand(count, rows * 8, 40) < 0.2).float()
    paths = link(flow, occluded, frames, 8)
    tokens = torch.arange(rows * 5).expand(count, -1)

    assert torch.equal(paths.order.sort(dim=1).values, tokens)
    assert torch.equal(paths.order.gather(1, paths.inverse), tokens)
    assert paths.mask.diagonal(dim1=1, dim2=2).all()
    assert torch.equal(paths.mask, paths.mask.transpose(1, 2))
    # Block-diagonal: what is linked two frames on is linked through the frame between.
    linked_on = paths.mask.diagonal(1, 1, 2)
    for start in range(count):
        for stop in range(start, count):
            assert torch.equal(paths.mask[:, start, stop], linked_on[:, start:stop].all(dim=1))


@given(st.integers(1, 4), st.integers(1, 4))
def test_no_motion_keeps_every_token_on_its_path(count: int, rows: int) -> None:
    still = cases.still(count, rows * 8, 16)
    paths = link(still.backward, still.occ_backward, cases.frames(count, rows * 8, 16), 8)
    assert torch.equal(paths.order, torch.arange(rows * 2).expand(count, -1))
    assert paths.mask.all()


def test_first_frame_is_all_new_and_the_wrap_around_pair_is_unused() -> None:
    occluded = torch.zeros(3, 16, 16)
    occluded[0, :8, 8:] = 1
    occluded[2] = 1
    new = unique_tokens(occluded, 8)
    assert new[0].all()
    assert new[1].tolist() == [False, True, False, False]
    assert not new[2].any()


def test_exactly_half_occluded_is_not_new() -> None:
    occluded = torch.zeros(2, 8, 8)
    occluded[0, :, :4] = 1
    assert not unique_tokens(occluded, 8)[1].any()


def test_inputs_that_do_not_belong_together_are_refused() -> None:
    still = cases.still(2, 16, 16)
    with pytest.raises(InvalidInput, match="does not belong"):
        link(still.backward, still.occ_backward, cases.frames(3, 16, 16), 8)
    with pytest.raises(InvalidInput, match="leaves no token"):
        unique_tokens(torch.zeros(2, 4, 4), 8)
    with pytest.raises(InvalidInput, match="no occlusion mask"):
        unique_tokens(torch.zeros(0, 8, 8), 8)
    frames = cases.frames(2, 16, 16)
    with pytest.raises(InvalidInput, match="NaN"):
        link(still.backward * torch.nan, still.occ_backward, frames, 8)
    with pytest.raises(InvalidInput, match="backward occlusion"):
        link(still.backward, still.occ_backward[:1], frames, 8)
    with pytest.raises(InvalidInput, match="convert them to float"):
        link(still.backward, still.occ_backward, frames.byte(), 8)
    with pytest.raises(InvalidInput, match="leaves no token"):
        link(still.backward, still.occ_backward, frames, 32)
