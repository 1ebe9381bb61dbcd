"""Frames as they cross the wire: rows of samples, and what a file or a picture makes of them.

On the wire (PROTOCOL.md, `upload.frame`) a frame is its rows, the top one first, interleaved,
little endian, not multiplied by alpha. Whole numbers of display colours are kept as PNG; floats,
and whatever is linear light, as EXR, which is linear and multiplied by alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge_server.media import sequences
from bridge_server.media.layout import Layout
from bridge_server.media.transfer import light_of
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.wire import Buffer

_TYPES = {
    "u8": np.dtype("u1"),
    "u16": np.dtype("<u2"),
    "f16": np.dtype("<f2"),
    "f32": np.dtype("<f4"),
}
_CHANNELS = {"rgb": 3, "rgba": 4}
_COLOURS = ("srgb", "linear", "unknown")
#: The largest half; beyond it is infinity.
_BRIGHTEST = 65504.0
#: No side of a frame is longer, pixels.
_LONGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class Form:
    """What a frame's bytes are. width, height: pixels; the words are those of the wire."""

    width: int
    height: int
    depth: str
    components: str
    colour: str

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            BridgeError: one that cannot be (invalid); names it.
        """
        for name, words in (("depth", _TYPES), ("components", _CHANNELS), ("colour", _COLOURS)):
            _known(name, getattr(self, name), list(words))
        for name in ("width", "height"):
            if not 0 < getattr(self, name) <= _LONGEST:
                raise BridgeError(
                    Code.INVALID, f"{name}: {getattr(self, name)} is none, up to {_LONGEST}"
                )

    @property
    def size(self) -> int:
        """Bytes of a frame."""
        samples = self.width * self.height * _CHANNELS[self.components]
        return samples * _TYPES[self.depth].itemsize

    @property
    def linear(self) -> bool:
        """Whether colours are linear light; sRGB's else."""
        return self.colour == "linear"

    @property
    def floating(self) -> bool:
        """Whether samples are floats."""
        return self.depth.startswith("f")


def _known(name: str, word: str, words: Sequence[str]) -> None:
    if word not in words:
        raise BridgeError(Code.INVALID, f"{name}: {word!r} is none of {', '.join(words)}")


def suffix(form: Form) -> str:
    """The suffix of the images that frames of `form` are kept in."""
    return ".exr" if form.floating or form.linear else ".png"


def kept(rows: Buffer, form: Form) -> tuple[NDArray[Any], Layout]:
    """Return a frame from the wire as the samples (height, width, channels) of an image file.

    Raises:
        BridgeError: see `check_size`.
    """
    check_size(rows, form)
    channels = _CHANNELS[form.components]
    pixels = np.frombuffer(rows, _TYPES[form.depth]).reshape(form.height, form.width, channels)
    if suffix(form) == ".png":
        return pixels, sequences.layout(pixels.itemsize * 8, channels == 4)
    # A half tells 8 bits apart, and a float 16.
    bits = 16 if form.depth in ("u8", "f16") else 32
    layout = sequences.layout(bits, channels == 4, floating=True)
    return _light(pixels, form).astype(layout.dtype), layout


def check_size(rows: Buffer, form: Form) -> None:
    """Check that a frame has as many bytes as its form says.

    Raises:
        BridgeError: it has not (invalid).
    """
    if memoryview(rows).nbytes != form.size:
        raise BridgeError(
            Code.INVALID,
            f"a frame of {form.width} x {form.height} {form.depth} {form.components} has "
            f"{form.size} bytes, and {memoryview(rows).nbytes} came",
        )


def _light(pixels: NDArray[Any], form: Form) -> NDArray[np.float32]:
    """Linear light, multiplied by alpha."""
    values: NDArray[np.float32] = pixels.astype(np.float32)
    values /= np.float32(_tops(form.depth))
    with np.errstate(over="ignore", invalid="ignore"):  # what renderers leave: not numbers, light
        if not form.linear:
            values[..., :3] = light_of(values[..., :3])
        if form.depth == "f16":
            np.clip(values, -_BRIGHTEST, _BRIGHTEST, out=values)
        if values.shape[2] == 4:
            values[..., :3] *= values[..., 3:]
    return values


def rows(
    rgb: NDArray[np.floating[Any]],
    alpha: NDArray[np.floating[Any]] | None,
    depth: str,
    components: str,
) -> bytes:
    """Return a picture's bytes for the wire.

    rgb: (3, H, W); alpha: (H, W), or None: opaque; whole numbers stand for [0, 1], and what is
        outside is cut off

    Raises:
        BridgeError: no such depth or components (invalid).
    """
    _known("depth", depth, list(_TYPES))
    _known("components", components, list(_CHANNELS))
    height, width = rgb.shape[1:]
    pixels = np.ones((height, width, _CHANNELS[components]), np.float32)
    pixels[..., :3] = np.moveaxis(rgb, 0, -1)
    if components == "rgba" and alpha is not None:
        pixels[..., 3] = alpha
    if depth.startswith("u"):
        top = np.float32(_tops(depth))
        pixels = np.rint(np.nan_to_num(pixels, copy=False).clip(0, 1) * top)
    elif depth == "f16":
        pixels = pixels.clip(-_BRIGHTEST, _BRIGHTEST)
    return pixels.astype(_TYPES[depth]).tobytes()


def _tops(depth: str) -> int:
    """What stands for 1."""
    return {"u8": 2**8 - 1, "u16": 2**16 - 1}.get(depth, 1)
