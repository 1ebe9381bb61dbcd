"""Whether a file is as long as its own outermost parts say: a copy that broke off is not.

MP4 and MOV are boxes one after the other (ISO/IEC 14496-12, 4.2), Matroska is one segment
(RFC 9559, 4.5). Both name their sizes; only recordings that were never finished do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
#: Boxes that must be whole; behind the last one some cameras leave padding that is no box.
_NEEDED = (b"moov", b"moof", b"mdat")


def broken_off(path: Path) -> bool:
    """Whether the file at `path` ends before one of its parts does."""
    size = path.stat().st_size
    with path.open("rb") as file:
        matroska = file.read(4) == _EBML
        file.seek(0)
        return _segment_end(file) > size if matroska else _boxes_end(file, size) > size


def _segment_end(file: BinaryIO) -> int:
    """Where the segment ends, in bytes; 0 where it does not say."""
    file.seek(4)
    file.seek(_size(file) or 0, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length = _size(file)
    return file.tell() + length if length is not None else 0


def _size(file: BinaryIO) -> int | None:
    """A size of EBML: as many more bytes as its first has leading zeros; all ones is unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(first + file.read(more), "big") & ((1 << 7 * (more + 1)) - 1)
    return None if value == (1 << 7 * (more + 1)) - 1 else value


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last box ends that must be whole, in bytes."""
    begin = end = 0
    while begin + 8 <= size:
        file.seek(begin)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # the size is in the next eight bytes
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # to the end of the file, or no box
            break
        begin += length
        if head[4:8] in _NEEDED:
            end = begin
    return end
