from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fresco import keyframes
from fresco.errors import InvalidInput
from tests import clips
from tests.fresco import cases


@pytest.fixture
def recorded(reference_dir: Path) -> dict[str, Any]:
    return json.loads((reference_dir / "h_keyframes.json").read_text())["clips"]


def test_recorded_keyframes(recorded: dict[str, Any]) -> None:
    assert recorded
    for name, measured in recorded.items():
        for setting in measured["settings"]:
            errors = measured["error"][: setting["lastframen"]]
            keys = keyframes.propose(errors, setting["mininterv"], setting["maxinterv"])
            assert keys == setting["keys"], (name, setting)


def test_recorded_error_curve_of_a_real_clip(
    recorded: dict[str, Any], clip: Callable[[str], Path]
) -> None:
    errors = keyframes.frame_errors(clips.frames(clip("dog.mp4")))
    assert errors == pytest.approx(recorded["dog"]["error"], rel=1e-3)
    for setting in recorded["dog"]["settings"]:
        measured = errors[: setting["lastframen"]]
        keys = keyframes.propose(measured, setting["mininterv"], setting["maxinterv"])
        assert keys == setting["keys"]


ERRORS = st.lists(st.floats(0, 4), min_size=1, max_size=80)


@given(ERRORS, st.integers(1, 9), st.integers(0, 12))
def test_proposals_hold_what_they_promise(errors: list[float], s_min: int, more: int) -> None:
    keys = keyframes.propose(errors, s_min, s_min + more, reach_end=True)
    last = len(errors) - 1
    assert keys[0] == 0
    assert keys[-1] == last
    assert keys == sorted(set(keys))
    if more:  # greedy keys keep their distance, except that the last frame is always a key
        assert all(later - key >= s_min for key, later in pairwise(keys[:-1]))


@given(ERRORS, st.integers(1, 9))
def test_equal_intervals_are_regular_and_may_reach_the_end(errors: list[float], step: int) -> None:
    regular = keyframes.propose(errors, step, step)
    assert regular == list(range(0, len(errors), step))
    last = len(errors) - 1
    assert keyframes.propose(errors, step, step, reach_end=True) == sorted({*regular, last})


def test_the_largest_change_becomes_a_key() -> None:
    errors = [0.0] + [0.1] * 30
    errors[13] = 2.0
    assert 13 in keyframes.propose(errors, 5, 20)


def test_shots_are_proposed_by_themselves() -> None:
    errors = [0.0] + [0.1] * 39
    errors[20] = 3.9  # the cut itself would be the greatest change
    shots = keyframes.propose_per_shot(errors, [20], 4, 12)
    assert shots[0][0] == 0
    assert shots[0][-1] == 19
    assert shots[1][0] == 20
    assert shots[1][-1] == 39
    assert keyframes.propose_per_shot(errors, [], 4, 12) == [keyframes.propose(errors, 4, 12)]


@given(
    st.lists(st.floats(0, 9), min_size=1, max_size=90),
    st.sets(st.integers(0, 99), max_size=12),
    st.integers(1, 9),
    st.integers(0, 20),
)
def test_turns_are_keys_and_what_is_between_them_is_proposed_by_itself(
    errors: list[float], turns: set[int], s_min: int, more: int
) -> None:
    (keys,) = keyframes.propose_per_shot(errors, [], s_min, s_min + more, sorted(turns))
    ends = [0]
    for turn in sorted(turns):
        if 0 < turn < len(errors) - 1 and (len(ends) == 1 or turn - ends[-1] >= s_min):
            ends.append(turn)
    ends += [len(errors) - 1] if len(errors) > 1 else []
    assert set(ends) <= set(keys)
    assert keys == sorted(set(keys))
    for first, last in pairwise(ends):
        between = keyframes.propose(errors[first : last + 1], s_min, s_min + more, reach_end=True)
        assert [key for key in keys if first <= key <= last] == [first + key for key in between]


def test_errors_are_a_stream_of_squares() -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)
    frames = torch.cat((grey, grey, grey + 0.2))
    errors = keyframes.frame_errors(frame for frame in frames)
    assert errors[:2] == [0, 0]
    assert errors[2] == pytest.approx((0.4) ** 2, rel=0.02)


def test_a_long_stream_is_never_held() -> None:
    alive: set[int] = set()
    most = 0

    def stream(count: int) -> Any:
        nonlocal most
        for index in range(count):
            frame = torch.zeros(3, 16, 16)
            alive.add(index)
            weakref.finalize(frame, alive.discard, index)
            most = max(most, len(alive))
            yield frame
            del frame

    keyframes.frame_errors(stream(12))
    assert most <= 3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: keyframes.frame_errors([]), "no frames"),
        (
            lambda: keyframes.frame_errors([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)]),
            "frame 1 has shape",
        ),
        (lambda: keyframes.propose([], 1, 2), "no frame errors"),
        (lambda: keyframes.propose([0, float("nan")], 1, 2), "measure them again"),
        (lambda: keyframes.propose([0, 1], 0, 2), "1 <= shortest"),
        (lambda: keyframes.propose([0, 1], 3, 2), "1 <= shortest"),
        (lambda: keyframes.propose_per_shot([0, 1, 2], [2, 1], 1, 2), "not ascending"),
        (lambda: keyframes.propose_per_shot([0, 1, 2], [3], 1, 2), "between 1 and 2"),
        (lambda: keyframes.check([], 5), "no keyframes"),
        (lambda: keyframes.check([0, 5, -1], 5), r"\[-1, 5\] are outside .* 0 to 4"),
    ],
)
def test_what_cannot_be_used_is_refused(call: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        call()


def test_a_users_keyframes_are_put_in_order() -> None:
    assert keyframes.check([7, 0, 7, 3], 8) == [0, 3, 7]
    assert len(keyframes.frame_errors(cases.frames(1, 32, 32))) == 1
    assert keyframes.propose([0.0], 10, 30) == [0]
