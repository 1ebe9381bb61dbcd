"""Pictures about a job: its keyframes on one sheet, and how much the clip changes."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from bridge_server import publish
from bridge_server.curve import error_curve
from bridge_server.lettering import BACKGROUND, BRIGHT, MUTED, fitted, font, wrapped
from fresco.errors import InvalidInput
from fresco.frames import to_bytes

__all__ = ["Picture", "check", "contact_sheet", "error_curve", "save"]

#: A picture (3, H, W), float RGB in [0, 1].
Picture: TypeAlias = Tensor

#: Pixels. No sheet is wider; a narrow one leaves room for its title.
WIDTH, NARROWEST = 1920, 680
#: Sides of a thumbnail, pixels.
LARGEST, SMALLEST = 600, 160
#: What a sheet's width should be to its height.
_PROPORTION = 16 / 9
_MARGIN, _GAP, _SEAM, _LABEL = 40, 24, 4, 30
_TITLE_SIZE, _NOTE_SIZE, _LABEL_SIZE, _MOST_LINES = 30, 19, 16, 4

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def contact_sheet(rows: Iterable[tuple[str, Picture, Picture]], title: str) -> Image.Image:
    """Lay out keyframes, each source above its styled picture, under a title.

    Of every picture only a thumbnail is kept, so `rows` may make them one after the other.

    rows: label, source, styled; sizes may differ
    title: its first line is large, the others are notes

    Raises:
        InvalidInput: no rows, or a picture that is none.
    """
    pairs = [_Pair(label, _thumbnail(one), _thumbnail(two)) for label, one, two in rows]
    if not pairs:
        raise InvalidInput("there are no keyframes to show; give at least one.")
    grid = _best_grid(len(pairs), _bounds(pairs))
    width = max(grid.width + 2 * _MARGIN, NARROWEST)
    head = _head(title, width - 2 * _MARGIN)
    sheet = Image.new("RGB", (width, head.height + grid.height + _MARGIN), BACKGROUND)
    sheet.paste(head, (0, 0))
    for index, pair in enumerate(pairs):
        row, column = divmod(index, grid.columns)
        left = _MARGIN + column * (grid.cell[0] + _GAP)
        _paste(sheet, pair, grid.cell, (left, head.height + row * grid.step))
    return sheet


def check(file: Path, overwrite: bool) -> None:
    """Refuse what `save` would refuse, before there is a picture.

    Raises:
        InvalidInput, NotWritten: see `save`.
    """
    if file.suffix.lower() not in _FORMATS:
        raise InvalidInput(f"{file.name} is no name of a picture; end it in .png or .jpg.")
    publish.check(file, overwrite)


def save(image: Image.Image, file: Path, overwrite: bool = False) -> None:
    """Write `image` as PNG or JPEG, by the suffix of `file`, whole or not at all.

    Raises:
        InvalidInput: another suffix.
        NotWritten: the file exists and `overwrite` is not set, or it cannot be written.
        NotEnoughSpace: the disk is full.
    """
    check(file, overwrite)
    content = io.BytesIO()
    # Without halved chroma: it would smear coloured text.
    image.save(content, _FORMATS[file.suffix.lower()], quality=90, subsampling=0)
    publish.publish(content.getvalue(), file, overwrite)


@dataclass(frozen=True, slots=True)
class _Pair:
    label: str
    source: Image.Image
    styled: Image.Image


@dataclass(frozen=True, slots=True)
class _Grid:
    """Columns and rows of pairs; `cell`: width and height of one picture."""

    columns: int
    rows: int
    cell: tuple[int, int]

    @property
    def step(self) -> int:
        """From a row's top to the next one's."""
        return _LABEL + 2 * self.cell[1] + _SEAM + _GAP

    @property
    def width(self) -> int:
        """Of all columns, without margins."""
        return self.columns * (self.cell[0] + _GAP) - _GAP

    @property
    def height(self) -> int:
        """Of all rows, without margins."""
        return self.rows * self.step - _GAP


def _thumbnail(picture: Picture) -> Image.Image:
    (pixels,) = to_bytes([picture])
    return ImageOps.contain(Image.fromarray(pixels), (LARGEST, LARGEST), Image.Resampling.LANCZOS)


def _bounds(pairs: list[_Pair]) -> tuple[int, int]:
    """Width and height that every thumbnail fits into."""
    sizes = [image.size for pair in pairs for image in (pair.source, pair.styled)]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _best_grid(count: int, bounds: tuple[int, int]) -> _Grid:
    """The grid nearest to the proportion, of those whose pictures are not too small."""
    room = WIDTH - 2 * _MARGIN + _GAP
    most = max(1, min(count, room // (min(SMALLEST, bounds[0]) + _GAP)))
    # The fewest columns for their number of rows: no last row of one picture beside a wide hole.
    even = {-(-count // -(-count // columns)) for columns in range(1, most + 1)}
    grids = (_grid(count, columns, room // columns - _GAP, bounds) for columns in sorted(even))
    return min(grids, key=lambda grid: abs(math.log(grid.width / grid.height / _PROPORTION)))


def _grid(count: int, columns: int, width: int, bounds: tuple[int, int]) -> _Grid:
    width = min(width, bounds[0])
    cell = width, max(1, round(bounds[1] * width / bounds[0]))
    return _Grid(columns, -(-count // columns), cell)


def _head(title: str, width: int) -> Image.Image:
    """The title above the grid, on a picture as wide as the sheet."""
    first, _, notes = title.strip().partition("\n")
    lines = [
        (line, _TITLE_SIZE, BRIGHT) for line in wrapped(first, width, _TITLE_SIZE, _MOST_LINES)
    ]
    notes = f"{notes}\nsource above, styled below"
    small = wrapped(notes.strip(), width, _NOTE_SIZE, _MOST_LINES)
    lines += [(line, _NOTE_SIZE, MUTED) for line in small]
    height = _MARGIN + sum(round(size * 1.4) for _, size, _ in lines) + _GAP
    head = Image.new("RGB", (width + 2 * _MARGIN, height), BACKGROUND)
    draw, top = ImageDraw.Draw(head), _MARGIN
    for line, size, colour in lines:
        draw.text((_MARGIN, top), line, colour, font(line, size))
        top += round(size * 1.4)
    return head


def _paste(sheet: Image.Image, pair: _Pair, cell: tuple[int, int], at: tuple[int, int]) -> None:
    """Draw a pair, its left top corner `at`."""
    left, top = at
    label = fitted(pair.label, cell[0], _LABEL_SIZE)
    place = (left, top + _LABEL - 8)
    ImageDraw.Draw(sheet).text(place, label, MUTED, font(label, _LABEL_SIZE), anchor="ls")
    for number, image in enumerate((pair.source, pair.styled)):
        shown = ImageOps.contain(image, cell, Image.Resampling.LANCZOS)
        aside = (cell[0] - shown.width) // 2, (cell[1] - shown.height) // 2
        upper = top + _LABEL + number * (cell[1] + _SEAM)
        sheet.paste(shown, (left + aside[0], upper + aside[1]))
