# SPDX-License-Identifier: GPL-3.0-or-later
"""When the frames of a Matroska or WebM file are shown, from the heads of its blocks.

There is no table of all frames: the file is walked through, and the pictures are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from .frames import Unclear

_MAGIC = b"\x1a\x45\xdf\xa3"
#: Elements that are gone into; whatever is in them comes next.
_SEGMENT, _INFO, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0
_CLUSTER, _GROUP = 0x1F43B675, 0xA0
_OPENED = {_SEGMENT, _INFO, _TRACKS, _TRACK, _VIDEO, _CLUSTER, _GROUP}
_SCALE, _NUMBER, _KIND, _ALPHA, _TIME = 0x2AD7B1, 0xD7, 0x83, 0x53C0, 0xE7
_NUMBERS = {_SCALE, _NUMBER, _KIND, _ALPHA, _TIME}
_BLOCKS = {0xA3, 0xA1}
_PICTURE, _LACED = 1, 0x06


def is_matroska(head: bytes) -> bool:
    """Whether a file with these first bytes is a Matroska or WebM."""
    return head.startswith(_MAGIC)


def times(file: BinaryIO) -> tuple[np.ndarray, float, bool]:
    """Return the frames' times as they are stored, the units per second, and whether alpha is.

    Raises:
        Unclear: frames are not told apart without decoding.
    """
    scale, tracks, now, number = 1_000_000, [dict[int, int]()], 0, None
    stored: list[int] = []
    for kind, value in _elements(file):
        if kind == _TRACK:
            tracks.append({})
        elif kind == _SCALE:
            scale = value
        elif kind == _TIME:
            now = value
        elif kind in _NUMBERS:
            tracks[-1][kind] = value
        else:
            number = number or _picture(tracks)[_NUMBER]
            track, time, flags = _head(file, value)
            if track == number:
                if flags & _LACED:
                    raise Unclear("its file packs several frames into one block")
                stored.append(now + time)
    if not stored:
        raise Unclear("its file holds no moving picture")
    return np.array(stored, np.int64), 1e9 / scale, bool(_picture(tracks).get(_ALPHA))


def _picture(tracks: list[dict[int, int]]) -> dict[int, int]:
    for track in tracks:
        if track.get(_KIND) == _PICTURE and _NUMBER in track:
            return track
    raise Unclear("its file holds no moving picture")


def _elements(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Numbers with their values, tracks, and blocks with where they begin."""
    file.seek(0)
    while True:
        kind, size = _vint(file, marked=True), _vint(file)
        if kind is None or size is None:
            return
        if kind in _OPENED:
            if kind == _TRACK:
                yield kind, 0
            continue
        begin = file.tell()
        if kind in _NUMBERS:
            yield kind, int.from_bytes(file.read(size), "big")
        elif kind in _BLOCKS:
            yield kind, begin
        file.seek(begin + size)


def _vint(file: BinaryIO, marked: bool = False) -> int | None:
    """A number that says its own length; None at the end of the file."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big")
    return value if marked else value - (1 << 7 * length)


def _head(file: BinaryIO, begin: int) -> tuple[int | None, int, int]:
    """A block's track, its time within the cluster, and its flags."""
    file.seek(begin)
    track = _vint(file)
    rest = file.read(3)
    return track, int.from_bytes(rest[:2], "big", signed=True), rest[2] if len(rest) == 3 else 0
