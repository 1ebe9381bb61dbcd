from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bridge_server.events import Event, KeyframeDone, Note, Preview, Progress, table


class _NotToCopy:
    """Stands for the model behind a preview."""

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        raise AssertionError("a preview's picture was copied")

    def __call__(self) -> torch.Tensor:
        return torch.zeros(1, 3, 8, 8)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Progress("encode", 1, 2), {"event": "progress", "stage": "encode", "done": 1, "total": 2}),
        (
            KeyframeDone(4, Path("a.png")),
            {"event": "keyframedone", "number": 4, "file": "a.png", "final": True},
        ),
        (
            Preview((0, 4), 1, 3, _NotToCopy()),
            {"event": "preview", "numbers": (0, 4), "step": 1, "last": 3},
        ),
        (Note("ü"), {"event": "note", "text": "ü"}),
    ],
)
def test_an_event_is_plain_values(event: Event, expected: dict[str, Any]) -> None:
    assert table(event) == expected
    json.dumps(table(event))
