from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.batches import Batch, plan
from fresco.errors import InvalidInput


def test_recorded_batches(reference_dir: Path) -> None:
    cases = json.loads((reference_dir / "h_batching.json").read_text())["cases"]
    assert cases
    for case in cases:
        keys = case["keys"]
        if not keys:
            continue  # refused here, see below
        expected = case["sublists"] or [keys]  # one batch made the authors' program stop
        planned = plan(keys, case["batch_size"])
        assert [list(batch.keyframes) for batch in planned] == expected, case


@given(st.integers(1, 70), st.integers(3, 12))
def test_every_keyframe_once_behind_its_anchors(count: int, size: int) -> None:
    keys = [7 * index for index in range(count)]
    batches = plan(keys, size)
    assert [key for batch in batches for key in batch.keyframes] == keys
    assert batches[0].anchors == ()
    for before, batch in pairwise(batches):
        assert set(batch.anchors) == {keys[0], before.keyframes[-1]}
        assert batch.frames == batch.anchors + batch.keyframes
        assert len(set(batch.frames)) == len(batch.frames)
    if size >= 5:
        assert all(len(batch.frames) <= size for batch in batches)
    if len(batches) > 1:
        assert len(batches[-1].keyframes) >= 3


def test_a_first_batch_of_one_keyframe_is_one_anchor() -> None:
    assert plan([0, 5, 9, 14], 3)[1] == Batch(anchors=(0,), keyframes=(5, 9, 14))


@pytest.mark.parametrize(
    ("keys", "size", "says"),
    [
        ([], 8, "no keyframes"),
        ([3, 3], 8, "ascending"),
        ([0, 1], 2, "no room"),
        ([-3, 5], 8, "before the clip"),
    ],
)
def test_what_cannot_be_planned_is_refused(keys: list[int], size: int, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        plan(keys, size)
