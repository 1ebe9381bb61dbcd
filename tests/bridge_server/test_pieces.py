"""Files piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge_server import pieces


@pytest.mark.parametrize(("size", "polls"), [(0, 1), (1, 2), (8, 2), (9, 3), (17, 4)])
def test_all_bytes_come_in_order_and_are_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, polls: int
) -> None:
    monkeypatch.setattr(pieces, "_PIECE", 8)
    (tmp_path / "a").write_bytes(bytes(range(size)))
    asked = list[int]()
    found = list(pieces.pieces(tmp_path / "a", lambda: asked.append(1)))
    assert b"".join(found) == bytes(range(size))
    assert max(map(len, found), default=0) <= 8
    assert len(asked) == polls


def test_nothing_is_read_any_more_once_it_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "_PIECE", 1)
    (tmp_path / "a").write_bytes(b"abc")
    read = list[bytes]()

    def poll() -> None:
        if len(read) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        read.extend(pieces.pieces(tmp_path / "a", poll))
    assert read == [b"a", b"b"]
