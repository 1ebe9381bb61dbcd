# SPDX-License-Identifier: GPL-3.0-or-later
"""Image files of a strip: whether the server reads them as one sequence, and what it calls it."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .frames import Unclear

#: What the server reads. A name ends in the frame's number and one of these.
SUFFIXES = (".png", ".tif", ".tiff", ".exr")
_NUMBERED = re.compile(r"(.*?)(\d+)(\.[A-Za-z]+)")
#: What stands for a number in the names of sequences, so it must not be in a name itself.
_SLOT = re.compile(r"#|%\d*d")
_PLAIN = {b"R", b"G", b"B", b"A", b"Y", b"Z"}
_MULTIPART, _DEEP = 0x1000, 0x0800


@dataclass(frozen=True, slots=True)
class Images:
    """Images as the server names and counts them.

    clip: "folder/a.####.png", or one file that has no number
    frames: of each image that was asked for, in order; frame 0 is the lowest number in the folder
    """

    clip: str
    frames: tuple[int, ...]


def sequence(folder: str, names: Sequence[str]) -> Images:
    """Return the sequence that the files `names` in `folder` are part of.

    names: in the order of the strip

    Raises:
        Unclear: they are no unbroken run of numbers, or of a kind that the server does not read.
        OSError: the folder cannot be listed.
    """
    suffix = os.path.splitext(names[0])[1]
    if suffix.lower() not in SUFFIXES:
        raise Unclear(
            f"its pictures are {suffix or 'nameless'} files, which the server does not read"
        )
    found = [_NUMBERED.fullmatch(name) for name in names]
    if found[0] is None and len(set(names)) == 1:
        return Images(os.path.join(folder, names[0]), (0,) * len(names))
    kinds = {(each[1], each[3]) for each in found if each}
    if None in found or len(kinds) != 1:
        raise Unclear("its pictures are not numbered alike")
    numbers = [int(each[2]) for each in found if each]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise Unclear("its pictures are no unbroken run of numbers")
    prefix, suffix = kinds.pop()
    lowest = _lowest(folder, prefix, suffix)
    slot = "#" * len(found[0][2])  # pyright: ignore[reportOptionalSubscript]
    clip = os.path.join(folder, prefix + slot + suffix)
    return Images(clip, tuple(number - lowest for number in numbers))


def _lowest(folder: str, prefix: str, suffix: str) -> int:
    """The number of the server's frame 0: all pictures of that name in the folder are one clip."""
    if _SLOT.search(prefix) or prefix.startswith("."):
        raise Unclear("the names of its pictures cannot be told from a pattern")
    there = sorted(_numbers(folder, prefix, suffix))
    if there != list(range(there[0], there[0] + len(there))):
        raise Unclear(
            f"the pictures {prefix}#{suffix} in its folder are no unbroken run of numbers"
        )
    return there[0]


def _numbers(folder: str, prefix: str, suffix: str) -> Iterator[int]:
    with os.scandir(folder) as entries:
        for entry in entries:
            found = _NUMBERED.fullmatch(entry.name)
            if found and (found[1], found[3]) == (prefix, suffix) and entry.is_file():
                yield int(found[2])


def has_alpha(path: str) -> bool:
    """Whether an image file has an alpha channel.

    Raises:
        Unclear: it has several layers or parts, or is none of `SUFFIXES`.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(32)
        try:
            if head.startswith(b"\x89PNG"):
                return head[25] in (4, 6)
            if head.startswith(b"\x76\x2f\x31\x01"):
                return b"A" in _channels(file, head)
            if head[:4] in (b"II*\0", b"MM\0*"):
                return _extra_samples(file, head)
        except (struct.error, IndexError) as error:
            raise Unclear(f"the head of {os.path.basename(path)} is damaged") from error
    raise Unclear(f"{os.path.basename(path)} is not what its name says")


def is_png16(path: str) -> bool:
    """Whether a file is a PNG whose samples have 16 bits.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(25)
    return head.startswith(b"\x89PNG") and head[24:] == b"\x10"


def _channels(file: BinaryIO, head: bytes) -> set[bytes]:
    """The channels of an EXR of one layer."""
    if struct.unpack_from("<I", head, 4)[0] & (_MULTIPART | _DEEP):
        raise Unclear("its pictures are EXRs of several parts")
    file.seek(8)
    while name := _text(file):
        kind, size = _text(file), struct.unpack("<I", file.read(4))[0]
        value = file.read(size)
        if (name, kind) == (b"channels", b"chlist"):
            names = set(_listed(value))
            if not names <= _PLAIN:
                raise Unclear("its pictures are EXRs of several layers")
            return names
    raise Unclear("its pictures are EXRs that name no channels")


def _text(file: BinaryIO) -> bytes:
    text = b""
    while (byte := file.read(1)) not in (b"", b"\0"):
        text += byte
    return text


def _listed(channels: bytes) -> Iterator[bytes]:
    """The names in a list of channels; 16 bytes about each follow its name."""
    place = 0
    while place < len(channels) and channels[place]:
        end = channels.index(0, place)
        yield channels[place:end]
        place = end + 17


def _extra_samples(file: BinaryIO, head: bytes) -> bool:
    """Whether a TIFF has the tag that tells what its channels beyond the colours are."""
    order = "<" if head.startswith(b"I") else ">"
    file.seek(struct.unpack_from(order + "I", head, 4)[0])
    count = struct.unpack(order + "H", file.read(2))[0]
    tags = {struct.unpack(order + "H", file.read(12)[:2])[0] for _ in range(count)}
    return 338 in tags
