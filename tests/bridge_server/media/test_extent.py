from __future__ import annotations

from pathlib import Path

import pytest

from bridge_server.media.extent import broken_off
from tests.bridge_server.media.films import Films, repacked

NAMES = ["h264.mp4", "prores.mov", "ffv1.mkv", "vp9.webm"]


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_file(films: Films, name: str) -> None:
    assert not broken_off(films(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lost", [1, 100, 1500])
def test_one_byte_less_is_seen(films: Films, tmp_path: Path, name: str, lost: int) -> None:
    (tmp_path / name).write_bytes(films(name).read_bytes()[:-lost])
    assert broken_off(tmp_path / name)


def test_padding_behind_the_end_is_no_damage(films: Films, tmp_path: Path) -> None:
    for name, padding in (("h264.mp4", bytes(4000)), ("prores.mov", b"\xff" * 700)):
        (tmp_path / name).write_bytes(films(name).read_bytes() + padding)
        assert not broken_off(tmp_path / name)


def test_a_box_of_64_bits_and_one_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.mov"
    wide = (1).to_bytes(4, "big") + b"mdat" + (24).to_bytes(8, "big") + bytes(8)
    path.write_bytes(wide)
    assert not broken_off(path)
    path.write_bytes(wide[:-1])
    assert broken_off(path)
    path.write_bytes(bytes(4) + b"mdat" + bytes(5))
    assert not broken_off(path)


def test_a_segment_of_unknown_size(films: Films, tmp_path: Path) -> None:
    live = repacked(films("vp9.webm"), tmp_path / "live.webm", live="1")
    live.write_bytes(live.read_bytes()[:-50])
    assert not broken_off(live)


@pytest.mark.parametrize("data", [b"x", b"\x1a\x45\xdf\xa3", b"no container at all" * 9])
def test_other_files_are_not_judged(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(data)
    assert not broken_off(tmp_path / "x.mp4")
