"""Small clips whose frames say which they are: eight bars are the bits of the frame's number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import OpenImageIO as oiio  # noqa: N813  (as its own documentation does)
from numpy.typing import NDArray

WIDTH, HEIGHT, BARS = 64, 36, 8


def pattern(number: int) -> NDArray[np.uint8]:
    """The picture of a frame: (HEIGHT, WIDTH, 3)."""
    bits = np.array([number >> bar & 1 for bar in range(BARS)], np.uint8)
    row = np.repeat(bits * 255, WIDTH // BARS)
    return np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number(pixels: NDArray[Any]) -> int:
    """The number that a picture shows; pixels: (H, W, channels), 0 to 1."""
    height, width = pixels.shape[:2]
    middles = pixels[height // 2, (np.arange(BARS) * 2 + 1) * width // (2 * BARS), 0]
    return int(((middles > 0.5) << np.arange(BARS)).sum())


def movie(  # a clip has as many properties
    path: Path,
    numbers: Iterable[int],
    rate: Fraction | int = 25,
    *,
    codec: str = "libx264",
    layout: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    muxer: Mapping[str, str] | None = None,
    times: Iterable[int] | None = None,
    seconds: float = 0.0,
) -> Path:
    """Write a movie of patterns.

    times: of each frame, in milliseconds; evenly spaced if None
    seconds: of silence beside it
    """
    stamps = None if times is None else list(times)
    base = 1 / Fraction(rate) if stamps is None else Fraction(1, 1000)
    with av.open(str(path), "w", options=dict(muxer or {})) as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, layout
        stream.codec_context.time_base = base
        sound = container.add_stream(_sound(path), rate=48000) if seconds else None
        for place, shown in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(pattern(shown), format="rgb24")
            frame.pts, frame.time_base = stamps[place] if stamps else place, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _silence(container, sound, seconds)
    return path


def _sound(path: Path) -> str:
    return "libopus" if path.suffix == ".webm" else "aac"


def _silence(container: Any, stream: Any, seconds: float) -> None:
    form, chunk = stream.codec_context.format.name, 1024
    shape, kind = ((2, chunk), np.float32) if form == "fltp" else ((1, 2 * chunk), np.int16)
    for begin in range(0, int(seconds * 48000), chunk):
        frame = av.AudioFrame.from_ndarray(np.zeros(shape, kind), format=form, layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, begin, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def images(folder: Path, name: str, numbers: Iterable[int], kind: str = "uint8") -> list[Path]:
    """Write one picture per number, called `name` with the number in it ("a.{:04}.png")."""
    folder.mkdir(parents=True, exist_ok=True)
    return [image(folder / name.format(each), pattern(each) / 255, kind) for each in numbers]


def image(
    path: Path, pixels: NDArray[Any], kind: str = "uint8", channels: Iterable[str] | None = None
) -> Path:
    """Write one picture; pixels: (H, W, channels), 0 to 1."""
    height, width, count = pixels.shape
    spec: Any = oiio.ImageSpec(width, height, count, kind)
    if channels is not None:
        spec.channelnames = tuple(channels)
    spec.attribute("oiio:UnassociatedAlpha", 1)
    file = oiio.ImageOutput.create(str(path))
    assert file is not None
    assert file.open(str(path), spec)
    assert file.write_image(np.ascontiguousarray(pixels, np.float32))
    file.close()
    return path


def read(path: Path) -> NDArray[np.float32]:
    """An image file as (H, W, channels), 0 to 1."""
    pixels = oiio.ImageBuf(str(path)).get_pixels(oiio.FLOAT)
    assert pixels is not None, path
    return pixels


def clips(folder: Path) -> Path:
    """All clips that the scripts of `inside` place, and results that they are given."""
    numbers, plain = range(1, 17), {"x264-params": "bframes=0"}
    for name in ("plain.mp4", "plain.mkv"):
        movie(folder / name, numbers, options={"x264-params": "bframes=3"})
    movie(folder / "plain.webm", numbers, codec="libvpx-vp9")
    movie(folder / "plain.avi", numbers, codec="mpeg4")
    movie(folder / "other.mp4", range(101, 117))
    movie(folder / "long.mp4", range(1, 61))
    movie(folder / "fifty.mp4", numbers, 50)
    movie(folder / "prores.mov", numbers, codec="prores_ks", layout="yuv422p10le")
    groups = {"x264-params": "open-gop=1:keyint=10:bframes=3"}
    movie(folder / "open.mov", range(1, 41), options=groups)
    movie(folder / "sound.mkv", numbers, seconds=1.0)
    uneven = [40 * place + 60 * (place // 5) for place in range(16)]
    movie(folder / "uneven.mp4", numbers, times=uneven, options=plain)
    movie(folder / "fragments.mp4", numbers, muxer={"movflags": "frag_keyframe+empty_moov"})
    images(folder / "run", "a.{:04}.png", range(1, 21))
    images(folder / "exr", "e{:03}.exr", range(1, 9), "half")
    images(folder / "tiff", "t{:02}.tif", range(1, 5))
    images(folder / "broken", "b{}.png", [1, 2, 9])
    images(folder / "jpeg", "j{}.jpg", range(1, 5))
    images(folder, "title.png", [77])
    layers = np.concatenate([pattern(5), pattern(9)], axis=-1) / 255
    image(folder / "layers.exr", layers, "half", ("A.R", "A.G", "A.B", "B.R", "B.G", "B.B"))
    ramp = np.tile((np.arange(WIDTH) * 3 + 1000)[None, :, None] / 65535, (HEIGHT, 1, 3))
    image(folder / "fine.png", ramp, "uint16")
    movie(folder / "styled.mov", range(101, 117), codec="prores_ks", layout="yuv422p10le")
    movie(folder / "styled50.mp4", range(101, 117), 50)
    images(folder / "styled", "s_{:04}.png", range(101, 117))
    (folder / "broken.mov").write_bytes(b"nothing")
    return folder
