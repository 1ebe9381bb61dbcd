from __future__ import annotations

import numpy as np
import pytest

from bridge_server.media.errors import UnsupportedMedia
from bridge_server.media.layout import Family, parse


@pytest.mark.parametrize(
    ("name", "family", "bits", "alpha", "shift"),
    [
        ("yuv420p", Family.YUV, 8, False, (1, 1)),
        ("yuvj422p", Family.YUV, 8, False, (1, 0)),
        ("yuva444p12le", Family.YUV, 12, True, (0, 0)),
        ("yuv411p", Family.YUV, 8, False, (2, 0)),
        ("gbrap16le", Family.RGB, 16, True, (0, 0)),
        ("gbrpf32le", Family.RGB, 32, False, (0, 0)),
        ("bgra", Family.RGB, 8, True, (0, 0)),
        ("rgba64le", Family.RGB, 16, True, (0, 0)),
        ("gray10le", Family.GRAY, 10, False, (0, 0)),
        ("ya8", Family.GRAY, 8, True, (0, 0)),
    ],
)
def test_names_of_ffmpeg(
    name: str, family: Family, bits: int, alpha: bool, shift: tuple[int, int]
) -> None:
    layout = parse(name)
    assert (layout.family, layout.bits, layout.alpha, layout.shift) == (family, bits, alpha, shift)


@pytest.mark.parametrize(
    "name", ["pal8", "yuv420p10be", "bayer_rggb8", "monob", "xyz12le", "p010le", "nv12"]
)
def test_others_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedMedia, match=name):
        parse(name)


def test_odd_sizes_have_one_more_chroma_sample() -> None:
    layout = parse("yuv420p")
    assert layout.plane_size(0, 65, 49) == (49, 65)
    assert layout.plane_size(1, 65, 49) == (25, 33)


def test_samples_are_as_wide_as_the_name_says() -> None:
    assert parse("yuv420p").dtype == np.uint8
    assert parse("yuv420p10le").dtype == np.dtype("<u2")
    assert parse("gbrpf32le").dtype == np.dtype("<f4")
