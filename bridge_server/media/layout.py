"""How the samples of a picture lie in memory, read from FFmpeg's names of pixel formats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import DTypeLike

from bridge_server.media.errors import UnsupportedMedia


class Family(Enum):
    """What the planes hold."""

    YUV = "Y'CbCr"
    RGB = "RGB"
    GRAY = "grey"


@dataclass(frozen=True, slots=True)
class Layout:
    """One pixel format.

    name: FFmpeg's, little endian
    bits: of one sample; 16 or 32 where `floating`
    shift: how often chroma is halved, (x, y): (1, 1) is 4:2:0
    packed: for formats of one plane, the place of each component in canonical order
    step: for packed formats, samples per pixel (a padding byte counts)
    """

    name: str
    family: Family
    bits: int
    alpha: bool = False
    floating: bool = False
    shift: tuple[int, int] = (0, 0)
    packed: tuple[int, ...] = ()
    step: int = 0

    @property
    def dtype(self) -> DTypeLike:
        """The type of one sample."""
        if self.floating:
            return np.dtype("<f2" if self.bits == 16 else "<f4")
        return np.dtype("u1" if self.bits == 8 else "<u2")

    @property
    def components(self) -> int:
        """Planes of a frame in canonical order: Y Cb Cr, R G B or Y; alpha last."""
        return (1 if self.family is Family.GRAY else 3) + self.alpha

    @property
    def top(self) -> int:
        """The largest code value."""
        return (1 << self.bits) - 1

    def plane_size(self, component: int, width: int, height: int) -> tuple[int, int]:
        """Return (rows, columns) of a component of a picture of `width` × `height`."""
        if self.family is Family.YUV and component in (1, 2):
            return -(-height >> self.shift[1]), -(-width >> self.shift[0])
        return height, width


#: Halvings of chroma, (x, y).
_SHIFTS = {
    "420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2),
}  # fmt: skip

#: Formats of one plane: the place of R, G, B and alpha, and samples per pixel.
_PACKED = {
    "rgb24": ((0, 1, 2), 3, 8),
    "bgr24": ((2, 1, 0), 3, 8),
    "rgba": ((0, 1, 2, 3), 4, 8),
    "bgra": ((2, 1, 0, 3), 4, 8),
    "argb": ((1, 2, 3, 0), 4, 8),
    "abgr": ((3, 2, 1, 0), 4, 8),
    "rgb0": ((0, 1, 2), 4, 8),
    "bgr0": ((2, 1, 0), 4, 8),
    "0rgb": ((1, 2, 3), 4, 8),
    "0bgr": ((3, 2, 1), 4, 8),
    "rgb48le": ((0, 1, 2), 3, 16),
    "rgba64le": ((0, 1, 2, 3), 4, 16),
}

_PLANAR = re.compile(
    r"(?:yuvj?(?P<a>a)?(?P<sub>\d{3})p|(?P<rgb>gbr)(?P<ra>a)?p|(?P<gray>gray))"
    r"(?P<bits>9|1[0246]|f32)?(?:le)?"
)


def parse(name: str) -> Layout:
    """Return the layout of FFmpeg's pixel format `name`.

    Raises:
        UnsupportedMedia: palettes, Bayer patterns, big-endian and other formats not known here.
    """
    if name in _PACKED:
        order, step, bits = _PACKED[name]
        return Layout(name, Family.RGB, bits, len(order) == 4, packed=order, step=step)
    if name in ("ya8", "ya16le"):
        return Layout(name, Family.GRAY, 8 if name == "ya8" else 16, True, packed=(0, 1), step=2)
    found = _PLANAR.fullmatch(name)
    if not found:
        raise UnsupportedMedia(
            f"the pixel format {name} is not read here; convert the clip to ProRes, FFV1 or PNG."
        )
    return _planar(name.replace("yuvj", "yuv"), found)


def _planar(name: str, found: re.Match[str]) -> Layout:
    floating = found["bits"] == "f32"
    bits = 32 if floating else int(found["bits"] or 8)
    alpha = bool(found["a"] or found["ra"])
    if found["sub"]:
        if found["sub"] not in _SHIFTS:
            raise UnsupportedMedia(f"the pixel format {name} is not read here.")
        return Layout(name, Family.YUV, bits, alpha, floating, _SHIFTS[found["sub"]])
    return Layout(name, Family.RGB if found["rgb"] else Family.GRAY, bits, alpha, floating)
