"""Text on pictures: a font that has the letters, lines that fit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from PIL import ImageFont
from PIL.ImageFont import FreeTypeFont

from fresco.errors import MissingExtra

#: The ground that text is on, what is read first, and what is read second.
BACKGROUND, BRIGHT, MUTED = "#17181b", "#ececea", "#9a9da3"

#: Fonts of the systems, by the file names that Pillow finds them by. Pillow's own has little more
#: than ASCII, and prompts are written in any language.
_SYSTEM = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "segoeui.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "Hiragino Sans GB.ttc",
)
#: A code point that no font has: what is drawn for it stands for every missing letter.
_NOWHERE = "\uffff"


def font(text: str, size: int) -> FreeTypeFont:
    """Return a font for `text`: Pillow's own, or the system's that lacks the fewest of its letters.

    size: pixels

    Raises:
        MissingExtra: this Pillow cannot draw outlines.
    """
    own = _own(size)
    if text.isascii():
        return own
    letters = "".join(sorted(set(text) - set(" \n\t")))
    return min(_fonts(size), key=lambda each: _missing(each, letters))


def wrapped(text: str, width: float, size: int, most: int) -> list[str]:
    """Break `text` into lines of at most `width` pixels; what is behind line `most` is cut.

    A line break in `text` stays one, and a word that is too long is cut.
    """
    lines = [line for part in text.splitlines() for line in _broken(part, width, size)]
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], fitted(f"{lines[most - 1]} ...", width, size, cut=True)]


def fitted(text: str, width: float, size: int, cut: bool = False) -> str:
    """Return `text`, its end replaced by dots where it is wider than `width` pixels.

    cut: it ends in dots that stand for more
    """
    drawn = font(text, size)
    if drawn.getlength(text) <= width:
        return text
    body = text.removesuffix(" ...") if cut else text
    while body and drawn.getlength(f"{body}...") > width:
        body = body[:-1]
    return f"{body.rstrip()}..."


def _broken(text: str, width: float, size: int) -> Iterator[str]:
    drawn, line = font(text, size), ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and drawn.getlength(longer) > width:
            yield line
            longer = word
        line = fitted(longer, width, size)
    yield line


@lru_cache
def _own(size: int) -> FreeTypeFont:
    drawn = ImageFont.load_default(size)
    if not isinstance(drawn, FreeTypeFont):
        raise MissingExtra(
            "this Pillow was built without FreeType and cannot letter a picture; install its own "
            "wheel (pip install --force-reinstall --only-binary pillow pillow)."
        )
    return drawn


@lru_cache
def _fonts(size: int) -> list[FreeTypeFont]:
    return [_own(size), *(found for name in _SYSTEM if (found := _found(name, size)))]


def _found(name: str, size: int) -> FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache
def _missing(drawn: FreeTypeFont, letters: str) -> int:
    """How many of `letters` the font does not have."""
    nothing = _shape(drawn, _NOWHERE)
    return sum(_shape(drawn, letter) == nothing for letter in letters)


def _shape(drawn: FreeTypeFont, letter: str) -> bytes:
    mask: Any = drawn.getmask(letter)
    return bytes(mask)
