# SPDX-License-Identifier: GPL-3.0-or-later
"""When the frames of an MP4 or MOV file are shown, from the tables in its head."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from . import depths
from .frames import Movie, Unclear

_HEAD = struct.Struct(">I4s")
#: No table of a film of a day is larger.
_LARGEST = 1 << 28
_ALPHA = 32  # bits per pixel


def is_quicktime(head: bytes) -> bool:
    """Whether a file with these first bytes is an MP4 or a MOV."""
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def movie(file: BinaryIO) -> Movie:
    """Return what the tables say of the first moving picture.

    Raises:
        Unclear: no table of frames, or it leaves some out.
    """
    movie = _movie(file)
    units = _units(_child(movie, b"mvhd"))
    for track in _children(movie, b"trak"):
        media = _child(track, b"mdia")
        if bytes(_child(media, b"hdlr")[8:12]) == b"vide":
            scale = _units(_child(media, b"mdhd"))
            table = _child(_child(media, b"minf"), b"stbl")
            stored = _stored(table)
            _check_edits(track, stored, scale, units)
            return Movie(stored, scale, *_described(table))
    raise Unclear("its file holds no moving picture")


def _movie(file: BinaryIO) -> memoryview:
    """The box of tables, wherever in the file it is."""
    file.seek(0)
    while len(head := file.read(8)) == 8:
        size, kind = _HEAD.unpack(head)
        begin = 8
        if size == 1:
            size, begin = struct.unpack(">Q", file.read(8))[0], 16
        if kind == b"moov" and size <= _LARGEST:
            return memoryview(file.read(size - begin))
        if size < begin:
            break
        file.seek(size - begin, 1)
    raise Unclear("its file has no table of frames")


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    place = 0
    while place + 8 <= len(data):
        size, kind = _HEAD.unpack_from(data, place)
        if size < 8:
            return
        yield kind, data[place + 8 : place + size]
        place += size


def _children(data: memoryview, wanted: bytes) -> Iterator[memoryview]:
    return (inside for kind, inside in _boxes(data) if kind == wanted)


def _child(data: memoryview, wanted: bytes) -> memoryview:
    for inside in _children(data, wanted):
        return inside
    raise Unclear(f"its file has no table {wanted.decode()}")


def _units(header: memoryview) -> float:
    """Units per second, of `mvhd` or `mdhd`."""
    return struct.unpack_from(">I", header, 20 if header[0] else 12)[0]


def _pairs(data: memoryview, kind: str) -> np.ndarray:
    """Runs: how often, and a value."""
    count = struct.unpack_from(">I", data, 4)[0]
    rows = np.frombuffer(data[8 : 8 + 8 * count], np.dtype([("times", ">u4"), ("value", kind)]))
    return np.repeat(rows["value"].astype(np.int64), rows["times"].astype(np.int64))


def _stored(table: memoryview) -> np.ndarray:
    """(frames,) int64: when each frame is shown, in the order of decoding."""
    lasting = _pairs(_child(table, b"stts"), ">u4")
    if not len(lasting):
        raise Unclear("its file keeps its table of frames in pieces (fragments)")
    decoded = np.cumsum(lasting) - lasting
    for delays in _children(table, b"ctts"):
        # Unsigned in version 0 by the book; writers put negative numbers there too.
        late = _pairs(delays, ">i4")
        if len(late) != len(decoded):
            raise Unclear("the tables of its file do not fit each other")
        return decoded + late
    return decoded


def _check_edits(track: memoryview, stored: np.ndarray, scale: float, units: float) -> None:
    """Raise Unclear where an edit list shows less than all frames, or some twice."""
    for box in _children(track, b"edts"):
        edits = [edit for edit in _edits(_child(box, b"elst")) if edit[1] >= 0]
        if len(edits) != 1 or edits[0][2] != 1.0:
            raise Unclear("an edit list in its file plays it in pieces")
        length, begin, _ = edits[0]
        end = begin + length * scale / units if length else np.inf
        if stored.min() < begin or stored.max() >= end:
            raise Unclear("an edit list in its file hides frames")


def _edits(data: memoryview) -> Iterator[tuple[int, int, float]]:
    """Length in the movie's units, where in the track's, and the speed."""
    row = struct.Struct(">QqI" if data[0] else ">IiI")
    count = struct.unpack_from(">I", data, 4)[0]
    for length, begin, rate in row.iter_unpack(data[8 : 8 + count * row.size]):
        yield length, begin, rate / 65536


def _described(table: memoryview) -> tuple[bool, bool]:
    """Whether the picture has alpha, and more than 8 bits."""
    for codec, entry in _boxes(_child(table, b"stsd")[8:]):
        depth = struct.unpack_from(">H", entry, 74)[0]
        settings = dict(_boxes(entry[78:]))
        return depth == _ALPHA, depths.is_fine(codec, settings)
    return False, False
