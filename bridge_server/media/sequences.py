"""Image sequences through OpenImageIO: PNG, TIFF and EXR, one file per frame.

Samples are read and written as they are: no gamma, no profile and no multiplication by alpha is
applied here. The source's headers (compression, chromaticities, windows, names of channels) are
written again with the samples.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813  (as its own documentation does)
from numpy.typing import NDArray

from bridge_server.media import confine
from bridge_server.media.clip import Clip, ColourTags
from bridge_server.media.errors import NotWritten, UnreadableMedia, UnsupportedMedia
from bridge_server.media.formats import IMAGES
from bridge_server.media.frame import Frame
from bridge_server.media.layout import Family, Layout
from bridge_server.media.transfer import BT709, BT2020, LINEAR, P3_D65, SRGB, chromaticities
from fresco.callbacks import CancelToken
from fresco.errors import InvalidInput

_FORMATS = {"uint8": 8, "uint16": 16, "half": 16, "float": 32}
_SLOT = re.compile(r"#+|%0?(\d*)d")
_NUMBERED = re.compile(r"(.*?)(\d+)(\.[A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Names of a sequence: `folder`/`prefix` + a number of at least `digits` digits + `suffix`."""

    folder: Path
    prefix: str
    digits: int
    suffix: str

    def file(self, number: int) -> Path:
        """Return the file of a frame by its number."""
        return self.folder / f"{self.prefix}{number:0{self.digits}}{self.suffix}"


def is_sequence(path: Path) -> bool:
    """Whether `path` means images: a folder, a pattern, or one image."""
    return path.suffix.lower() in IMAGES or os.path.isdir(path)


def pattern(path: Path) -> Pattern:
    """Return the names that a pattern such as ``shot.####.exr`` or ``shot_%04d.png`` stands for.

    Raises:
        InvalidInput: no place for the number, or a suffix of no image.
    """
    slots = list(_SLOT.finditer(path.name))
    if len(slots) != 1 or path.suffix.lower() not in IMAGES:
        raise InvalidInput(
            f"{path.name} names no image sequence; write #### where the frame's number goes, as in "
            f"{path.stem.strip('#')}.####.png, and end in {', '.join(sorted(IMAGES))}."
        )
    slot = slots[0]
    digits = len(slot[0]) if slot[0].startswith("#") else int(slot[1] or 1)
    prefix, suffix = path.name[: slot.start()], path.name[slot.end() :]
    return Pattern(path.parent, prefix, digits, suffix)


def find(path: Path) -> tuple[Path, ...]:
    """Return the files of the sequence that `path` means, in order.

    Hidden files are none: macOS puts one beside every file on a foreign disk.

    Raises:
        UnreadableMedia: none, several sequences in one folder, or a frame missing or there twice.
    """
    groups: dict[tuple[str, str], list[Path]] = {}
    folder = path if os.path.isdir(path) else path.parent
    for file in folder.iterdir() if os.path.isdir(folder) else ():
        found = _NUMBERED.fullmatch(file.name)
        image = found and found[3].lower() in IMAGES and not file.name.startswith(".")
        if found and image and file.is_file():
            groups.setdefault((found[1], found[3]), []).append(file)
    return _whole(_chosen(path, groups))


def _chosen(path: Path, groups: dict[tuple[str, str], list[Path]]) -> list[Path]:
    if os.path.isdir(path):
        if len(groups) == 1:
            return next(iter(groups.values()))
        names = ", ".join(sorted(f"{prefix}#{suffix}" for prefix, suffix in groups)) or "none"
        raise UnreadableMedia(
            f"{path} should hold one image sequence, and holds: {names}. Name one of its files."
        )
    if _SLOT.search(path.name):
        names = pattern(path)
        key = (names.prefix, names.suffix)
    else:
        found = _NUMBERED.fullmatch(path.name)
        there = os.path.isfile(path)
        if found is None and there:
            return [path]
        key = (found[1], found[3]) if found and there else ("", "")
    if key not in groups:
        raise UnreadableMedia(f"{path} is not there, or is no numbered image.")
    return groups[key]


def _whole(files: list[Path]) -> tuple[Path, ...]:
    ordered = sorted(files, key=number)
    for before, after in itertools.pairwise(ordered):
        if number(after) == number(before):
            raise UnreadableMedia(f"{before.name} and {after.name} are one frame; remove one.")
        if number(after) != number(before) + 1:
            raise UnreadableMedia(
                f"the image sequence has no frame {number(before) + 1}: {before.name} is followed "
                f"by {after.name}. Render the missing frames."
            )
    return tuple(ordered)


def probe(path: Path, rate: Fraction | None = None) -> Clip:
    """Return what is known of an image sequence; one header is read.

    Raises:
        UnreadableMedia: see `find`; or the first file is damaged.
        UnsupportedMedia: no rate, or a kind of image that is not read here.
    """
    return _clip(path, find(path), rate)


def still(file: Path) -> Clip:
    """Return what is known of one image, whatever others are called; as a clip of one frame.

    Raises:
        UnreadableMedia, UnsupportedMedia: it is damaged, or of a kind that is not read here.
    """
    return _clip(file, (file,), Fraction(1))


def _clip(path: Path, files: tuple[Path, ...], rate: Fraction | None) -> Clip:
    spec = _header(files[0])
    layout, _ = _layout(spec, files[0])
    rate = rate or _rate(spec, files[0])
    kind = IMAGES[files[0].suffix.lower()]
    return Clip(
        path=path,
        files=files,
        associated=layout.alpha and (kind == "exr" or _premultiplied(spec, kind)),
        container=kind,
        codec=kind,
        profile=None,
        layout=layout,
        rate=rate,
        time_base=1 / rate,
        pts=np.arange(len(files), dtype=np.int64),
        keys=np.arange(len(files), dtype=np.int64),
        last_duration=1,
        variable=False,
        width=_window(spec, kind).width,
        height=_window(spec, kind).height,
        pixel_aspect=Fraction(spec.get_float_attribute("PixelAspectRatio", 1.0)).limit_denominator(
            1000
        ),
        matrix=None,
        timecode=spec.get_string_attribute("smpte:TimeCode") or None,
        tags=_tags(spec, layout, files[0]),
        interlaced=False,
        audio=(),
        others=(),
    )


@dataclass(frozen=True, slots=True)
class _Window:
    """A picture's size, and where in it the stored pixels begin."""

    width: int
    height: int
    x: int = 0
    y: int = 0

    def holds(self, spec: Any) -> bool:
        return 0 <= self.x <= self.width - spec.width and 0 <= self.y <= self.height - spec.height


def _window(spec: Any, kind: str) -> _Window:
    """The display window of an EXR, of which renderers store only what is not empty.

    Where more is stored than is displayed (overscan), the picture is what is stored.
    """
    shown = _Window(spec.full_width, spec.full_height, spec.x - spec.full_x, spec.y - spec.full_y)
    return shown if kind == "exr" and shown.holds(spec) else _Window(spec.width, spec.height)


def _premultiplied(spec: Any, kind: str) -> bool:
    """Whether a TIFF says that its colours are multiplied by alpha; PNG never are."""
    return kind == "tiff" and not spec.get_int_attribute("oiio:UnassociatedAlpha")


def _rate(spec: Any, file: Path) -> Fraction:
    named = spec.getattribute("FramesPerSecond")
    if isinstance(named, tuple) and len(named) == 2 and named[0] > 0 and named[1] > 0:
        return Fraction(*named)
    raise UnsupportedMedia(f"{file.name} does not say its frame rate; give one.")


def _layout(spec: Any, file: Path) -> tuple[Layout, tuple[int, ...]]:
    """The layout, and which of the file's channels are its components in canonical order."""
    kind = str(spec.format)
    if kind not in _FORMATS or spec.deep or len(set(map(str, spec.channelformats))) > 1:
        raise UnsupportedMedia(
            f"{file.name} holds samples of {kind}, deep or mixed; render 8 or 16 bit or float."
        )
    if spec.get_int_attribute("oiio:subimages", 1) > 1:
        raise UnsupportedMedia(f"{file.name} has several parts; render one part.")
    if spec.get_int_attribute("Orientation", 1) != 1:
        raise UnsupportedMedia(f"{file.name} is stored turned; render it upright.")
    colours, alpha = _components(spec, file)
    return _named(kind, len(colours), bool(alpha)), (*colours, *alpha)


def _components(spec: Any, file: Path) -> tuple[list[int], list[int]]:
    """Which channels are the picture, and which its alpha: of one layer, the nameless first."""
    layers: dict[str, dict[str, int]] = {}
    for place, channel in enumerate(spec.channelnames):
        layer, _, name = channel.rpartition(".")
        layers.setdefault(layer, {})[name.upper()] = place
    ordered = sorted(layers.items(), key=lambda item: bool(item[0]))
    for wanted in ("RGB", "Y", "I"):
        for _, names in ordered:
            # X, Y and Z are a direction, not a grey.
            if set(wanted) <= names.keys() and not (wanted == "Y" and "X" in names):
                return [names[name] for name in wanted], [names["A"]] if "A" in names else []
    raise UnsupportedMedia(
        f"{file.name} has channels {list(spec.channelnames)}, no R, G, B and no Y."
    )


def _named(kind: str, colours: int, alpha: bool) -> Layout:
    bits, floating = _FORMATS[kind], kind in ("half", "float")
    family = Family.RGB if colours == 3 else Family.GRAY
    stem = {(3, False): "rgb", (3, True): "rgba", (1, False): "gray", (1, True): "ya"}
    return Layout(f"{stem[colours, alpha]}-{kind}", family, bits, alpha, floating)


def layout(bits: int, alpha: bool, floating: bool = False) -> Layout:
    """Return the layout of RGB images to write.

    bits: 8 or 16; where `floating`, 16 (half) or 32
    """
    kinds = {(8, False): "uint8", (16, False): "uint16", (16, True): "half", (32, True): "float"}
    return _named(kinds[bits, floating], 3, alpha)


def _tags(spec: Any, layout: Layout, file: Path) -> ColourTags:
    primaries = BT709
    named = spec.getattribute("chromaticities")
    if named is not None:
        points = np.asarray(named, float).reshape(4, 2)
        near = [
            code
            for code in (BT709, BT2020, P3_D65)
            if np.abs(points - np.array(chromaticities(code))).max() < 2e-3
        ]
        if not near:
            raise UnsupportedMedia(
                f"{file.name} has colour primaries {points.round(4).tolist()}, which are not "
                "converted here (ACES and camera gamuts); render linear BT.709."
            )
        primaries = near[0]
    return ColourTags(primaries, LINEAR if layout.floating else SRGB, 0, True)


def frames(clip: Clip, span: range, cancel: CancelToken) -> Iterator[Frame]:
    """Yield frames of a sequence.

    Raises:
        UnreadableMedia: a file is damaged.
        UnsupportedMedia: a file differs from the first in size or kind.
        Cancelled: `cancel` was set.
    """
    for index in span:
        cancel.check()
        yield _read(clip, index)


def _read(clip: Clip, index: int) -> Frame:
    file = clip.files[index]
    spec, pixels = _pixels(file)
    own, order = _layout(spec, file)
    window = _window(spec, clip.container)
    if own != clip.layout or (window.width, window.height) != (clip.width, clip.height):
        raise UnsupportedMedia(
            f"{file.name} is {window.width}x{window.height} {own.name}, the sequence began with "
            f"{clip.width}x{clip.height} {clip.layout.name}; render all frames alike."
        )
    rest = [channel for channel in range(spec.nchannels) if channel not in order]
    planes = tuple(_placed(pixels[..., channel], window) for channel in order)
    extra = tuple(_placed(pixels[..., channel], window) for channel in rest)
    return Frame(index, int(clip.pts[index]), own, planes, extra)


def _placed(stored: NDArray[Any], window: _Window) -> NDArray[Any]:
    """A channel in the whole picture; what is not stored is 0."""
    rows, columns = stored.shape
    if (rows, columns) == (window.height, window.width):
        return np.ascontiguousarray(stored)
    whole = np.zeros((window.height, window.width), stored.dtype)
    whole[window.y : window.y + rows, window.x : window.x + columns] = stored
    return whole


def _open(file: Path) -> Any:
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    with confine.file(file) as name:
        image = oiio.ImageInput.open(str(name), config)
    if image is None:
        raise UnreadableMedia(f"{file.name} is no image that can be read: {oiio.geterror()}")
    return image


def _header(file: Path) -> Any:
    image = _open(file)
    try:
        return image.spec()
    finally:
        image.close()


def _pixels(file: Path) -> tuple[Any, NDArray[Any]]:
    image = _open(file)
    try:
        spec = image.spec()
        pixels = image.read_image(0, 0, 0, spec.nchannels, str(spec.format))
        if pixels is None:
            raise UnreadableMedia(f"{file.name} is damaged: {image.geterror()}")
        return spec, pixels.reshape(spec.height, spec.width, spec.nchannels)
    finally:
        image.close()


def write(file: Path, frame: Frame, clip: Clip, timecode: str | None) -> None:
    """Write one frame; the source's header is kept where the source is such an image too.

    Raises:
        NotWritten: the file cannot be written.
    """
    _put(file, *_target(file, frame, clip, timecode))


def write_new(file: Path, pixels: NDArray[Any], layout: Layout, rate: Fraction | None) -> None:
    """Write an image that comes from no file, and read it back.

    It is compressed as fast as goes: whoever sent it waits.

    pixels: (H, W, channels), `layout.dtype`; in an EXR multiplied by alpha
    layout: of `layout`; rate: frames per second, where the format has a place for it

    Raises:
        NotWritten: the file cannot be written, or does not hold what was written to it.
    """
    height, width, channels = pixels.shape
    spec: Any = oiio.ImageSpec(width, height, channels, layout.name.split("-")[1])
    spec.attribute("oiio:UnassociatedAlpha", 1)
    spec.attribute("png:compressionLevel", 1)
    if IMAGES[file.suffix.lower()] == "exr":
        spec.attribute("compression", "zip:1")
        if rate is not None:
            _name_rate(spec, rate)
    _put(file, spec, np.ascontiguousarray(pixels))
    # On a full disk OpenImageIO says that all is well.
    with _unwritten(file):
        kept = _pixels(file)[1]
    if kept.dtype != pixels.dtype or kept.tobytes() != pixels.tobytes():
        raise NotWritten(f"{file.name} does not hold what was written to it.")


@contextmanager
def _unwritten(file: Path) -> Generator[None]:
    try:
        yield
    except UnreadableMedia as error:
        raise NotWritten(f"{file.name} does not hold what was written to it: {error}") from error


def _put(file: Path, spec: Any, pixels: NDArray[Any]) -> None:
    image = oiio.ImageOutput.create(str(file))
    if image is None or not image.open(str(file), spec):
        error = image.geterror() if image else oiio.geterror()
        raise NotWritten(f"{file.name} cannot be written: {error.strip()}")
    written = image.write_image(pixels)
    if not image.close() or not written:
        raise NotWritten(f"{file.name} cannot be written: {image.geterror().strip()}")


def _target(file: Path, frame: Frame, clip: Clip, timecode: str | None) -> tuple[Any, NDArray[Any]]:
    height, width = frame.planes[0].shape
    kept = bool(clip.files) and clip.layout == frame.layout
    if kept and IMAGES[file.suffix.lower()] == clip.container:
        spec = _header(clip.files[frame.index])
        if (spec.width, spec.height) != (width, height):
            spec.x, spec.y, spec.width, spec.height = spec.full_x, spec.full_y, width, height
        order = _layout(spec, file)[1]
        rest = [channel for channel in range(spec.nchannels) if channel not in order]
        pixels = np.empty((height, width, spec.nchannels), frame.layout.dtype)
        for channel, plane in zip((*order, *rest), (*frame.planes, *frame.extra), strict=True):
            pixels[..., channel] = plane
        straight = not clip.associated
    else:
        spec = oiio.ImageSpec(width, height, len(frame.planes), frame.layout.name.split("-")[1])
        spec.attribute("PixelAspectRatio", float(clip.pixel_aspect))
        pixels, straight = np.stack(frame.planes, axis=-1), True
    spec.attribute("oiio:UnassociatedAlpha", int(straight))
    _time(spec, file, clip, timecode)
    return spec, np.ascontiguousarray(pixels)


def _time(spec: Any, file: Path, clip: Clip, timecode: str | None) -> None:
    """Rate and timecode, where the format has a place for them and the header has not its own."""
    if IMAGES[file.suffix.lower()] != "exr":
        return
    _name_rate(spec, clip.rate)
    if timecode and spec.getattribute("smpte:TimeCode") is None:
        spec.attribute("smpte:TimeCode", oiio.TypeDesc("timecode"), (_packed(timecode), 0))


def _name_rate(spec: Any, rate: Fraction) -> None:
    told = (rate.numerator, rate.denominator)
    spec.attribute("FramesPerSecond", oiio.TypeDesc("rational"), told)


def _packed(timecode: str) -> int:
    """SMPTE ST 12-1's binary-coded decimals; bit 6 says that frame numbers are dropped."""
    digits = re.sub(r"\D", "", timecode)
    return int(digits, 16) | (0x40 if ";" in timecode or "." in timecode else 0)


def number(file: Path) -> int:
    """Return the number in the name of an image; 0 where it has none."""
    found = _NUMBERED.fullmatch(file.name)
    return int(found[2]) if found else 0
