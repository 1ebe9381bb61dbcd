"""Wishes that can be seen to be wrong when they come: refused, and never a job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge_server import config, submission
from bridge_server.media import formats
from bridge_server.media.errors import UnsupportedMedia
from bridge_server.request import Change, from_table
from fresco.control import ESTIMATORS
from fresco.errors import FrescoError, InvalidInput
from fresco.samplers import SAMPLERS, presets


def check(**more: Any) -> None:
    submission.check(from_table({"clip": "/a.mp4", **more}), config.load())


def refused(**more: Any) -> str:
    with pytest.raises(InvalidInput) as told:
        check(**more)
    return str(told.value)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"model": "sd51"}, "no model is called 'sd51'"),
        ({"model": "sd-vae-ft-mse"}, "is a model for vae, and one for base is needed"),
        ({"model": "/models/old.ckpt"}, "is a pickle"),
        ({"vae": "sd15"}, "one for vae is needed"),
        ({"loras": [{"name": "nowhere"}]}, "no model is called 'nowhere'"),
        ({"loras": ["sd15:0.5"]}, "one for lora is needed"),
        ({"embeddings": ["word"]}, "no model is called 'word'"),
        ({"pictures": [{"name": "ip", "pictures": ["/a.png"]}]}, "no model is called 'ip'"),
        ({"controls": ["canny:1:nowhere"]}, "no model is called 'nowhere'"),
        ({"controls": ["pose"]}, "no control is called 'pose'; use one of canny, "),
        ({"controls": ["canny", "none"]}, "no control is called 'none'"),
        ({"controls": ["depth"]}, "no ControlNet for depth is known that goes with fresco-draft"),
        ({"sampler": "eulr"}, "sampler: there is no 'eulr'; use one of ddpm, "),
        ({"preset": "fast"}, "preset: there is no 'fast'; use one of quality, "),
        ({"codec": "vp9"}, "codec: there is no 'vp9'; use one of h264, "),
        ({"stop": 9, "keyframes": "0,9"}, r"keyframes [9] are not among the frames 0 to 8"),
        ({"start": 4, "stop": 9, "cuts": "4,6"}, "cuts [4] are not between the frames 4 and 8"),
        ({"start": 4, "stop": 9, "changes": ["seed@3=1"]}, "changes at [3] are not among"),
    ],
)
def test_what_there_is_not_is_named_with_what_there_is(wish: dict[str, Any], said: str) -> None:
    assert said in refused(**wish)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"output": "/made"}, "clips are not written to made; end it in .mp4 or "),
        ({"output": "/made.avi"}, "made.avi"),
        ({"output": "/made.jpg", "until": "keyframes"}, "made.jpg"),
        ({"output": "/made.mkv", "codec": "dnxhr-hq"}, "dnxhr-hq is not written to made.mkv; end"),
        ({"output": "/made.####.exr", "codec": "png"}, "end it in .png."),
    ],
)
def test_a_file_that_nothing_is_written_to(wish: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedMedia) as told:
        check(**wish)
    assert said in str(told.value)


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"model": "sd15", "controls": ["hed:0.8", "depth"], "vae": "sd-vae-ft-mse"},
        {"model": "owner/name", "loras": ["owner/name:file.safetensors:0.5"]},
        {"model": "/models/of nobody.safetensors", "controls": ["lineart"]},
        {"model": "sd15", "controls": [{"kind": "pose", "maps": "/m.png", "model": "owner/pose"}]},
        {"controls": ["none"], "sampler": "unipc", "preset": "lcm", "codec": "exr"},
        {"output": "/made.MOV"},
        {"output": "/made.####.png", "codec": "png"},
        {"start": 4, "stop": 9, "handles": 2, "keyframes": "2,10", "cuts": "3"},
        {"keyframes": "0,9000"},
    ],
)
def test_what_may_be_becomes_a_job(wish: dict[str, Any]) -> None:
    """Also where a model is not on this machine: somebody may bring it before the job begins."""
    check(**wish)


def test_a_folder_takes_what_goes_into_it(tmp_path: Path) -> None:
    check(output=str(tmp_path))


def test_nothing_is_asked_of_a_model_where_every_keyframe_is_painted() -> None:
    painted = [str(Change(frame, "painted", "/p.png")) for frame in (0, 8)]
    check(model="nowhere", sampler="none", keyframes="0,8", changes=painted)
    assert "nowhere" in refused(model="nowhere", keyframes="0,8", changes=painted[:1])


def test_users_models_count(tmp_path: Path) -> None:
    settings = config.load()
    settings.catalogue_file.parent.mkdir(parents=True, exist_ok=True)
    text = '[ink]\nrole = "lora"\npath = "ink.safetensors"\n'
    settings.catalogue_file.write_text(text, encoding="utf-8")
    check(loras=["ink"])


def test_the_keys_are_those_that_the_work_knows() -> None:
    for field, keys in (("sampler", SAMPLERS), ("preset", presets()), ("codec", formats.PROFILES)):
        for key in keys:
            check(**{field: key})
    for kind in ESTIMATORS:
        check(model="sd15", controls=[kind])
    with pytest.raises(FrescoError):
        check(controls=["auto"])


def test_it_brings_no_library_of_the_work_along() -> None:
    code = (
        "import sys; from bridge_server import config, submission, request;"
        "submission.check(request.Request('/a.mp4', output='/a.mov', codec='h264'), config.load());"
        "print({'torch', 'numpy', 'cv2', 'av', 'diffusers', 'OpenImageIO'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"
