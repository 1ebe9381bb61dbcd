from __future__ import annotations

import numpy as np
import pytest
import torch

from bridge_server.media.decode import frames
from bridge_server.media.orient import stored, upright
from bridge_server.media.probe import probe
from tests.bridge_server.media.films import Write

#: a, b, u, c, d, v, x, y, w of FFmpeg: where a pixel at (x, y) is shown is (a x + c y, b x + d y).
ALL = [
    (a, b, c, d)
    for a, b, c, d in [
        (1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),
        (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0),
    ]
]  # fmt: skip


def matrix(a: int, b: int, c: int, d: int) -> tuple[int, ...]:
    return (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("turn", ALL)
def test_every_pixel_goes_where_the_matrix_says(turn: tuple[int, int, int, int]) -> None:
    a, b, c, d = turn
    image = torch.arange(2 * 3).reshape(1, 2, 3)
    places = {}
    for y in range(2):
        for x in range(3):
            places[a * x + c * y, b * x + d * y] = int(image[0, y, x])
    left, top = min(x for x, _ in places), min(y for _, y in places)
    right, bottom = max(x for x, _ in places), max(y for _, y in places)
    expected = [[places[x, y] for x in range(left, right + 1)] for y in range(top, bottom + 1)]
    shown = upright(image, matrix(*turn))
    assert shown[0].tolist() == expected
    assert torch.equal(stored(shown, matrix(*turn)), image)


def test_other_angles_do_not_move_pixels() -> None:
    image = torch.rand(3, 4, 5)
    assert torch.equal(upright(image, (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)), image)
    assert torch.equal(upright(image, None), image)


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_as_ffmpegs_own_rotation(write: Write, degrees: int) -> None:
    """PyAV: degrees counter-clockwise."""
    clip = probe(write("r.mp4", degrees=degrees, options={"qp": "0"}))
    luma = torch.from_numpy(next(frames(clip)).planes[0].astype(np.int32))
    assert torch.equal(upright(luma, clip.matrix), luma.rot90(degrees // 90, (0, 1)))
