"""Reading, converting and writing clips: frames per second, and the memory of ten minutes.

    python -m tests.benchmarks.media [--frames 24] [--minutes 10] [--size 1920x1080]

The first table is of a clip of `--size`, each step by itself on one thread beside the codecs' own;
the second runs six seconds and `--minutes` at 320 x 180 and 25 frames per second, with sound,
through all of it: probe, decode, to the model's RGB, back, encode, verify. Memory is the peak of
that process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import psutil
import torch

from bridge_server.media import profiles
from bridge_server.media.colour import convert, from_rgb, to_rgb
from bridge_server.media.decode import frames
from bridge_server.media.encode import Writer
from bridge_server.media.probe import probe
from tests.bridge_server.media.films import FILMS, Film, film

_KINDS = ("h264.mp4", "hevc.mp4", "prores.mov", "prores-4444.mov", "dnxhr-10.mov", "ffv1.mkv")


def _per_second(count: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def _steps(folder: Path, name: str, width: int, height: int, count: int) -> str:
    """Frames per second of probing, decoding, both conversions, and the default encoder."""
    what = FILMS[name]
    path = film(
        folder / name,
        Film(what.codec, what.pix_fmt, width, height, count, options=what.options),
    )
    clip = probe(path)
    shown = list(frames(clip, 0, min(8, count)))
    pictures = [to_rgb(frame, clip).rgb for frame in shown]
    rates = (
        _per_second(count, lambda: list(frames(clip))),
        _per_second(len(shown), lambda: [to_rgb(frame, clip) for frame in shown]),
        _per_second(
            len(shown),
            lambda: [from_rgb(rgb, f, clip) for rgb, f in zip(pictures, shown, strict=True)],
        ),
        _per_second(count, lambda: _copy(path, folder)),
    )
    return f"{name:18}" + "".join(f"{rate:12.1f}" for rate in rates)


def _copy(path: Path, folder: Path) -> None:
    clip = probe(path)
    target = folder / f"out{profiles.suffix(clip, profiles.default(clip))}"
    with Writer(target, clip, overwrite=True) as writer:
        for frame in frames(clip):
            writer.write(convert(frame, clip, writer.form))


def _whole(path: Path, target: Path) -> None:
    clip, peak = probe(path), 0
    start = time.perf_counter()
    with Writer(target, clip) as writer:
        for frame in frames(clip):
            writer.write(from_rgb(to_rgb(frame, clip).rgb, frame, clip, writer.form))
            peak = max(peak, psutil.Process().memory_info().rss)
    seconds = time.perf_counter() - start
    rate = clip.count / seconds
    print(f"{clip.count:8} frames {seconds:8.1f} s {rate:8.1f} fps {peak / 2**20:8.0f} MB")


def _long(folder: Path, minutes: Fraction) -> None:
    rate = Fraction(25)
    path = folder / f"{float(minutes)}.mp4"
    options = {"preset": "ultrafast"}
    film(path, Film(width=320, height=180, count=int(minutes * 60 * rate), rate=rate,
                    options=options, sound=("aac",)))  # fmt: skip
    command = [sys.executable, "-m", __spec__.name, "--whole", str(path)]
    subprocess.run([*command, "--target", str(folder / f"out {float(minutes)}.mp4")], check=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--whole", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.whole:
        _whole(given.whole, given.target)
        return
    width, height = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"frames per second of {given.size}")
        print(f"{'':18}{'decode':>12}{'to RGB':>12}{'from RGB':>12}{'all, verified':>14}")
        for kind in _KINDS:
            print(_steps(folder, kind, width, height, given.frames))
        for minutes in (Fraction(1, 10), Fraction(given.minutes)):
            _long(folder, minutes)


if __name__ == "__main__":
    main()
