"""The one conversion between a file's samples and the model's RGB.

Y'CbCr is converted in float by the formulas of ITU-T H.273 (8.3): libswscale is 3.5 codes of 1023
off at 10 bits and darker by 2 on average, measured. Chroma of 4:2:0 and 4:2:2 is taken to sit on
the left column (H.264's and HEVC's default, and ProRes's), 4:2:0 midway between two rows; it is
interpolated linearly, and gathered with the weights (1, 2, 1)/4 across and (1, 1)/2 down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridge_server.media import orient, transfer
from bridge_server.media.clip import UNSPECIFIED, Clip, ColourTags
from bridge_server.media.errors import UnsupportedMedia
from bridge_server.media.frame import Frame
from bridge_server.media.layout import Family, Layout
from bridge_server.media.transfer import Floats, Hdr, Way
from fresco.errors import InvalidInput

#: (red's, blue's) share of luma, by H.273's matrix coefficients.
_LUMA = {
    1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114),
    7: (0.212, 0.087), 9: (0.2627, 0.0593),
}  # fmt: skip
#: What a half holds, for infinite light.
_BRIGHTEST = 65504.0


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What the model sees of a frame, upright.

    rgb: (3, H, W) float32 sRGB in [0, 1]; not multiplied by alpha
    alpha: (1, H, W) float32 in [0, 1], or None
    """

    rgb: Tensor
    alpha: Tensor | None


@dataclass(frozen=True, slots=True)
class Coding:
    """How one file's samples stand for R'G'B'.

    matrix: of H.273; 0 for RGB
    full: black is code 0
    associated: colours are multiplied by alpha (EXR, some TIFF)
    """

    layout: Layout
    matrix: int
    full: bool
    associated: bool
    way: Way


@dataclass(frozen=True, slots=True)
class Form:
    """The samples of a file to write: their layout, and what its tags say."""

    layout: Layout
    tags: ColourTags
    associated: bool = False


def form_of(clip: Clip) -> Form:
    """Return the form that `clip` itself has."""
    return Form(clip.layout, clip.tags, clip.associated)


def coding(form: Form, clip: Clip, hdr: Hdr = Hdr.REFUSE) -> Coding:
    """Return how the samples of a file of `clip`'s size stand for colours.

    A matrix that the file does not name is BT.709's from 720 rows or 1280 columns on and BT.601's
    below, as players guess; a range that it does not name is limited for Y'CbCr and full for RGB.

    Raises:
        UnsupportedMedia: see `transfer.way`; or a matrix not known here.
    """
    layout, tags = form.layout, form.tags
    rgb = layout.family is Family.RGB
    matrix = 0 if rgb else tags.matrix
    if not rgb and matrix in (0, UNSPECIFIED):
        matrix = _guessed_matrix(clip)
    if matrix and matrix not in _LUMA:
        raise UnsupportedMedia(
            f"the clip's matrix is number {tags.matrix} of H.273, which is not converted here; "
            "render it as BT.709 first."
        )
    full = rgb or layout.floating or bool(tags.full)
    if layout.family is Family.GRAY and tags.full is None:
        full = True
    return Coding(layout, matrix, full, form.associated, transfer.way(tags, layout.floating, hdr))


def _guessed_matrix(clip: Clip) -> int:
    return 1 if clip.height >= 720 or clip.width >= 1280 else 6


def image_form(clip: Clip, layout: Layout) -> Form:
    """Return the form of images with `layout` that show what `clip` shows.

    They cannot say what their colours are: float is linear light of BT.709, multiplied by alpha
    (EXR), whole numbers are sRGB (PNG, TIFF).

    Raises:
        UnsupportedMedia: see `transfer.way`.
    """
    tags, own = clip.tags, clip.layout
    if layout.floating:
        kept = tags if own.floating else ColourTags(transfer.BT709, transfer.LINEAR, 0, True)
        return Form(layout, kept, layout.alpha)
    if transfer.way(tags, own.floating, Hdr.TONE_MAP).kind != "as shown":
        tags = ColourTags(transfer.BT709, transfer.SRGB)
    return Form(layout, replace(tags, matrix=0, full=True))


def target_form(clip: Clip, layout: Layout, limited: bool = False) -> Form:
    """Return the form of a film with `layout` that shows what `clip` shows.

    limited: the codec has no full range of Y'CbCr (ProRes, DNxHR)
    """
    tags, own = clip.tags, clip.layout
    if own.floating and not layout.floating:
        tags = ColourTags(transfer.BT709, transfer.SRGB, 0, True)
    if layout.family is Family.RGB:
        return Form(layout, replace(tags, matrix=0, full=True))
    if own.family is Family.RGB:
        matrix = 9 if tags.primaries == transfer.BT2020 else _guessed_matrix(clip)
        return Form(layout, replace(tags, matrix=matrix, full=False))
    return Form(layout, replace(tags, full=False) if limited and tags.full else tags)


def to_rgb(frame: Frame, clip: Clip, hdr: Hdr = Hdr.REFUSE) -> Picture:
    """Return `frame` as the model sees it.

    Raises:
        UnsupportedMedia: see `coding`.
    """
    how = coding(form_of(clip), clip, hdr)
    rgb = transfer.to_srgb(_straight(frame, how), how.way)
    return Picture(_out(rgb, clip), _out_alpha(frame, clip))


def as_seen(frame: Frame, clip: Clip, linear: bool) -> Picture:
    """Return what is seen of `frame`, upright, not clipped and not multiplied by alpha.

    Light above 1 stays where the clip is linear; PQ and HLG are mapped to what can be shown.

    linear: light of BT.709's primaries; sRGB else

    Raises:
        UnsupportedMedia: see `coding`.
    """
    how = coding(form_of(clip), clip, Hdr.TONE_MAP)
    signal = _straight(frame, how)
    if how.way.kind == "linear":
        light = transfer.of_bt709(signal, how.way)
        rgb = light if linear else transfer.signal_of(light)
    else:
        shown = signal if how.way.kind == "as shown" else transfer.to_srgb(signal, how.way)
        rgb = transfer.light_of(shown) if linear else shown
    return Picture(_out(rgb, clip), _out_alpha(frame, clip))


def _out(planes: Floats, clip: Clip) -> Tensor:
    whole = torch.from_numpy(np.ascontiguousarray(planes, np.float32))
    return orient.upright(whole, clip.matrix).contiguous()


def _out_alpha(frame: Frame, clip: Clip) -> Tensor | None:
    if not frame.layout.alpha:
        return None
    return _out(_unit(frame.planes[-1], frame.layout)[None], clip).clamp(0, 1)


def from_rgb(
    rgb: Tensor, frame: Frame, clip: Clip, form: Form | None = None, hdr: Hdr = Hdr.REFUSE
) -> Frame:
    """Return the picture `rgb` as a frame of the file, in the place of the source's `frame`.

    rgb: (3, H, W) float in [0, 1], upright, of the source's size
    form: of the file to write; the source's where None. Alpha and extra channels are the source's

    Raises:
        InvalidInput: another size.
        UnsupportedMedia: see `coding`.
    """
    turned = orient.stored(rgb.detach().float().cpu().clamp(0, 1), clip.matrix).numpy()
    if turned.shape != (3, *frame.planes[0].shape):
        raise InvalidInput(
            f"the picture has shape {tuple(rgb.shape)}; the frame is stored as "
            f"{frame.planes[0].shape}. Scale the picture to the source's size."
        )
    old, new = coding(form_of(clip), clip, hdr), coding(form or form_of(clip), clip, hdr)
    light = _straight(frame, old) if old.way == new.way else np.zeros_like(turned)
    return _written(transfer.from_srgb(turned, new.way, light), frame, new, old)


def convert(frame: Frame, clip: Clip, form: Form) -> Frame:
    """Return the source's `frame` in another form; the very samples where it is the same one.

    Raises:
        UnsupportedMedia: see `coding`.
    """
    old, new = (coding(each, clip, Hdr.TONE_MAP) for each in (form_of(clip), form))
    if old == new:
        return frame
    if _same_samples(old, new):
        return frame.with_planes(frame.planes, new.layout)
    signal = _straight(frame, old)
    if old.way != new.way:
        shown = transfer.to_srgb(signal, old.way)
        signal = transfer.from_srgb(shown, new.way, np.zeros_like(signal))
    return _written(signal, frame, new, old)


def _same_samples(old: Coding, new: Coding) -> bool:
    """Whether only the order in memory differs."""
    plain = replace(old.layout, name="", packed=(), step=0)
    return replace(old, layout=plain) == replace(
        new, layout=replace(new.layout, name="", packed=(), step=0)
    )


def _written(signal: Floats, frame: Frame, target: Coding, source: Coding) -> Frame:
    """Code `signal`, which is not multiplied by alpha, and put the source's alpha beside it."""
    alpha = frame.planes[-1] if frame.layout.alpha else None
    if alpha is not None and target.associated:
        signal = _associated(signal, _unit(alpha, frame.layout), frame, source)
    planes = encode(signal, target)
    if target.layout.alpha:
        planes += (_alpha(alpha, frame.layout, target.layout, planes[0].shape),)
    return frame.with_planes(planes, target.layout)


def _associated(signal: Floats, share: Floats, frame: Frame, source: Coding) -> Floats:
    if not source.associated:
        return signal * share
    # Light without cover (flames, glows) has no straight colour: it stays the source's.
    return np.where(share > 0, signal * share, decode(frame.planes, source))


def _alpha(
    alpha: NDArray[Any] | None, old: Layout, new: Layout, shape: tuple[int, ...]
) -> NDArray[Any]:
    if alpha is None:
        return _codes(np.ones(shape, np.float32), new)
    if (old.bits, old.floating) == (new.bits, new.floating):
        return alpha
    return _codes(_unit(alpha, old), new)


def _straight(frame: Frame, how: Coding) -> Floats:
    """R'G'B' of a frame, not multiplied by alpha."""
    signal = decode(frame.planes, how)
    if not how.associated:
        return signal
    alpha = _unit(frame.planes[-1], frame.layout)
    return np.where(alpha > 0, signal / np.where(alpha > 0, alpha, 1), 0)


def decode(planes: tuple[NDArray[Any], ...], how: Coding) -> Floats:
    """Return R'G'B' (3, H, W) float32, unclipped, of planes in canonical order."""
    layout = how.layout
    if layout.family is Family.RGB:
        return np.stack([_unit(plane, layout) for plane in planes[:3]])
    luma = _luma(planes[0], how)
    if layout.family is Family.GRAY:
        return np.stack([luma] * 3)
    blue, red = (_upsampled(_chroma(plane, how), how, luma.shape) for plane in planes[1:3])
    kr, kb = _LUMA[how.matrix]
    r, b = luma + (2 - 2 * kr) * red, luma + (2 - 2 * kb) * blue
    return np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b])


def encode(signal: Floats, how: Coding) -> tuple[NDArray[Any], ...]:
    """Return the planes, without alpha, of R'G'B' (3, H, W); the inverse of `decode`."""
    layout = how.layout
    if layout.family is Family.RGB:
        return tuple(_codes(plane, layout) for plane in signal)
    kr, kb = _LUMA[how.matrix]
    r, g, b = signal
    luma = kr * r + (1 - kr - kb) * g + kb * b
    if layout.family is Family.GRAY:
        return (_luma_codes(luma, how),)
    blue, red = (b - luma) / (2 - 2 * kb), (r - luma) / (2 - 2 * kr)
    chroma = (_chroma_codes(_gathered(plane, layout), how) for plane in (blue, red))
    return (_luma_codes(luma, how), *chroma)


def _unit(plane: NDArray[Any], layout: Layout) -> Floats:
    """Full-range codes to [0, 1]; floats as they are, without the holes that renderers leave."""
    values = plane.astype(np.float32)
    if layout.floating:
        return np.nan_to_num(values, copy=False, posinf=_BRIGHTEST, neginf=0)
    return values / np.float32(layout.top)


def _codes(values: Floats, layout: Layout) -> NDArray[Any]:
    if layout.floating:
        return values.astype(layout.dtype)
    return _rounded(values * np.float32(layout.top), layout)


def _rounded(values: Floats, layout: Layout) -> NDArray[Any]:
    return np.rint(values.clip(0, layout.top)).astype(layout.dtype)


def _scale(how: Coding, black: int, span: int) -> tuple[np.float32, np.float32]:
    """Offset and width of a signal whose 8-bit codes of limited range begin at `black`."""
    step = 1 << (how.layout.bits - 8)
    return np.float32(black * step), np.float32(span * step)


def _luma(plane: NDArray[Any], how: Coding) -> Floats:
    if how.full:
        return _unit(plane, how.layout)
    black, span = _scale(how, 16, 219)
    return (plane.astype(np.float32) - black) / span


def _luma_codes(luma: Floats, how: Coding) -> NDArray[Any]:
    if how.full:
        return _codes(luma, how.layout)
    black, span = _scale(how, 16, 219)
    return _rounded(luma * span + black, how.layout)


def _chroma(plane: NDArray[Any], how: Coding) -> Floats:
    middle, span = _scale(how, 128, 224)
    return (plane.astype(np.float32) - middle) / (np.float32(how.layout.top) if how.full else span)


def _chroma_codes(chroma: Floats, how: Coding) -> NDArray[Any]:
    middle, span = _scale(how, 128, 224)
    return _rounded(
        chroma * (np.float32(how.layout.top) if how.full else span) + middle, how.layout
    )


def _upsampled(chroma: Floats, how: Coding, shape: tuple[int, ...]) -> Floats:
    across, down = how.layout.shift
    for _ in range(across):
        chroma = _wider(chroma)
    for _ in range(down):
        chroma = _taller(chroma)
    return chroma[: shape[0], : shape[1]]


def _wider(chroma: Floats) -> Floats:
    """Twice the columns; every second is where it was."""
    out = np.repeat(chroma, 2, axis=1)
    out[:, 1:-1:2] = (chroma[:, :-1] + chroma[:, 1:]) / 2
    return out


def _taller(chroma: Floats) -> Floats:
    """Twice the rows, each a quarter of a row beside its old one."""
    edged = np.pad(chroma, ((1, 1), (0, 0)), "edge")
    out = np.repeat(chroma, 2, axis=0) * np.float32(0.75)
    out[0::2] += edged[:-2] / 4
    out[1::2] += edged[2:] / 4
    return out


def _gathered(chroma: Floats, layout: Layout) -> Floats:
    across, down = layout.shift
    for _ in range(down):
        rows = np.pad(chroma, ((0, chroma.shape[0] % 2), (0, 0)), "edge")
        chroma = (rows[0::2] + rows[1::2]) / 2
    for _ in range(across):
        columns = np.pad(chroma, ((0, 0), (1, 1 + chroma.shape[1] % 2)), "edge")
        chroma = (columns[:, 0:-2:2] + 2 * columns[:, 1:-1:2] + columns[:, 2::2]) / 4
    return chroma
