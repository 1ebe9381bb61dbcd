"""Films written once, and the way from a clip to a file and back."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import OpenImageIO
import pytest

from bridge_server.media.clip import Clip, ColourTags
from bridge_server.media.colour import convert
from bridge_server.media.decode import frames
from bridge_server.media.encode import Writer
from bridge_server.media.frame import Frame
from bridge_server.media.layout import parse
from bridge_server.media.verify import Report
from tests.bridge_server.media.films import FILMS, Film, film

av.logging.set_level(None)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One of `FILMS` by its name; written at its first use."""
    folder = tmp_path_factory.mktemp("films ü")

    def make(name: str) -> Path:
        path = folder / name
        return path if path.exists() else film(path, FILMS[name])

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a film of its own into the test's folder."""

    def make(name: str, **what: object) -> Path:
        return film(tmp_path / name, Film(**what))

    return make


def copied(clip: Clip, target: Path, start: int = 0, stop: int | None = None, **how: Any) -> Report:
    """Write the clip's frames as they are, and return what `verify` said."""
    with Writer(target, clip, start, stop, **how) as writer:
        for frame in frames(clip, start, stop):
            writer.write(convert(frame, clip, writer.form))
    assert writer.report is not None
    return writer.report


def made(
    planes: tuple[np.ndarray, ...],
    name: str = "yuv444p",
    tags: ColourTags | None = None,
    **more: Any,
) -> tuple[Clip, Frame]:
    """A clip of one frame that is in no file."""
    layout = more.pop("layout", None) or parse(name)
    height, width = planes[0].shape
    values = {
        "path": Path("made.mov"), "files": (), "container": "mov", "codec": "prores",
        "profile": None, "layout": layout, "rate": Fraction(25), "time_base": Fraction(1, 25),
        "pts": np.arange(1), "keys": np.arange(1), "last_duration": 1, "variable": False,
        "width": width, "height": height, "pixel_aspect": Fraction(1), "matrix": None,
        "timecode": None, "tags": tags or ColourTags(1, 1, 1, False), "interlaced": False,
        "audio": (), "others": (),
    }  # fmt: skip
    return Clip(**(values | more)), Frame(0, 0, layout, planes)


def same(first: Frame, second: Frame) -> bool:
    """Whether two frames have the very same samples."""
    return len(first.planes) == len(second.planes) and all(
        np.array_equal(ours, theirs)
        for ours, theirs in zip(first.planes, second.planes, strict=True)
    )


def image(path: Path, pixels: np.ndarray, kind: str, **attributes: Any) -> None:
    """Write one image (H, W, channels) with OpenImageIO itself."""
    height, width, channels = pixels.shape
    spec: Any = OpenImageIO.ImageSpec(width, height, channels, kind)
    spec.attribute("oiio:UnassociatedAlpha", 1)
    for name, value in attributes.items():
        if name == "channelnames":
            spec.channelnames = value
        elif isinstance(value, tuple):
            spec.attribute(name, OpenImageIO.TypeDesc(value[0]), value[1])
        else:
            spec.attribute(name, value)
    out: Any = OpenImageIO.ImageOutput.create(str(path))
    assert out.open(str(path), spec)
    assert out.write_image(pixels)
    out.close()


def images(folder: Path, suffix: str, kind: str, channels: int, count: int = 3) -> Path:
    """Write a sequence with OpenImageIO itself, and return its pattern."""
    rng = np.random.default_rng(1)
    for index in range(count):
        values = rng.random((10, 14, channels), np.float32)
        pixels = {
            "uint8": (values * 255).astype(np.uint8),
            "uint16": (values * 65535).astype(np.uint16),
            "half": (values * 4).astype(np.float16),
            "float": values * 4,
        }[kind]
        image(folder / f"shot ä_{index + 7:04}{suffix}", pixels, kind)
    return folder / f"shot ä_%04d{suffix}"
