"""From the colours that a clip is tagged with to the model's sRGB, and back.

R'G'B' goes in and comes out as float, (3, H, W). Which of four ways a clip goes is decided by its
tags alone:

*as shown*: BT.709, BT.601, sRGB and untagged. The code values are taken as sRGB's without a
  curve, as editors show them: both are made for the same display, and a curve between the two
  would lift the shadows of every clip. BT.601's primaries are taken for BT.709's.
*wide*: BT.2020 or P3 primaries on a display's curve. Linear light by that curve (BT.1886, 2.4, for
  those of cameras), a 3×3 matrix to BT.709, the same curve back. Colours outside sRGB are clipped.
*linear*: EXR and linear tags. sRGB's curve. A pixel brighter than 1 is divided by its largest
  component for the model, and what comes back is multiplied by it again; negative values are 0.
*HDR*: PQ and HLG, refused unless tone-mapping is asked for. Light relative to a reference white of
  203 cd/m² (BT.2408), BT.2020 to BT.709, per component y = x (1 + x/w²) / (1 + x) (Reinhard et al.
  2002, equation 4) with w the peak of 1000 cd/m², sRGB's curve. Every step has an exact inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bridge_server.media.clip import UNSPECIFIED, ColourTags
from bridge_server.media.errors import UnsupportedMedia

Floats: TypeAlias = NDArray[np.floating[Any]]


class Hdr(Enum):
    """What is done with PQ and HLG."""

    REFUSE = "refuse"
    TONE_MAP = "tone map"


#: H.273 code points.
BT709, BT470BG, BT601, BT240, BT2020, P3_DCI, P3_D65 = 1, 5, 6, 7, 9, 11, 12
GAMMA22, GAMMA28, LINEAR, SRGB, PQ, HLG = 4, 5, 8, 13, 16, 18
_AS_BT709 = {BT709, BT470BG, BT601, BT240, UNSPECIFIED}
_CAMERA = {1, 6, 7, 11, 12, 14, 15, UNSPECIFIED}
_D65 = (0.3127, 0.3290)
#: x, y of red, green, blue and white.
_CHROMATICITIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    P3_D65: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    # The theatre's white is adapted to D65 by naming it so: white stays white.
    P3_DCI: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
#: cd/m²
REFERENCE_WHITE, PEAK = 203.0, 1000.0
_HLG_GAMMA = 1.2
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073
_PQ_M1, _PQ_M2, _PQ_C1, _PQ_C2, _PQ_C3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)[:, None, None]


@dataclass(frozen=True, slots=True)
class Way:
    """How one clip's colours go to sRGB: 'as shown', 'wide', 'linear', 'pq' or 'hlg'."""

    kind: str
    gamma: float = 0.0
    primaries: int = BT709


def is_hdr(tags: ColourTags) -> bool:
    """Whether the clip is PQ or HLG, so that `Hdr` matters to it."""
    return tags.transfer in (PQ, HLG)


def way(tags: ColourTags, floating: bool = False, hdr: Hdr = Hdr.REFUSE) -> Way:
    """Decide how a clip tagged `tags` goes to sRGB.

    floating: samples are float, which means linear light where the file says nothing

    Raises:
        UnsupportedMedia: PQ or HLG and `hdr` refuses, or a curve or primaries not known here.
    """
    if is_hdr(tags):
        return _hdr_way(tags, hdr)
    primaries = BT709 if tags.primaries in _AS_BT709 else tags.primaries
    if primaries not in _CHROMATICITIES:
        raise UnsupportedMedia(
            f"the clip's colour primaries are number {tags.primaries} of H.273, which are not "
            "converted here; render it as BT.709 first."
        )
    if tags.transfer == LINEAR or (floating and tags.transfer == UNSPECIFIED):
        return Way("linear", primaries=primaries)
    curves = {GAMMA22: 2.2, GAMMA28: 2.8, SRGB: 0.0} | dict.fromkeys(_CAMERA, 2.4)
    if tags.transfer not in curves:
        raise UnsupportedMedia(
            f"the clip's transfer curve is number {tags.transfer} of H.273, which is not "
            "converted here; render it as BT.709 first."
        )
    if primaries == BT709:
        return Way("as shown")
    return Way("wide", curves[tags.transfer], primaries)


def _hdr_way(tags: ColourTags, hdr: Hdr) -> Way:
    name = "PQ" if tags.transfer == PQ else "HLG"
    if hdr is Hdr.REFUSE:
        raise UnsupportedMedia(
            f"the clip is HDR ({name}), and the model paints standard range only; allow "
            "tone-mapping for this job, or render the clip as BT.709 first."
        )
    return Way(name.lower(), primaries=tags.primaries if tags.primaries in (12, 11) else BT2020)


def to_srgb(rgb: Floats, how: Way) -> Floats:
    """Return the clip's R'G'B' (3, H, W) as sRGB in [0, 1]."""
    if how.kind == "as shown":
        return rgb.clip(0, 1)
    if how.kind == "wide":
        light = _to(_decode(rgb.clip(0, 1), how.gamma), how.primaries, BT709)
        return _encode(light.clip(0, 1), how.gamma)
    if how.kind == "linear":
        light = _to(rgb, how.primaries, BT709).clip(0, None)
        return _encode(light / highlight(light), 0)
    light = _pq_light(rgb.clip(0, 1)) if how.kind == "pq" else _hlg_light(rgb.clip(0, 1))
    return _encode(_mapped(_to(light, how.primaries, BT709).clip(0, None)).clip(0, 1), 0)


def from_srgb(srgb: Floats, how: Way, source: Floats) -> Floats:
    """Return sRGB (3, H, W) as the clip's R'G'B'; the inverse of `to_srgb`.

    source: the R'G'B' of the clip at these pixels, for the brightness of its highlights
    """
    if how.kind == "as shown":
        return srgb
    if how.kind == "wide":
        light = _to(_decode(srgb, how.gamma), BT709, how.primaries)
        return _encode(light.clip(0, 1), how.gamma)
    light = _decode(srgb, 0)
    if how.kind == "linear":
        gain = highlight(_to(source, how.primaries, BT709).clip(0, None))
        return _to(light * gain, BT709, how.primaries)
    light = _to(_unmapped(light), BT709, how.primaries).clip(0, None)
    return _pq_signal(light) if how.kind == "pq" else _hlg_signal(light)


def chromaticities(primaries: int) -> tuple[tuple[float, float], ...]:
    """Return x, y of red, green, blue and white of a code point of H.273."""
    return _CHROMATICITIES[primaries]


def highlight(light: Floats) -> Floats:
    """Return (1, H, W): the largest component where it is above 1, and 1 elsewhere."""
    return light.max(axis=0, keepdims=True).clip(1, None)


def light_of(signal: Floats) -> Floats:
    """Linear light of sRGB's curve (IEC 61966-2-1), which goes on above 1, and mirrored below 0."""
    return np.copysign(_decode(np.abs(signal), 0), signal).astype(signal.dtype)


def signal_of(light: Floats) -> Floats:
    """The inverse of `light_of`."""
    return np.copysign(_encode(np.abs(light), 0), light).astype(light.dtype)


def of_bt709(light: Floats, how: Way) -> Floats:
    """Return linear light (3, H, W) of a clip's primaries as BT.709's, unclipped."""
    return _to(light, how.primaries, BT709)


def _decode(signal: Floats, gamma: float) -> Floats:
    """To linear light: a power, or sRGB's curve (IEC 61966-2-1) where `gamma` is 0."""
    if gamma:
        return signal**gamma
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _encode(light: Floats, gamma: float) -> Floats:
    if gamma:
        return light ** (1 / gamma)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _to(light: Floats, primaries: int, wanted: int) -> Floats:
    if primaries == wanted:
        return light
    matrix = np.linalg.solve(_xyz(wanted), _xyz(primaries)).astype(light.dtype)
    return np.einsum("ij,jhw->ihw", matrix, light)


def _xyz(primaries: int) -> NDArray[np.float64]:
    """The matrix from linear RGB to CIE XYZ (SMPTE RP 177)."""
    *colours, white = [(x / y, 1.0, (1 - x - y) / y) for x, y in _CHROMATICITIES[primaries]]
    columns = np.array(colours).T
    return columns * np.linalg.solve(columns, np.array(white))


def _mapped(light: Floats) -> Floats:
    white = PEAK / REFERENCE_WHITE
    return light * (1 + light / white**2) / (1 + light)


def _unmapped(shown: Floats) -> Floats:
    white = PEAK / REFERENCE_WHITE
    less = 1 - shown
    return white**2 / 2 * (np.sqrt(less**2 + 4 * shown / white**2) - less)


def _pq_light(signal: Floats) -> Floats:
    """SMPTE ST 2084, relative to the reference white."""
    root = signal ** (1 / _PQ_M2)
    light = ((root - _PQ_C1).clip(0, None) / (_PQ_C2 - _PQ_C3 * root)) ** (1 / _PQ_M1)
    return light * (10_000 / REFERENCE_WHITE)


def _pq_signal(light: Floats) -> Floats:
    power = (light * (REFERENCE_WHITE / 10_000)).clip(0, 1) ** _PQ_M1
    return ((_PQ_C1 + _PQ_C2 * power) / (1 + _PQ_C3 * power)) ** _PQ_M2


def _hlg_light(signal: Floats) -> Floats:
    """ITU-R BT.2100: scene light, then the system's gamma for a display of 1000 cd/m²."""
    bright = (np.exp((signal - _HLG_C) / _HLG_A) + _HLG_B) / 12
    scene = np.where(signal <= 0.5, signal**2 / 3, bright)
    luma = (scene * _LUMA_2020).sum(axis=0, keepdims=True)
    return scene * luma ** (_HLG_GAMMA - 1) * (PEAK / REFERENCE_WHITE)


def _hlg_signal(light: Floats) -> Floats:
    shown = light * (REFERENCE_WHITE / PEAK)
    luma = (shown * _LUMA_2020).sum(axis=0, keepdims=True).clip(1e-9, None)
    scene = (shown * luma ** (1 / _HLG_GAMMA - 1)).clip(0, 1)
    bright = _HLG_A * np.log((12 * scene - _HLG_B).clip(1e-9, None)) + _HLG_C
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)
