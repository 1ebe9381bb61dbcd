"""What is remembered of a job's output, and what a client is told of it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from bridge_server import published
from bridge_server.journal import Row
from bridge_server.operations import made
from host_plugins.link.messages import File

DATA = bytes(range(256)) * 12000


def _row(output: Path) -> Row:
    return Row(id="j", owner="local", state="done", output=str(output), span=[4, 6])


def _published(output: Path, folder: Path, data: bytes = DATA) -> None:
    """Write an output as a worker does: a part, what is remembered of it, and then its name."""
    folder.mkdir(exist_ok=True)
    part = output.with_name("part")
    part.write_bytes(data)
    published.remember({part: output}, folder)
    part.rename(output)


def _output(output: Path, folder: Path) -> File:
    return next(made(_row(output), folder))


def test_an_output_is_told_with_its_hash(tmp_path: Path) -> None:
    output, folder = tmp_path / "a.mp4", tmp_path / "job"
    _published(output, folder)
    file = _output(output, folder)
    assert (file.role, file.size, file.intact) == ("output", len(DATA), True)
    assert file.sha256 == hashlib.sha256(DATA).hexdigest()
    assert published.all_ours(folder)


def test_every_image_of_a_sequence_has_its_own(tmp_path: Path) -> None:
    folder, contents = tmp_path / "job", (b"first", b"second")
    folder.mkdir()
    images = [tmp_path / f"a.{number:04d}.png" for number in (4, 5)]
    for image, content in zip(images, contents, strict=True):
        image.write_bytes(content)
    published.remember({image: image for image in images}, folder)
    files = list(made(_row(tmp_path / "a.####.png"), folder))
    assert [file.frame for file in files] == [4, 5]
    assert [file.sha256 for file in files] == [hashlib.sha256(own).hexdigest() for own in contents]


def test_what_somebody_changed_has_no_hash_of_ours(tmp_path: Path) -> None:
    output, folder = tmp_path / "a.mp4", tmp_path / "job"
    _published(output, folder)
    output.write_bytes(DATA[1:])
    os.utime(output, (1, 1))
    file = _output(output, folder)
    assert (file.intact, file.sha256) == (False, "")
    assert not published.all_ours(folder)


def test_a_job_that_was_done_before_there_were_hashes_is_intact(tmp_path: Path) -> None:
    output, folder = tmp_path / "a.mp4", tmp_path / "job"
    _published(output, folder)
    facts = json.loads((folder / published.NAME).read_text())
    older = {name: own[:2] for name, own in facts.items()}
    (folder / published.NAME).write_text(json.dumps(older))
    file = _output(output, folder)
    assert (file.intact, file.sha256) == (True, "")


@pytest.mark.parametrize("text", ["", "[]", "3", '{"a": 3}', '{"a": []}', '{"a": [1, 2, "", 4]}'])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / published.NAME).write_text(text)
    assert published.known(tmp_path) == {}


def test_who_wants_to_stop_is_heard_between_the_pieces(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(DATA)

    def poll() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        published.remember({part: tmp_path / "a.mp4"}, tmp_path, poll)
    assert published.known(tmp_path) == {}
