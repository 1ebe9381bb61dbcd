"""Reading a file piece by piece: memory does not grow with it, and it can be stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

#: Bytes of a piece.
_PIECE = 1 << 20


def pieces(file: Path, poll: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    """Yield a file's bytes in order.

    poll: is called before each piece is read, and may raise

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as data:
        poll()
        while piece := data.read(_PIECE):
            yield piece
            poll()
