"""Which files may be named, and by whom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bridge_server import access
from bridge_server.access import Owner
from bridge_server.request import from_table
from host_plugins.link.errors import BridgeError, Code


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder that may be used, with a clip; and beside it one that may not."""
    for name in ("films", "secret", "films-too"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.mp4").write_bytes(b"x")
        (tmp_path / name / "lora.safetensors").write_bytes(b"x")
    return tmp_path / "films"


def code_of(owner: Owner, **fields: Any) -> Code | None:
    try:
        access.check(from_table(fields), owner)
    except BridgeError as error:
        return error.code
    return None


def owners(films: Path) -> list[Owner]:
    return [Owner(roots=(films,)), Owner("key", (films,))]


def test_what_is_inside(films: Path) -> None:
    (films / "link.mp4").symlink_to("clip.mp4")
    for owner in (*owners(films), Owner()):
        assert code_of(owner, clip=str(films / "clip.mp4"), output=str(films / "o.mp4")) is None
        assert code_of(owner, clip=str(films / "link.mp4")) is None
        assert code_of(owner, clip=str(films / ".." / "films" / "clip.mp4")) is None


def test_what_is_outside(films: Path) -> None:
    (films / "out.mp4").symlink_to("../secret/clip.mp4")
    (films / "up").symlink_to("..")
    (films / "made.mp4").symlink_to("../secret/new.mp4")
    (films / "hop").symlink_to("hop2")
    (films / "hop2").symlink_to("../secret")
    outside = ["../secret/clip.mp4", "out.mp4", "up/secret/clip.mp4", "../films-too/clip.mp4",
               "hop/clip.mp4", "../secret", ".."]  # fmt: skip
    for owner in owners(films):
        for name in outside:
            assert code_of(owner, clip=str(films / name)) is Code.FORBIDDEN, name
        for name in ("made.mp4", "../new.mp4", "up/new.mp4"):
            told = code_of(owner, clip=str(films / "clip.mp4"), output=str(films / name))
            assert told is Code.FORBIDDEN, name


@pytest.mark.parametrize("path", ["clip.mp4", "./clip.mp4", "~/clip.mp4", "/a\0b", "", "a\0",
                                  "file:///etc/passwd", "http://example.org/a.mp4"])  # fmt: skip
def test_what_is_no_path(films: Path, path: str) -> None:
    for owner in (*owners(films), Owner()):
        with pytest.raises(BridgeError) as told:
            owner.check(path)
        assert told.value.code is Code.INVALID


def test_paths_that_lead_nowhere(films: Path) -> None:
    (films / "a").symlink_to("b")
    (films / "b").symlink_to("a")
    os.mkfifo(films / "pipe")
    bad = (Code.INVALID, Code.NOT_FOUND, Code.FORBIDDEN)
    for owner in (*owners(films), Owner()):
        for name in ("a", "a/clip.mp4", "x" * 300, "/".join(["y" * 200] * 40), "pipe", "none"):
            assert code_of(owner, clip=str(films / name)) in bad, name
        assert code_of(owner, clip="/dev/zero") in bad
        assert code_of(owner, clip="/dev/stdin") in bad


def test_paths_that_are_each_processes_own(films: Path) -> None:
    with (films.parent / "secret" / "clip.mp4").open() as file:
        for owner in owners(films):
            assert code_of(owner, clip=f"/proc/self/fd/{file.fileno()}") is Code.FORBIDDEN
            assert code_of(owner, clip="/proc/self/root/etc/passwd") is Code.FORBIDDEN


def test_case_counts(films: Path) -> None:
    upper = films.parent / "FILMS"
    for owner in owners(films):
        assert code_of(owner, clip=str(upper / "clip.mp4")) in (Code.FORBIDDEN, None)
        if not upper.exists():
            assert code_of(owner, clip=str(upper / "clip.mp4")) is Code.FORBIDDEN


def every_path(path: str) -> list[dict[str, Any]]:
    """A way to name a file for each field of a request that may."""
    return [
        {"mask": path},
        {"subject": path},
        {"controls": [{"kind": "canny", "maps": path}]},
        {"pictures": [{"name": "ip", "pictures": [path]}]},
        {"changes": [{"frame": 0, "what": "painted", "value": path}]},
        {"output": path},
    ]


def every_model(path: str) -> list[dict[str, Any]]:
    return [
        {"model": path},
        {"vae": path},
        {"loras": [{"name": path}]},
        {"embeddings": [path]},
        {"controls": [{"kind": "canny", "model": path}]},
        {"pictures": [{"name": path, "pictures": []}]},
    ]


def test_every_field_that_names_a_file(films: Path) -> None:
    clip, outside = str(films / "clip.mp4"), str(films.parent / "secret" / "clip.mp4")
    for owner in owners(films):
        for fields in every_path(outside):
            assert code_of(owner, clip=clip, **fields) is Code.FORBIDDEN, fields
        for fields in every_path("clip.mp4"):
            assert code_of(owner, clip=clip, **fields) is Code.INVALID, fields


def test_models_that_are_files(films: Path) -> None:
    clip = str(films / "clip.mp4")
    outside = str(films.parent / "secret" / "lora.safetensors")
    for owner in owners(films):
        for fields in every_model(outside):
            assert code_of(owner, clip=clip, **fields) is Code.FORBIDDEN, fields
        for path in ("../secret/lora.safetensors", "~/lora.safetensors", "lora.safetensors", "./x"):
            for fields in every_model(path):
                assert code_of(owner, clip=clip, **fields) is Code.INVALID, fields
        for path in ("sd15", "owner/name", "owner/name:a.safetensors"):
            for fields in every_model(path):
                assert code_of(owner, clip=clip, **fields) is None, fields
        assert code_of(owner, clip=clip, loras=[{"name": str(films / "lora.safetensors")}]) is None
    assert code_of(Owner(), clip=clip, loras=[{"name": outside}]) is None


def test_images_of_a_sequence_that_are_elsewhere(films: Path) -> None:
    (films / "seq").mkdir()
    for number in range(3):
        (films / "seq" / f"a.{number:04d}.png").write_bytes(b"x")
    names = ("seq/a.####.png", "seq/a.0001.png", "seq", "seq/a.%04d.png")
    for owner in owners(films):
        assert [code_of(owner, clip=str(films / name)) for name in names] == [None] * 4
    (films / "seq" / "a.0003.png").symlink_to("../../secret/clip.mp4")
    for owner in owners(films):
        assert {code_of(owner, clip=str(films / name)) for name in names} == {Code.FORBIDDEN}
    assert code_of(Owner(), clip=str(films / "seq")) is None


def test_nobody_else_without_roots(films: Path) -> None:
    assert code_of(Owner("key"), clip=str(films / "clip.mp4")) is Code.FORBIDDEN


def test_workers_are_told_where_files_really_are(films: Path) -> None:
    (films / "link.mp4").symlink_to("clip.mp4")
    wanted = from_table({"clip": str(films / "link.mp4"), "mask": str(films / "link.mp4")})
    told = access.placed(wanted, Owner("key", (films,)), {})
    assert told.clip == told.mask == str(films / "clip.mp4")
    assert access.placed(wanted, Owner(), {}) == wanted
    with pytest.raises(BridgeError) as gone:
        access.placed(from_table({"clip": "upload:x"}), Owner(), {})
    assert gone.value.code is Code.NOT_FOUND


def test_a_source_is_not_written_over(films: Path) -> None:
    clip = films / "clip.mp4"
    (films / "same.mp4").symlink_to("clip.mp4")
    for output in (clip, films / "same.mp4", films / "." / "clip.mp4"):
        assert code_of(Owner(), clip=str(clip), output=str(output)) is Code.INVALID
