from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge_server.errors import NotEnoughSpace
from bridge_server.media import formats, orient, profiles, sinks
from bridge_server.media.clip import Clip
from bridge_server.media.colour import convert, to_rgb
from bridge_server.media.decode import frames
from bridge_server.media.encode import Writer
from bridge_server.media.errors import MissingEncoder, NotAsSource, NotWritten, UnsupportedMedia
from bridge_server.media.probe import probe
from bridge_server.media.verify import State
from fresco.callbacks import CancelToken
from fresco.errors import Cancelled, InvalidInput
from tests.bridge_server.media.conftest import copied, image, same
from tests.bridge_server.media.films import FILMS, Film, Films, Write, film, repacked


def target(folder: Path, clip: Clip, profile: str | None = None, name: str = "Ergebnis é") -> Path:
    chosen = formats.named(profile) if profile else profiles.default(clip)
    return folder / f"{name}{profiles.suffix(clip, chosen)}"


def test_all_encoders_are_in_the_wheel() -> None:
    for profile in formats.PROFILES.values():
        if not profile.images:
            assert profiles.codec(profile).name == profile.encoder


@pytest.mark.parametrize("name", FILMS)
def test_every_kind_comes_back_by_default(films: Films, tmp_path: Path, name: str) -> None:
    clip = probe(films(name))
    path = target(tmp_path, clip)
    report = copied(clip, path)
    assert report.ok
    back = probe(path)
    assert (back.count, back.rate, back.alpha) == (clip.count, clip.rate, clip.alpha)
    assert back.layout.bits >= clip.layout.bits
    shown = zip(frames(clip), frames(back), strict=True)
    worst = max(float((to_rgb(a, clip).rgb - to_rgb(b, back).rgb).abs().mean()) for a, b in shown)
    assert worst < 0.012
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


EXPECTED = {
    "h264.mp4": ("h264", ".mp4"), "h264-422.mov": ("h264", ".mov"), "hevc.mp4": ("hevc", ".mp4"),
    "vp9.webm": ("h264", ".mp4"), "vp9-alpha.webm": ("prores-4444", ".mov"),
    "prores.mov": ("prores-422-hq", ".mov"), "prores-4444.mov": ("prores-4444", ".mov"),
    "dnxhr.mov": ("dnxhr-hq", ".mov"), "dnxhr-10.mov": ("dnxhr-hqx", ".mov"),
    "dnxhr-444.mov": ("dnxhr-444", ".mov"), "ffv1.mkv": ("ffv1", ".mkv"),
    "av1.mkv": ("h264", ".mkv"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_what_an_editor_wants_back(films: Films, name: str) -> None:
    clip = probe(films(name))
    profile = profiles.default(clip)
    assert (profile.name, profiles.suffix(clip, profile)) == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "suffix", "wanted"),
    [
        ("prores.mov", ".mp4", "hevc"),
        ("ffv1.mkv", ".mp4", "h264"),
        ("ffv1.mkv", ".mov", "prores-422-hq"),
        ("ffv1-rgb16.mkv", ".mov", "prores-4444"),
        ("dnxhr-444.mov", ".mkv", "prores-4444"),
        ("h264.mp4", ".png", "png"),
        ("h264.mp4", ".webm", "h264"),
    ],
)
def test_a_name_that_the_wanted_codec_does_not_fit_chooses_another(
    films: Films, name: str, suffix: str, wanted: str
) -> None:
    assert profiles.default(probe(films(name)), Path(f"out{suffix}")).name == wanted


@pytest.mark.parametrize("profile", [name for name, p in formats.PROFILES.items() if p.encoder])
def test_every_profile(write: Write, tmp_path: Path, profile: str) -> None:
    path = write(
        "source.mkv", codec="ffv1", width=258, height=130, count=3, tags=(1, 1, 1, 1)
    )  # fmt: skip
    clip = probe(path)
    path = target(tmp_path, clip, profile, "out")
    assert copied(clip, path, profile=profile).ok
    back = probe(path)
    assert back.codec == {"hevc": "hevc", "h264": "h264", "ffv1": "ffv1"}.get(
        profile, "prores" if profile.startswith("prores") else "dnxhd"
    )
    first = zip(frames(clip), frames(back), strict=True)
    assert (
        max(float((to_rgb(a, clip).rgb - to_rgb(b, back).rgb).abs().mean()) for a, b in first)
        < 0.01
    )


def test_a_clip_whose_sound_mov_does_not_hold_is_named_for_one_that_does(
    write: Write, tmp_path: Path
) -> None:
    path = write(
        "alpha.webm", codec="libvpx-vp9", pix_fmt="yuva420p", options={"auto-alt-ref": "0"},
        sound=("libopus",),
    )  # fmt: skip
    clip = probe(path)
    target_path = target(tmp_path, clip)
    assert target_path.suffix == ".mkv"
    assert copied(clip, target_path).ok
    assert [track.codec for track in probe(target_path).audio] == ["opus"]


def test_sound_that_the_container_does_not_hold_is_refused_before_the_work(
    write: Write, tmp_path: Path
) -> None:
    clip = probe(write("opus.mkv", sound=("libopus",)))
    with pytest.raises(UnsupportedMedia, match=r"sound opus; a file ending in \.mkv") as refused:
        Writer(tmp_path / "out.mov", clip)
    assert ".fresco" not in str(refused.value)
    assert [*tmp_path.glob(".fresco*"), *tmp_path.glob("out*")] == []


def test_full_chroma_stays_full_in_a_container_without_an_editing_codec(
    write: Write, tmp_path: Path
) -> None:
    clip = probe(write("full.mp4", pix_fmt="yuv444p"))
    assert profiles.default(clip).name == "prores-4444"
    assert copied(clip, tmp_path / "out.mp4")["chroma"].state is State.KEPT
    assert probe(tmp_path / "out.mp4").layout.name == "yuv444p"


@pytest.mark.parametrize("name", ["ffv1.mkv", "ffv1-rgb16.mkv", "odd.mkv"])
def test_lossless_is_bit_identical(films: Films, tmp_path: Path, name: str) -> None:
    clip = probe(films(name))
    copied(clip, tmp_path / "same.mkv")
    pairs = zip(frames(clip), frames(probe(tmp_path / "same.mkv")), strict=True)
    assert all(same(a, b) for a, b in pairs)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("degrees", [90, 180])
def test_everything_an_editor_cares_for_is_kept(
    write: Write, tmp_path: Path, suffix: str, degrees: int
) -> None:
    path = write(
        f"all.{suffix}", aspect=Fraction(4, 3), degrees=degrees, timecode="01:00:59;28",
        tags=(1, 13, 6, 2), sound=("aac", "aac"),
    )  # fmt: skip
    clip = probe(path)
    report = copied(clip, tmp_path / f"back.{suffix}", 3, 9)
    assert {row.state for row in report.rows} == {State.KEPT}
    back = probe(tmp_path / f"back.{suffix}")
    assert back.timecode == "01:01:00;03"
    assert (back.pixel_aspect, back.matrix, back.tags) == (
        clip.pixel_aspect,
        clip.matrix,
        clip.tags,
    )
    assert len(back.audio) == 2


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("start", [0, 4])
def test_variable_times_are_kept(write: Write, tmp_path: Path, suffix: str, start: int) -> None:
    pts = [0, 20, 50, 60, 90, 100, 140, 160, 170, 200, 210, 260]
    clip = probe(write(f"v.{suffix}", pts=pts, base=Fraction(1, 600)))
    report = copied(clip, tmp_path / f"back.{suffix}", start)
    assert report["times"].state is State.KEPT
    back = probe(tmp_path / f"back.{suffix}")
    apart = [
        abs((back.seconds(i) - back.seconds(0)) - Fraction(pts[i + start] - pts[start], 600))
        for i in range(back.count)
    ]
    assert max(apart) <= (Fraction(1, 1000) if suffix == "mkv" else 0)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_the_last_frame_of_a_range_lasts_as_long_as_it_did(
    write: Write, tmp_path: Path, suffix: str
) -> None:
    pts = [0, 20, 50, 60, 90, 100, 140, 160, 170, 200, 210, 260]
    clip = probe(write(f"v.{suffix}", pts=pts, base=Fraction(1, 600)))
    copied(clip, tmp_path / f"back.{suffix}", 2, 6)
    back = probe(tmp_path / f"back.{suffix}")
    assert back.seconds(4) - back.seconds(3) == Fraction(140 - 100, 600)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_last_frame_that_is_held(write: Write, tmp_path: Path, suffix: str) -> None:
    """Ten frames of 1/25 s, the last of two seconds: so long must the result be."""
    even = probe(write("e.mp4", count=10, rate=Fraction(25), options={"bf": "0"}))

    def hold_last(packet: Any) -> bool:
        if packet.pts == even.pts[-1]:
            packet.duration = round(2 / even.time_base)
        return True

    clip = probe(repacked(even.path, tmp_path / "held.mp4", hold_last))
    assert clip.variable
    report = copied(clip, tmp_path / f"back.{suffix}")
    assert report["length"].state is State.KEPT
    back = probe(tmp_path / f"back.{suffix}")
    assert abs(back.seconds(10) - back.seconds(0) - Fraction(9, 25) - 2) < Fraction(1, 100)


def test_from_milliseconds_to_an_exact_rate(films: Films, tmp_path: Path) -> None:
    clip = probe(films("odd.mkv"))
    assert clip.time_base == Fraction(1, 1000)
    assert copied(clip, tmp_path / "exact.mov", profile="prores-422-hq").ok
    back = probe(tmp_path / "exact.mov")
    assert len(set(np.diff(back.pts))) == 1
    assert back.rate == Fraction(30000, 1001)


@pytest.mark.parametrize("rate", [(24000, 1001), (60000, 1001), (120000, 1001), (25, 2), (10, 3)])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_every_rate_through_matroska(
    write: Write, tmp_path: Path, rate: tuple[int, int], count: int
) -> None:
    clip = probe(write("r.mkv", codec="ffv1", rate=Fraction(*rate), count=count))
    assert (clip.rate, clip.variable) == (Fraction(*rate), False)
    assert copied(clip, tmp_path / "back.mkv")["rate"].state is State.KEPT


@pytest.mark.parametrize(
    ("timecode", "rate", "suffix", "kept"),
    [
        ("01:00:00;00", (24, 1), "mov", "01:00:00:03"),  # nothing is dropped at 24
        ("01:00:59;28", (30, 1), "mov", "01:01:00;03"),
        ("10:00:00:00", (120, 1), "mov", "10:00:00:03"),  # FFmpeg: 10:00:00:003
        ("1:00:00:00", (25, 1), "mov", "01:00:00:03"),
        ("10:00:00:00", (1, 3), "mov", None),
        ("10:00:00:00", (1, 3), "mkv", "10:00:03:00"),
        ("10:00:00:00", (1000, 1), "mov", None),
        ("on Tuesday", (25, 1), "mov", None),
    ],
)
def test_odd_timecodes(
    write: Write, tmp_path: Path, timecode: str, rate: tuple[int, int], suffix: str, kept: str
) -> None:
    """Kept as far as the container goes, and where it does not, the report says so."""
    what = replace(probe(write("t.mkv", codec="ffv1", rate=Fraction(*rate))), timecode=timecode)
    path = tmp_path / f"back.{suffix}"
    report = copied(what, path, 3, 8, profile="prores-422-hq")
    assert report["timecode"].state is (State.KEPT if kept else State.CHANGED)
    assert probe(path).timecode_at(0) == kept


def test_a_variable_rate_with_dropped_numbers(write: Write, tmp_path: Path) -> None:
    pts = [0, 20, 50, 60, 90, 100, 140]
    clip = probe(write("v.mkv", pts=pts, base=Fraction(1, 600), count=7, timecode="01:00:00;00"))
    report = copied(clip, tmp_path / "back.mov")
    assert report.ok
    assert probe(tmp_path / "back.mov").timecode_at(0) == "01:00:00:00"


@pytest.mark.parametrize("name", ["h264.mp4", "ffv1.mkv"])
def test_one_frame(films: Films, tmp_path: Path, name: str) -> None:
    clip = probe(films(name))
    path = tmp_path / f"one{clip.path.suffix}"
    assert copied(clip, path, 5, 6).ok
    assert probe(path).count == 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9])
def test_few_frames_of_hevc(write: Write, tmp_path: Path, count: int) -> None:
    """Of one or two, x265 names decoding times that it never set; by luck they fit."""
    clip = probe(write("few.mkv", codec="ffv1", count=count))
    for again in range(3):
        assert copied(clip, tmp_path / f"{again}.mp4", profile="hevc").ok


def test_an_odd_size_asked_for_as_h264(films: Films, tmp_path: Path) -> None:
    clip = probe(films("odd.mkv"))
    with pytest.raises(UnsupportedMedia, match="65x49; choose prores"):
        Writer(tmp_path / "x.mp4", clip, profile="h264")


@pytest.mark.parametrize(
    ("name", "profile", "lost"),
    [("prores-4444.mov", "prores-422-hq", "alpha"), ("hevc.mp4", "h264", "bit depth"),
     ("prores.mov", "dnxhr-hq", "bit depth|begins at")],
)  # fmt: skip
def test_losses_are_refused_before_the_work(
    films: Films, tmp_path: Path, name: str, profile: str, lost: str
) -> None:
    with pytest.raises(UnsupportedMedia, match=lost):
        Writer(tmp_path / "x.mov", probe(films(name)), profile=profile)


def test_an_accepted_loss_is_reported(films: Films, tmp_path: Path) -> None:
    clip = probe(films("prores-4444.mov"))
    report = copied(
        clip, tmp_path / "x.mov", profile="prores-422-hq", accept=["alpha", "bit depth"]
    )
    assert report["alpha"].state is State.CHANGED
    assert "accepted" in report["alpha"].why


def test_only_some_losses_can_be_accepted(films: Films, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'frames' cannot be accepted, only of: alpha"):
        Writer(tmp_path / "x.mp4", probe(films("h264.mp4")), accept=["alpha", "frames"])


def test_pixel_aspect_that_ffv1_cannot_keep(write: Write, tmp_path: Path) -> None:
    clip = probe(write("wide.mp4", aspect=Fraction(4, 3)))
    with pytest.raises(UnsupportedMedia, match="4/3 wide"):
        Writer(tmp_path / "x.mkv", clip, profile="ffv1")
    report = copied(clip, tmp_path / "x.mkv", profile="ffv1", accept=["pixel aspect"])
    assert report["pixel aspect"].state is State.CHANGED


def test_pixel_aspect_that_mkv_cannot_keep(write: Write, tmp_path: Path) -> None:
    clip = probe(write("wide.mkv", aspect=Fraction(40, 33)))
    assert copied(clip, tmp_path / "h.mkv")["pixel aspect"].state is State.KEPT
    prores = formats.named("prores-422-hq")
    assert profiles.suffix(clip, prores) == ".mov"
    with pytest.raises(UnsupportedMedia, match=r"40/33 wide.*\.mov"):
        Writer(tmp_path / "x.mkv", clip, profile="prores-422-hq")
    assert copied(clip, tmp_path / "x.mov", profile="prores-422-hq")["pixel aspect"].state is (
        State.KEPT
    )


#: A quarter turn as phones write it, moved back into sight; mirrored; an eighth; doubled.
MATRICES = {
    "turned": (0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30),
    "mirrored": (-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30),
    "eighth": (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30),
    "doubled": (2 << 16, 0, 0, 0, 2 << 16, 0, 0, 0, 1 << 30),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_display_matrices(write: Write, tmp_path: Path, suffix: str, name: str) -> None:
    clip = probe(write("m.mov", matrix=MATRICES[name]))
    assert clip.matrix == MATRICES[name]
    report = copied(clip, tmp_path / f"back.{suffix}")
    exact = suffix != "mkv" or name == "mirrored"
    assert report["rotation"].state is (State.KEPT if exact else State.CHANGED)
    assert orient.turn(probe(tmp_path / f"back.{suffix}").matrix) == orient.turn(clip.matrix)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("start", [0, 12])
def test_chapters(write: Write, tmp_path: Path, suffix: str, start: int) -> None:
    chapters = [(0, 200, "früh"), (200, 1000, "Mitte"), (1000, 2000, "spät")]
    clip = probe(
        write(f"c.{suffix}", rate=Fraction(25), count=50, sound=("aac",), chapters=chapters)
    )
    report = copied(clip, tmp_path / f"back.{suffix}", start, 40)
    assert report["chapters"].state is State.KEPT
    assert clip.others == probe(tmp_path / f"back.{suffix}").others == ()
    kept = clip.chapters_in(range(start, 40))
    titles = ["früh", "Mitte", "spät"] if start == 0 else ["Mitte", "spät"]
    assert [each.title for each in kept] == titles
    assert kept[-1].start == 1 - Fraction(start, 25)
    assert kept[-1].end == Fraction(40 - start, 25)


def test_chapters_have_no_place_in_images(write: Write, tmp_path: Path) -> None:
    clip = probe(write("c.mkv", count=3, chapters=[(0, 90, "one")]))
    report = copied(clip, tmp_path / "c.#.png", profile="png")
    assert report["chapters"].state is State.CHANGED


@pytest.mark.parametrize(
    ("pix_fmt", "profile", "state"),
    [("yuv422p", "h264", State.CHANGED), ("yuv422p", "prores-422-hq", State.KEPT),
     ("gbrp", "prores-422-hq", State.CHANGED), ("gray", "h264", State.KEPT),
     ("yuv420p", "ffv1", State.KEPT)],
)  # fmt: skip
def test_halved_chroma_is_reported(
    write: Write, tmp_path: Path, pix_fmt: str, profile: str, state: State
) -> None:
    name = "bgr0" if pix_fmt == "gbrp" else pix_fmt
    clip = probe(write("c.mkv", codec="ffv1", pix_fmt=name, count=2))
    suffix = profiles.suffix(clip, formats.named(profile))
    report = copied(clip, tmp_path / f"x{suffix}", profile=profile)
    assert report["chroma"].state is state


def test_hevc_takes_up_to_twelve_bits(write: Write, tmp_path: Path) -> None:
    clip = probe(write("deep.mkv", codec="ffv1", pix_fmt="yuv420p12le", count=2))
    assert copied(clip, tmp_path / "x.mp4", profile="hevc")["bit depth"].state is State.KEPT
    deeper = probe(write("deeper.mkv", codec="ffv1", pix_fmt="yuv420p16le", count=2))
    with pytest.raises(UnsupportedMedia, match="12 bits"):
        Writer(tmp_path / "y.mp4", deeper, profile="hevc")


@pytest.mark.parametrize(("profile", "suffix"), [("hevc", "mp4"), ("ffv1", "mkv")])
def test_sizes_that_an_encoder_does_not_begin_at(tmp_path: Path, profile: str, suffix: str) -> None:
    image(tmp_path / "tiny.1.png", np.zeros((2, 2, 3), np.uint8), "uint8")
    clip = probe(tmp_path / "tiny.1.png", Fraction(25))
    with pytest.raises(UnsupportedMedia, match=r"begins at.*2x2"):
        Writer(tmp_path / f"x.{suffix}", clip, profile=profile)
    assert copied(clip, tmp_path / "x.mov", profile="prores-422-hq").ok


def test_interlaced_is_refused(write: Write, tmp_path: Path) -> None:
    clip = probe(write("i.mp4", options={"flags": "+ildct+ilme"}))
    with pytest.raises(UnsupportedMedia, match="deinterlace"):
        Writer(tmp_path / "x.mp4", clip)


def test_sound_that_the_container_does_not_hold(films: Films, tmp_path: Path) -> None:
    clip = probe(films("ffv1.mkv"))
    with (
        pytest.raises(UnsupportedMedia, match=r"flac.*\.mkv"),
        Writer(tmp_path / "x.mov", clip, profile="prores-422-hq"),
    ):
        pass
    assert [*tmp_path.glob(".fresco*"), *tmp_path.glob("out*")] == []


def test_a_missing_encoder(films: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(formats.PROFILES["h264"], encoder="libopenh265")
    monkeypatch.setitem(formats.PROFILES, "h264", without)
    with pytest.raises(MissingEncoder, match=r"libopenh265.*pip install"):
        Writer(tmp_path / "x.mp4", probe(films("h264.mp4")))


def test_suffix_and_profile_must_fit(films: Films, tmp_path: Path) -> None:
    clip = probe(films("h264.mp4"))
    with pytest.raises(UnsupportedMedia, match=r"\.mov or \.mkv"):
        Writer(tmp_path / "x.mp4", clip, profile="prores-422-hq")
    with pytest.raises(InvalidInput, match="no profile 'h266'"):
        Writer(tmp_path / "x.mp4", clip, profile="h266")


def test_an_existing_target_is_left_alone(films: Films, tmp_path: Path) -> None:
    clip, path = probe(films("h264.mp4")), tmp_path / "there.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(NotWritten, match="exists; choose"):
        Writer(path, clip)
    assert path.read_bytes() == b"mine"
    copied(clip, path, overwrite=True)
    assert probe(path).count == 12


def test_a_target_that_appears_meanwhile_is_left_alone(films: Films, tmp_path: Path) -> None:
    clip, path = probe(films("h264.mp4")), tmp_path / "there.mp4"
    with pytest.raises(NotWritten, match="meanwhile"), Writer(path, clip) as writer:
        for frame in frames(clip):
            writer.write(frame)
        path.write_bytes(b"mine")
    assert path.read_bytes() == b"mine"
    assert [file.name for file in tmp_path.iterdir()] == ["there.mp4"]


def test_never_over_the_source(tmp_path: Path) -> None:
    path = film(tmp_path / "source.mp4", Film())
    before = path.read_bytes()
    with pytest.raises(NotWritten, match="source itself"):
        Writer(path, probe(path), overwrite=True)
    (tmp_path / "link.mp4").symlink_to(path)
    (tmp_path / "hard.mp4").hardlink_to(path)
    for name in ("link.mp4", "hard.mp4"):
        with pytest.raises(NotWritten, match="source itself"):
            Writer(tmp_path / name, probe(path), overwrite=True)
    assert path.read_bytes() == before


def test_too_few_frames_are_no_result(films: Films, tmp_path: Path) -> None:
    clip = probe(films("h264.mp4"))
    with pytest.raises(NotAsSource, match="3 of 12"), Writer(tmp_path / "x.mp4", clip) as writer:
        for frame in frames(clip, 0, 3):
            writer.write(frame)
    assert [*tmp_path.glob(".fresco*"), *tmp_path.glob("out*")] == []


@pytest.mark.parametrize("order", [(1,), (0, 0), (0, 2)])
def test_frames_come_in_order(films: Films, tmp_path: Path, order: tuple[int, ...]) -> None:
    clip = probe(films("h264.mp4"))
    shown = list(frames(clip))
    with pytest.raises(InvalidInput, match="in order"), Writer(tmp_path / "x.mp4", clip) as writer:
        for index in order:
            writer.write(shown[index])
    assert [*tmp_path.glob(".fresco*"), *tmp_path.glob("out*")] == []


@pytest.mark.parametrize("profile", ["h264", "png"])
def test_cancelled_leaves_nothing(films: Films, tmp_path: Path, profile: str) -> None:
    token, clip = CancelToken(), probe(films("h264.mp4"))
    path = tmp_path / ("x.####.png" if profile == "png" else "x.mp4")
    with pytest.raises(Cancelled), Writer(path, clip, profile=profile, cancel=token) as writer:
        for frame in frames(clip):
            writer.write(convert(frame, clip, writer.form))
            if frame.index == 5:
                token.cancel()
    assert [*tmp_path.glob(".fresco*"), *tmp_path.glob("out*")] == []


KILLED = """
import os, signal, sys
from pathlib import Path
from bridge_server.media.colour import convert
from bridge_server.media.decode import frames
from bridge_server.media.encode import Writer
from bridge_server.media.probe import probe
clip = probe(Path(sys.argv[1]))
with Writer(Path(sys.argv[2]), clip, profile=sys.argv[3]) as writer:
    for frame in frames(clip):
        writer.write(convert(frame, clip, writer.form))
        if frame.index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("profile", ["h264", "png"])
def test_killed_in_the_middle(films: Films, tmp_path: Path, profile: str) -> None:
    """Nothing has the final name; the next run works, and clears what was left."""
    name = "x.####.png" if profile == "png" else "x.mp4"
    for _ in range(2):
        code = [sys.executable, "-c", KILLED, films("h264.mp4"), tmp_path / name, profile]
        assert subprocess.run(list(map(str, code)), check=False).returncode == -9
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".fresco-")
    copied(probe(films("h264.mp4")), tmp_path / name, profile=profile)
    assert all(file.name.startswith("x.") for file in tmp_path.iterdir())


def test_a_result_that_differs_is_not_kept(
    films: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The muxer is made to write a wrong timecode: verify must see it."""
    monkeypatch.setattr(sinks, "start_timecode", lambda *_of: "09:09:09:09")
    with pytest.raises(NotAsSource, match="timecode: none -> 09:09:09:09, wrong"):
        copied(probe(films("h264.mp4")), tmp_path / "x.mp4")
    assert [*tmp_path.glob(".fresco*"), *tmp_path.glob("out*")] == []


def test_a_missing_or_locked_folder(films: Films, tmp_path: Path) -> None:
    clip = probe(films("h264.mp4"))
    with pytest.raises(NotWritten, match="not there"):
        Writer(tmp_path / "none" / "x.mp4", clip)
    with pytest.raises(NotWritten, match="cannot be written"), Writer(Path("/proc/x.mp4"), clip):
        pass


def test_names_as_long_as_they_may_be(films: Films, tmp_path: Path) -> None:
    clip = probe(films("h264.mp4"))
    copied(clip, tmp_path / f"{'x' * 251}.mp4")
    with pytest.raises(NotWritten, match="too long"):
        Writer(tmp_path / f"{'x' * 252}.mp4", clip)


def test_a_full_disk_of_images(
    films: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenImageIO says nothing of a PNG that did not fit."""
    clip = probe(films("h264.mp4"))
    usage = sinks.shutil.disk_usage(tmp_path)._replace(free=1 << 16)
    monkeypatch.setattr(sinks.shutil, "disk_usage", lambda _folder: usage)
    with pytest.raises(NotEnoughSpace, match="frame 0"):
        copied(clip, tmp_path / "x.####.png", profile="png")
    assert [*tmp_path.glob(".fresco*"), *tmp_path.glob("out*")] == []


@pytest.mark.parametrize(("profile", "name"), [("h264", "x.mp4"), ("png", "x.#.png")])
def test_a_folder_that_goes_away(films: Films, tmp_path: Path, profile: str, name: str) -> None:
    clip, folder = probe(films("h264.mp4")), tmp_path / "out"
    folder.mkdir()
    with (
        pytest.raises(NotWritten, match="is not there any more; make it"),
        Writer(folder / name, clip, profile=profile) as writer,
    ):
        for frame in frames(clip):
            writer.write(convert(frame, clip, writer.form))
            if frame.index == 4:
                shutil.rmtree(folder)


def test_a_full_disk_by_its_number(tmp_path: Path) -> None:
    import errno

    with pytest.raises(NotEnoughSpace, match=r"x\.mp4"), sinks.refusals(tmp_path / "x.mp4"):
        raise OSError(errno.ENOSPC, "No space left on device")


LIMITED = """
import resource, signal, sys
from pathlib import Path
from bridge_server.media.decode import frames
from bridge_server.media.encode import Writer
from bridge_server.media.errors import NotWritten
from bridge_server.media.probe import probe
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
clip = probe(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    with Writer(Path(sys.argv[2]), clip, profile="ffv1") as writer:
        for frame in frames(clip):
            writer.write(frame)
except NotWritten as error:
    print("refused:", error)
"""


def python(code: str, *arguments: object) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_disk_that_takes_no_more(write: Write, tmp_path: Path) -> None:
    """A real write error half-way: an error, nothing left, no crash."""
    path = write("big.mkv", codec="ffv1", width=256, height=256, count=8)
    folder = tmp_path / "out"
    folder.mkdir()
    assert "refused:" in python(LIMITED, path, folder / "x.mkv")
    assert list(folder.iterdir()) == []


PEAK = """
import sys
import psutil
from pathlib import Path
from bridge_server.media.colour import convert, from_rgb, to_rgb
from bridge_server.media.decode import frames
from bridge_server.media.encode import Writer
from bridge_server.media.probe import probe
clip = probe(Path(sys.argv[1]))
peak = 0
with Writer(Path(sys.argv[2]), clip) as writer:
    for frame in frames(clip):
        writer.write(from_rgb(to_rgb(frame, clip).rgb, frame, clip, writer.form))
        peak = max(peak, psutil.Process().memory_info().rss)
print(peak)
"""


def test_memory_does_not_grow_with_length(write: Write, tmp_path: Path) -> None:
    """600 frames of 320x240 are 138 MB as 8-bit RGB: one copy held would be seen."""
    peaks = []
    for count in (60, 600):
        path = write(f"{count}.mp4", width=320, height=240, count=count, sound=("aac",),
                     options={"preset": "ultrafast"})  # fmt: skip
        peaks.append(int(python(PEAK, path, tmp_path / f"out{count}.mp4")) / 2**20)
    assert peaks[1] - peaks[0] < 30


@pytest.mark.parametrize("name", ["dog.mp4", "music.mp4"])
def test_real_clips(clip: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    source = probe(clip(name))
    report = copied(source, tmp_path / name, 100, 130)
    assert {row.state for row in report.rows} == {State.KEPT}
    assert probe(tmp_path / name).count == 30


def test_the_same_frames_make_the_same_bytes_in_matroska(films: Films, tmp_path: Path) -> None:
    """Its segments have a number, which FFmpeg draws at random."""
    source = probe(films("h264.mp4"))
    made: set[bytes] = set()
    for _ in range(3):
        copied(source, tmp_path / "a.mkv", profile="ffv1", overwrite=True)
        made.add((tmp_path / "a.mkv").read_bytes())
    assert len(made) == 1
