"""One web page about a restyled clip: before and after, its keyframes, and what was checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path, PurePath
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from bridge_server.media.verify import Report
from bridge_server.publish import publish
from fresco.errors import InvalidInput

#: The page's name in its folder.
NAME = "index.html"


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows.

    Relative paths count from the page's folder; what they name must be there.

    before, after: the source and the result; of an image sequence its folder, which is only linked
    sheet: the contact sheet, a PNG or JPEG
    facts: model, settings, timing: names and values, in order
    report: what `media.verify` compared
    start: seconds of `before` at which `after` begins
    """

    title: str
    prompt: str
    before: Path
    after: Path
    sheet: Path
    facts: Mapping[str, str]
    report: Report
    start: Fraction = Fraction(0)


def write(page: Page, folder: Path, overwrite: bool = False) -> Path:
    """Write the page into `folder`, and return the file.

    It loads nothing but the files that it names, and shows both clips also where no script runs.

    Raises:
        InvalidInput: a file that the page names is not there.
        NotWritten: the page exists and `overwrite` is not set, or it cannot be written.
        NotEnoughSpace: the disk is full.
    """
    for path in (page.before, page.after, page.sheet):
        if not (folder / path).exists():
            raise InvalidInput(f"{folder / path} is not there; write it before its page.")
    publish(_html(page, folder).encode(errors="replace"), folder / NAME, overwrite)
    return folder / NAME


def address(path: Path, folder: Path) -> str:
    """Return `path` as a page in `folder` names it: relative where there is a way.

    path: absolute, or from `folder` on
    """
    if not path.is_absolute():
        return _quoted(path)
    try:
        return _quoted(PurePath(os.path.relpath(path, folder.absolute())))
    except ValueError:  # on Windows, of another drive
        return path.as_uri()


def _quoted(path: PurePath) -> str:
    # "./" so that no first part is taken for a scheme, or for a host.
    return f"./{quote(path.as_posix(), errors='surrogateescape')}"


def _html(page: Page, folder: Path) -> str:
    source = (files("bridge_server") / "data" / "page.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(
        page=page,
        clips=[
            _clip("before", page.before, folder, page.start),
            _clip("after", page.after, folder, Fraction(0)),
        ],
        sheet=address(page.sheet, folder),
    )


def _clip(role: str, path: Path, folder: Path, start: Fraction) -> dict[str, str]:
    """What the page says of a clip; its first picture is the one at `start`, in seconds."""
    at, seconds = address(path, folder), f"{float(start):.3f}"
    source = f"{at}#t={seconds}" if start else at
    return {"role": role, "name": path.name, "address": at, "source": source, "start": seconds}
