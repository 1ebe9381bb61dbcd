"""From a clip to a clip, with the draft model, real files and a real store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from bridge_server import environment, plan, stages
from bridge_server.errors import NotEnoughSpace
from bridge_server.events import Event, KeyframeDone, Note, Preview, Progress, ignore
from bridge_server.job import Job, settle
from bridge_server.media import probe
from bridge_server.media.errors import NotWritten
from bridge_server.render import Outcome, analyse, export, render
from bridge_server.request import Change, ControlChoice, Request
from bridge_server.stages import Bench
from bridge_server.store import Store
from fresco.callbacks import CancelToken
from fresco.control import Canny, Tile, control_maps
from fresco.errors import Cancelled, InvalidInput, OutOfMemory
from fresco.frames import to_bytes
from fresco.propagate.parallel import Job as Interval
from fresco.propagate.parallel import intervals
from fresco.translate import translate
from fresco.warm import WarmModels
from tests.bridge_server.media.films import Film, film
from tests.bridge_server.reels import pictures, reel
from training.judge import edge_agreement

HERE = environment.here("cpu", 1)
DEMO = Path(stages.__file__).parent / "data" / "demo.mp4"


@pytest.fixture(scope="module")
def models() -> WarmModels:
    return WarmModels(HERE.memory, HERE.torch_device, HERE.torch_dtype)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("clip ü") / "one shot.mp4", (9,))


class Desk:
    """Renders into one store and keeps what was told."""

    def __init__(self, folder: Path, models: WarmModels) -> None:
        self.folder, self.models = folder, models
        self.store = Store(folder / "store")
        self.told: list[Event] = []

    def job(self, clip: Path, **wishes: Any) -> Job:
        asked = {
            "prompt": "oil painting",
            "size": 64,
            "steps": 3,
            "keyframes": "every:4",
            "cuts": "none",
            "output": str(self.folder / "out.mkv"),
            "codec": "ffv1",
            "overwrite": True,
            **wishes,
        }
        return settle(Request(clip=str(clip), **asked), HERE)

    def render(self, clip: Path, cancel: CancelToken | None = None, **wishes: Any) -> Outcome:
        self.told = []
        return render(self.job(clip, **wishes), self.store, self.models, self.told.append, cancel)

    def made(self) -> dict[str, float]:
        """What each stage still had to do at its beginning."""
        begun: dict[str, float] = {}
        for event in self.told:
            if isinstance(event, Progress):
                begun.setdefault(event.stage, event.total - event.done)
        return begun

    @property
    def frames(self) -> list[np.ndarray]:
        return pictures(self.folder / "out.mkv")


@pytest.fixture
def desk(tmp_path: Path, models: WarmModels) -> Desk:
    return Desk(tmp_path, models)


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, models: WarmModels, clip: Path
) -> tuple[Path, Outcome]:
    """A rendered clip: its folder, with store and file."""
    desk = Desk(tmp_path_factory.mktemp("done"), models)
    return desk.folder, desk.render(clip)


@pytest.fixture
def again(desk: Desk, done: tuple[Path, Outcome]) -> Desk:
    """A desk with all results of a rendered clip."""
    shutil.copytree(done[0], desk.folder, dirs_exist_ok=True)
    return desk


def test_a_clip_comes_back_with_its_frames_rate_size_and_sound(
    done: tuple[Path, Outcome], clip: Path
) -> None:
    folder, outcome = done
    source, result = probe.probe(clip), probe.probe(folder / "out.mkv")

    assert (result.count, result.rate) == (source.count, source.rate)
    assert (result.width, result.height) == (source.width, source.height)
    assert len(result.audio) == 1
    assert outcome.report is not None
    assert outcome.report.ok
    before, after = pictures(clip), pictures(folder / "out.mkv")
    assert np.abs(before[3].astype(float) - after[3]).mean() > 8, "it was restyled"


def test_keyframes_are_on_the_timeline_as_they_were_styled(done: tuple[Path, Outcome]) -> None:
    folder, outcome = done
    frame = pictures(folder / "out.mkv")[4].astype(float) / 255

    key = outcome.picture(4).permute(1, 2, 0).numpy()
    assert np.abs(key - frame).mean() < 0.02  # halved chroma and eight bits


def test_the_same_job_again_makes_nothing_anew(again: Desk, clip: Path) -> None:
    before = again.frames
    again.render(clip)

    assert again.made() == {"analyse": 0, "translate": 0, "propagate": 0, "encode": 9}
    assert all(np.array_equal(a, b) for a, b in zip(before, again.frames, strict=True))


def test_changing_a_keyframe_makes_it_and_the_frames_beside_it(again: Desk, clip: Path) -> None:
    before = again.frames
    again.render(clip, changes=(Change(8, "prompt", "neon night"),))

    assert again.made() == {"analyse": 0, "translate": 1, "propagate": 3, "encode": 9}
    after = again.frames
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True] * 5 + [False] * 4


def test_every_keyframe_is_told_what_holds_at_its_frame(desk: Desk, clip: Path) -> None:
    """One batch, as the method alone makes it when it is told so; and nothing is made twice."""
    tracks = ("prompt@3=neon night", "negative@8=blur", "strength@4=0.4", "strength@6=0.9",
              "seed@0=5", "seed@7=0")  # fmt: skip
    told = {"tracks": tuple(map(Change.parse, tracks)), "until": "keyframes"}
    outcome = desk.render(clip, **told)
    assert desk.made()["translate"] == 3

    numbers = [0, 4, 8]
    job = desk.job(clip, **told)
    bench = Bench(job, desk.store, desk.models, ignore, CancelToken())
    bench.limits = bench.fitted(plan.fit(job, 1))[0]
    ready, frames = bench.ready(), bench.footage.at(numbers)
    alone = translate(
        frames,
        ready.model,
        bench.options(ready, numbers),
        prompts=["oil painting", "neon night", "neon night"],
        negative=["", "", "blur"],
        strengths=[job.strength, 0.4, 0.9],
        seeds=[5, 5, 0],
        controls=bench.maps(frames, numbers),
        numbers=numbers,
    )
    for number, image in zip(numbers, alone.images, strict=True):
        error = (job.size.crop(image) - outcome.picture(number)).abs().max()
        assert error < 1 / 255, number


def test_networks_are_shown_what_the_catalogue_says(desk: Desk, clip: Path) -> None:
    bench = Bench(desk.job(clip), desk.store, desk.models, ignore, CancelToken())
    frames = bench.footage.at([0, 4])
    soft, edges = bench.maps(frames, [0, 4])
    assert torch.equal(soft, control_maps(frames, Tile()))
    assert torch.equal(edges, control_maps(frames, Canny(100, 200)))
    assert not torch.equal(edges, control_maps(frames))


def test_led_as_recommended_the_drafts_lines_are_the_sources_in_soft_footage(
    desk: Desk, tmp_path: Path
) -> None:
    sharp = pictures(DEMO)[36].astype(np.float32)
    soft = cv2.GaussianBlur(sharp * 0.65 + 60, (0, 0), 0.8).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "soft_0001.png"), soft[..., ::-1])

    def agreement(**led: Any) -> float:
        wishes = {"prompt": "cartoon with ink lines", "size": 256, "steps": 8, "rate": "24"}
        outcome = desk.render(tmp_path / "soft_0001.png", until="keyframes", **wishes, **led)
        (restyled,) = to_bytes(outcome.picture(0)[None])
        return edge_agreement(soft, restyled)

    print(agreement(), agreement(controls=(ControlChoice("tile"),)))
    assert agreement() > agreement(controls=(ControlChoice("tile"),)) + 0.05


@pytest.mark.parametrize("said", ["prompt@1=neon", "negative@8=blur", "strength@6=0.3", "seed@5=3"])
def test_each_track_changes_the_keyframes_from_there_on(
    again: Desk, clip: Path, done: tuple[Path, Outcome], said: str
) -> None:
    told = {"tracks": (Change.parse(said),), "until": "keyframes"}
    outcome = again.render(clip, **told)

    assert again.made()["translate"] == 3
    assert (outcome.picture(8) - done[1].picture(8)).abs().mean() > 0.001
    again.render(clip, **told)
    assert again.made()["translate"] == 0


def test_a_track_in_a_later_batch_leaves_the_earlier_ones(desk: Desk, clip: Path) -> None:
    asked = {"keyframes": "every:1", "batch": 5, "until": "keyframes"}
    usual = desk.render(clip, **asked)
    change = {"tracks": (Change.parse("prompt@5=neon"),), "changes": (Change(6, "seed", "4"),)}
    outcome = desk.render(clip, **asked, **change)

    batches = [unit.keyframes for unit in outcome.plan.translations]
    assert batches == [(0, 1, 2, 3, 4), (5,), (6, 7, 8)]
    assert desk.made()["translate"] == 4 + 1, "the later batches, and the changed one on top"
    same = [bool((usual.picture(n) == outcome.picture(n)).all()) for n in range(9)]
    assert same == [True] * 5 + [False] * 4
    desk.render(clip, **asked, tracks=change["tracks"])
    assert desk.made()["translate"] == 0, "the change was on top of the batches"


def test_a_painted_keyframe_is_taken_as_it_is(again: Desk, clip: Path, tmp_path: Path) -> None:
    painting = np.full((64, 96, 3), (30, 60, 200), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), painting)
    before = again.frames
    again.render(clip, changes=(Change(0, "painted", str(tmp_path / "a.png")),))

    assert again.made() == {"analyse": 0, "translate": 0, "propagate": 3, "encode": 9}
    assert np.abs(again.frames[0][..., ::-1].astype(int) - painting).max() <= 3
    assert np.array_equal(before[4], again.frames[4])


def test_a_painting_of_another_shape_is_refused_before_the_work(
    desk: Desk, clip: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))

    with pytest.raises(InvalidInput, match="64 x 64, another shape than frame 0"):
        desk.job(clip, changes=(Change(0, "painted", str(tmp_path / "a.png")),))


def test_where_memory_runs_out_fewer_intervals_are_made_at_once(
    clip: Path, tmp_path: Path, models: WarmModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = list[int]()

    def scarce(
        jobs: Iterable[Interval], workers: int = 1, cancel: CancelToken | None = None
    ) -> Iterator[Tensor]:
        at_once.append(workers)
        for number, frames in enumerate(intervals(jobs, workers, cancel)):
            if number == 1 and workers > 1:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory")
            yield frames

    desks = Desk(tmp_path / "plenty", models), Desk(tmp_path / "scarce", models)
    for desk in desks:
        if desk is desks[1]:
            monkeypatch.setattr(stages, "intervals", scarce)
        job = replace(desk.job(clip, keyframes="every:2"), environment=replace(HERE, threads=4))
        render(job, desk.store, models, desk.told.append)
    said = [each.text for each in desks[1].told if isinstance(each, Note)]
    assert at_once == [4, 2, 1]
    assert [text for text in said if "memory ran out" in text] == [
        "memory ran out, so 2 at once are propagated from here on",
        "memory ran out, so 1 at once are propagated from here on",
    ]
    one, other = (desk.folder / "out.mkv" for desk in desks)
    assert one.read_bytes() == other.read_bytes()


def test_it_goes_on_where_it_was_stopped_and_ends_with_the_same_bytes(
    desk: Desk, done: tuple[Path, Outcome], clip: Path
) -> None:
    for stage in ("analyse", "translate", "propagate", "encode"):
        cancel = CancelToken()

        def watch(event: Event, stage: str = stage, cancel: CancelToken = cancel) -> None:
            if isinstance(event, Progress) and event.stage == stage and event.done >= 1:
                cancel.cancel()

        job = desk.job(clip)
        with pytest.raises(Cancelled):
            render(job, desk.store, desk.models, watch, cancel)
        left = [path for path in desk.folder.iterdir() if path.name != "store"]
        assert left == [], "nothing half-written"
    desk.render(clip)

    assert desk.made()["translate"] == 0
    expected, got = pictures(done[0] / "out.mkv"), desk.frames
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


def test_measuring_goes_on_at_the_piece_where_it_was_stopped(
    desk: Desk, tmp_path: Path, models: WarmModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut where pieces meet, a range that begins within one; all as if measured in one go."""
    source = reel(tmp_path / "cut.mp4", (12, 11), sound=False)

    def found(own: Desk, **wishes: Any) -> tuple[list[float], list[int], np.ndarray]:
        outcome, _ = analyse(own.job(source, cuts="auto", **wishes), own.store, own.told.append)
        return outcome.errors, outcome.cuts, outcome.colours

    in_one = [found(Desk(tmp_path / "other", models), **wishes) for wishes in ({}, {"start": 2})]
    assert (in_one[0][1], in_one[1][1]) == ([12], [10])
    monkeypatch.setattr(plan, "PIECE", 4)
    cancel = CancelToken()

    def watch(event: Event) -> None:
        if isinstance(event, Progress) and event.done >= 14:
            cancel.cancel()

    with pytest.raises(Cancelled):
        analyse(desk.job(source, cuts="auto"), desk.store, watch, cancel)
    for wishes, left, expected in (({}, 11, in_one[0]), ({"start": 2}, 2, in_one[1])):
        desk.told = []
        errors, cuts, colours = found(desk, **wishes)
        assert desk.made()["analyse"] == left
        assert (errors, cuts) == expected[:2]
        assert np.array_equal(colours, expected[2])


def test_cancelling_stops_within_a_step(desk: Desk, clip: Path) -> None:
    cancel = CancelToken()
    steps: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Preview):
            steps.append(event.step)
            cancel.cancel()

    with pytest.raises(Cancelled):
        render(desk.job(clip, steps=6), desk.store, desk.models, watch, cancel)
    assert len(steps) == 1


def test_until_keyframes_stops_there_and_exports_them(again: Desk, clip: Path) -> None:
    outcome = again.render(clip, until="keyframes")

    assert "propagate" not in again.made()
    assert outcome.report is None
    files = export(outcome, again.folder / "keys")
    assert sorted(files) == [0, 4, 8]
    picture = cv2.imread(str(files[4]))
    assert picture is not None
    assert picture.shape == (64, 96, 3)
    changed = again.render(clip, until="keyframes", changes=(Change(4, "seed", "9"),))
    others = export(changed, again.folder / "keys")
    assert others[0] == files[0]
    assert others[4] != files[4]
    assert files[4].exists()


def test_until_first_frame_styles_one_keyframe(desk: Desk, clip: Path) -> None:
    outcome = desk.render(clip, until="first_frame")

    assert outcome.keyframes == [0]
    assert outcome.picture(0).shape == (3, 64, 96)


def test_outside_the_mask_the_source_is_untouched(again: Desk, clip: Path, tmp_path: Path) -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 48:] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    again.render(clip, mask=str(tmp_path / "mask.png"))

    outside = [
        np.array_equal(a[:, :46], b[:, :46])
        for a, b in zip(pictures(clip), again.frames, strict=True)
    ]
    assert all(outside)
    assert np.abs(pictures(clip)[3][:, 52:].astype(int) - again.frames[3][:, 52:]).mean() > 5


def masks(folder: Path, whites: dict[int, int], count: int) -> Path:
    """Images of a mask: black, but for one grey block in frames that have one."""
    folder.mkdir()
    for index in range(count):
        mask = np.zeros((64, 96), np.uint8)
        mask[8:16, 8:16] = whites.get(index, 0)
        cv2.imwrite(str(folder / f"m.{index}.png"), mask)
    return folder


def notes(desk: Desk) -> list[str]:
    return [event.text for event in desk.told if isinstance(event, Note)]


def test_a_black_mask_is_told_before_keyframes_are_styled(
    desk: Desk, clip: Path, tmp_path: Path
) -> None:
    mask = masks(tmp_path / "one", {}, 1) / "m.0.png"
    mask = mask.rename(tmp_path / "black.png")
    desk.render(clip, mask=str(mask), until="keyframes")
    assert notes(desk) == ["black.png (mask) is black all over, so nothing will be restyled"]
    kinds = [type(event) for event in desk.told]
    assert kinds.index(Note) < kinds.index(KeyframeDone)


@pytest.mark.parametrize(
    ("whites", "until", "frames"),
    [
        ({}, "keyframes", "0, 4, 8"),
        ({5: 255}, "keyframes", "0, 4, 8"),  # it may still have white between them
        ({4: 3}, "keyframes", "0, 4, 8"),  # what a codec leaves of black
        ({4: 255}, "first_frame", "0"),
        ({8: 255}, "keyframes", ""),
        ({4: 16}, "keyframes", ""),
    ],
)
def test_a_moving_mask_is_told_where_it_is_black_at_every_keyframe(
    again: Desk, clip: Path, tmp_path: Path, whites: dict[int, int], until: str, frames: str
) -> None:
    again.render(clip, mask=str(masks(tmp_path / "mask", whites, 9)), until=until)
    told = (
        f"mask (mask) is black all over at every keyframe that was looked at ({frames}), so "
        "perhaps nothing will be restyled"
    )
    assert notes(again) == ([told] if frames else [])


def test_a_mask_of_another_length_is_refused(desk: Desk, clip: Path, tmp_path: Path) -> None:
    mask = reel(tmp_path / "mask.mp4", (5,), sound=False)

    with pytest.raises(InvalidInput, match=r"mask: mask.mp4 has 5 frames and one shot.mp4 has 9"):
        desk.job(clip, mask=str(mask))
    three = r"of which 3 are wanted; give an image, .* as the source, or .* what is wanted"
    with pytest.raises(InvalidInput, match=three):
        desk.job(clip, mask=str(mask), start=3, stop=6, handles=1)


def test_a_subject_changes_the_translation(again: Desk, clip: Path, tmp_path: Path) -> None:
    matte = np.zeros((64, 96), np.uint8)
    matte[16:48, 24:72] = 255
    cv2.imwrite(str(tmp_path / "subject.png"), matte)
    again.render(clip, subject=str(tmp_path / "subject.png"), until="keyframes")

    assert again.made()["translate"] == 3


def _painted(desk: Desk, numbers: tuple[int, ...]) -> tuple[Change, ...]:
    noisy = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    cv2.imwrite(str(desk.folder / "b.png"), cv2.GaussianBlur(noisy, (0, 0), 2))
    return tuple(Change(key, "painted", str(desk.folder / "b.png")) for key in numbers)


def test_preserved_colours_are_the_sources(desk: Desk, clip: Path) -> None:
    changes = _painted(desk, (0, 8))
    source = np.stack(pictures(clip)).mean((0, 1, 2))

    def shift(**wishes: Any) -> float:
        desk.render(clip, keyframes="0,8", changes=changes, **wishes)
        return float(np.abs(source - np.stack(desk.frames).mean((0, 1, 2))).max())

    assert shift(preserve_colour=True) < shift() / 8


def test_handles_are_extra_frames_at_both_ends(desk: Desk, clip: Path) -> None:
    own = desk.job(clip, start=3, stop=6, handles=2)
    assert own.span == range(1, 8)
    short = desk.job(clip, start=1, stop=6, handles=4)
    assert short.span == range(0, 9)
    assert any("1 frames before and 3 after" in note for note in short.notes)


def test_an_existing_file_and_the_source_are_refused_before_the_work(
    desk: Desk, clip: Path
) -> None:
    (desk.folder / "out.mkv").write_bytes(b"mine")

    with pytest.raises(NotWritten, match="exists"):
        desk.job(clip, overwrite=False)
    with pytest.raises(NotWritten, match="source itself"):
        desk.job(clip, output=str(clip), codec="h264")
    assert (desk.folder / "out.mkv").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "wishes", "shape"),
    [
        ("portrait.mp4", {"size": (112, 64)}, (112, 64)),
        ("one frame.mp4", {"lengths": (1,)}, (64, 96)),
        ("three frames.mp4", {"lengths": (3,)}, (64, 96)),
        ("odd.mkv", {"size": (51, 77), "codec": "ffv1", "pix_fmt": "yuv444p"}, (51, 77)),
        ("silent.mp4", {"sound": False}, (64, 96)),
    ],
)
def test_clips_of_every_shape_come_back(
    desk: Desk,
    tmp_path: Path,
    name: str,
    wishes: dict[str, Any],
    shape: tuple[int, int],
) -> None:
    source = reel(tmp_path / name, **wishes)
    desk.render(source, keyframes="auto:2-6")

    assert [frame.shape[:2] for frame in desk.frames] == [shape] * len(pictures(source))


def test_an_interval_that_does_not_fit_is_refused_with_what_to_do(desk: Desk, clip: Path) -> None:
    job = desk.job(clip, keyframes="0,8", changes=_painted(desk, (0, 8)))
    small = replace(job, environment=replace(HERE, memory=100_000))

    with pytest.raises(OutOfMemory, match=r"frames 1 to 7 between two keyframes.*--size"):
        render(small, desk.store, desk.models, desk.told.append)
    assert "translate" not in desk.made(), "it was refused before the work"


def test_a_disk_that_is_too_small_is_refused_before_the_work(
    desk: Desk, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(desk.folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(NotEnoughSpace, match="FRESCO_BRIDGE_STORE"):
        desk.render(clip)
    assert "translate" not in desk.made()


def test_a_folder_that_may_not_be_written_to_is_refused(
    desk: Desk, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NotWritten, match="may not be written to"):
        desk.job(clip)


@pytest.mark.parametrize("damage", ["shorter", "missing"])
def test_what_is_damaged_in_the_store_is_made_anew(again: Desk, clip: Path, damage: str) -> None:
    before = again.frames
    for file in again.store.folder.rglob("*.*"):
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:20])
    again.render(clip)

    assert again.made()["translate"] == 3
    assert all(np.array_equal(a, b) for a, b in zip(before, again.frames, strict=True))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("analysis.json", ()),
        ("colours.npy", ()),
        ("fit.json", ()),
        ("frames.npy", ()),
        ("keyframe.png", ()),
        ("record.json", (Change(4, "seed", "2"),)),
        ("record.safetensors", (Change(4, "seed", "2"),)),
    ],
)
def test_a_flipped_bit_in_the_store_is_noticed_and_made_anew(
    again: Desk, clip: Path, name: str, changes: tuple[Change, ...]
) -> None:
    again.render(clip, changes=changes)
    expected = again.frames
    files = list(again.store.folder.rglob(name))
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 16
        file.write_bytes(data)
    damaged = [file.read_bytes() for file in files]
    again.store = Store(again.store.folder)
    again.render(clip, changes=changes)

    assert all(np.array_equal(a, b) for a, b in zip(expected, again.frames, strict=True))
    assert all(file.read_bytes() != was for file, was in zip(files, damaged, strict=True))


def test_a_result_that_cannot_be_read_is_named(again: Desk, clip: Path) -> None:
    """What is damaged after it was looked through, as by a disk that fails."""
    again.render(clip)
    for file in again.store.folder.rglob("analysis.json"):
        file.write_bytes(b"x" * file.stat().st_size)

    with pytest.raises(InvalidInput, match=r"is damaged .*; remove the folder"):
        again.render(clip)


@pytest.mark.parametrize("number", [0, 4, 8])
def test_several_changes_of_a_keyframe_beside_painted_ones(
    again: Desk, clip: Path, tmp_path: Path, number: int
) -> None:
    """Also where a subject is marked, with more strength than before and with none."""
    matte = np.zeros((64, 96), np.uint8)
    matte[16:48, 24:72] = 255
    cv2.imwrite(str(tmp_path / "subject.png"), matte)
    painted = _painted(again, tuple({0, 4, 8} - {number}))
    for strength in ("1", "0"):
        changes = (
            Change(number, "prompt", "neon night"),
            Change(number, "negative", "blur"),
            Change(number, "seed", "3"),
            Change(number, "strength", strength),
            *painted,
        )
        subject = str(tmp_path / "subject.png")
        outcome = again.render(clip, until="keyframes", changes=changes, subject=subject)
        assert [unit.before.number for unit in outcome.plan.redone] == [number]
        assert outcome.picture(number).isfinite().all()


def test_a_folder_takes_the_result_under_its_usual_name(
    desk: Desk, clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "styled"
    folder.mkdir()
    frames = tmp_path / "shot"
    frames.mkdir()
    for number in range(1001, 1004):
        cv2.imwrite(str(frames / f"a_{number}.png"), np.zeros((64, 96, 3), np.uint8))
    sequence = frames / "a_####.png"

    def output(source: Path, codec: str) -> Path:
        rate = "" if source == clip else "24"
        return desk.job(source, output=str(folder), codec=codec, rate=rate).output

    assert output(clip, "h264") == folder / f"{clip.stem} restyled.mp4"
    assert output(clip, "png") == folder / f"{clip.stem} restyled" / f"{clip.stem}####.png"
    assert output(sequence, "png") == folder / "shot restyled" / "a_####.png"
    assert desk.job(clip, output=str(folder / "new.mkv")).output == folder / "new.mkv"


@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_hardly_any_strength_is_hardly_any_change(desk: Desk, clip: Path, strength: float) -> None:
    desk.render(clip, strength=strength, keyframes="0,8")

    assert len(desk.frames) == 9


def test_shots_of_one_frame_and_a_painted_first_shot(desk: Desk, tmp_path: Path) -> None:
    source = reel(tmp_path / "shots.mp4", (1, 4, 1))
    desk.render(source, cuts="1,5")
    before = desk.frames
    assert len(before) == 6
    outcome = desk.render(source, cuts="1,5", changes=_painted(desk, (0,)))

    assert [len(own) for own in (outcome.plan.translations, outcome.plan.redone)] == [3, 0]
    assert desk.made()["translate"] == 0
    same = [np.array_equal(a, b) for a, b in zip(before, desk.frames, strict=True)]
    assert same == [False] + [True] * 5


def test_a_quick_look_with_changes_elsewhere(again: Desk, clip: Path) -> None:
    changes = (Change(8, "prompt", "neon night"), *_painted(again, (0,)))
    outcome = again.render(clip, until="first_frame", changes=changes)

    assert outcome.keyframes == [0]
    assert "translate" not in again.made() or again.made()["translate"] == 0


@pytest.mark.parametrize("masks", [range(8), range(3, 5)])
def test_outside_a_moving_mask_sixteen_bits_and_alpha_come_through(
    desk: Desk, tmp_path: Path, masks: range
) -> None:
    """With a range and handles, the numbers of the files beginning anywhere.

    masks: the frames that have one: all, or those of the range; the handles hold its first and last
    """
    rng = np.random.default_rng(3)
    for folder in ("in", "mask"):
        (tmp_path / folder).mkdir()
    frames = [rng.integers(0, 2**16, (64, 96, 4), np.uint16) for _ in range(8)]
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "in" / f"a.{1001 + index}.png"), frame)
        mask = np.zeros((64, 96), np.uint8)
        mask[:, 10 * index : 10 * index + 10] = 255
        if index in masks:
            cv2.imwrite(str(tmp_path / "mask" / f"m.{index}.png"), mask)
    target = tmp_path / "out"
    target.mkdir()
    desk.render(
        tmp_path / "in", rate="24", mask=str(tmp_path / "mask"), feather=2.0, start=3, stop=5,
        handles=1, keyframes="3,5", codec="", output=str(target / "b.####.png"),
    )  # fmt: skip

    files = sorted(target.iterdir())
    assert [file.name for file in files] == [f"b.{1001 + index}.png" for index in range(2, 6)]
    for index, file in enumerate(files, start=2):
        written = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert written is not None
        assert written.dtype == np.uint16
        changed = (written != frames[index]).any(axis=(0, 2)).nonzero()[0]
        assert len(changed) > 4
        left = 10 * min(max(index, masks[0]), masks[-1])
        assert changed.min() >= left
        assert changed.max() < left + 10
        assert np.array_equal(written[..., 3], frames[index][..., 3])


def test_a_turned_clip_with_wide_pixels_is_worked_on_as_it_is_shown(
    desk: Desk, tmp_path: Path
) -> None:
    what = Film(width=96, height=64, count=3, degrees=90, aspect=Fraction(4, 3))
    source = film(tmp_path / "turned.mov", what)
    job = desk.job(source, output=str(desk.folder / "turned restyled.mov"), codec="")
    outcome = render(job, desk.store, desk.models)

    assert (job.size.height, job.size.width) == (128, 64)
    assert outcome.picture(0).shape == (3, 128, 64)
    before, after = probe.probe(source), probe.probe(job.output)
    assert (after.width, after.height, after.matrix) == (96, 64, before.matrix)
    assert after.pixel_aspect == Fraction(4, 3)


def test_images_come_back_as_images(desk: Desk, tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, frame in enumerate(pictures(clip)[:4], start=1001):
        cv2.imwrite(str(folder / f"shot_{number}.png"), frame[..., ::-1])
    desk.render(folder, rate="24", codec="", output="", keyframes="every:3", overwrite=False)

    restyled = sorted(path.name for path in (tmp_path / "in restyled").iterdir())
    assert restyled == [f"shot_{number}.png" for number in range(1001, 1005)]
    assert len(list(folder.iterdir())) == 4


def test_previews_are_pictures_of_the_keyframes(desk: Desk, clip: Path) -> None:
    shown: list[tuple[int, ...]] = []

    def watch(event: Event) -> None:
        if isinstance(event, Preview):
            shown.append(tuple(event.picture().shape))

    render(desk.job(clip, until="keyframes"), desk.store, desk.models, watch)
    assert shown
    assert all(shape[:2] == (3, 3) for shape in shown)
