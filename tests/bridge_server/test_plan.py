"""Which results a change reaches: told by the keys alone, before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from bridge_server import environment, plan, store
from bridge_server.job import Job, model_facts, settle
from bridge_server.media.errors import NotWritten, UnsupportedMedia
from bridge_server.plan import Painting, Plan, Record
from bridge_server.request import Change, ControlChoice, Method, PictureChoice, Request
from fresco.adapters import FreeU, Inversion, IPAdapter, Lora
from fresco.errors import InvalidInput
from fresco.memory import Limits
from fresco.warm import ModelSpec
from tests.bridge_server.media.films import Film, film
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


def test_what_becomes_of_hdr_matters_to_clips_that_are(clip: Path, tmp_path: Path) -> None:
    def told(own: Job) -> tuple[str, ...]:
        """The keys with either word."""
        words = ("refuse", "tone-map")
        jobs = [replace(own, request=replace(own.request, hdr=word)) for word in words]
        return tuple(plan.analyse(each).key for each in jobs)

    assert len(set(told(job(clip)))) == 1
    bright = Film("ffv1", "yuv420p10le", 96, 64, tags=(9, 16, 9, 1))
    pq = film(tmp_path / "pq.mkv", bright)
    assert len(set(told(job(pq, cuts="none", hdr="tone-map")))) == 2


def test_what_is_measured_begins_at_round_numbers_and_within_the_span(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No frame before the span is looked at: it may be the damaged one that is to be left out."""
    monkeypatch.setattr(plan, "PIECE", 10)
    whole, part = (plan.analyse(job(clip, start=start)).pieces for start in (0, 8))

    assert [(own.since, own.start, own.stop) for own in whole] == [
        (0, 0, 10), (9, 10, 20), (19, 20, 25)
    ]  # fmt: skip
    assert [(own.since, own.start, own.stop) for own in part] == [
        (8, 8, 10), (9, 10, 20), (19, 20, 25)
    ]  # fmt: skip
    assert part[1:] == whole[1:]
    (alone,) = plan.analyse(job(clip, start=10, stop=20, cuts="none")).pieces
    assert (alone.since, alone.start, alone.stop) == (10, 10, 20)
    assert alone.key != whole[1].key, "its first frame is compared with none"


def test_batches_are_a_chain(clip: Path) -> None:
    own = planned(job(clip, keyframes="every:2"), batch=5)

    first, second = own.translations[:2]
    assert first.anchors == ()
    assert second.anchors == (Record(0, first.key), Record(first.keyframes[-1], first.key))


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


#: For every field of a request: other values, and the stages whose keys they change.
EVERYTHING = {"translate", "propagate"}
REACHED: dict[str, tuple[Any, set[str]]] = {
    "clip": ("{other}", EVERYTHING),
    "prompt": ("oil", EVERYTHING),
    "negative": ("blur", EVERYTHING),
    "output": ("{folder}/other.mkv", set()),
    "sampler": ("ddim", EVERYTHING),
    "steps": (7, EVERYTHING),
    "guidance": (3.0, EVERYTHING),
    "strength": (0.5, EVERYTHING),
    "seed": (5, EVERYTHING),
    "clip_skip": (2, EVERYTHING),
    "controls": ((ControlChoice("tile", 0.5),), EVERYTHING),
    "keyframes": ("every:6", EVERYTHING),
    "cuts": ("none", EVERYTHING),
    "shared_style": (False, EVERYTHING),
    "start": (2, EVERYTHING),
    "stop": (20, EVERYTHING),
    "size": (128, EVERYTHING),
    "mask": ("{picture}", set()),
    "feather": (2.0, set()),
    "subject": ("{picture}", EVERYTHING),
    "changes": ((Change(4, "prompt", "night"),), {"redo", "propagate"}),
    "tracks": ((Change(13, "prompt", "night"),), EVERYTHING),
    "propagation": ("flow", {"propagate"}),
    "preserve_colour": (True, set()),
    "method": (Method(iterations=3), {"translate", "propagate"}),
    "codec": ("hevc", set()),
    "accept": (("bit depth",), set()),
    "until": ("keyframes", set()),
    "overwrite": (True, set()),
    # These act through the model's files and settings; see the tests below.
    "model": (None, set()),
    "vae": (None, set()),
    "preset": (None, set()),
    "loras": (None, set()),
    "pictures": (None, set()),
    "embeddings": (None, set()),
    # Through the limits and the grouping, through the span, through what a sequence is.
    "batch": (None, set()),
    "handles": (None, set()),
    "rate": (None, set()),
    "hdr": (None, set()),
}


def test_every_field_is_thought_of() -> None:
    assert set(REACHED) == set(Request.__dataclass_fields__)


@pytest.mark.parametrize("name", [name for name, (value, _) in REACHED.items() if value])
@pytest.mark.parametrize("shared", [True, False])
def test_a_field_changes_the_keys_of_what_it_reaches(
    clip: Path, tmp_path: Path, name: str, shared: bool
) -> None:
    value, reached = REACHED[name]
    if isinstance(value, str):
        other = reel(tmp_path / "o.mp4", (13, 13)) if "{other}" in value else ""
        value = value.format(other=other, folder=tmp_path, picture=picture(tmp_path))
    if name == "shared_style" and not shared:
        value = True
    wishes = {"shared_style": shared, name: value}
    source = wishes.pop("clip", str(clip))
    before = of(planned(job(clip, shared_style=shared)))
    after = of(planned(job(Path(source), **wishes)))

    assert {stage for stage in before if before[stage] != after[stage]} == reached


def test_every_part_of_a_model_is_in_its_facts(tmp_path: Path) -> None:
    def file(name: str) -> Path:
        path = tmp_path / f"{name}.safetensors"
        path.write_text(name)
        return path

    plain = ModelSpec(file("base"), controlnets=[file("net")], sampler="ddpm")
    lora, own = Lora(file("lora"), 0.5), IPAdapter(file("ip"), [torch.zeros(3, 8, 8)], 0.5)
    parts: dict[str, list[Any]] = {
        "base": [file("b")],
        "vae": [file("v")],
        "controlnets": [[], [file("n")], [file("net"), file("net")]],
        "sampler": ["ddim"],
        "prediction": ["v_prediction"],
        "clip_skip": [2],
        "config": [file("c")],
        "loras": [[lora], [replace(lora, weight=0.6)], [replace(lora, text_weight=0.1)]],
        "inversions": [[Inversion(file("i"))], [Inversion(file("i"), "word")]],
        "ip_adapters": [[own], [replace(own, scale=0.7)], [replace(own, file=file("ip2"))]],
        "image_encoder": [file("e")],
        "free_u": [FreeU(), FreeU(b1=1.4)],
    }
    told = [model_facts(plain)]
    for name, values in parts.items():
        told += [model_facts(replace(plain, **{name: value})) for value in values]

    keys = {store.key("test", facts) for facts in told}
    assert len(keys) == len(told)
    # Previews are not results.
    assert set(parts) | {"preview_vae"} == set(ModelSpec.__dataclass_fields__)


def test_settings_of_the_method_are_in_the_keys(clip: Path) -> None:
    own = job(clip)
    for change in ({"temporal_until": 0.123}, {"guidance_scale": 2.345}, {"steps": 37}):
        other = replace(own, settings=replace(own.settings, **change))
        assert not of(planned(own))["translate"] & of(planned(other))["translate"]


def test_maps_networks_and_pictures_are_in_the_keys(clip: Path, tmp_path: Path) -> None:
    """By their content: of maps all files of the sequence, of pictures also whose they are."""
    maps = tmp_path / "maps"
    maps.mkdir()
    for number in range(25):
        picture(maps, f"map_{number:04}.png")
    choice = ControlChoice("tile", 1.0, maps=str(maps / "map_0000.png"))
    told = [of(planned(job(clip, controls=(choice,), rate="")))["translate"]]
    cv2.imwrite(str(maps / "map_0007.png"), np.zeros((64, 96, 3), np.uint8))
    told.append(of(planned(job(clip, controls=(choice,))))["translate"])

    own = job(clip)
    network = tmp_path / "network.pth"
    for content in (b"one", b"two"):
        network.write_bytes(content)
        control = own.controls[0]
        drawn = replace(own, controls=(replace(control, weights=network),))
        told.append(of(planned(drawn))["translate"])
        depth = replace(own, controls=(replace(control, kind="depth", weights=network),))
        told.append({plan.bounds(depth).key})

    a, b, c = (picture(tmp_path, f"{name}.png") for name in "abc")
    cv2.imwrite(b, np.zeros((8, 8, 3), np.uint8))
    for one, two in (((a, b), (c,)), ((a,), (b, c))):
        chosen = (PictureChoice("ip", one), PictureChoice("ip", two))
        wanted = replace(own, request=replace(own.request, pictures=chosen))
        told.append(of(planned(wanted))["translate"])
    every = [key for keys in told for key in keys]
    assert len(set(every)) == len(every)


def test_hardware_and_code_are_in_the_keys(clip: Path) -> None:
    own = job(clip)
    here = own.environment
    for change in ({"hardware": "another"}, {"versions": (*here.versions, ("av", "1"))}):
        other = replace(own, environment=replace(here, **change))
        assert not of(planned(own))["translate"] & of(planned(other))["translate"]
    assert {"torch", "av", "opencv", "code"} <= dict(here.versions).keys()


def painted(folder: Path, *numbers: int) -> tuple[Change, ...]:
    return tuple(Change(number, "painted", picture(folder)) for number in numbers)


def test_painting_all_of_the_first_shot_changes_nothing_in_later_ones(
    clip: Path, tmp_path: Path
) -> None:
    before = planned(job(clip))
    after = planned(job(clip, changes=painted(tmp_path, 0, 4, 8, 12)))

    assert before.translations == after.translations
    assert before.intervals[1] == after.intervals[1]


def test_of_a_painted_first_shot_only_what_later_ones_look_at_is_translated(
    clip: Path, tmp_path: Path
) -> None:
    first = painted(tmp_path, 0, 2, 4, 6, 8, 10, 12)
    after = planned(job(clip, keyframes="every:2", changes=first))
    assert [unit.keyframes[0] for unit in after.translations if unit.keyframes[0] < 13] == [0]
    alone = planned(job(clip, keyframes="every:2", changes=first, shared_style=False))
    assert min(unit.keyframes[0] for unit in alone.translations) == 13


def test_a_painted_frame_before_the_first_keyframe_leaves_the_shared_style(
    clip: Path, tmp_path: Path
) -> None:
    before = planned(job(clip, keyframes="2,8,20"))
    after = planned(job(clip, keyframes="2,8,20", changes=painted(tmp_path, 0)))

    assert before.translations == after.translations
    assert after.translations[-1].style == Record(2, after.translations[0].key)


def test_a_painted_frame_is_a_key_of_its_shot(clip: Path, tmp_path: Path) -> None:
    own = job(clip, keyframes="2", changes=painted(tmp_path, 2, 20))
    assert own.spec is None
    assert [shot.keyframes for shot in planned(own).shots] == [(2,), (20,)]
    asked = planned(job(clip, prompt="ink", keyframes="2", changes=painted(tmp_path, 20)))
    assert [shot.keyframes for shot in asked.shots] == [(2,), (20,)]
    assert asked.notes == ()


def test_a_job_that_nothing_is_said_of_says_so(clip: Path) -> None:
    said = "there is no prompt, so nothing tells how the clip is to look"
    later = Change(8, "prompt", "an oil painting")
    assert said in job(clip, prompt=" ").notes
    assert job(clip, prompt=" ", changes=(later,)).notes == ()
    assert job(clip, prompt=" ", tracks=(later,)).notes == ()


def test_what_has_nothing_to_act_on_or_is_stretched_is_told(clip: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((16, 640), np.uint8))
    wishes = {"mask": str(tmp_path / "wide.png"), "prompt": "ink"}
    (told,) = job(clip, **wishes).notes
    assert told == "wide.png (mask) has another shape than the clip; it is stretched"
    assert "there is no mask" in job(clip, prompt="ink", feather=3).notes[0]
    assert "rate 99 is for images" in job(clip, prompt="ink", rate="99").notes[0]


@pytest.mark.parametrize("until", ["first_frame", "keyframes", "done"])
@pytest.mark.parametrize(
    ("output", "wishes", "said"),
    [
        ("black.png", {}, r"black.png names no image sequence; .* as in black.####.png"),
        ("out.xyz", {}, r"h264 is not written to out.xyz; end it in .mp4"),
        ("nothing", {}, r"h264 is not written to nothing; end it in .mp4"),
        ("out.mp4", {"codec": "dnxhr-hq"}, r"dnxhr-hq is not written to out.mp4; end it in .mov"),
        ("", {"codec": "gif"}, "there is no profile 'gif'"),
        ("{clip}", {"overwrite": True}, "is the source itself"),
    ],
)
def test_an_output_that_can_never_be_is_refused_before_keyframes_are_made(
    clip: Path, tmp_path: Path, until: str, output: str, wishes: dict[str, Any], said: str
) -> None:
    named = {"output": str(clip if output == "{clip}" else tmp_path / output)} if output else {}
    asked = Request(str(clip), "ink", until=until, **named, **wishes)
    with pytest.raises((InvalidInput, UnsupportedMedia, NotWritten), match=said):
        settle(asked, environment.here("cpu", 1))
    if output:  # who wants a sheet of keyframes names no clip
        keyframes = replace(asked, until="keyframes", codec="")
        assert settle(keyframes, environment.here("cpu", 1), whole=False).output


def test_a_place_that_may_become_free_is_no_reason_to_refuse_keyframes(
    clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"of before")
    for output in (tmp_path / "out.mp4", tmp_path / "later" / "out.mp4", tmp_path):
        assert job(clip, prompt="ink", until="keyframes", output=str(output)).notes == ()


def test_a_quick_look_needs_no_other_keyframe_and_none_that_is_painted(
    clip: Path, tmp_path: Path
) -> None:
    def look(**wishes: Any) -> Plan:
        own = job(clip, until="first_frame", **wishes)
        shots, notes = plan.shots(own, [0.0] * len(own.span), [])
        return plan.plan(own, plan.only_first(own, shots), notes, Limits(), 4)

    night = look(changes=(Change(8, "prompt", "night"), *painted(tmp_path, 12)))
    assert ([unit.keyframes for unit in night.translations], night.redone) == ([(0,)], ())
    assert [unit.before.number for unit in look(changes=(Change(0, "seed", "2"),)).redone] == [0]
    assert look(changes=painted(tmp_path, 0)).translations == ()
    assert look(keyframes="2,20", changes=painted(tmp_path, 2, 20)).translations == ()


# ------------------------------------------------------------------------- what changes over time


def keys(own: Plan) -> list[str]:
    return [unit.key for unit in own.translations]


def chained(clip: Path, *tracks: str, **wishes: Any) -> Plan:
    """One shot, in four batches."""
    asked = {"keyframes": "every:2", "cuts": "none", **wishes}
    own = planned(job(clip, tracks=tuple(map(Change.parse, tracks)), **asked), batch=5)
    batches = [unit.keyframes for unit in own.translations]
    assert batches == [(0, 2, 4, 6, 8), (10, 12, 14), (16, 18), (20, 22, 24)]
    return own


@pytest.mark.parametrize(
    "tracks",
    [
        ("prompt@99=night",),
        ("seed@13=4", "seed@14=0"),
        ("strength@0=0.75", "negative@7=", "prompt@7="),
    ],
)
def test_what_no_keyframe_sees_of_tracks_changes_no_key(
    clip: Path, tracks: tuple[str, ...]
) -> None:
    usual, told = chained(clip, strength=0.75), chained(clip, *tracks, strength=0.75)
    assert (keys(told), of(told)) == (keys(usual), of(usual))


@pytest.mark.parametrize(
    "said", ["prompt@{}=night", "negative@{}=a", "strength@{}=.5", "seed@{}=4"]
)
@pytest.mark.parametrize(("frame", "first"), [(0, 0), (7, 0), (11, 1), (15, 2), (23, 3), (24, 3)])
def test_a_track_reaches_the_batches_from_its_first_keyframe_on(
    clip: Path, said: str, frame: int, first: int
) -> None:
    usual, told = keys(chained(clip)), keys(chained(clip, said.format(frame)))
    assert [a == b for a, b in zip(usual, told, strict=True)] == [
        place < first for place in range(4)
    ]


def test_another_shot_depends_only_on_its_own_values_and_the_first_keyframe(clip: Path) -> None:
    """The clip's second shot begins at frame 13."""

    def told(*tracks: str, **wishes: Any) -> list[str]:
        return keys(planned(job(clip, tracks=tuple(map(Change.parse, tracks)), **wishes)))

    alone = {"shared_style": False}
    first, second = told(**alone)
    assert told("seed@2=4", "seed@12=0", **alone)[1] == second
    assert told("seed@13=4", **alone)[0] == first
    assert told("seed@13=4", **alone)[1] == told(seed=4, **alone)[1], "as if it were said of all"
    before, after = told(), told("seed@2=4", "seed@12=0")
    assert before[0] != after[0]
    assert before[1] != after[1], "its style hangs on the first shot"


def test_before_the_range_a_value_holds_from_its_beginning(clip: Path) -> None:
    """Handles are told what holds at their own frames."""

    def told(*tracks: str, **wishes: Any) -> list[str]:
        asked = {"start": 8, "handles": 2, "cuts": "none", "keyframes": "6,8,20", **wishes}
        return keys(planned(job(clip, tracks=tuple(map(Change.parse, tracks)), **asked)))

    assert told("seed@3=4") == told(seed=4)
    assert told("seed@6=4") == told("seed@2=9", "seed@5=4")
    assert told("seed@7=4") == told("seed@8=4") != told("seed@6=4")


def test_changes_come_on_top_of_tracks(clip: Path, tmp_path: Path) -> None:
    change = (Change(4, "prompt", "neon"),)
    usual, told = chained(clip, changes=change), chained(clip, "prompt@4=night", changes=change)
    assert keys(chained(clip, "prompt@4=night")) == keys(told)
    assert [unit.changes for unit in told.redone] == [{"prompt": "neon"}]
    assert usual.redone[0].key != told.redone[0].key
    # A painted neighbour lends the words that hold at its frame, and has no other key.
    painted = (*change, Change(5, "painted", picture(tmp_path)))
    plain, worded = (
        planned(job(clip, keyframes="0,4", cuts="none", changes=painted, tracks=tracks))
        for tracks in ((), (Change(5, "prompt", "night"),))
    )
    assert keys(plain) == keys(worded)
    assert plain.redone[0].key != worded.redone[0].key


def found(clip: Path, *tracks: str, **wishes: Any) -> list[int]:
    """The keyframes that are found in a clip in which frames 3 and 18 change most."""
    asked = {"keyframes": "auto:4-8", "cuts": "13", "prompt": "summer", **wishes}
    own = job(clip, tracks=tuple(map(Change.parse, tracks)), **asked)
    errors = [float(number in (4, 18)) for number in own.span]
    return [number for shot in plan.shots(own, errors, [])[0] for number in shot.keyframes]


def test_found_keyframes_are_where_the_words_change(clip: Path) -> None:
    usual = [0, 4, 12, 13, 18, 24]
    assert found(clip) == usual
    assert found(clip, "prompt@6=snow") == [0, 6, 12, 13, 18, 24], "none so near to another one"
    assert found(clip, "negative@22=blur") == [0, 4, 12, 13, 18, 22, 24]
    assert found(clip, "prompt@6=summer", "prompt@13=snow") == usual, "no other words within a shot"
    assert found(clip, "strength@6=0.5", "seed@7=1") == usual
    assert found(clip, "prompt@99=snow", start=0) == usual
    assert found(clip, "prompt@2=snow", start=3) == found(clip, start=3)
    every = (f"prompt@{frame}=(snow){frame / 10}" for frame in range(25))
    assert found(clip, *every) == [0, 1, 5, 9, 12, 13, 14, 18, 22, 24]


@pytest.mark.parametrize("asked", ["every:6", "0,13,24"])
def test_keyframes_that_were_asked_for_stay_what_they_are(clip: Path, asked: str) -> None:
    assert found(clip, "prompt@7=snow", keyframes=asked) == found(clip, keyframes=asked)


def test_a_sampler_that_wants_one_strength_is_told_apart_before_the_work(clip: Path) -> None:
    for sampler in ("dpmpp_2m", "dpmpp_2m_karras", "unipc"):
        with pytest.raises(InvalidInput, match=rf"{sampler} needs one strength .* 0.5 at 4"):
            chained(clip, "strength@3=0.5", sampler=sampler)
    chained(clip, "strength@3=0.5", sampler="lcm")
    chained(clip, "strength@3=0.5", "strength@0=0.501", "strength@9=0.8", steps=20, sampler="unipc")


def test_where_all_is_painted_tracks_are_told_to_be_of_no_use(clip: Path, tmp_path: Path) -> None:
    changes = (Change(2, "painted", picture(tmp_path)),)
    asked = {"keyframes": "2", "cuts": "none", "changes": changes}
    own = job(clip, tracks=(Change(3, "seed", "1"),), **asked)
    assert any("nothing comes of what changes over time" in note for note in planned(own).notes)
    assert of(planned(own)) == of(planned(job(clip, **asked)))


def test_a_subject_as_long_as_the_range_is_keyed_by_where_it_lies(
    clip: Path, tmp_path: Path
) -> None:
    subject = reel(tmp_path / "subject.mp4", (5,), sound=False)

    def told(start: int, **wishes: Any) -> list[str]:
        asked = {"keyframes": "8", "cuts": "none", "start": start, "stop": start + 5}
        return keys(planned(job(clip, subject=str(subject), **{**asked, **wishes})))

    assert told(4) != told(5)
    assert told(4) == told(4, handles=3)


def test_a_model_is_led_as_its_catalogue_recommends_if_nothing_is_asked_for(clip: Path) -> None:
    """And a network is shown edges of its own thresholds, whoever chose it and however."""
    soft, edges = job(clip).controls
    assert (soft.kind, soft.scale, soft.canny) == ("tile", 0.5, None)
    assert (edges.kind, edges.scale, edges.canny) == ("canny", 0.5, (100, 200))
    for text in ("canny:0.3", "canny:0.3:fresco-draft-canny"):
        (own,) = job(clip, controls=(ControlChoice.parse(text),)).controls
        assert (own.kind, own.scale, own.canny) == ("canny", 0.3, (100, 200))


def test_other_thresholds_of_edges_make_other_keyframes(clip: Path) -> None:
    own = job(clip, controls=(ControlChoice("canny"),))
    (edges,) = own.controls
    other = replace(own, controls=(replace(edges, canny=(50, 100)),))
    assert not of(planned(own))["translate"] & of(planned(other))["translate"]
