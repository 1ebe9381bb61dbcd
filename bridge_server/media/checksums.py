"""Checksums that FFmpeg's decoders only grumble about, and paint over what they find damaged."""

from __future__ import annotations

import zlib

#: Bits of every byte in reverse order: zlib counts from the other end than FFV1.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FOOTER = 8


def ffv1_intact(packet: bytes) -> bool:
    """Return whether every slice of a frame of FFV1 version 3 has its checksum (RFC 9043, 4.9).

    A frame that was written without checksums counts as intact: its slices do not chain.
    """
    slices: list[bytes] = []
    end = len(packet)
    while end >= _FOOTER:
        begin = end - _FOOTER - int.from_bytes(packet[end - _FOOTER : end - _FOOTER + 3], "big")
        if begin < 0:
            return True
        slices.append(packet[begin:end])
        end = begin
    return end != 0 or all(_remainder(each) == 0 for each in slices)


def _remainder(data: bytes) -> int:
    """CRC-32 from 0 without a final inversion; 0 over data that ends in its own checksum."""
    return zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
