"""Which results a change reaches: told by the keys alone, before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bridge_server import environment, plan
from bridge_server.job import Job, settle
from bridge_server.plan import Painting, Plan, Record
from bridge_server.request import Change, Method, Request
from fresco.errors import InvalidInput
from fresco.memory import Limits
from tests.bridge_server.reels import reel


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("clip") / "two shots.mp4", (13, 12))


def job(clip: Path, **wishes: Any) -> Job:
    asked = {"size": 64, "keyframes": "every:4", "cuts": "13", "output": "", **wishes}
    return settle(Request(clip=str(clip), **asked), environment.here("cpu", 1))


def planned(own: Job, batch: int = 4) -> Plan:
    shots, notes = plan.shots(own, [0.0] * len(own.span), [])
    return plan.plan(own, shots, notes, Limits(), batch)


def of(own: Plan) -> dict[str, set[str]]:
    return {
        "translate": {unit.key for unit in own.translations},
        "redo": {unit.key for unit in own.redone},
        "propagate": {unit.key for shot in own.intervals for unit in shot},
    }


def test_no_interval_crosses_a_cut_and_every_frame_is_made_once(clip: Path) -> None:
    own = planned(job(clip))

    assert [shot.keyframes for shot in own.shots] == [(0, 4, 8, 12), (13, 17, 21, 24)]
    spans = [(unit.start, unit.stop) for shot in own.intervals for unit in shot]
    assert spans == [(1, 4), (5, 8), (9, 12), (14, 17), (18, 21), (22, 24)]
    made = sorted([*own.keyframes, *(f for start, stop in spans for f in range(start, stop))])
    assert made == list(range(25))


def test_a_later_shot_sees_only_the_first_keyframe_of_the_first(clip: Path) -> None:
    own = planned(job(clip))

    assert [unit.keyframes for unit in own.translations] == [(0, 4, 8, 12), (13, 17, 21, 24)]
    assert own.translations[1].anchors == ()
    assert own.translations[1].style == Record(0, own.translations[0].key)
    alone = planned(job(clip, shared_style=False))
    assert alone.translations[1].style is None


def test_another_method_is_another_translation(clip: Path) -> None:
    usual, other = job(clip), job(clip, method=Method(spatial=False, temporal_until=0.5))
    assert other.settings == replace(usual.settings, spatial=False, temporal_until=0.5)
    assert not of(planned(usual))["translate"] & of(planned(other))["translate"]


def test_batches_are_a_chain(clip: Path) -> None:
    own = planned(job(clip, keyframes="every:2"), batch=5)

    first, second = own.translations[:2]
    assert first.anchors == ()
    assert second.anchors == (Record(0, first.key), Record(first.keyframes[-1], first.key))


@pytest.mark.parametrize(
    ("wish", "reached"),
    [
        ({"prompt": "oil"}, {"translate", "propagate"}),
        ({"seed": 5}, {"translate", "propagate"}),
        ({"strength": 0.5}, {"translate", "propagate"}),
        ({"propagation": "flow"}, {"propagate"}),
        ({"feather": 3.0}, set()),
        ({"preserve_colour": True}, set()),
        ({"codec": "hevc"}, set()),
        ({"size": 128}, {"translate", "propagate"}),
    ],
)
def test_what_a_wish_reaches(clip: Path, wish: dict[str, Any], reached: set[str]) -> None:
    before, after = of(planned(job(clip))), of(planned(job(clip, **wish)))

    assert {stage for stage in before if before[stage] != after[stage]} == reached


def test_a_changed_keyframe_reaches_itself_and_the_two_intervals_beside_it(clip: Path) -> None:
    before = planned(job(clip))
    after = planned(job(clip, changes=(Change(4, "prompt", "night"),)))

    assert before.translations == after.translations
    assert [unit.before.number for unit in after.redone] == [4]
    assert after.redone[0].neighbours == (before.keyframes[0], before.keyframes[8])
    changed = of(before)["propagate"] ^ of(after)["propagate"]
    spans = {
        (unit.start, unit.stop)
        for own in (before, after)
        for shot in own.intervals
        for unit in shot
        if unit.key in changed
    }
    assert spans == {(1, 4), (5, 8)}


def test_two_changed_neighbours_do_not_reach_each_other(clip: Path) -> None:
    one = planned(job(clip, changes=(Change(4, "seed", "3"),)))
    both = planned(job(clip, changes=(Change(4, "seed", "3"), Change(8, "seed", "3"))))

    assert one.redone[0] == both.redone[0]


def picture(folder: Path, name: str = "a.png") -> str:
    path = folder / name
    cv2.imwrite(str(path), np.full((64, 96, 3), 90, np.uint8))
    return str(path)


def test_a_painted_keyframe_reaches_only_the_two_intervals_beside_it(
    clip: Path, tmp_path: Path
) -> None:
    before = planned(job(clip))
    after = planned(job(clip, changes=(Change(8, "painted", picture(tmp_path)),)))

    assert before.translations == after.translations
    assert after.redone == ()
    assert isinstance(after.keyframes[8], Painting)
    assert len(of(before)["propagate"] - of(after)["propagate"]) == 2


def test_a_painted_frame_that_was_no_keyframe_becomes_one(clip: Path, tmp_path: Path) -> None:
    before = planned(job(clip))
    after = planned(job(clip, changes=(Change(6, "painted", picture(tmp_path)),)))

    assert before.translations == after.translations
    assert after.shots[0].keyframes == (0, 4, 6, 8, 12)
    assert len(of(before)["propagate"] - of(after)["propagate"]) == 1


def test_painted_keys_alone_need_no_model(clip: Path, tmp_path: Path) -> None:
    painted = picture(tmp_path)
    changes = (Change(2, "painted", painted), Change(20, "painted", painted))
    own = job(clip, keyframes="2,20", changes=changes)

    assert own.spec is None
    found = planned(own)
    assert found.translations == ()
    spans = [(u.start, u.stop, u.left, u.right) for shot in found.intervals for u in shot]
    assert [(start, stop) for start, stop, _, _ in spans] == [(0, 2), (3, 13), (13, 20), (21, 25)]
    assert [(a is None, b is None) for _, _, a, b in spans] == [
        (True, False), (False, True), (True, False), (False, True),
    ]  # fmt: skip


def test_a_painted_clip_with_a_shot_without_a_key_is_refused(clip: Path, tmp_path: Path) -> None:
    own = job(clip, keyframes="2", changes=(Change(2, "painted", picture(tmp_path)),))

    with pytest.raises(InvalidInput, match=r"frames 13 to 24 are a shot of their own.*--range"):
        planned(own)


def test_a_shot_without_an_asked_keyframe_gets_its_first_frame_and_says_so(clip: Path) -> None:
    own = planned(job(clip, keyframes="2,5"))

    assert [shot.keyframes for shot in own.shots] == [(2, 5), (13,)]
    assert any("frame 13 was made one" in note for note in own.notes)


def test_a_change_of_no_keyframe_names_the_nearest_one(clip: Path) -> None:
    with pytest.raises(InvalidInput, match=r"frame 5.*no keyframe; the nearest is 4"):
        planned(job(clip, changes=(Change(5, "prompt", "night"),)))


def test_keyframes_and_cuts_outside_the_range_are_refused(clip: Path) -> None:
    with pytest.raises(InvalidInput, match=r"keyframes \[40\]"):
        planned(job(clip, keyframes="2,40"))
    with pytest.raises(InvalidInput, match=r"cuts \[13\]"):
        planned(job(clip, stop=10))


def test_the_environment_and_the_clips_bytes_are_in_every_key(clip: Path, tmp_path: Path) -> None:
    own = job(clip)
    other = replace(own, environment=replace(own.environment, threads=2))
    more = replace(own, environment=replace(own.environment, memory=1))
    renamed = tmp_path / "other name.mp4"
    renamed.symlink_to(clip)

    assert not of(planned(own))["propagate"] & of(planned(other))["propagate"]
    assert plan.analyse(own).key != plan.analyse(other).key
    assert of(planned(own)) == of(planned(more))
    assert of(planned(own)) == of(planned(job(renamed)))
