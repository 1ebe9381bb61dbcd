from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from host_plugins.link import timing
from host_plugins.link.timing import Placement, Span, frame_of, timecode_of

N2997, N5994, FILM = Fraction(30000, 1001), Fraction(60000, 1001), Fraction(24000, 1001)
RATES = st.sampled_from(
    [FILM, Fraction(24), Fraction(25), N2997, Fraction(30), Fraction(50), N5994, Fraction(60)]
) | st.fractions(Fraction(1), Fraction(240), max_denominator=1001)
FRAMES = st.integers(-(10**6), 10**7)


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        (24, Fraction(24)),
        (25.0, Fraction(25)),
        ("25.0", Fraction(25)),
        ("23.976", FILM),
        ("23.98", FILM),
        (23.976, FILM),
        (24000 / 1001, FILM),
        ("29.97", N2997),
        ("29.97 DF", N2997),
        ("29.97df", N2997),
        ("47.952", Fraction(48000, 1001)),
        ("59.94", N5994),
        ("119.88", Fraction(120000, 1001)),
        ("30000/1001", N2997),
        (N2997, N2997),
        ("12.5", Fraction(25, 2)),
        ("23.99", Fraction(2399, 100)),
    ],
)
def test_rates_as_hosts_tell_them(told: str | float | Fraction, rate: Fraction) -> None:
    assert timing.parse_rate(told) == rate


@pytest.mark.parametrize("told", ["", "0", "-25", "1/0", "nan", "inf", "1e9999999999", "x", "0/5"])
def test_what_is_no_rate(told: str) -> None:
    with pytest.raises(ValueError, match="no number of frames per second"):
        timing.parse_rate(told)


@pytest.mark.parametrize(
    ("timecode", "rate", "frame"),
    [
        ("01:00:00:00", Fraction(24), 86400),
        ("01:00:00:00", FILM, 86400),
        ("01:00:00:00", Fraction(25), 90000),
        ("01:00:00;00", N2997, 107892),
        ("01:00:00:00", N2997, 108000),
        ("00:00:59;29", N2997, 1799),
        ("00:01:00;02", N2997, 1800),
        ("00:10:00;00", N2997, 17982),
        ("00:09:59;29", N2997, 17981),
        ("23:59:59;29", N2997, 2589407),
        ("00:01:00;04", N5994, 3600),
        ("01:00:00;00", N5994, 215784),
        ("00:00:01:59", N5994, 119),
        ("00:00:00.10", N2997, 10),
        ("01:00:00;00", Fraction(25), 90000),
    ],
)
def test_timecodes_that_are_known(timecode: str, rate: Fraction, frame: int) -> None:
    assert frame_of(timecode, rate) == frame
    assert timecode_of(frame, rate, timecode[8]) == timecode


@pytest.mark.parametrize(
    ("timecode", "rate"),
    [
        ("1:2:3", N2997),
        ("00:00:60:00", N2997),
        ("00:60:00:00", N2997),
        ("00:00:00:30", N2997),
        ("00:01:00;00", N2997),
        ("00:01:00;01", N2997),
        ("00:59:00;03", N5994),
        ("00:00:00:24", FILM),
        ("00:00:00:00 ", FILM),
    ],
)
def test_what_is_no_timecode(timecode: str, rate: Fraction) -> None:
    with pytest.raises(ValueError, match="is no"):
        frame_of(timecode, rate)


@given(st.integers(0, 10**8), RATES, st.sampled_from(":;."))
def test_timecodes_both_ways(frame: int, rate: Fraction, separator: str) -> None:
    written = timecode_of(frame, rate, separator)
    day = 24 * 3600 * timing.nominal(rate)
    if separator != ":":
        day -= timing.drops(rate) * 24 * 54
    assert frame_of(written, rate) == frame % day


@given(st.integers(0, 2589407), st.sampled_from([N2997, N5994]))
def test_drop_frame_timecode_keeps_the_clock(frame: int, rate: Fraction) -> None:
    """It is never further from the time of day than about two frames and what a day adds up to."""
    hours, minutes, seconds = (int(timecode_of(frame, rate, ";")[i : i + 2]) for i in (0, 3, 6))
    clock = (hours * 60 + minutes) * 60 + seconds
    assert abs(clock - frame / rate) < 1 + Fraction(1, 10)


def test_counting_is_without_gaps_and_drops_what_the_standard_says() -> None:
    """A second implementation: count, and leave out the numbers."""
    for rate, dropped in ((N2997, 2), (N5994, 4)):
        base, frame = timing.nominal(rate), 0
        for minute in range(25):
            for second in range(60):
                for count in range(base):
                    if minute % 10 and not second and count < dropped:
                        continue
                    label = f"00:{minute:02}:{second:02};{count:02}"
                    assert timecode_of(frame, rate, ";") == label
                    frame += 1


@given(st.integers(0, 10**6), st.integers(0, 10**6), RATES, st.sampled_from(":;"))
def test_later_is_added_frames(start: int, more: int, rate: Fraction, separator: str) -> None:
    day = 24 * 3600 * timing.nominal(rate) - timing.drops(rate) * 24 * 54
    assume(start + more < day)
    begin = timecode_of(start, rate, separator)
    assert timing.later(begin, more, rate) == timecode_of(start + more, rate, separator)


def test_files_with_timecodes_that_their_rate_does_not_have() -> None:
    assert timing.later("00:00:00:29", 1, Fraction(25)) == "00:00:01:05"
    assert timing.later("00:01:00;00", 0, N2997) == "00:00:59;28"


@given(FRAMES, RATES, RATES)
def test_frames_to_a_source_and_back(frame: int, host: Fraction, source: Fraction) -> None:
    seen = timing.source_frame(frame, host, source)
    assert seen / source <= Fraction(frame) / host < (seen + 1) / source
    back = timing.host_frame(seen, source, host)
    assert back <= frame
    assert timing.source_frame(back, host, source) >= seen
    if source <= host:  # then no source frame is left out
        assert timing.source_frame(back, host, source) == seen


@given(FRAMES, RATES, RATES)
def test_the_first_host_frame_is_the_first(frame: int, source: Fraction, host: Fraction) -> None:
    first = timing.host_frame(frame, source, host)
    assert timing.source_frame(first, host, source) >= frame
    assert timing.source_frame(first - 1, host, source) < frame


@given(FRAMES, RATES)
def test_equal_rates_change_nothing(frame: int, rate: Fraction) -> None:
    assert timing.source_frame(frame, rate, rate) == frame
    assert timing.source_frame(frame, rate, rate, nearest=True) == frame
    assert timing.host_frame(frame, rate, rate) == frame


def test_the_nearest_frame_is_rounded_up_at_halves() -> None:
    at = [timing.source_frame(n, Fraction(50), Fraction(25), nearest=True) for n in range(5)]
    assert at == [0, 1, 1, 2, 2]
    assert [timing.source_frame(n, Fraction(50), Fraction(25)) for n in range(5)] == [0, 0, 1, 1, 2]


def test_a_clip_on_a_timeline_that_starts_at_one_hour() -> None:
    """Resolve's arithmetic: absolute record frames, source frames from the in point."""
    clip = Placement(86400 + 240, 86400 + 300, 1000, Fraction(24), Fraction(24))
    assert clip.plain
    assert clip.source_span() == Span(1000, 1060)
    assert clip.source_at(86640) == 1000
    assert clip.record_at(1059) == 86699
    wider = clip.source_span().with_handles(12, 1065)
    assert wider == Span(988, 1065, 12, 5)
    assert clip.landing(wider) == (12, 72, 86640)


@given(st.integers(0, 50), st.integers(1, 200), st.integers(0, 30), st.integers(0, 60))
def test_handles_stay_inside_the_source(start: int, length: int, handles: int, rest: int) -> None:
    count = start + length + rest
    wide = Span(start, start + length).with_handles(handles, count)
    assert wide.start >= 0
    assert wide.stop <= count
    assert (wide.start + wide.before, wide.stop - wide.after) == (start, start + length)
    clip = Placement(500, 500 + length, start, Fraction(25), Fraction(25))
    first, last, record = clip.landing(wide)
    assert (last - first, record) == (length, 500)


@given(st.integers(1, 500), RATES, RATES, st.sampled_from([1, 2, Fraction(1, 2), -1]))
def test_what_is_seen_lies_in_the_span(
    length: int, rate: Fraction, source: Fraction, speed: Fraction
) -> None:
    clip = Placement(1000, 1000 + length, 300, rate, source, Fraction(speed))
    span = clip.source_span()
    seen = [clip.source_at(1000 + n) for n in range(length)]
    assert (min(seen), max(seen) + 1) == (span.start, span.stop)
    assert clip.plain is (speed == 1 and rate == source)
    if speed > 0:
        assert clip.record_at(300) == 1000
