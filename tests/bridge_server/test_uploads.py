"""Uploads on a real disk: resumed, repeated, broken, full, and attacked."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_server import incoming, raster
from bridge_server.job import identity
from bridge_server.media.colour import to_rgb
from bridge_server.media.decode import frames as decoded
from bridge_server.media.probe import probe
from bridge_server.uploads import Limits, Need, Uploads
from fresco.errors import InvalidInput
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import (
    OfUpload,
    UploadBegin,
    UploadChunk,
    UploadFrame,
    UploadInfo,
)

LIMITS = Limits(chunk=1000, upload=1 << 20, owner=3 << 20, count=8, upload_s=100.0, spare=0)
DATA = random.Random(3).randbytes(5000)
posix = pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads ü", LIMITS)


def asked(
    data: bytes = DATA, upload: str = "u1", name: str = "clip.mp4", **more: Any
) -> UploadBegin:
    said = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **more}
    return UploadBegin(upload=upload, name=name, **said)


def piece(offset: int, data: bytes, upload: str = "u1") -> UploadChunk:
    return UploadChunk(upload=upload, offset=offset, payloads=(data,))


def send(
    uploads: Uploads, data: bytes = DATA, owner: str = "local", begin: UploadBegin | None = None
) -> UploadInfo:
    """Send a whole file, from where it is."""
    begin = begin or asked(data)
    offset = uploads.begin(owner, begin).offset
    while offset < len(data):
        offset = uploads.chunk(
            owner, piece(offset, data[offset : offset + 1000], begin.upload)
        ).offset
    return uploads.end(owner, OfUpload(upload=begin.upload))


def refused(code: Code, call: Callable[[], object], says: str | None = None) -> BridgeError:
    with pytest.raises(BridgeError, match=says) as caught:
        call()
    assert caught.value.code is code, caught.value
    return caught.value


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


# ------------------------------------------------------------------------------------------- files


def test_a_file_arrives(uploads: Uploads) -> None:
    assert uploads.begin("local", asked()) == UploadInfo(upload="u1")
    refused(Code.WRONG_STATE, lambda: uploads.path("local", "upload:u1"))
    assert uploads.chunk("local", piece(0, DATA[:1000])) == UploadInfo(upload="u1", offset=1000)
    done = send(uploads)
    assert done == UploadInfo(upload="u1", offset=5000, file="upload:u1")
    path = uploads.path("local", done.file)
    assert path.read_bytes() == DATA
    assert path.name == "file.mp4"
    assert uploads.missing("local", done.file, 3, 9) == ()
    # All of it again: the same.
    assert uploads.begin("local", asked()) == done
    assert uploads.chunk("local", piece(0, DATA[:1000])) == done
    assert uploads.end("local", OfUpload(upload="u1")) == done


def test_an_empty_file(uploads: Uploads) -> None:
    assert uploads.begin("local", asked(b"")).offset == 0
    assert uploads.end("local", OfUpload(upload="u1")).file == "upload:u1"
    assert uploads.path("local", "upload:u1").read_bytes() == b""


def test_repeated_and_overlapping_chunks(uploads: Uploads) -> None:
    uploads.begin("local", asked())
    uploads.chunk("local", piece(0, DATA[:700]))
    assert uploads.chunk("local", piece(0, DATA[:700])).offset == 700
    assert uploads.chunk("local", piece(100, DATA[100:300])).offset == 700
    assert uploads.chunk("local", piece(500, DATA[500:1500])).offset == 1500
    assert uploads.chunk("local", piece(1500, b"")).offset == 1500
    refused(
        Code.CONFLICT, lambda: uploads.chunk("local", piece(1501, b"x")), "1500 of 5000 are here"
    )
    assert send(uploads).file == "upload:u1"


def test_what_a_chunk_cannot_be(uploads: Uploads) -> None:
    refused(Code.NOT_FOUND, lambda: uploads.chunk("local", piece(0, b"x")))
    refused(Code.NOT_FOUND, lambda: uploads.end("local", OfUpload(upload="u1")))
    uploads.begin("local", asked())
    refused(Code.TOO_LARGE, lambda: uploads.chunk("local", piece(0, DATA[:1001])))
    refused(Code.INVALID, lambda: uploads.chunk("local", piece(-1, b"x")))
    refused(Code.BAD_REQUEST, lambda: uploads.chunk("local", UploadChunk(upload="u1", offset=0)))
    last = piece(0, DATA[:1000])
    for offset in range(0, 5000, 1000):
        last = piece(offset, DATA[offset : offset + 1000])
        uploads.chunk("local", last)
    refused(Code.CONFLICT, lambda: uploads.chunk("local", piece(4500, DATA[4500:] + b"x")))
    assert uploads.chunk("local", last).offset == 5000


def test_an_id_stands_for_one_file(uploads: Uploads) -> None:
    uploads.begin("local", asked())
    for other in (asked(name="other.mp4"), asked(DATA[1:]), asked(DATA[::-1])):
        refused(Code.CONFLICT, lambda other=other: uploads.begin("local", other))
    assert send(uploads).file
    refused(Code.CONFLICT, lambda: uploads.begin("local", asked(DATA[1:])))


def test_another_hash_throws_it_away(uploads: Uploads) -> None:
    lie = asked(sha256="0" * 64)
    error = refused(Code.CORRUPT, lambda: send(uploads, begin=lie))
    assert error.retryable
    assert files(uploads.folder) == []
    refused(Code.NOT_FOUND, lambda: uploads.end("local", OfUpload(upload="u1")))
    assert uploads.begin("local", asked()).offset == 0  # another hash is no conflict any more
    assert send(uploads).file


def test_bytes_are_missing_at_the_end(uploads: Uploads) -> None:
    uploads.begin("local", asked())
    uploads.chunk("local", piece(0, DATA[:900]))
    end = OfUpload(upload="u1")
    refused(Code.WRONG_STATE, lambda: uploads.end("local", end), "900 of 5000 bytes")
    assert uploads.begin("local", asked()).offset == 900


GOOD = [
    "clip.mp4",
    "12:30 take.MOV",
    "ü 名前.png",
    "no suffix",
    ".hidden",
    "a.tar.gz",
    "console.mov",
]
BAD = [
    "", ".", "..", "a/b.mp4", "/etc/passwd", "..\\b.mp4", "C:\\b.mp4", "C:b.mp4", "c:", "a\0.mp4",
    "a\nb.mp4", "con", "CON.mp4", "Nul.tar.gz", "com1.mov", "LPT9", "lpt².png", "aux .mp4",
    "conout$", "clip.mp4.", "clip.mp4 ", "x" * 256, "ü" * 128, "a\udc80.mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_names_that_can_be(uploads: Uploads, name: str) -> None:
    assert send(uploads, begin=asked(name=name)).file
    path = uploads.path("local", "upload:u1")
    assert path.name in ("file", f"file{Path(name).suffix.lower()}")
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("name", BAD)
def test_names_that_cannot_be(uploads: Uploads, name: str) -> None:
    refused(Code.INVALID, lambda: uploads.begin("local", asked(name=name)), "name: ")
    assert files(uploads.folder) == []


@given(st.text(max_size=300))
def test_whatever_it_is_called_it_stays_where_it_belongs(name: str) -> None:
    try:
        suffix = incoming.checked_suffix(name)
    except BridgeError:
        return
    assert suffix == suffix.lower()
    assert suffix == "" or (suffix[0] == "." and suffix[1:].isalnum() and suffix.isascii())


def test_a_size_below_nothing(uploads: Uploads) -> None:
    refused(Code.INVALID, lambda: uploads.begin("local", asked(size=-1)))


@settings(max_examples=60)
@given(
    st.binary(max_size=400),
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 420), st.integers(0, 200)),
            st.sampled_from(["begin", "end", "restart"]),
        ),
        max_size=30,
    ),
)
def test_chunks_in_any_order_and_number(data: bytes, steps: list[Any]) -> None:
    """A number says how much should be there; a restart may come at any time."""
    with tempfile.TemporaryDirectory() as folder:
        here, begin = 0, asked(data)
        uploads = Uploads(Path(folder), LIMITS)
        uploads.begin("local", begin)
        for step in steps:
            if step == "restart":
                uploads = Uploads(Path(folder), LIMITS)
            elif step == "begin":
                assert uploads.begin("local", begin).offset == here
            elif step == "end":
                complete = here == len(data)
                assert done_or(Code.WRONG_STATE, partial(uploads.end, "local", begin)) is complete
            else:
                offset, length = step
                chunk = piece(offset, data[offset : offset + length].ljust(length, b"?"))
                fits = offset <= here and offset + length <= len(data)
                assert done_or(Code.CONFLICT, partial(uploads.chunk, "local", chunk)) is fits
                here = max(here, offset + length) if fits else here
                assert uploads.begin("local", begin).offset == here
        assert send(uploads, data).offset == len(data)
        assert uploads.path("local", "upload:u1").read_bytes() == data


def done_or(code: Code, call: Callable[[], object]) -> bool:
    """Whether it was done; else it was refused with `code`."""
    try:
        call()
    except BridgeError as error:
        if error.code is not code:
            raise
        return False
    return True


def test_what_this_process_hashed_is_not_read_again(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, real = list[int](), os.read

    def counted(handle: int, length: int) -> bytes:
        data = real(handle, length)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "read", counted)
    send(uploads)
    assert sum(read) == 0
    begin = asked(upload="u2")
    uploads.begin("local", begin)
    uploads.chunk("local", piece(0, DATA[:1000], "u2"))
    uploads = Uploads(uploads.folder, LIMITS)
    assert send(uploads, begin=begin).file
    assert sum(read) >= 5000


_SENDER = """
import hashlib, sys
from pathlib import Path
from bridge_server.uploads import Limits, Uploads
from host_plugins.link.messages import UploadBegin, UploadChunk
import random
data = random.Random(9).randbytes(8 << 20)
uploads = Uploads(Path(sys.argv[1]), Limits(spare=0))
sha256 = hashlib.sha256(data).hexdigest()
begin = UploadBegin(upload="u1", name="a.mp4", size=len(data), sha256=sha256)
offset = uploads.begin("local", begin).offset
print("ready", offset, flush=True)
while offset < len(data):
    chunk = UploadChunk(upload="u1", offset=offset, payloads=(data[offset:offset + 30011],))
    offset = uploads.chunk("local", chunk).offset
    print(offset, flush=True)
uploads.end("local", begin)
print("done", flush=True)
"""


@posix
def test_a_server_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """What was acknowledged is there; what is there is the file's beginning; it gets finished."""
    data = random.Random(9).randbytes(8 << 20)
    rng, told, rest = random.Random(1), 0, list[str]()
    for attempt in range(9):
        command = [sys.executable, "-c", _SENDER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            word, offset = process.stdout.readline().split()
            assert word == "ready"
            assert int(offset) >= told
            time.sleep(rng.uniform(0, 0.02))
            if attempt < 8:
                process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().splitlines()
        whole = [line for line in rest[:-1] if line.isdigit()]  # the last one may be cut
        told = max([told, *map(int, whole)])
        (part,) = (path for path in files(tmp_path) if path.name == "file.mp4")
        here = part.read_bytes()
        assert len(here) >= told
        assert here == data[: len(here)]
    assert rest[-1] == "done"
    assert Uploads(tmp_path, LIMITS).path("local", "upload:u1").read_bytes() == data


def test_a_state_that_is_damaged_is_no_upload(uploads: Uploads) -> None:
    send(uploads)
    (state,) = (path for path in files(uploads.folder) if path.name == "state.json")
    facts = json.loads(state.read_text())
    lies = [{"owner": "you"}, {"name": "../x"}, {"size": "5"}, {"upload": "u2"}, {"kind": "frames"}]
    texts = ["", "{", "[]", '{"kind": "file"}', *(json.dumps({**facts, **lie}) for lie in lies)]
    fresh = uploads
    for text in texts:
        state.write_text(text)
        fresh = Uploads(uploads.folder, LIMITS)
        refused(Code.NOT_FOUND, lambda fresh=fresh: fresh.path("local", "upload:u1"))
    assert fresh.begin("local", asked()).offset == 0  # what is left of the old one is removed
    assert send(fresh).file


def test_a_file_that_shrank_is_not_complete(uploads: Uploads) -> None:
    send(uploads)
    os.truncate(uploads.path("local", "upload:u1"), 1234)
    refused(Code.WRONG_STATE, lambda: uploads.path("local", "upload:u1"))
    assert uploads.begin("local", asked()) == UploadInfo(upload="u1", offset=1234)
    assert send(uploads).file
    assert uploads.path("local", "upload:u1").read_bytes() == DATA


# ------------------------------------------------------------------------------------ owners, room


def test_two_owners_with_the_same_id(uploads: Uploads) -> None:
    other = DATA[::-1]
    send(uploads, owner="local")
    refused(Code.NOT_FOUND, lambda: uploads.path("key-2", "upload:u1"))
    refused(Code.NOT_FOUND, lambda: uploads.chunk("key-2", piece(0, b"x")))
    refused(Code.NOT_FOUND, lambda: uploads.end("key-2", OfUpload(upload="u1")))
    assert uploads.begin("key-2", asked(other)).offset == 0
    send(uploads, other, "key-2")
    for uploads_ in (uploads, Uploads(uploads.folder, LIMITS)):
        assert uploads_.path("local", "upload:u1").read_bytes() == DATA
        assert uploads_.path("key-2", "upload:u1").read_bytes() == other
    assert uploads.key("local", "upload:u1") != uploads.key("key-2", "upload:u1")


@pytest.mark.parametrize(
    "owners", [("a", "A"), ("a/b", "a-b"), ("", "."), ("../x", "x"), ("rN<", "rN>")]
)
def test_owners_are_any_texts(uploads: Uploads, owners: tuple[str, str]) -> None:
    for owner, data in zip(owners, (DATA, DATA[::-1]), strict=True):
        send(uploads, data, owner)
    for owner, data in zip(owners, (DATA, DATA[::-1]), strict=True):
        assert uploads.path(owner, "upload:u1").read_bytes() == data


def test_ids_that_a_file_system_takes_for_the_same(uploads: Uploads) -> None:
    for upload in ("a", "A", "con", "nul"):
        data = DATA[: ord(upload[0])]
        send(uploads, data, begin=asked(data, upload))
    names = [path.parent.name.lower() for path in files(uploads.folder)]
    assert len(set(names)) == 4
    assert uploads.path("local", "upload:A").read_bytes() == DATA[:65]


@pytest.mark.parametrize(
    "ref", ["u1", "upload:", "upload:../u1", "upload:u1/../u1", "upload:" + "x" * 65]
)
def test_what_names_no_upload(uploads: Uploads, ref: str) -> None:
    with pytest.raises(BridgeError):
        uploads.path("local", ref)


def test_limits(uploads: Uploads) -> None:
    large = asked(size=LIMITS.upload + 1)
    refused(Code.TOO_LARGE, lambda: uploads.begin("local", large), "an upload may have 1048576")
    for number in range(3):
        uploads.begin("local", asked(upload=f"u{number}", size=LIMITS.upload))
    more = asked(upload="u3", size=1)
    refused(Code.TOO_LARGE, lambda: uploads.begin("local", more), "all your uploads")
    fresh = Uploads(uploads.folder, LIMITS)  # what was promised before counts
    refused(Code.TOO_LARGE, lambda: fresh.begin("local", more), "all your uploads")
    assert fresh.begin("local", asked(upload="u0", size=LIMITS.upload)).offset == 0
    assert fresh.begin("other", more).offset == 0


def test_too_many(uploads: Uploads) -> None:
    for number in range(LIMITS.count):
        uploads.begin("local", asked(b"", f"u{number}"))
    assert refused(Code.BUSY, lambda: uploads.begin("local", asked(b"", "more"))).retryable
    refused(Code.BUSY, lambda: uploads.frame("local", frame(0, upload="more")))
    assert uploads.begin("other", asked(b"", "more")).offset == 0


def test_room_is_looked_for_before(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    roomy = Limits(upload=free * 4, owner=free * 4)
    uploads = Uploads(tmp_path, roomy)
    refused(Code.NO_SPACE, lambda: uploads.begin("local", asked(size=free * 2)))
    assert files(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path, None, None]:
    """A disk of 1 MB, where it may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no disk may be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up_meanwhile(small_disk: Path) -> None:
    data = random.Random(5).randbytes(600_000)
    uploads = Uploads(small_disk / "up", Limits(spare=0))
    begin = asked(data)
    uploads.begin("local", begin)
    uploads.chunk("local", piece(0, data[:100_000]))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(800_000))
    refused(Code.NO_SPACE, lambda: uploads.chunk("local", piece(100_000, data[100_000:])))
    refused(Code.NO_SPACE, lambda: uploads.begin("local", begin))
    ballast.unlink()
    assert uploads.begin("local", begin).offset == 100_000
    uploads.chunk("local", piece(100_000, data[100_000:]))
    assert uploads.end("local", begin).file


def test_a_disk_that_is_full_in_the_middle_of_a_write(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check before passes, as where another program is faster; the disk itself then refuses."""
    monkeypatch.setattr(incoming, "check_room", lambda *_: None)
    data = random.Random(5).randbytes(900_000)
    uploads, begin = Uploads(small_disk / "up", Limits(spare=0)), asked(data)
    uploads.begin("local", begin)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    refused(Code.NO_SPACE, lambda: uploads.chunk("local", piece(0, data)), "disk is full")
    here = uploads.begin("local", begin).offset
    assert 0 < here < len(data)
    refused(Code.NO_SPACE, lambda: uploads.begin("local", asked(b"", "u2")))
    refused(Code.NO_SPACE, lambda: uploads.frame("local", frame(0, size=(200, 200), upload="f")))
    ballast.unlink()
    uploads.chunk("local", piece(here, data[here:]))
    assert uploads.end("local", begin).file
    assert uploads.path("local", "upload:u1").read_bytes() == data


def test_a_frame_that_the_disk_swallowed_is_not_kept(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenImageIO says of a full disk that all is well."""
    uploads = Uploads(small_disk / "up", Limits(spare=0))
    uploads.frame("local", frame(0, size=(100, 100)))
    (small_disk / "ballast").write_bytes(bytes(850_000))
    monkeypatch.setattr(incoming, "check_room", lambda *_: None)
    noise = np.random.default_rng(1).integers(0, 256, (250, 250, 4), np.uint8)
    loud = frame(0, size=(250, 250), upload="f2", payloads=(noise.tobytes(),))
    with pytest.raises(BridgeError):
        uploads.frame("local", loud)
    assert [path for path in files(small_disk) if path.name.startswith(".fresco")] == []
    assert uploads.missing("local", "upload:u1", 0, 1) == ()


# --------------------------------------------------------------------------------------- attackers


@posix
def test_the_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "uploads"
    folder.mkdir(parents=True, mode=0o777)
    folder.chmod(0o777)
    uploads = Uploads(folder, LIMITS)
    send(uploads)
    uploads.frame("local", frame(0, upload="f"))
    uploads.path("local", "upload:f")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.rglob("*"):
        assert path.is_file() or stat.S_IMODE(path.stat().st_mode) == 0o700
    if os.geteuid() == 0:
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        os.chown(theirs, 12345, -1)
        with pytest.raises(InvalidInput, match="belongs to another user"):
            Uploads(theirs)


@posix
@pytest.mark.parametrize("how", ["file", "hard", "upload", "owner", "dangling", "pipe"])
def test_links_are_not_followed(tmp_path: Path, uploads: Uploads, how: str) -> None:
    begin = asked()
    uploads.begin("local", begin)
    place = uploads.folder / uploads.key("local", "upload:u1")
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "file.mp4").write_bytes(b"secret")
    target = place / "file.mp4"
    if how == "file":
        target.symlink_to(treasure / "file.mp4")
    elif how == "hard":
        target.hardlink_to(treasure / "file.mp4")
    elif how == "dangling":
        target.symlink_to(treasure / "new.mp4")
    elif how == "pipe":
        os.mkfifo(target)
    elif how == "upload":
        shutil.copy(place / "state.json", treasure / "state.json")
        shutil.rmtree(place)
        place.symlink_to(treasure)
    else:
        shutil.copytree(place, treasure / place.name)
        shutil.rmtree(place.parent)
        place.parent.symlink_to(treasure)
    for server in (uploads, Uploads(uploads.folder, LIMITS)):
        for call in (
            lambda server=server: server.begin("local", begin),
            lambda server=server: server.chunk("local", piece(0, DATA[:100])),
            lambda server=server: server.chunk("local", piece(6, DATA[:100])),
            lambda server=server: server.end("local", begin),
            lambda server=server: server.path("local", "upload:u1"),
        ):
            with pytest.raises(BridgeError) as caught:
                call()
            # Not complete: it is not even looked at.
            assert caught.value.code in (Code.FORBIDDEN, Code.NOT_FOUND, Code.WRONG_STATE)
    uploads.expire((), time.time() + 1000)
    assert (treasure / "file.mp4").read_bytes() == b"secret"
    assert not (treasure / "new.mp4").exists()


@posix
@pytest.mark.parametrize("what", ["frames", "image", "views"])
def test_links_among_frames_are_not_followed(tmp_path: Path, uploads: Uploads, what: str) -> None:
    uploads.frame("local", frame(0))
    uploads.frame("local", frame(1))
    place = uploads.folder / uploads.key("local", "upload:u1")
    treasure = tmp_path / "treasure"
    shutil.copytree(place / "frames", treasure)
    image = min((place / "frames").iterdir())
    before = {path.name: path.read_bytes() for path in treasure.iterdir()}
    if what == "image":
        image.unlink()
        image.symlink_to(treasure / image.name)
    else:
        shutil.rmtree(place / what, ignore_errors=True)
        (place / what).symlink_to(treasure)
    with pytest.raises(BridgeError):
        uploads.source("local", "upload:u1")
    if what != "views":
        loud = frame(0, payloads=(bytes(6 * 4 * 4),))
        if what == "image":
            uploads.frame("local", loud)  # the link is replaced
            assert uploads.source("local", "upload:u1").path
        else:
            refused(Code.FORBIDDEN, lambda: uploads.frame("local", loud))
    uploads.expire((), time.time() + 1000)
    assert {path.name: path.read_bytes() for path in treasure.iterdir()} == before


# ------------------------------------------------------------------------------------------ frames


def frame(
    number: int, size: tuple[int, int] = (6, 4), upload: str = "u1", **more: Any
) -> UploadFrame:
    """A frame of one colour, by its number."""
    width, height = size
    form = {"depth": "u8", "components": "rgba", "rate": "25", **more}
    kind = {"u8": "u1", "u16": "<u2", "f16": "<f2", "f32": "<f4"}[form["depth"]]
    pixels = np.full((height, width, len(form["components"])), number % 200, np.dtype(kind))
    form.setdefault("payloads", (pixels.tobytes(),))
    return UploadFrame(upload=upload, frame=number, width=width, height=height, **form)


def shown(uploads: Uploads, start: int = 0, stop: int | None = None) -> list[int]:
    """What a job sees: the colour of each frame."""
    source = uploads.source("local", "upload:u1", start, stop)
    clip = probe(source.path, Fraction(source.rate) if source.rate else None)
    return [int(each.planes[0][0, 0]) for each in decoded(clip)]


def test_frames_in_any_order_from_any_number(uploads: Uploads) -> None:
    for count, number in enumerate([2, 0, -3, -1, -2, 1], 1):
        info = uploads.frame("local", frame(number))
        assert info == UploadInfo(upload="u1", offset=count, file="upload:u1")
    assert shown(uploads) == [197, 198, 199, 0, 1, 2]
    assert shown(uploads, 1, 4) == [197, 198, 199, 0]
    assert shown(Uploads(uploads.folder, LIMITS)) == [197, 198, 199, 0, 1, 2]
    source = uploads.source("local", "upload:u1")
    assert source.rate == "25"
    assert uploads.path("local", "upload:u1") == source.path
    clip = probe(source.path, Fraction(25))
    assert (clip.width, clip.height, clip.count) == (6, 4, 6)
    assert [path.name for path in clip.files][:2] == ["frame.000000.png", "frame.000001.png"]


def test_gaps_are_told(uploads: Uploads) -> None:
    for number in (86400, 86401, 86404, 86410):
        uploads.frame("local", frame(number))
    for server in (uploads, Uploads(uploads.folder, LIMITS)):
        assert server.missing("local", "upload:u1", 0, 2) == ()
        assert server.missing("local", "upload:u1", 4, 5) == ()
        assert server.missing("local", "upload:u1", 1, 12) == (
            range(2, 4),
            range(5, 10),
            range(11, 12),
        )
        assert server.missing("local", "upload:u1") == (range(2, 4), range(5, 10))
        assert server.missing("local", "upload:u1", 20, 1 << 40) == (range(20, 1 << 40),)
        refused(Code.INVALID, lambda server=server: server.missing("local", "upload:u1", 3, 2))
        refused(
            Code.WRONG_STATE,
            lambda server=server: server.source("local", "upload:u1"),
            "lacks the frames 2 to 3, 5 to 9",
        )
    # What a job does not look at may be missing.
    assert shown(uploads, 4, 5) == [0, 1, 4, 4, 4]
    refused(Code.NOT_FOUND, lambda: uploads.missing("other", "upload:u1", 0, 1))


@settings(max_examples=40)
@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=30),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_gaps_against_a_plain_list(numbers: list[int], start: int, length: int) -> None:
    form = raster.Form(2, 2, "u8", "rgb", "srgb")
    upload = incoming.FramesUpload(Path("nowhere"), "", "u1", form, "")
    upload.numbers = sorted(set(numbers))
    found = upload.missing(start, start + length)
    here = {number - min(numbers) for number in numbers}
    expected = [index for index in range(start, start + length) if index not in here]
    assert [index for gap in found for index in gap] == expected


def test_the_extremes_of_numbers(uploads: Uploads) -> None:
    for number in (-(1 << 31), (1 << 31) - 1):
        uploads.frame("local", frame(number))
    assert uploads.missing("local", "upload:u1") == (range(1, (1 << 32) - 1),)
    refused(Code.TOO_LARGE, lambda: uploads.source("local", "upload:u1", (1 << 32) - 1, 1 << 32))
    for number in (-(1 << 31) - 1, 1 << 31):
        refused(Code.INVALID, lambda number=number: uploads.frame("local", frame(number)))


def test_a_repeated_frame_replaces_and_a_job_keeps_what_it_saw(uploads: Uploads) -> None:
    for number in range(3):
        uploads.frame("local", frame(number))
    before = uploads.source("local", "upload:u1", 0, 3)
    clip = probe(before.path, Fraction(25))
    known = identity(clip)
    # The very same again, and frames behind: for a job it is the same clip.
    uploads.frame("local", frame(1))
    uploads.frame("local", frame(3))
    assert uploads.source("local", "upload:u1", 0, 3) == before
    changed = frame(1, payloads=(bytes([77]) * 96,))
    assert uploads.frame("local", changed).offset == 4
    assert shown(uploads) == [0, 77, 2, 3]
    assert uploads.source("local", "upload:u1", 0, 3) != before
    assert [int(each.planes[0][0, 0]) for each in decoded(clip)] == [0, 1, 2]
    assert identity(clip) == known
    assert identity(probe(uploads.path("local", "upload:u1"), Fraction(25))) != known


def test_frames_of_one_clip_are_alike(uploads: Uploads) -> None:
    uploads.frame("local", frame(0))
    assert uploads.frame("local", frame(1, rate="25/1")).offset == 2
    for other in (
        frame(1, (4, 6)), frame(1, depth="u16"), frame(1, components="rgb"), frame(1, rate="24"),
        frame(1, rate=""), frame(1, colour="linear"),
    ):  # fmt: skip
        refused(Code.CONFLICT, lambda other=other: uploads.frame("local", other))
    fresh = Uploads(uploads.folder, LIMITS)
    refused(Code.CONFLICT, lambda: fresh.frame("local", frame(1, depth="u16")))
    refused(Code.CONFLICT, lambda: uploads.begin("local", asked()))
    refused(Code.CONFLICT, lambda: uploads.chunk("local", piece(0, b"x")))
    refused(Code.CONFLICT, lambda: uploads.end("local", OfUpload(upload="u1")))
    uploads.begin("local", asked(upload="file"))
    refused(Code.CONFLICT, lambda: uploads.frame("local", frame(0, upload="file")))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"depth": "u10"}, "depth: 'u10' is none of u8, u16, f16, f32"),
        ({"components": "bgra"}, "components"),
        ({"colour": "pq"}, "colour"),
        ({"rate": "fast"}, "rate"),
        ({"rate": "0"}, "rate"),
        ({"width": 0}, "width"),
        ({"height": 1 << 17}, "height"),
        ({"payloads": (bytes(95),)}, "has 96 bytes, and 95 came"),
    ],
)
def test_frames_that_cannot_be(uploads: Uploads, wrong: dict[str, Any], says: str) -> None:
    said = {**vars(frame(0)), **wrong}
    refused(Code.INVALID, lambda: uploads.frame("local", UploadFrame(**said)), says)
    refused(Code.BAD_REQUEST, lambda: uploads.frame("local", frame(0, payloads=())))
    assert files(uploads.folder) == []
    uploads.frame("local", frame(1))
    with pytest.raises(BridgeError):
        uploads.frame("local", UploadFrame(**said))
    assert len([path for path in files(uploads.folder) if path.suffix == ".png"]) == 1


def test_frames_count_as_what_they_take(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, Limits(upload=40_000, owner=60_000, spare=0))
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 4), np.uint8).tobytes()
    loud = {"size": (80, 80), "payloads": (noise,)}
    uploads.frame("local", frame(0, **loud))
    refused(Code.TOO_LARGE, lambda: uploads.frame("local", frame(1, **loud)), "an upload may")
    uploads.frame("local", frame(0, upload="u2", **loud))
    refused(
        Code.TOO_LARGE, lambda: uploads.frame("local", frame(0, upload="u3", **loud)), "all your"
    )
    fresh = Uploads(tmp_path, uploads.limits)
    refused(Code.TOO_LARGE, lambda: fresh.frame("local", frame(1, **loud)), "an upload may")


DEPTHS = {"u8": np.uint8, "u16": np.uint16, "f16": np.float16, "f32": np.float32}


@pytest.mark.parametrize("colour", ["unknown", "srgb", "linear"])
@pytest.mark.parametrize("components", ["rgb", "rgba"])
@pytest.mark.parametrize("depth", list(DEPTHS))
def test_what_a_job_sees_of_each_form(
    uploads: Uploads, depth: str, components: str, colour: str
) -> None:
    """The picture for the model is compared with formulas that are as plain as can be."""
    rng = np.random.default_rng(2)
    values = rng.random((7, 9, len(components)), np.float32)
    values[0, 0] = 0
    values[0, 1] = 1
    values[..., 3:] = np.maximum(values[..., 3:], 0.3)
    top = {"u8": 255, "u16": 65535}.get(depth, 1)
    pixels = (
        (values * top).round().astype(DEPTHS[depth]) if top > 1 else values.astype(DEPTHS[depth])
    )
    told = frame(
        5, (9, 7), depth=depth, components=components, colour=colour, payloads=(pixels.tobytes(),)
    )
    uploads.frame("local", told)
    source = uploads.source("local", "upload:u1")
    clip = probe(source.path, Fraction(source.rate))
    plain = colour != "linear" and top > 1
    assert clip.container == ("png" if plain else "exr")
    assert clip.rate == 25
    assert clip.layout.floating is not plain
    assert (
        clip.layout.bits
        == {"u8": 8 if plain else 16, "u16": 16 if plain else 32, "f16": 16, "f32": 32}[depth]
    )
    (seen,) = decoded(clip)
    if plain:
        assert np.array_equal(np.stack(seen.planes, axis=-1), pixels)
    picture = to_rgb(seen, clip)
    wanted = (pixels.astype(np.float64) / top)[..., :3]
    if colour == "linear":
        wanted = np.where(wanted <= 0.0031308, wanted * 12.92, 1.055 * wanted ** (1 / 2.4) - 0.055)
    near = 1e-5 if depth in ("u16", "f32") or plain else 2e-3
    assert np.abs(picture.rgb.numpy().transpose(1, 2, 0) - wanted).max() < near
    if components == "rgba":
        assert picture.alpha is not None
        assert np.abs(picture.alpha[0].numpy() - pixels[..., 3] / top).max() < near


def test_floats_beyond_the_range(uploads: Uploads) -> None:
    """Light above white is kept; what is no number does not stop a job."""
    pixels = np.array([[[8.0, 0.5, -0.25], [np.nan, np.inf, 1e30], [1, 1, 1], [0, 0, 0]]], "<f4")
    for depth, upload in (("f32", "u1"), ("f16", "u2")):
        with np.errstate(over="ignore"):
            data = pixels.astype(DEPTHS[depth]).tobytes()
        told = frame(
            0, (4, 1), upload, depth=depth, components="rgb", colour="linear", payloads=(data,)
        )
        uploads.frame("local", told)
        source = uploads.source("local", f"upload:{upload}")
        (seen,) = decoded(probe(source.path, Fraction(25)))
        assert [float(plane[0, 0]) for plane in seen.planes] == [8.0, 0.5, -0.25]
        assert [float(plane[0, 2]) for plane in seen.planes] == [1.0, 1.0, 1.0]


def test_many_threads_at_once(uploads: Uploads) -> None:
    failed = list[BaseException]()

    def work(part: int) -> None:
        try:
            for number in range(part, 40, 4):
                uploads.frame("local", frame(number, upload="f"))
            send(uploads, begin=asked(upload=f"u{part}"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert uploads.missing("local", "upload:f", 0, 40) == ()
    assert uploads.path("local", "upload:u3").read_bytes() == DATA


_FRAMES = """
import sys
from pathlib import Path
from bridge_server.uploads import Limits, Uploads
from host_plugins.link.messages import UploadFrame
uploads = Uploads(Path(sys.argv[1]), Limits(spare=0))
print("ready", flush=True)
for number in range(int(sys.argv[2]), 2000):
    data = bytes([number % 200]) * (64 * 64 * 4)
    form = {"width": 64, "height": 64, "payloads": (data,)}
    uploads.frame("local", UploadFrame(upload="u1", frame=number, **form))
    print(number, flush=True)
"""


@posix
def test_a_server_that_is_killed_among_frames(tmp_path: Path) -> None:
    rng, told = random.Random(2), -1
    for _ in range(4):
        command = [sys.executable, "-c", _FRAMES, str(tmp_path), str(told + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.05, 0.15))
            process.send_signal(signal.SIGKILL)
            whole = process.stdout.read().splitlines()[:-1]
        told = max([told, *map(int, whole)])
        uploads = Uploads(tmp_path, LIMITS)
        assert told >= 0
        assert uploads.missing("local", "upload:u1", 0, told + 1) == ()
        clip = probe(uploads.path("local", "upload:u1"), Fraction(24))
        seen = [int(each.planes[0][0, 0]) for each in decoded(clip)]
        assert seen == [number % 200 for number in range(len(seen))]
    assert [path for path in files(tmp_path) if path.name.startswith(".fresco")] == []


# ------------------------------------------------------------------------------- what a job needs


def test_of_a_clip_the_range_with_its_handles_is_needed(uploads: Uploads) -> None:
    uploads.frame("local", frame(40))
    for need, span in (
        (Need(start=2, stop=9), (2, 9)),
        (Need(start=2, stop=9, handles=1), (1, 10)),
        (Need(start=2, stop=9, handles=5), (0, 14)),
    ):
        assert uploads.span("local", "upload:u1", need, "upload:u1") == span
    with pytest.raises(BridgeError, match="the last is not said") as told:
        uploads.span("local", "upload:u1", Need(start=2), "upload:u1")
    assert told.value.code is Code.INVALID
    assert "stop" in told.value.hint


def test_of_a_file_all_is_needed(uploads: Uploads) -> None:
    send(uploads)
    for role in ("clip", "beside", "picture"):
        assert uploads.span("local", "upload:u1", Need(role, 2, handles=3)) == (0, None)


def test_what_is_beside_the_clip_is_an_image_or_as_long_as_what_is_wanted(
    uploads: Uploads,
) -> None:
    need = Need("beside", start=10, stop=14, handles=2)
    uploads.frame("local", frame(0, upload="fx"))

    def span(clip: str) -> tuple[int, int | None]:
        return uploads.span("local", "upload:u1", need, clip)

    found: list[Any] = []
    for number in range(5, 10):
        uploads.frame("local", frame(number))
        found.append((span("/a.mp4"), span("upload:fx")))
    assert found[0] == ((0, 1), (0, 1))
    assert found[1:4] == [((0, 4), (0, 4))] * 3
    assert found[4] == ((0, None), (8, 16))  # as long as the clip
    need = Need("beside", start=10)
    assert span("/a.mp4") == (0, None)
    need = Need("picture", start=10, stop=14)
    assert span("/a.mp4") == (0, 1)


def test_to_look_for_frames_in_vain_keeps_no_upload(uploads: Uploads) -> None:
    uploads.frame("local", frame(0))
    key = uploads.key("local", "upload:u1")

    def age() -> None:
        for path in (uploads.folder / key, *(uploads.folder / key).iterdir()):
            os.utime(path, (1, 1))

    age()
    uploads.touch("local", "upload:u1")
    assert uploads.expire((), time.time() + 50) == ()
    age()
    assert uploads.missing("local", "upload:u1", 0, 3) == (range(1, 3),)
    assert uploads.expire((), time.time() + 50) == (key,)
    refused(Code.NOT_FOUND, lambda: uploads.touch("local", "upload:u1"))


# ------------------------------------------------------------------------------------------ expiry


def test_unused_uploads_go(uploads: Uploads) -> None:
    send(uploads)
    for number in range(2):
        uploads.frame("local", frame(number, upload="f"))
    uploads.path("local", "upload:f")
    send(uploads, owner="other")
    now = time.time()
    assert uploads.expire((), now + 99) == ()
    needed = [uploads.key("local", "upload:f"), uploads.key("other", "upload:u1")]
    assert uploads.expire(needed, now + 101) == (uploads.key("local", "upload:u1"),)
    refused(Code.NOT_FOUND, lambda: uploads.path("local", "upload:u1"))
    assert uploads.path("other", "upload:u1").read_bytes() == DATA
    assert uploads.missing("local", "upload:f", 0, 2) == ()
    fresh = Uploads(uploads.folder, LIMITS)
    assert sorted(fresh.expire((), time.time() + 101)) == sorted(needed)
    assert files(uploads.folder) == []
    assert uploads.expire((), time.time() + 1000) == ()


def test_time_begins_anew_with_use(uploads: Uploads) -> None:
    send(uploads)
    key = uploads.key("local", "upload:u1")
    for path in (uploads.folder / key).iterdir():
        os.utime(path, (1, 1))
    os.utime(uploads.folder / key, (1, 1))
    assert uploads.expire([key], time.time() + 50) == ()  # a job needs it
    assert uploads.expire((), time.time() + 50) == ()  # and has just ended
    assert uploads.expire((), time.time() + 101) == (key,)


def test_what_is_not_an_uploads_own_survives(uploads: Uploads) -> None:
    send(uploads)
    uploads.frame("local", frame(0, upload="f"))
    view = uploads.path("local", "upload:f").parent
    place = uploads.folder / uploads.key("local", "upload:u1")
    frames = uploads.folder / uploads.key("local", "upload:f")
    mine = [
        uploads.folder / "notes.txt",
        uploads.folder / ("0" * 32) / "x" / "state.json",
        place / "clip restyled.mp4",
        frames / "frames" / "mine.png",
        view / "mine.png",
        place / "folder" / "file.mp4",
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert len(uploads.expire((), time.time() + 1000)) == 2
    assert sorted(files(uploads.folder)) == sorted(mine)
    assert uploads.expire((), time.time() + 1000) == ()
    assert send(uploads).file  # its folder may be used again
    assert uploads.frame("local", frame(0, upload="f")).offset == 1
    assert all(path.read_text() == "mine" for path in mine)


def test_old_views_go_and_come_back(uploads: Uploads) -> None:
    uploads.frame("local", frame(0))
    first = uploads.path("local", "upload:u1").parent
    uploads.frame("local", frame(0, payloads=(bytes(96),)))
    second = uploads.path("local", "upload:u1").parent
    os.utime(first, (1, 1))
    assert uploads.expire([uploads.key("local", "upload:u1")], time.time()) == ()
    assert first.is_dir()
    assert uploads.expire((), time.time()) == ()
    assert not first.exists()
    assert uploads.path("local", "upload:u1").parent == second
    assert shown(uploads) == [0]
