from __future__ import annotations

import numpy as np
import pytest
import torch

from bridge_server.media.blend import blend
from bridge_server.media.clip import Clip
from bridge_server.media.colour import to_rgb
from bridge_server.media.errors import UnsupportedMedia
from bridge_server.media.frame import Frame
from bridge_server.media.layout import parse
from fresco.errors import InvalidInput
from tests.bridge_server.media.conftest import made


def noise(
    name: str, seed: int, height: int = 17, width: int = 23, **more: object
) -> tuple[Clip, Frame]:
    layout, rng = parse(name), np.random.default_rng(seed)
    planes = tuple(
        rng.integers(20 << (layout.bits - 8), 230 << (layout.bits - 8),
                     layout.plane_size(part, width, height)).astype(layout.dtype)
        for part in range(layout.components)
    )  # fmt: skip
    return made(planes, name, **more)


@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv422p10le", "yuv411p", "yuv440p", "yuva444p16le", "gbrp12le", "gray"]
)
def test_outside_the_mask_every_pixel_is_the_sources(name: str) -> None:
    """Looked at as pixels: a chroma sample shared across the edge must not change either."""
    clip, source = noise(name, 1)
    _, styled = noise(name, 2)
    mask = torch.zeros(17, 23)
    mask[4:13, 7:18] = 1
    mixed = blend(source, styled, mask, clip)
    before, after = to_rgb(source, clip).rgb, to_rgb(mixed, clip).rgb
    assert torch.equal(after[:, mask == 0], before[:, mask == 0])
    assert not torch.equal(after[:, mask == 1], before[:, mask == 1])


def test_full_and_empty_masks_are_the_one_and_the_other() -> None:
    clip, source = noise("yuv420p", 1)
    _, styled = noise("yuv420p", 2)
    for value, expected in ((0.0, source), (1.0, styled)):
        mixed = blend(source, styled, torch.full((17, 23), value), clip)
        pairs = zip(mixed.planes, expected.planes, strict=True)
        assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def test_half_a_mask_is_half_way() -> None:
    clip, source = noise("yuv444p", 1)
    _, styled = noise("yuv444p", 2)
    mixed = blend(source, styled, torch.full((17, 23), 0.5), clip)
    middle = (source.planes[0].astype(float) + styled.planes[0]) / 2
    assert np.abs(mixed.planes[0] - middle).max() <= 0.5


def test_a_mask_is_upright() -> None:
    turned = (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)
    clip, source = noise("yuv444p", 1, matrix=turned)
    _, styled = noise("yuv444p", 2)
    mask = torch.zeros(23, 17)
    mask[:5] = 1
    shown = to_rgb(blend(source, styled, mask, clip), clip).rgb
    assert torch.equal(shown[:, :5], to_rgb(styled, clip).rgb[:, :5])
    assert torch.equal(shown[:, 5:], to_rgb(source, clip).rgb[:, 5:])


def test_refusals() -> None:
    clip, source = noise("yuv444p", 1)
    with pytest.raises(InvalidInput, match="mask"):
        blend(source, source, torch.zeros(4, 4), clip)
    with pytest.raises(UnsupportedMedia, match="convert"):
        blend(source, noise("yuv420p", 2)[1], torch.zeros(17, 23), clip)
