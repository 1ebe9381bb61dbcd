"""Clients that share no disk with the server: files and frames over the socket, there and back."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bridge_server.media.probe import probe
from bridge_server.uploads import Limits
from host_plugins.link import messages
from host_plugins.link.client import Client
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import (
    DownloadChunk,
    DownloadFrame,
    JobInfo,
    OfJob,
    OfUpload,
    Op,
    Submit,
    UploadBegin,
    UploadChunk,
    UploadFrame,
)
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import SMALL, Serving, at_rest, info, submit, until

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("a server")).start()
    yield serving
    assert serving.stop() == 0


@pytest.fixture
def client(serving: Serving) -> Iterator[Client]:
    with serving.client() as client:
        yield client


def _upload(client: Client, name: str, file: Path, chunk: int = 5000) -> str:
    data = file.read_bytes()
    begin = UploadBegin(upload=name, name=file.name, size=len(data), sha256=_hash(data))
    client.ask(messages.UPLOAD_BEGIN, begin, timeout=30)
    for at in range(0, len(data), chunk):
        part = UploadChunk(upload=name, offset=at, payloads=(data[at : at + chunk],))
        client.ask(messages.UPLOAD_CHUNK, part, timeout=30)
    return client.ask(messages.UPLOAD_END, OfUpload(upload=name), timeout=30).file


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _downloaded(client: Client, job: str, name: str) -> bytes:
    found = b""
    while True:
        asked = DownloadChunk(job=job, name=name, offset=len(found), length=7000)
        chunk = client.ask(messages.DOWNLOAD_CHUNK, asked, timeout=30)
        if not len(chunk.payloads[0]):
            assert len(found) == chunk.size
            return found
        found += bytes(chunk.payloads[0])


def _frames(count: int) -> list[bytes]:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pictures = [np.stack([(x + 3 * i) % 256, y * 3, (x ^ y)], axis=-1) for i in range(count)]
    return [np.ascontiguousarray(picture.astype(np.uint8)).tobytes() for picture in pictures]


def _send(client: Client, upload: str, number: int, rows: bytes) -> None:
    frame = UploadFrame(upload=upload, frame=number, width=WIDTH, height=HEIGHT, depth="u8",
                        components="rgb", rate="24", payloads=(rows,))  # fmt: skip
    client.ask(messages.UPLOAD_FRAME, frame, timeout=30)


def test_a_file_goes_up_and_the_result_comes_down(client: Client, tmp_path: Path) -> None:
    clip = reel(tmp_path / "far away.mp4", (9,))
    ref = _upload(client, "up1", clip)
    assert ref == "upload:up1"
    request = {"clip": ref, **SMALL, "output": str(tmp_path / "styled.mp4")}
    client.ask(messages.SUBMIT, Submit(job="far", request=request))
    assert at_rest(client, "far").state == "done"
    made = client.ask(messages.RESULT, OfJob(job="far"))
    output = next(file for file in made.files if file.role == "output")
    data = _downloaded(client, "far", output.name)
    assert data == (tmp_path / "styled.mp4").read_bytes()
    assert output.sha256 == _hash(data)
    assert probe(tmp_path / "styled.mp4").count == 9


def test_frames_go_up_and_come_down_styled(client: Client, tmp_path: Path) -> None:
    frames = _frames(9)
    for number, rows in enumerate(frames[:5]):
        _send(client, "fx", 100 + number, rows)
    request = {"clip": "upload:fx", **SMALL, "stop": 9, "output": str(tmp_path / "fx.mkv"),
               "codec": "ffv1"}  # fmt: skip
    assert client.ask(messages.SUBMIT, Submit(job="fx", request=request), 30).state == "queued"
    time.sleep(0.5)
    assert info(client, "fx").state == "queued"  # four frames are missing
    asked = DownloadFrame(job="fx", frame=3)
    assert not client.ask(messages.DOWNLOAD_FRAME, asked, timeout=30).ready
    for number, rows in enumerate(frames[5:], 5):
        _send(client, "fx", 100 + number, rows)
    done = at_rest(client, "fx")
    assert done.state == "done", done.failure
    seen = set[bytes]()
    for number in range(9):
        asked = DownloadFrame(job="fx", frame=number, components="rgb")
        picture = client.ask(messages.DOWNLOAD_FRAME, asked, timeout=30)
        assert (picture.ready, picture.width, picture.height) == (True, WIDTH, HEIGHT)
        rows = bytes(picture.payloads[0])
        assert len(rows) == HEIGHT * WIDTH * 3
        seen.add(rows)
    assert len(seen) == 9
    with pytest.raises(BridgeError) as told:
        client.ask(messages.DOWNLOAD_FRAME, DownloadFrame(job="fx", frame=9), timeout=30)
    assert told.value.code is Code.INVALID


@pytest.mark.parametrize(
    ("rest", "go"), [(messages.PAUSE, messages.RESUME), (messages.CANCEL, messages.RETRY)]
)
def test_a_job_that_rested_still_waits_for_its_frames(
    client: Client, tmp_path: Path, rest: Op[JobInfo], go: Op[JobInfo]
) -> None:
    frames, job = _frames(5), f"rests-{rest.name}"
    _send(client, job, 0, frames[0])
    request = {"clip": f"upload:{job}", **SMALL, "stop": 5, "output": str(tmp_path / "fx.mkv"),
               "codec": "ffv1"}  # fmt: skip
    client.ask(messages.SUBMIT, Submit(job=job, request=request), 30)
    until(lambda: info(client, job).notes)
    client.ask(rest, OfJob(job=job))
    _send(client, job, 1, frames[1])
    time.sleep(0.5)  # it is looked at meanwhile
    client.ask(go, OfJob(job=job))
    _send(client, job, 2, frames[2])
    time.sleep(0.5)
    now = info(client, job)
    assert now.state == "queued", now.failure
    assert now.notes == (f"waits for the frames 1 to 4 of upload:{job}, which have not been sent "
                         "yet",)  # fmt: skip
    for number in (3, 4):
        _send(client, job, number, frames[number])
    done = at_rest(client, job)
    assert done.state == "done", done.failure


def test_a_paused_job_gets_its_frames_and_goes_on(client: Client, tmp_path: Path) -> None:
    frames = _frames(5)
    _send(client, "late", 0, frames[0])
    request = {"clip": "upload:late", **SMALL, "stop": 5, "output": str(tmp_path / "late.mkv"),
               "codec": "ffv1"}  # fmt: skip
    client.ask(messages.SUBMIT, Submit(job="late", request=request), 30)
    client.ask(messages.PAUSE, OfJob(job="late"))
    for number in range(1, 5):
        _send(client, "late", number, frames[number])
    time.sleep(0.5)
    assert info(client, "late").state == "paused"
    client.ask(messages.RESUME, OfJob(job="late"))
    until(lambda: info(client, "late").state != "queued", 60)
    done = at_rest(client, "late")
    assert done.state == "done", done.failure


def test_a_clip_of_frames_must_say_where_it_ends(client: Client) -> None:
    _send(client, "endless", 0, _frames(1)[0])
    asked = Submit(job="endless", request={"clip": "upload:endless", **SMALL})
    with pytest.raises(BridgeError, match="stop") as told:
        client.ask(messages.SUBMIT, asked, timeout=30)
    assert (told.value.code, "stop" in told.value.hint) == (Code.INVALID, True)
    with pytest.raises(BridgeError, match="there is no job"):
        info(client, "endless")


def test_a_mask_of_one_frame_is_an_image(client: Client, tmp_path: Path) -> None:
    clip = reel(tmp_path / "c.mp4", (9,))
    _send(client, "image", 7, _frames(1)[0])
    submit(client, "masked", clip, mask="upload:image", start=2, stop=7, handles=1,
           output=str(tmp_path / "c styled.mp4"))  # fmt: skip
    until(lambda: info(client, "masked").state != "queued", 60)
    done = at_rest(client, "masked")
    assert (done.state, done.notes) == ("done", ()), done.failure


def test_a_mask_of_frames_is_as_long_as_what_is_wanted(client: Client, tmp_path: Path) -> None:
    clip, frames = reel(tmp_path / "d.mp4", (9,)), _frames(5)
    for number in (2, 3):
        _send(client, "mask", number, frames[number])
    submit(client, "matte", clip, mask="upload:mask", start=2, stop=7, handles=1,
           output=str(tmp_path / "d styled.mp4"))  # fmt: skip
    until(lambda: info(client, "matte").notes, 60)
    assert info(client, "matte").state == "queued"
    for number in (4, 5, 6):
        _send(client, "mask", number, frames[number - 2])
    done = at_rest(client, "matte")
    assert done.state == "done", done.failure
    (note,) = done.notes
    assert note.startswith("waits for the frames 2 to 4 of upload:mask")


def test_a_frame_that_is_not_ready_is_no_error(client: Client, tmp_path: Path) -> None:
    clip = reel(tmp_path / "b.mp4", (9,))
    submit(client, "wait", clip, until="keyframes", output=str(tmp_path / "b styled.mp4"))
    at_rest(client, "wait")
    keyframe = client.ask(messages.DOWNLOAD_FRAME, DownloadFrame(job="wait", frame=4), timeout=30)
    between = client.ask(messages.DOWNLOAD_FRAME, DownloadFrame(job="wait", frame=5), timeout=30)
    assert keyframe.ready
    assert not between.ready


def test_an_upload_that_is_not_there_is_refused(client: Client) -> None:
    for ref, code in (("upload:none", Code.NOT_FOUND), ("upload:../x", Code.BAD_REQUEST)):
        asked = Submit(job="no", request={"clip": ref, **SMALL})
        with pytest.raises(BridgeError) as told:
            client.ask(messages.SUBMIT, asked, timeout=30)
        assert told.value.code is code


def test_what_may_be_sent_is_said_at_the_door(client: Client) -> None:
    limits, holds = client.ask(messages.HELLO, messages.Hello(client="a test")).limits, Limits()
    assert limits["upload"] == holds.upload == 64 << 30
    assert limits["upload_s"] == holds.upload_s == 24 * 3600
    assert limits["chunk"] == holds.chunk


def test_an_upload_goes_on_after_the_servers_death(serving: Serving, tmp_path: Path) -> None:
    clip = reel(tmp_path / "long.mp4", (30,))
    data = clip.read_bytes()
    begin = UploadBegin(upload="cut", name=clip.name, size=len(data), sha256=_hash(data))
    with serving.client() as client:
        client.ask(messages.UPLOAD_BEGIN, begin, timeout=30)
        part = UploadChunk(upload="cut", offset=0, payloads=(data[:4000],))
        client.ask(messages.UPLOAD_CHUNK, part, timeout=30)
    serving.kill()
    serving.start()
    with serving.client() as client:
        there = client.ask(messages.UPLOAD_BEGIN, begin, timeout=30).offset
        assert there == 4000
        part = UploadChunk(upload="cut", offset=there, payloads=(data[there:],))
        client.ask(messages.UPLOAD_CHUNK, part, timeout=30)
        assert client.ask(messages.UPLOAD_END, OfUpload(upload="cut"), timeout=30).file
        request = {"clip": "upload:cut", **SMALL, "keyframes": "0,29",
                   "output": str(tmp_path / "long styled.mp4")}  # fmt: skip
        client.ask(messages.SUBMIT, Submit(job="cut", request=request), timeout=30)
        until(lambda: info(client, "cut").state != "queued")
        assert at_rest(client, "cut").state == "done"


def test_a_job_that_waited_in_vain_fails_and_its_frames_go(
    serving: Serving, tmp_path: Path
) -> None:
    with serving.client() as client:
        _send(client, "vain", 0, _frames(1)[0])
        request = {"clip": "upload:vain", **SMALL, "stop": 5, "output": str(tmp_path / "v.mkv")}
        client.ask(messages.SUBMIT, Submit(job="vain", request=request), 30)
        until(lambda: info(client, "vain").notes)
    assert serving.stop() == 0
    for path in (serving.state / "uploads").rglob("*"):
        os.utime(path, (1, 1))
    serving.start()
    with serving.client() as client:
        failed = at_rest(client, "vain", 60)
        assert (failed.state, failed.failure["code"]) == ("failed", "not_found")
