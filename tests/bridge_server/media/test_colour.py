from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridge_server.media import sequences
from bridge_server.media.clip import Clip, ColourTags
from bridge_server.media.colour import Form, convert, form_of, from_rgb, target_form, to_rgb
from bridge_server.media.decode import frames
from bridge_server.media.errors import UnsupportedMedia
from bridge_server.media.frame import Frame
from bridge_server.media.layout import parse
from bridge_server.media.probe import probe
from fresco.errors import InvalidInput
from tests.bridge_server.media.conftest import made, same
from tests.bridge_server.media.films import Films

#: 75 % bars of limited range: white, yellow, cyan, green, magenta, red, blue, black. As printed in
#: ITU-R BT.709 / SMPTE RP 219 tables and in BT.601 / SMPTE EG 1 (8 bit), and BT.2111 (10 bit).
BARS = np.array(
    [[1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
)
GOLDEN = {
    (1, 8): [(180, 128, 128), (168, 44, 136), (145, 147, 44), (133, 63, 52),
             (63, 193, 204), (51, 109, 212), (28, 212, 120), (16, 128, 128)],
    (6, 8): [(180, 128, 128), (162, 44, 142), (131, 156, 44), (112, 72, 58),
             (84, 184, 198), (65, 100, 212), (35, 212, 114), (16, 128, 128)],
    (1, 10): [(721, 512, 512), (674, 176, 543), (581, 589, 176), (534, 253, 207),
              (251, 771, 817), (204, 435, 848), (111, 848, 481), (64, 512, 512)],
}  # fmt: skip
NAMES = {8: "yuv444p", 10: "yuv444p10le", 12: "yuv444p12le", 16: "yuv444p16le"}


@pytest.mark.parametrize(("matrix", "bits"), GOLDEN)
def test_golden_bars(matrix: int, bits: int) -> None:
    codes = np.array(GOLDEN[matrix, bits]).T[:, None].astype("u1" if bits == 8 else "<u2")
    clip, frame = made(tuple(codes), NAMES[bits], ColourTags(matrix, 1, matrix, False))
    expected = torch.tensor(BARS * 0.75).T[:, None]
    assert (to_rgb(frame, clip).rgb - expected).abs().max() < 0.6 / (219 * 2 ** (bits - 8)) * 2
    back = from_rgb(expected, frame, clip)
    assert [list(plane[0]) for plane in back.planes] == [list(row) for row in codes[:, 0]]


@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", NAMES)
def test_by_a_second_computation(matrix: int, full: bool, bits: int) -> None:
    """H.273's equations solved as a linear system in float64, no code shared."""
    kr, kb = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114),
              7: (0.212, 0.087), 9: (0.2627, 0.0593)}[matrix]  # fmt: skip
    rgb = np.random.default_rng(3).random((3, 9, 11))
    luma = np.array([kr, 1 - kr - kb, kb])
    rows = np.stack(
        [luma, (np.eye(3)[2] - luma) / (2 * (1 - kb)), (np.eye(3)[0] - luma) / (2 * (1 - kr))]
    )
    ycc = np.tensordot(rows, rgb, 1)
    top, step = 2**bits - 1, 2 ** (bits - 8)
    scale = (top, top, top) if full else (219 * step, 224 * step, 224 * step)
    offset = (0, 128 * step, 128 * step) if full else (16 * step, 128 * step, 128 * step)
    codes = [
        np.clip(np.rint(p * s + o), 0, top) for p, s, o in zip(ycc, scale, offset, strict=True)
    ]
    planes = tuple(code.astype("u1" if bits == 8 else "<u2") for code in codes)
    clip, frame = made(planes, NAMES[bits], ColourTags(1, 1, matrix, full))
    assert (to_rgb(frame, clip).rgb - torch.tensor(rgb)).abs().max() < 1.6 / (219 * step)
    back = from_rgb(torch.tensor(rgb), frame, clip)
    worst = max(
        np.abs(a.astype(int) - b.astype(int)).max()
        for a, b in zip(back.planes, planes, strict=True)
    )
    assert worst <= (0 if bits < 16 else 1)


@given(st.sampled_from(["yuv420p", "yuv422p10le", "yuv440p", "yuv411p", "gray", "gbrp12le", "bgr0",
                        "rgb48le", "yuv444p16le"]),
       st.integers(1, 13), st.integers(1, 13), st.booleans())  # fmt: skip
def test_grey_pictures_of_any_size_come_back_exactly(
    name: str, height: int, width: int, full: bool
) -> None:
    layout = parse(name)
    values = np.random.default_rng(width * 17 + height).random((height, width)) * 0.8 + 0.1
    picture = torch.tensor(values)[None].repeat(3, 1, 1)
    blank = tuple(
        np.zeros(layout.plane_size(part, width, height), layout.dtype)
        for part in range(layout.components)
    )
    clip, frame = made(blank, name, ColourTags(1, 1, 1, full))
    written = from_rgb(picture, frame, clip)
    assert (to_rgb(written, clip).rgb - picture).abs().max() < 0.51 / 219 * (
        255 / (2**layout.bits - 1)
    ) * 1.01
    again = from_rgb(to_rgb(written, clip).rgb, frame, clip)
    assert same(written, again) or layout.bits == 16


@pytest.mark.parametrize(("name", "error"), [("yuv420p", 0.02), ("yuv422p10le", 0.02)])
def test_smooth_colours_through_halved_chroma(name: str, error: float) -> None:
    """The error that is stated in the documentation, on a slope of one hue per 40 pixels."""
    y, x = np.mgrid[0:40, 0:48] / 40
    picture = torch.tensor(np.stack([0.2 + 0.5 * x, 0.8 - 0.5 * y, 0.3 + 0.2 * x + 0.2 * y]))
    layout = parse(name)
    blank = tuple(np.zeros(layout.plane_size(p, 48, 40), layout.dtype) for p in range(3))
    clip, frame = made(blank, name)
    shown = to_rgb(from_rgb(picture, frame, clip), clip).rgb
    assert (shown - picture).abs()[:, 1:-1, 2:-2].max() < error / 2
    assert (shown - picture).abs().max() < error


def test_chroma_sits_on_the_left_column_midway_between_rows() -> None:
    """A slope of chroma is kept by the conversion only if both directions agree where it sits."""
    x = torch.arange(32.0)[None].repeat(32, 1) / 64 + 0.25
    picture = torch.stack([x, torch.full_like(x, 0.5), 1 - x])
    layout = parse("yuv420p16le")
    blank = tuple(np.zeros(layout.plane_size(p, 32, 32), layout.dtype) for p in range(3))
    clip, frame = made(blank, "yuv420p16le")
    written = from_rgb(picture, frame, clip)
    blue = (1 - x - (0.2126 * x + 0.7152 * 0.5 + 0.0722 * (1 - x))) / (2 - 2 * 0.0722)
    inside = torch.tensor((written.planes[1].astype(float) - 32768) / (224 * 256))[:, 1:]
    assert (inside - blue[::2, 2::2]).abs().max() < 2e-5
    assert (to_rgb(written, clip).rgb - picture)[:, :, 2:-2].abs().max() < 1e-4


def test_untagged_small_is_bt601_and_large_bt709() -> None:
    red = [np.full((4, 4), code, "u1") for code in (81, 90, 240)]
    small, frame = made(tuple(red), tags=ColourTags())
    large = made(tuple(red), tags=ColourTags(), height=720)[0]
    pure = torch.tensor([1.0, 0, 0])[:, None, None]
    assert (to_rgb(frame, small).rgb - pure).abs().max() < 0.01
    assert (to_rgb(frame, large).rgb - pure).abs().max() > 0.05


def test_alpha_goes_beside_the_colours_and_comes_back_untouched() -> None:
    rng = np.random.default_rng(4)
    planes = tuple(rng.integers(70, 900, (6, 8)).astype("<u2") for _ in range(4))
    clip, frame = made(planes, "yuva444p10le")
    picture = to_rgb(frame, clip)
    assert picture.alpha is not None
    assert torch.allclose(picture.alpha[0], torch.tensor(planes[3].astype(np.float32) / 1023))
    back = from_rgb(torch.rand(3, 6, 8), frame, clip)
    assert np.array_equal(back.planes[3], planes[3])


def exr(planes: tuple[np.ndarray, ...], **more: Any) -> tuple[Clip, Frame]:
    layout = sequences.layout(16, len(planes) == 4, floating=True)
    return made(
        tuple(plane.astype("<f2") for plane in planes), layout=layout, container="exr",
        tags=ColourTags(1, 8, 0, True), associated=len(planes) == 4, **more,
    )  # fmt: skip


def test_exr_is_divided_by_alpha_for_the_model_and_multiplied_again() -> None:
    straight, alpha = np.full((2, 2), 0.5), np.array([[1.0, 0.5], [0.25, 0.0]])
    glow = np.where(alpha > 0, straight * alpha, 0.75)
    clip, frame = exr((glow, glow, glow, alpha))
    picture = to_rgb(frame, clip)
    assert torch.allclose(picture.rgb[:, 0, 0], picture.rgb[:, 1, 0], atol=1e-3)
    back = from_rgb(picture.rgb, frame, clip)
    assert np.allclose(back.planes[0], glow, atol=1e-3)
    assert back.planes[0][1, 1] == frame.planes[0][1, 1] == 0.75


def test_exr_highlights_survive_the_model() -> None:
    light = np.array([[0.1, 1.0], [6.0, 40.0]])
    clip, frame = exr((light, light / 2, light / 4))
    picture = to_rgb(frame, clip).rgb
    assert 0 <= picture.min() <= picture.max() <= 1
    back = from_rgb(picture, frame, clip)
    assert np.allclose(back.planes[0], light, rtol=2e-3)


def test_full_to_limited_keeps_the_picture() -> None:
    rng = np.random.default_rng(5)
    planes = tuple(rng.integers(60, 190, (6, 8)).astype("u1") for _ in range(3))
    clip, frame = made(planes, "yuv444p", ColourTags(1, 1, 1, True))
    form = target_form(clip, parse("yuv444p10le"), limited=True)
    assert form.tags.full is False
    limited = made(tuple(np.zeros((6, 8), "<u2") for _ in range(3)), "yuv444p10le", form.tags)[0]
    shown = to_rgb(convert(frame, clip, form), limited).rgb
    assert (shown - to_rgb(frame, clip).rgb).abs().max() < 2e-3


def test_rgb_becomes_tagged_ycbcr() -> None:
    planes = tuple(np.full((4, 4), code, "u1") for code in (200, 100, 50))
    clip, frame = made(planes, "rgb24", ColourTags(1, 13, 0, True))
    form = target_form(clip, parse("yuv444p10le"))
    assert (form.tags.matrix, form.tags.full) == (6, False)
    other = made(planes, "yuv444p10le", form.tags)[0]
    shown = to_rgb(convert(frame, clip, form), other).rgb
    assert torch.allclose(shown[:, 0, 0], torch.tensor([200, 100, 50]) / 255, atol=2e-3)


def test_the_same_form_is_the_same_frame() -> None:
    clip, frame = made(tuple(np.zeros((4, 4), "u1") for _ in range(3)))
    assert convert(frame, clip, form_of(clip)) is frame


def test_another_order_in_memory_touches_no_sample() -> None:
    planes = tuple(np.random.default_rng(6).integers(0, 255, (4, 4)).astype("u1") for _ in range(3))
    clip, frame = made(planes, "rgb24", ColourTags(1, 13, 0, True))
    moved = convert(frame, clip, target_form(clip, parse("bgr0")))
    assert moved.layout.name == "bgr0"
    assert all(old is new for old, new in zip(planes, moved.planes, strict=True))


def test_a_picture_of_another_size() -> None:
    clip, frame = made(tuple(np.zeros((4, 6), "u1") for _ in range(3)))
    with pytest.raises(InvalidInput, match="Scale"):
        from_rgb(torch.zeros(3, 6, 4), frame, clip)


def test_a_turned_clip_is_upright_for_the_model() -> None:
    planes = (np.arange(24).reshape(4, 6).astype("u1") * 9, *([np.full((4, 6), 128, "u1")] * 2))
    turned = (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)
    clip, frame = made(planes, matrix=turned)
    picture = to_rgb(frame, clip).rgb
    assert picture.shape == (3, 6, 4)
    assert picture[0, 5, 0] == picture.min()
    codes = [plane.clip(16, 235) for plane in planes[:1]]
    assert np.abs(from_rgb(picture, frame, clip).planes[0].astype(int) - codes[0]).max() <= 1


@pytest.mark.parametrize("matrix", [8, 10, 11, 14])
def test_unknown_matrices_are_refused(matrix: int) -> None:
    clip, frame = made(
        tuple(np.zeros((4, 4), "u1") for _ in range(3)), tags=ColourTags(1, 1, matrix)
    )
    with pytest.raises(UnsupportedMedia, match=f"number {matrix} of H"):
        to_rgb(frame, clip)


@pytest.mark.parametrize("name", ["h264.mp4", "prores.mov", "dnxhr.mov"])
def test_close_to_libswscale_at_eight_bits(films: Films, name: str) -> None:
    """A second implementation, less exact: it is 1 % off at most."""
    clip = probe(films(name))
    with av.open(str(clip.path)) as container:
        theirs = next(container.decode(video=0)).reformat(
            format="rgb24", src_colorspace=5 if clip.tags.matrix == 2 else 1, src_color_range=1
        )
    ours = to_rgb(next(frames(clip)), clip).rgb
    expected = torch.from_numpy(theirs.to_ndarray()).permute(2, 0, 1) / 255
    assert (ours - expected).abs().mean() < 0.01


def test_forms_hold_what_they_were_made_of() -> None:
    clip, _ = made(tuple(np.zeros((4, 4), "u1") for _ in range(3)))
    assert form_of(clip) == Form(parse("yuv444p"), ColourTags(1, 1, 1, False))
