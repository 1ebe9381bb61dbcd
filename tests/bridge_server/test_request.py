from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from bridge_server import request
from bridge_server.request import (
    Change,
    ControlChoice,
    Keyframes,
    LoraChoice,
    Method,
    PictureChoice,
    Request,
    from_table,
)
from fresco.errors import InvalidInput
from fresco.schedule import Settings

FULL = Request(
    clip="a clip.mov",
    prompt="a street, (fog)1.3",
    negative="blur",
    output="out.mov",
    model="sd15",
    vae="sd-vae-ft-mse",
    preset="lcm",
    loras=(LoraChoice("ink", 0.7), LoraChoice("owner/name:file.safetensors", -0.2)),
    controls=(ControlChoice("canny", 0.8), ControlChoice("depth", 1.0, "mine", "maps/")),
    pictures=(PictureChoice("ip-adapter-sd15", ("a.png", "b.png"), 0.5),),
    embeddings=("easynegative.safetensors",),
    clip_skip=2,
    sampler="ddim",
    steps=12,
    guidance=5.5,
    strength=0.6,
    seed=7,
    keyframes="every:12",
    cuts="96,140",
    shared_style=False,
    batch=6,
    start=10,
    stop=200,
    handles=12,
    rate="30000/1001",
    size=512,
    mask="mask.mp4",
    feather=3.5,
    subject="subject.png",
    changes=(Change(48, "prompt", "rain = heavy"), Change(60, "seed", "9")),
    tracks=(Change(48, "negative", "rain\n= heavy"), Change(7, "strength", "0.5")),
    method=Method(spatial=False, temporal_until=0.5, iterations=10, smooth_at=(0.5, 0.75)),
    propagation="patch",
    preserve_colour=True,
    codec="prores",
    hdr="tone-map",
    accept=("alpha", "bit depth"),
    until="keyframes",
    overwrite=True,
)


@pytest.mark.parametrize("asked", [FULL, Request(clip="x.mp4")])
def test_a_request_survives_every_form(asked: Request, tmp_path: Path) -> None:
    assert from_table(asked.table()) == asked
    assert from_table(tomlkit.parse(asked.to_toml()).unwrap()) == asked


def test_only_what_is_unusual_is_said() -> None:
    assert Request(clip="x.mp4", prompt="snow").table() == {"clip": "x.mp4", "prompt": "snow"}


def test_every_field_is_in_the_full_example() -> None:
    """So that a new field cannot be forgotten in the forms above."""
    assert set(FULL.table()) == set(Request.__dataclass_fields__)


@given(st.text(), st.text(), st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_any_text_survives(clip: str, prompt: str, strength: float, seed: int) -> None:
    asked = Request(clip=clip or "x", prompt=prompt, strength=strength, seed=seed)
    assert from_table(asked.table()) == asked
    if "\r" not in clip + prompt and all(ord(c) >= 32 for c in clip + prompt):
        assert from_table(tomlkit.parse(asked.to_toml()).unwrap()) == asked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ink", LoraChoice("ink", 1.0)),
        ("ink:0.8", LoraChoice("ink", 0.8)),
        ("ink:-1", LoraChoice("ink", -1.0)),
        ("owner/name:file.safetensors", LoraChoice("owner/name:file.safetensors")),
        ("owner/name:file.safetensors:.5", LoraChoice("owner/name:file.safetensors", 0.5)),
        ("C:\\looks\\ink.safetensors", LoraChoice("C:\\looks\\ink.safetensors")),
    ],
)
def test_loras_in_words(text: str, expected: LoraChoice) -> None:
    assert LoraChoice.parse(text) == expected
    assert LoraChoice.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("canny", ControlChoice("canny")),
        ("canny:0.8", ControlChoice("canny", 0.8)),
        ("canny:0.8:mine", ControlChoice("canny", 0.8, "mine")),
        ("depth:1:mine=maps/", ControlChoice("depth", 1.0, "mine", "maps/")),
    ],
)
def test_controls_in_words(text: str, expected: ControlChoice) -> None:
    assert ControlChoice.parse(text) == expected
    assert ControlChoice.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", Keyframes()),
        ("auto:5-12", Keyframes(shortest=5, longest=12)),
        ("every:12", Keyframes(every=12)),
        ("24,0,60,24", Keyframes(frames=(0, 24, 60))),
    ],
)
def test_keyframes_in_words(text: str, expected: Keyframes) -> None:
    assert Keyframes.parse(text) == expected


def test_the_method_is_that_of_the_settings() -> None:
    """Steps and guidance are wishes of their own, because presets and models have a say in them."""
    kinds = {each.name: f"{each.type} | None" for each in dataclasses.fields(Settings)}
    del kinds["steps"], kinds["guidance_scale"]
    assert {each.name: each.type for each in dataclasses.fields(Method)} == kinds
    usual = {name: getattr(Settings(), name) for name in kinds}
    assert Method(**usual).said() == usual
    assert dataclasses.replace(Settings(), **FULL.method.said()).iterations == 10


def test_changes_in_words() -> None:
    assert Change.parse("prompt@48=rain = heavy") == Change(48, "prompt", "rain = heavy")
    assert str(Change(48, "prompt", "rain = heavy")) == "prompt@48=rain = heavy"
    assert Change.parse("painted@0=C:\\a.png") == Change(0, "painted", "C:\\a.png")


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (ControlChoice.parse, "canny:strong"),
        (ControlChoice.parse, ":0.8"),
        (Keyframes.parse, "every:0"),
        (Keyframes.parse, "1;2"),
        (Keyframes.parse, ""),
        (Change.parse, "colour@3=red"),
        (Change.parse, "prompt@x=red"),
        (Change.parse, "prompt=red"),
    ],
)
def test_words_that_cannot_be_read_are_answered_with_an_example(parse: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be read; write"):
        parse(text)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({}, "clip is missing"),
        ({"clip": ""}, "clip: '' cannot be; name a file"),
        ({"clip": "x", "promt": "snow"}, "promt is no field; there are clip, prompt"),
        ({"clip": "x", "steps": "20"}, "steps: '20' should be a whole number"),
        ({"clip": "x", "steps": True}, "steps: True should be a whole number"),
        ({"clip": "x", "steps": 1001}, "steps: 1001 cannot be; use 1 to 1000"),
        ({"clip": "x", "overwrite": 1}, "overwrite: 1 should be true or false"),
        ({"clip": "x", "strength": 1.5}, "strength: 1.5 cannot be; use 0"),
        ({"clip": "x", "strength": float("nan")}, "strength: nan cannot be"),
        ({"clip": "x", "stop": 5, "start": 5}, "stop: 5 cannot be"),
        ({"clip": "x", "until": "never"}, "until: 'never' cannot be; use one of first_frame"),
        ({"clip": "x", "loras": "ink"}, "loras: 'ink' should be a list"),
        ({"clip": "x", "loras": [{"file": "ink"}]}, "loras: .* cannot be read"),
        ({"clip": "x", "controls": [3]}, "controls: 3 cannot be read"),
        ({"clip": "x", "loras": [{"name": "a", "weight": "b"}]}, "weight: 'b' should be a number"),
        ({"clip": "x", "loras": [{"weight": 1.0}]}, "loras: .* cannot be read"),
        ({"clip": "x", "loras": [{"name": "a", "weight": float("nan")}]}, "loras: .* cannot be"),
        ({"clip": "x", "controls": ["canny:-1"]}, "controls: .* cannot be; use strengths"),
        ({"clip": "x", "guidance": float("inf")}, "guidance: inf cannot be"),
        ({"clip": "x", "feather": float("inf")}, "feather: inf cannot be"),
        ({"clip": "x", "pictures": [{"name": "a", "pictures": "b.png"}]}, "should be a list"),
        ({"clip": "x", "embeddings": [3]}, "embeddings: 3 should be a text"),
        ({"clip": "x", "changes": [{"frame": -1, "what": "seed", "value": "1"}]}, "no change"),
        ({"clip": "x", "changes": [{"frame": 1, "what": "size", "value": "1"}]}, "no change"),
        ({"clip": "x", "changes": [{"frame": 1, "what": "seed", "value": 1}]}, "1 should be a"),
        ({"clip": "x", "changes": ["seed@1=\u00b2"]}, "use a whole number"),
        ({"clip": "x", "changes": ["seed@1=9223372036854775808"]}, "use a whole number"),
        ({"clip": "x", "changes": ["strength@1=nan"]}, "use a number from 0 to 1"),
        ({"clip": "x", "changes": ["painted@1="]}, "use the name of a picture"),
        ({"clip": "x", "changes": ["seed@1=1", "seed@1=2"]}, "changes: seed@1 is there twice; say"),
        ({"clip": "x", "changes": [f"seed@{'9' * 99}=1"]}, "cannot be read"),
        ({"clip": "x", "tracks": ["seed@1=1", "seed@1=2"]}, "tracks: seed@1 is there twice; say"),
        ({"clip": "x", "tracks": ["painted@1=a.png"]}, "painted@1=a.png is of one keyframe only"),
        ({"clip": "x", "tracks": ["strength@1=2"]}, "tracks: strength@1=2: use a number from 0"),
        ({"clip": "x", "tracks": ["size@1=2"]}, "tracks: 'size@1=2' cannot be read; write"),
        ({"clip": "x", "tracks": "seed@1=1"}, "tracks: 'seed@1=1' should be a list"),
        ({"clip": "x", "keyframes": "often"}, "keyframes 'often' cannot be read"),
        ({"clip": "x", "rate": "1e999999999"}, "rate: '1e999999999' is no number of frames"),
        ({"clip": "x", "method": {"spatial": 1}}, "spatial: 1 should be true or false"),
        ({"clip": "x", "method": {"iterations": True}}, "iterations: True should be a whole"),
        ({"clip": "x", "method": {"iterations": 2.5}}, "iterations: 2.5 should be a whole"),
        ({"clip": "x", "method": {"temporal_until": 1.5}}, "temporal_until: 1.5 cannot be"),
        ({"clip": "x", "method": {"lr": float("nan")}}, "lr: nan cannot be"),
        ({"clip": "x", "method": {"smooth_at": 0.5}}, "smooth_at: 0.5 should be a list"),
        ({"clip": "x", "method": {"smooth_at": [0.5, 2]}}, r"smooth_at: \(0.5, 2\) cannot be"),
        ({"clip": "x", "method": {"steps": 3}}, "method: .* cannot be read"),
    ],
)
def test_what_cannot_be_is_named_with_its_field(table: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=f"job.toml.*{reason}|^{reason}"):
        from_table(table, "job.toml")


def test_a_job_file(tmp_path: Path) -> None:
    file = tmp_path / "job ü.toml"
    file.write_text('clip = "in.mp4"\noutput = "/out.mp4"\nloras = ["ink:0.5"]\n', encoding="utf-8")
    asked = request.read(file)
    assert asked.clip == str(tmp_path / "in.mp4")
    assert asked.output == "/out.mp4"
    assert asked.mask == ""
    assert asked.loras == (LoraChoice("ink", 0.5),)
    for text, reason in (("clip = ", "cannot be read"), ("x = 1", "x is no field")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InvalidInput, match=rf"job ü\.toml.*{reason}"):
            request.read(file)
    with pytest.raises(InvalidInput, match="cannot be read"):
        request.read(tmp_path / "none.toml")


def test_every_path_in_a_job_file_counts_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        'clip = "in.mp4"\nmask = "mask.png"\nsubject = "subject.png"\n'
        'controls = ["depth:1.0:mine=maps/", "canny"]\npictures = ["ip=a.png,/b.png"]\n'
        'changes = ["painted@4=four.png", "prompt@8=a.png"]\n',
        encoding="utf-8",
    )
    asked = request.read(file)

    assert asked.subject == str(tmp_path / "subject.png")
    assert [control.maps for control in asked.controls] == [str(tmp_path / "maps"), ""]
    assert asked.pictures[0].pictures == (str(tmp_path / "a.png"), "/b.png")
    assert [change.value for change in asked.changes] == [str(tmp_path / "four.png"), "a.png"]
