"""Short clips with motion, a cut and sound, made by the tests themselves."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from tests.bridge_server.media.films import tone

RATE = Fraction(24000, 1001)


def reel(
    path: Path,
    lengths: tuple[int, ...] = (9,),
    size: tuple[int, int] = (64, 96),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sound: bool = True,
) -> Path:
    """Write shots of `lengths` frames: in each another picture, panned by 2 pixels per frame."""
    height, width = size
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.options = {"crf": "8"} if codec == "libx264" else {}
        track = out.add_stream("aac", rate=48000) if sound else None
        if track is not None:
            track.codec_context.layout = "stereo"
        for shot, length in enumerate(lengths):
            wide = _scene(shot, height, width + 2 * length)
            for index in range(length):
                rgb = np.ascontiguousarray(wide[:, 2 * index : 2 * index + width])
                frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pix_fmt)
                frame.pts = sum(lengths[:shot]) + index
                frame.time_base = 1 / RATE
                out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if track is not None:
            tone(out, track, 0, sum(lengths) / RATE)
    return path


def _scene(seed: int, height: int, width: int) -> np.ndarray:
    """Blotches of many sizes on a colour of their own; red shots, then blue ones."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    image[..., 0 if seed % 2 == 0 else 2] = 0.7
    for cell in (32, 8):
        small = rng.uniform(-0.4, 0.4, (height // cell + 2, width // cell + 2, 3))
        image += cv2.resize(
            small.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
    return (image.clip(0, 1) * 255).astype(np.uint8)


def pictures(path: Path) -> list[np.ndarray]:
    """Every frame of a file, (H, W, 3) 8 bit RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
