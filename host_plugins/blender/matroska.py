# SPDX-License-Identifier: GPL-3.0-or-later
"""When the frames of a Matroska or WebM file are shown, from the heads of its blocks.

There is no table of all frames: the file is walked through, and the pictures are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from . import depths
from .frames import Movie, Unclear

_MAGIC = b"\x1a\x45\xdf\xa3"
#: Elements that are gone into; whatever is in them comes next.
_SEGMENT, _INFO, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0
_CLUSTER, _GROUP = 0x1F43B675, 0xA0
_OPENED = {_SEGMENT, _INFO, _TRACKS, _TRACK, _VIDEO, _CLUSTER, _GROUP}
_SCALE, _NUMBER, _KIND, _ALPHA, _TIME = 0x2AD7B1, 0xD7, 0x83, 0x53C0, 0xE7
_NUMBERS = {_SCALE, _NUMBER, _KIND, _ALPHA, _TIME}
_CODEC, _SETTINGS = 0x86, 0x63A2
_TEXTS = {_CODEC, _SETTINGS}
_BLOCKS = {0xA3, 0xA1}
_PICTURE, _LACED = 1, 0x06


def is_matroska(head: bytes) -> bool:
    """Whether a file with these first bytes is a Matroska or WebM."""
    return head.startswith(_MAGIC)


Track = dict[int, Any]


def movie(file: BinaryIO) -> Movie:
    """Return what the blocks say of the first moving picture.

    Raises:
        Unclear: frames are not told apart without decoding.
    """
    scale, now = 1_000_000, 0
    tracks: list[Track] = [{}]
    stored: list[int] = []
    for kind, value in _elements(file):
        if kind == _TRACK:
            tracks.append({})
        elif kind == _SCALE:
            scale = value
        elif kind == _TIME:
            now = value
        elif kind in _BLOCKS:
            if (time := _time(file, value, _picture(tracks)[_NUMBER])) is not None:
                stored.append(now + time)
        else:
            tracks[-1][kind] = value
    if not stored:
        raise Unclear("its file holds no moving picture")
    track = _picture(tracks)
    settings = {depths.BOXES.get(track.get(_CODEC, b""), b""): track.get(_SETTINGS, b"")}
    fine = depths.is_fine(track.get(_CODEC, b""), settings)
    return Movie(np.array(stored, np.int64), 1e9 / scale, bool(track.get(_ALPHA)), fine)


def _picture(tracks: list[Track]) -> Track:
    for track in tracks:
        if track.get(_KIND) == _PICTURE and _NUMBER in track:
            return track
    raise Unclear("its file holds no moving picture")


def _elements(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Tracks, what is said of them and of time, and blocks with where they begin."""
    end = file.seek(0, os.SEEK_END)
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
        if begin + size > end:
            return
        if kind in _NUMBERS:
            yield kind, int.from_bytes(file.read(size), "big")
        elif kind in _TEXTS:
            yield kind, file.read(size)
        elif kind in _BLOCKS:
            yield kind, begin
        file.seek(begin + size)


def _vint(file: BinaryIO, marked: bool = False) -> int | None:
    """A number that says its own length; None at the end of the file."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    return value if marked else value - (1 << 7 * length)


def _time(file: BinaryIO, begin: int, wanted: int) -> int | None:
    """A block's time within its cluster; None if it is of another track."""
    file.seek(begin)
    track, rest = _vint(file), file.read(3)
    if track != wanted or len(rest) < 3:
        return None
    if rest[2] & _LACED:
        raise Unclear("its file packs several frames into one block")
    return int.from_bytes(rest[:2], "big", signed=True)
