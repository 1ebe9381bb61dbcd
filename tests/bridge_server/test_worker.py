"""What a worker tells, of more than a message can hold."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from bridge_server import pipe
from bridge_server.envelope import Notice, write_notice
from bridge_server.events import Preview
from bridge_server.worker import Worker, _Task


def test_of_a_large_batch_as_many_previews_are_told_as_a_message_has_room_for() -> None:
    tells = io.BytesIO()
    worker = Worker(io.BytesIO(), tells, "cpu", 1)
    worker._take({"do": "watch", "previews": True})
    numbers = tuple(range(0, 400, 10))
    pictures = torch.rand(len(numbers), 3, 16, 24)
    task = _Task("a", 1, {}, Path("a"), False)
    worker._on(task, Preview(numbers, 0, 9, lambda: pictures))
    tells.seek(0)
    told = pipe.read(tells)
    assert told is not None
    assert told["frames"] == list(numbers[:32])
    assert len(told["jpegs"]) == 32
    frames = write_notice(Notice("preview", "s", {"frames": told["frames"]}, tuple(told["jpegs"])))
    assert len(frames) == 33
