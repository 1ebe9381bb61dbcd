"""Results back over the wire: bytes of files, and frames with the very samples of the file."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_server import raster
from bridge_server.handout import Frames, chunk
from bridge_server.media import decode, sequences
from bridge_server.media.errors import UnreadableMedia
from bridge_server.media.probe import probe
from bridge_server.records import write_picture
from bridge_server.uploads import Limits, Uploads
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import DownloadChunk, DownloadFrame, File, Picture, UploadFrame
from tests.bridge_server.media.films import Film, film
from tests.bridge_server.reels import pictures, reel

DATA = random.Random(4).randbytes(10_000)
SPAN = range(100, 130)


def listed(path: Path, role: str = "output", **more: Any) -> File:
    size = path.stat().st_size if path.is_file() else 0
    return File(name=path.name, role=role, size=size, path=str(path), **more)


def part(name: str, offset: int = 0, length: int = 1 << 20) -> DownloadChunk:
    return DownloadChunk(job="j", name=name, offset=offset, length=length)


def wanted(frame: int, **more: Any) -> DownloadFrame:
    return DownloadFrame(job="j", frame=frame, **more)


def refused(code: Code, call: Any) -> None:
    with pytest.raises(BridgeError) as caught:
        call()
    assert caught.value.code is code, caught.value


@pytest.fixture
def frames() -> Generator[Frames, None, None]:
    with_frames = Frames()
    yield with_frames
    with_frames.close()


# ------------------------------------------------------------------------------------------ chunks


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> File:
    path = tmp_path_factory.mktemp("results ü") / "out.bin"
    path.write_bytes(DATA)
    return listed(path)


@pytest.mark.parametrize("length", [1, 999, 4096, 10_000, 20_000])
def test_a_file_by_chunks(result: File, length: int) -> None:
    found, offset = b"", 0
    while True:
        reply, data = chunk([result], part("out.bin", offset, length), 20_000)
        assert (reply.offset, reply.size) == (offset, 10_000)
        if not data:
            break
        assert len(data) == min(length, 10_000 - offset)
        found, offset = found + data, offset + len(data)
    assert hashlib.sha256(found).digest() == hashlib.sha256(DATA).digest()


@given(st.integers(0, 12_000), st.integers(1, 12_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_part(result: File, offset: int, length: int) -> None:
    assert chunk([result], part("out.bin", offset, length), 12_000)[1] == DATA[offset:][:length]


def test_what_is_no_part_of_a_file(result: File) -> None:
    refused(Code.TOO_LARGE, lambda: chunk([result], part("out.bin", 0, 1001), 1000))
    for offset, length in ((-1, 1), (0, 0), (0, -1)):
        refused(
            Code.INVALID,
            lambda offset=offset, length=length: chunk(
                [result], part("out.bin", offset, length), 9
            ),
        )
    far = chunk([result], part("out.bin", (1 << 63) - 1), 1 << 20)
    assert (far[0].size, far[1]) == (10_000, b"")


def test_only_a_jobs_own_files(result: File, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    for name in ("secret", str(secret), f"../{secret.parent.name}/secret", "", result.path):
        refused(Code.NOT_FOUND, lambda name=name: chunk([result], part(name), 1 << 20))
    nowhere = File(name="log", role="log", size=1)
    refused(Code.NOT_FOUND, lambda: chunk([nowhere], part("log"), 1 << 20))
    gone = listed(tmp_path / "gone")
    refused(Code.NOT_FOUND, lambda: chunk([gone], part("gone"), 1 << 20))


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
@pytest.mark.parametrize("how", ["link", "pipe", "folder"])
def test_a_file_that_became_something_else(tmp_path: Path, frames: Frames, how: str) -> None:
    path = tmp_path / "out.mp4"
    if how == "link":
        path.symlink_to("/etc/hostname")
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    refused(Code.NOT_FOUND, lambda: chunk([listed(path)], part("out.mp4"), 1 << 20))
    refused(Code.NOT_FOUND, lambda: frames.frame([listed(path)], SPAN, wanted(100)))


# ------------------------------------------------------------------------------------------ frames


def pixels(got: tuple[Picture, bytes | None]) -> np.ndarray:
    reply, data = got
    assert reply.ready
    assert data is not None
    kind = {"u8": "u1", "u16": "<u2", "f16": "<f2", "f32": "<f4"}[reply.depth]
    return np.frombuffer(data, kind).reshape(reply.height, reply.width, len(reply.components))


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> tuple[File, list[np.ndarray]]:
    """RGB with alpha in 16 bits, and every frame as PyAV reads it."""
    path = tmp_path_factory.mktemp("lossless") / "out.mkv"
    film(path, Film("ffv1", "gbrap16le", 40, 24, 30, tags=(1, 13, 0, 2), options={"g": "7"}))
    with av.open(str(path)) as container:
        return listed(path), [
            each.reformat(format="rgba64le").to_ndarray() for each in container.decode(video=0)
        ]


def test_the_very_samples(frames: Frames, lossless: tuple[File, list[np.ndarray]]) -> None:
    file, plain = lossless
    for number in (100, 101, 102, 129, 115, 103, 103):
        got = pixels(frames.frame([file], SPAN, wanted(number, depth="u16")))
        assert np.array_equal(got, plain[number - 100])
    got = pixels(frames.frame([file], SPAN, wanted(104, depth="u16", components="rgb")))
    assert np.array_equal(got, plain[4][..., :3])
    eight = pixels(frames.frame([file], SPAN, wanted(104)))
    assert np.array_equal(eight, np.rint(plain[4] / 257).astype(np.uint8))


@given(numbers=st.lists(st.integers(0, 29), min_size=1, max_size=12))
@settings(max_examples=40)
def test_frames_in_any_order(lossless: tuple[File, list[np.ndarray]], numbers: list[int]) -> None:
    file, plain = lossless
    frames = Frames()
    for number in numbers:
        got = pixels(frames.frame([file], SPAN, wanted(100 + number, depth="u16")))
        assert np.array_equal(got, plain[number])
    frames.close()


def test_a_film_as_a_player_shows_it(tmp_path: Path, frames: Frames) -> None:
    path = reel(tmp_path / "out.mp4", (12,))
    plain = np.stack(pictures(path)).astype(int)
    for index in range(12):
        got = pixels(frames.frame([listed(path)], range(12), wanted(index, components="rgb")))
        far = np.abs(plain - got).mean(axis=(1, 2, 3))
        assert far.argmin() == index
        assert far.min() < 6  # it interpolates chroma, PyAV repeats it
    opaque = pixels(frames.frame([listed(path)], range(12), wanted(3)))
    assert (opaque[..., 3] == 255).all()


def test_in_order_a_film_is_decoded_once(
    tmp_path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = reel(tmp_path / "out.mp4", (30,))
    begun, real = list[int](), decode.frames
    monkeypatch.setattr(
        decode, "frames", lambda clip, start=0: begun.append(start) or real(clip, start)
    )
    for number in (5, 6, 6, 7, 9, 12, *range(13, 30)):
        frames.frame([listed(path)], range(30), wanted(number))
    assert begun == [5]
    frames.frame([listed(path)], range(30), wanted(4))
    assert begun == [5, 4]


def test_forward_to_a_far_key_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "out.mp4", Film(count=120, options={"g": "30", "sc_threshold": "0"}))
    begun, real = list[int](), decode.frames
    monkeypatch.setattr(
        decode, "frames", lambda clip, start=0: begun.append(start) or real(clip, start)
    )
    frames = Frames()
    for number in (0, 20, 92, 93):
        frames.frame([listed(path)], range(120), wanted(number))
    assert begun == [0, 92]


def test_depths_and_colours(tmp_path: Path, frames: Frames) -> None:
    """One 16-bit picture, against formulas as plain as can be."""
    values = np.linspace(0, 65535, 64 * 3).round().astype(np.uint16).reshape(8, 8, 3)
    path = tmp_path / "frame 7.png"
    assert cv2.imwrite(str(path), values[..., ::-1])
    file = listed(path, "keyframe", frame=7)
    signal = values / 65535
    light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    for colour, plain in (("unknown", signal), ("srgb", signal), ("linear", light)):
        for depth, top, near in (
            ("u8", 255, 0.51),
            ("u16", 65535, 0.51),
            ("f16", 1, 6e-4),
            ("f32", 1, 1e-6),
        ):
            asked = wanted(7, depth=depth, colour=colour)
            got = pixels(frames.frame([file], range(9), asked))
            assert np.abs(got[..., :3].astype(float) - plain * top).max() < near
            assert (got[..., 3] == top).all()


@pytest.mark.parametrize("components", ["rgb", "rgba"])
@pytest.mark.parametrize("colour", ["srgb", "linear"])
@pytest.mark.parametrize("depth", ["u8", "u16", "f16", "f32"])
def test_what_was_uploaded_comes_back(
    tmp_path: Path, frames: Frames, depth: str, colour: str, components: str
) -> None:
    """An editor gets its own numbers: up through `uploads`, and down again."""
    uploads = Uploads(tmp_path / "up", Limits(spare=0))
    rng = np.random.default_rng(1)
    values = rng.random((6, 8, len(components)), np.float32)
    values[..., 3:] = np.maximum(values[..., 3:], 0.5)
    if depth in ("f16", "f32"):
        values[0, 0, :3] = (4.0, -0.5, 1.0)
    top = {"u8": 255, "u16": 65535}.get(depth, 1)
    kind = {"u8": np.uint8, "u16": np.uint16, "f16": np.float16, "f32": np.float32}[depth]
    sent = (values * top).round().astype(kind) if top > 1 else values.astype(kind)
    form = {"depth": depth, "components": components, "colour": colour}
    for number in (3, 4):
        rows = (sent[::-1] if number == 4 else sent).tobytes()
        uploads.frame(
            "", UploadFrame(upload="u", frame=number, width=8, height=6, payloads=(rows,), **form)
        )
    source = uploads.source("", "upload:u")
    file = File(name="out", role="output", size=0, path=str(source.path))
    for number, plain in ((10, sent), (11, sent[::-1])):
        got = pixels(frames.frame([file], range(10, 12), wanted(number, **form)))
        if top > 1:
            assert np.array_equal(got, plain)
        else:
            near = 2e-3 if depth == "f16" else 1e-6
            assert np.abs(got.astype(float) - plain).max() < near * 4


def test_light_above_white(tmp_path: Path, frames: Frames) -> None:
    path = tmp_path / "a.exr"
    light = np.array([[[4.0, 0.18, -0.1], [np.inf, np.nan, 0]]], np.float32)
    sequences.write_new(path, light, sequences.layout(32, False, floating=True), Fraction(24))
    file = listed(path, frame=0)
    got = pixels(frames.frame([file], range(1), wanted(0, depth="f32", colour="linear")))
    assert np.allclose(got[0, 0], [4, 0.18, -0.1, 1])
    got = pixels(frames.frame([file], range(1), wanted(0, depth="f32")))
    assert np.allclose(got[0, 0, :2], [1.055 * 4 ** (1 / 2.4) - 0.055, 0.4613561])
    assert got[0, 0, 2] < 0
    got = pixels(frames.frame([file], range(1), wanted(0)))
    assert got[0].tolist() == [[255, 118, 0, 255], [255, 0, 0, 255]]


def test_a_turned_film_comes_upright(tmp_path: Path, frames: Frames) -> None:
    path = film(tmp_path / "out.mp4", Film(count=2, degrees=90))
    reply, _ = frames.frame([listed(path)], range(2), wanted(0))
    assert (reply.width, reply.height) == (48, 64)


def test_a_keyframe_until_there_is_an_output(tmp_path: Path, frames: Frames) -> None:
    import torch

    assert frames.frame([], SPAN, wanted(105)) == (Picture(ready=False), None)
    # A name that ends in digits is still one image, not a sequence with its neighbours.
    old, new = tmp_path / "frame 000105 00000001.png", tmp_path / "frame 000105 00000003.png"
    write_picture(torch.full((3, 12, 20), 0.25), old)
    write_picture(torch.full((3, 12, 20), 0.75), new)
    keys = [listed(old, "keyframe", frame=105), listed(new, "keyframe", frame=105)]
    reply, data = frames.frame(keys, SPAN, wanted(105))
    assert (reply.width, reply.height, reply.depth, reply.components) == (20, 12, "u8", "rgba")
    assert data is not None
    assert data[:4] == bytes([191, 191, 191, 255])
    assert frames.frame(keys, SPAN, wanted(106)) == (Picture(ready=False), None)
    output = listed(film(tmp_path / "out.mp4", Film(count=30)))
    reply, _ = frames.frame([*keys, output], SPAN, wanted(105))
    assert (reply.width, reply.height) == (64, 48)


def test_of_a_job_that_has_not_begun_no_frame_is_ready(frames: Frames) -> None:
    for number in (0, 3, -1):
        assert frames.frame([], range(0), wanted(number)) == (Picture(ready=False), None)
    refused(Code.INVALID, lambda: frames.frame([], range(0), wanted(0, depth="u10")))


def test_a_painted_keyframe_of_another_kind(tmp_path: Path, frames: Frames) -> None:
    path = tmp_path / "painted.jpg"
    assert cv2.imwrite(str(path), np.full((8, 8, 3), 200, np.uint8))
    got = pixels(frames.frame([listed(path, "keyframe", frame=3)], range(9), wanted(3)))
    assert np.abs(got[..., :3].astype(int) - 200).max() <= 2
    path.unlink()
    refused(
        Code.NOT_FOUND,
        lambda: frames.frame([listed(path, "keyframe", frame=3)], range(9), wanted(3)),
    )


def test_what_cannot_be_asked_for(tmp_path: Path, frames: Frames) -> None:
    file = listed(film(tmp_path / "out.mp4", Film(count=30)))
    for number in (99, 130, -1, 1 << 62):
        refused(Code.INVALID, lambda number=number: frames.frame([file], SPAN, wanted(number)))
    for wrong in ({"depth": "u10"}, {"components": "a"}, {"colour": "pq"}):
        refused(Code.INVALID, lambda wrong=wrong: frames.frame([file], SPAN, wanted(101, **wrong)))
    refused(Code.NOT_FOUND, lambda: frames.frame([file], range(100, 120), wanted(101)))
    small = Frames(payload=64 * 48 * 4 - 1)
    refused(Code.TOO_LARGE, lambda: small.frame([file], SPAN, wanted(101)))
    assert small.frame([file], SPAN, wanted(101, components="rgb"))[0].ready


# ------------------------------------------------------------------------------------------- cache


def open_files(folder: Path) -> int:
    """How many files in `folder` this process has open."""
    handles = Path("/proc/self/fd").iterdir()
    return sum(handle.resolve().is_relative_to(folder.resolve()) for handle in handles)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux says what is open")
def test_few_files_stay_open_and_not_for_long(tmp_path: Path) -> None:
    now = [0.0]
    frames = Frames(decoders=3, idle_s=10, clock=lambda: now[0])
    films = [listed(film(tmp_path / f"{n}.mp4", Film(count=5))) for n in range(5)]
    for file in films:
        frames.frame([file], range(5), wanted(1))
    assert open_files(tmp_path) == 3
    now[0] = 8
    frames.frame([films[4]], range(5), wanted(2))
    frames.tend()
    assert open_files(tmp_path) == 3
    now[0] = 11
    frames.tend()
    assert open_files(tmp_path) == 1
    frames.forget(Path(films[4].path))
    assert open_files(tmp_path) == 0
    frames.frame([films[0]], range(5), wanted(1))
    frames.close()
    assert open_files(tmp_path) == 0


def test_a_file_that_was_written_anew(tmp_path: Path, frames: Frames) -> None:
    first = film(tmp_path / "out.mp4", Film(count=5))
    before = frames.frame([listed(first)], range(5), wanted(1))
    film(tmp_path / "other.mp4", Film(count=5, width=32, height=32)).replace(first)
    after = frames.frame([listed(first)], range(5), wanted(1))
    assert (before[0].width, after[0].width) == (64, 32)


def test_behind_the_damage_a_film_goes_on(tmp_path: Path, frames: Frames) -> None:
    path = film(tmp_path / "out.mkv", Film("ffv1", count=8, options={"g": "1"}))
    data = bytearray(path.read_bytes())
    clip = probe(path)
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    state = [readable(frames, listed(path), number) for number in range(clip.count)]
    # A decoder with many threads may stumble before the damage, never behind it.
    assert False in state
    assert state[-2:] == [True, True]


def readable(frames: Frames, file: File, number: int) -> bool:
    try:
        return frames.frame([file], range(8), wanted(number))[0].ready
    except UnreadableMedia:
        return False


def test_many_threads(lossless: tuple[File, list[np.ndarray]]) -> None:
    file, plain = lossless
    frames, wrong = Frames(decoders=1), list[object]()

    def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(30):
            number = rng.randrange(30)
            try:
                got = pixels(frames.frame([file], SPAN, wanted(100 + number, depth="u16")))
                if not np.array_equal(got, plain[number]):
                    wrong.append(number)
            except BaseException as error:
                wrong.append(error)
            if rng.random() < 0.1:
                frames.close()

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames.close()
    assert wrong == []


def test_a_server_gets_no_libraries_of_models() -> None:
    code = "import sys, bridge_server.handout, bridge_server.uploads; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"transformers", "diffusers", "fresco.request"}.isdisjoint(done.stdout.split())


def test_rows_are_checked() -> None:
    picture = np.zeros((3, 2, 2), np.float32)
    refused(Code.INVALID, lambda: raster.rows(picture, None, "u9", "rgb"))
    refused(Code.INVALID, lambda: raster.rows(picture, None, "u8", "bgr"))
    assert raster.rows(picture, None, "f16", "rgba") == bytes([0] * 6 + [0, 0x3C]) * 4
