"""How much a clip changes from frame to frame, as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.ImageDraw import ImageDraw as Draw

from bridge_server.lettering import BACKGROUND, BRIGHT, MUTED, font
from fresco.errors import InvalidInput

WIDTH, HEIGHT = 1920, 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 120, 1880, 110, 520
#: Lines are drawn so many times larger and scaled down, which smooths them.
_FINE = 2

_PANEL, _RULE, _AXIS = "#1d1f23", "#2b2e34", "#6d7178"
_LINE, _BAND, _AREA = "#6fb7ee", "#3c6d94", "#2a4a63"
_KEY, _KEY_LINE, _CUT = "#f0b94d", "#55482c", "#ef6b66"
_TITLE_SIZE, _TEXT_SIZE = 26, 18
#: Above so many frames per pixel of width no dot marks a single frame.
_DOTS = 1 / 12
#: Steps of the axis in seconds, beside tenths and so on of one.
_CLOCK = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


def error_curve(
    errors: Sequence[float],
    keyframes: Sequence[int],
    cuts: Sequence[int],
    rate: Fraction,
    first: int = 0,
) -> Image.Image:
    """Draw how much each frame differs from the one before, with the keyframes and cuts.

    The scale is that of the frames which are no cuts: the peaks of cuts may run out of it. Where
    there are more frames than pixels, a column shows the least and the largest of its frames.

    errors: one per frame, at least 0 (`fresco.keyframes.frame_errors`)
    keyframes, cuts: places in `errors`; a cut is the first frame of a shot
    rate: frames per second
    first: the number of the first frame, where this is a part of a clip

    Raises:
        InvalidInput: no errors, errors that are no numbers, frames that are not there, or no rate.
    """
    curve = np.asarray(errors, np.float64)
    keys, breaks = (np.unique(np.asarray(each, np.int64)) for each in (keyframes, cuts))
    _check(curve, keys, breaks, rate)
    plot = _Plot(len(curve), _top(curve, breaks), rate, first)
    fine = Image.new("RGB", (WIDTH * _FINE, HEIGHT * _FINE), BACKGROUND)
    draw = ImageDraw.Draw(fine)
    _draw_panel(draw, plot)
    _draw_keys(draw, plot, keys)
    _draw_curve(draw, plot, curve)
    _draw_cuts(draw, plot, breaks)
    _draw_legend_marks(draw)
    picture = fine.reduce(_FINE)
    _write(ImageDraw.Draw(picture), plot, len(keys), len(breaks))
    return picture


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where what is drawn.

    count: frames
    top: the error at the panel's upper edge
    rate: frames per second
    first: the number of the first frame
    """

    count: int
    top: float
    rate: Fraction
    first: int = 0

    def x(self, frame: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels from the left; a single frame is in the middle."""
        if self.count == 1:
            return np.full_like(frame, (_LEFT + _RIGHT) / 2)
        return _LEFT + frame * ((_RIGHT - _LEFT) / (self.count - 1))

    def y(self, error: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels from above, inside the panel."""
        return np.maximum(_BOTTOM - error * ((_BOTTOM - _TOP) / self.top), _TOP)

    def levels(self) -> list[float]:
        """Errors that have a tick."""
        step = _round_step(self.top / 6)
        return [step * number for number in range(int(self.top / step + 1e-9) + 1)]

    def frames(self) -> list[int]:
        """Frames that have a tick."""
        step = max(1, int(_round_step((self.count - 1) / 12)))
        return list(range(0, self.count, step))

    def seconds(self) -> tuple[list[Fraction], Fraction]:
        """Times that have a tick, and the step between them."""
        last = Fraction(self.count - 1) / self.rate
        step = _clock_step(last / 12)
        return [step * number for number in range(int(last / step) + 1)], step


def _check(
    curve: NDArray[np.float64], keys: NDArray[np.int64], cuts: NDArray[np.int64], rate: Fraction
) -> None:
    if curve.ndim != 1 or not len(curve):
        raise InvalidInput("there are no frame errors to draw; give one per frame.")
    if not np.isfinite(curve).all() or curve.min() < 0:
        raise InvalidInput("frame errors are finite and at least 0; measure them again.")
    for what, frames in (("keyframes", keys), ("cuts", cuts)):
        if len(frames) and not (frames[0] >= 0 and frames[-1] < len(curve)):
            raise InvalidInput(
                f"{what} run from {frames[0]} to {frames[-1]}, and the clip has the frames 0 to "
                f"{len(curve) - 1}; give its own."
            )
    if rate <= 0:
        raise InvalidInput(f"the rate is {rate}; give frames per second, more than 0.")


def _top(curve: NDArray[np.float64], cuts: NDArray[np.int64]) -> float:
    """The error at the upper edge: a little above the largest that is no cut."""
    others = np.delete(curve, cuts)
    largest = float(others.max(initial=0.0)) or float(curve.max())
    return largest * 1.08 or 1.0


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= least * (1 - 1e-9))


def _clock_step(least: Fraction) -> Fraction:
    """The smallest round number of seconds that is not below `least`."""
    if least <= Fraction(1, 2):
        return Fraction(_round_step(float(least))).limit_denominator(10**6)
    return Fraction(next((step for step in _CLOCK if step >= least), math.ceil(least)))


def _draw_panel(draw: Draw, plot: _Plot) -> None:
    _box(draw, (_LEFT, _TOP, _RIGHT, _BOTTOM), _PANEL)
    for level in plot.y(np.array(plot.levels())):
        _line(draw, [(_LEFT, level), (_RIGHT, level)], _RULE)
    _line(draw, [(_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], _AXIS)
    for x in plot.x(np.array(plot.frames(), np.float64)):
        _line(draw, [(x, _BOTTOM), (x, _BOTTOM + 7)], _AXIS)
    for x in plot.x(_frames_at(plot)):
        _line(draw, [(x, _BOTTOM + 48), (x, _BOTTOM + 55)], _AXIS)
    _line(draw, [(_LEFT, _BOTTOM + 48), (_RIGHT, _BOTTOM + 48)], _AXIS)


def _frames_at(plot: _Plot) -> NDArray[np.float64]:
    """The seconds that have a tick, in frames."""
    return np.array([float(second * plot.rate) for second in plot.seconds()[0]])


def _draw_keys(draw: Draw, plot: _Plot, keys: NDArray[np.int64]) -> None:
    places = np.unique(plot.x(keys.astype(np.float64)).round(1))
    if len(places) <= (_RIGHT - _LEFT) / 6:
        for x in places:
            _line(draw, [(x, _TOP), (x, _BOTTOM)], _KEY_LINE)
    for x in places:
        _triangle(draw, x, _TOP - 3)


def _draw_curve(draw: Draw, plot: _Plot, curve: NDArray[np.float64]) -> None:
    frames, low, high = _envelope(curve, (_RIGHT - _LEFT) * _FINE)
    x, upper, lower = plot.x(frames), plot.y(high), plot.y(low)
    ends = [(float(x[-1]), _BOTTOM), (float(x[0]), _BOTTOM)]
    if len(x) > 1:
        _area(draw, [*_points(x, upper), *ends], _BAND if len(curve) > len(x) else _AREA)
        _area(draw, [*_points(x, lower), *ends], _AREA)
        _line(draw, _points(x, upper), _LINE, 2)
    if len(curve) <= (_RIGHT - _LEFT) * _DOTS:
        for place in _points(x, upper):
            _dot(draw, place, 4)


def _envelope(
    curve: NDArray[np.float64], columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Frames, and the least and largest error of each column where frames share one."""
    if len(curve) <= columns:
        frames = np.arange(len(curve), dtype=np.float64)
        return frames, curve, curve
    starts = np.linspace(0, len(curve), columns, endpoint=False).astype(np.int64)
    low, high = np.minimum.reduceat(curve, starts), np.maximum.reduceat(curve, starts)
    return np.linspace(0, len(curve) - 1, columns), low, high


def _draw_cuts(draw: Draw, plot: _Plot, cuts: NDArray[np.int64]) -> None:
    for x in np.unique(plot.x(cuts.astype(np.float64)).round(1)):
        _dashes(draw, float(x), _TOP, _BOTTOM)


def _dashes(draw: Draw, x: float, top: float, bottom: float) -> None:
    for start in np.arange(top, bottom, 12):
        _line(draw, [(x, start), (x, min(start + 7, bottom))], _CUT, 2)


def _draw_legend_marks(draw: Draw) -> None:
    _triangle(draw, _RIGHT - 350, 57)
    _dashes(draw, _RIGHT - 130, 41, 60)


def _write(draw: Draw, plot: _Plot, keys: int, cuts: int) -> None:
    """Everything that is text, at its own size: letters are smooth already."""
    _text(draw, (_LEFT, 60), "Difference from the frame before", BRIGHT, "ls", _TITLE_SIZE)
    _text(draw, (_RIGHT - 334, 57), f"keyframes ({keys})", MUTED, "ls")
    _text(draw, (_RIGHT - 118, 57), f"cuts ({cuts})", MUTED, "ls")
    _text(draw, (_LEFT, 90), "mean squared error", MUTED, "ls", _TEXT_SIZE - 2)
    levels = plot.levels()
    for level, y in zip(levels, plot.y(np.array(levels)), strict=True):
        _text(draw, (_LEFT - 14, y), f"{level:.4g}", MUTED, "rm")
    frames = plot.frames()
    for frame, x in zip(frames, plot.x(np.array(frames, np.float64)), strict=True):
        _text(draw, (x, _BOTTOM + 12), str(plot.first + frame), MUTED, "mt")
    times, step = plot.seconds()
    for time, x in zip(times, plot.x(_frames_at(plot)), strict=True):
        _text(draw, (x, _BOTTOM + 60), _clock(time, step), MUTED, "mt")
    _text(draw, (_LEFT - 40, _BOTTOM + 12), "frame", MUTED, "rt")
    _text(draw, (_LEFT - 40, _BOTTOM + 60), "time", MUTED, "rt")


def _clock(time: Fraction, step: Fraction) -> str:
    """Minutes and seconds, with hours where there are any and digits where the step has some."""
    digits = next((n for n in range(6) if step * 10**n == int(step * 10**n)), 6)
    minutes, seconds = divmod(time, 60)
    hours, minutes = divmod(int(minutes), 60)
    end = f"{float(seconds):0{digits + 3 if digits else 2}.{digits}f}"
    return f"{hours}:{minutes:02}:{end}" if hours else f"{minutes}:{end}"


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[tuple[float, float]]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _fine(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    return ((x * _FINE, y * _FINE) for x, y in points)


def _line(draw: Draw, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
    draw.line(list(_fine(points)), colour, round(width * _FINE), joint="curve")


def _area(draw: Draw, points: Sequence[tuple[float, float]], colour: str) -> None:
    draw.polygon(list(_fine(points)), colour)


def _box(draw: Draw, corners: tuple[float, float, float, float], colour: str) -> None:
    draw.rectangle([corner * _FINE for corner in corners], colour)


def _dot(draw: Draw, place: tuple[float, float], radius: float) -> None:
    draw.circle((place[0] * _FINE, place[1] * _FINE), radius * _FINE, _LINE)


def _triangle(draw: Draw, x: float, y: float) -> None:
    """A mark that points down at (x, y)."""
    _area(draw, [(x, y), (x - 7, y - 12), (x + 7, y - 12)], _KEY)


def _text(
    draw: Draw,
    place: tuple[float, float],
    text: str,
    colour: str,
    anchor: str,
    size: int = _TEXT_SIZE,
) -> None:
    draw.text(place, text, colour, font(text, size), anchor=anchor)
