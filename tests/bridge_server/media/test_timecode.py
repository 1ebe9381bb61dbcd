from __future__ import annotations

from fractions import Fraction

import pytest

from bridge_server.media.timecode import advance
from fresco.errors import InvalidInput

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("start", "frames", "rate", "end"),
    [
        ("01:00:00:00", 25, Fraction(25), "01:00:01:00"),
        ("01:00:59:24", 1, Fraction(25), "01:01:00:00"),
        ("23:59:59:23", 1, Fraction(24000, 1001), "00:00:00:00"),
        ("00:00:59:29", 1, NTSC, "00:01:00:00"),
        ("00:00:59;29", 1, NTSC, "00:01:00;02"),
        ("00:09:59;29", 1, NTSC, "00:10:00;00"),
        ("00:00:00;00", 107892, NTSC, "01:00:00;00"),
        ("00:00:59;59", 1, Fraction(60000, 1001), "00:01:00;04"),
        ("10:00:00:00", 0, Fraction(50), "10:00:00:00"),
        ("01:00:59;23", 1, Fraction(24), "01:01:00:00"),
        ("00:00:59.29", 1, NTSC, "00:01:00;02"),
        ("1:00:00:119", 1, Fraction(120), "01:00:01:00"),
    ],
)
def test_frames_later(start: str, frames: int, rate: Fraction, end: str) -> None:
    assert advance(start, frames, rate) == end


def test_one_by_one_is_as_all_at_once() -> None:
    timecode = "00:08:58;15"
    for _ in range(4000):
        timecode = advance(timecode, 1, NTSC)
        assert not (timecode.endswith((";00", ";01")) and timecode[5:9] == "9:00")
    assert timecode == advance("00:08:58;15", 4000, NTSC)


def test_no_timecode() -> None:
    with pytest.raises(InvalidInput, match="hh:mm:ss:ff"):
        advance("1:2:3", 1, NTSC)
