"""Messages over a pipe: whole ones, or none."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_server import pipe

plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.text(), plain, max_size=4), max_size=5))
def test_what_is_written_is_read(messages: list[Any]) -> None:
    stream = io.BytesIO(b"".join(map(pipe.pack, messages)))
    for message in messages:
        assert pipe.read(stream) == message
    assert pipe.read(stream) is None


@given(st.integers(0, 30))
def test_an_end_in_the_middle_is_an_end(kept: int) -> None:
    data = pipe.pack({"tell": "keyframe", "jpeg": bytes(30)})
    assert pipe.read(io.BytesIO(data[: min(kept, len(data) - 1)])) is None


def test_what_somebody_else_prints_is_refused() -> None:
    with pytest.raises(ValueError, match="somebody else"):
        pipe.read(io.BytesIO(b"Loading weights: 100 %"))


def test_a_message_larger_than_the_systems_buffer() -> None:
    import threading

    reading, writing = os.pipe()
    message = {"jpegs": [os.urandom(1 << 20) for _ in range(3)]}

    def write() -> None:
        with os.fdopen(writing, "wb") as out:
            out.write(pipe.pack(message))

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb") as stream:
        assert pipe.read(stream) == message
    thread.join()
