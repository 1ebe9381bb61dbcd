# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a codec's settings, as containers keep them, say that it has more than 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Bytes = bytes | memoryview

#: Codecs that always have, by the beginnings of their names.
_FINE = (b"ap", b"v210", b"r210", b"b64a", b"V_PRORES")
#: Profiles of H.264 beyond 8 bits: High 10, High 4:2:2 and High 4:4:4 (which may have 8).
_FINE_AVC = (110, 122, 244)
#: The settings of a codec, by the name of their box in MP4 and MOV: whether they say so.
_SETTINGS: Mapping[bytes, Callable[[Bytes], bool]] = {
    b"avcC": lambda settings: settings[1] in _FINE_AVC,
    b"hvcC": lambda settings: settings[17] & 7 > 0,
    b"av1C": lambda settings: settings[2] & 0x40 > 0,
    b"vpcC": lambda settings: settings[6] >> 4 > 8,
}
#: What these settings are of in Matroska.
BOXES = {
    b"V_MPEG4/ISO/AVC": b"avcC",
    b"V_MPEGH/ISO/HEVC": b"hvcC",
    b"V_AV1": b"av1C",
}


def is_fine(codec: bytes, settings: Mapping[bytes, Bytes]) -> bool:
    """Whether a picture has more than 8 bits, as far as is said.

    codec: its name in the container; settings: boxes beside it, by name
    """
    if codec.startswith(_FINE):
        return True
    return any(read(settings[box]) for box, read in _SETTINGS.items() if settings.get(box))
