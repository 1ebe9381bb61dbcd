"""Who may do what: owners, and the folders that their requests may name (PROTOCOL.md, section 2).

The worker opens the files later, and again looks where they really are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bridge_server.request import Request
from host_plugins.link.errors import BridgeError, Code

#: The user who runs the server.
LOCAL = "local"
_UPLOAD = "upload:"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who asks.

    name: `LOCAL`, or the client's public key
    roots: folders, resolved, that files may be in; none: any, for `LOCAL` alone
    """

    name: str = LOCAL
    roots: tuple[Path, ...] = ()

    @property
    def local(self) -> bool:
        """Whether this is the user who runs the server."""
        return self.name == LOCAL

    def sees(self, owner: str) -> bool:
        """Whether a job of `owner` is to be known here."""
        return self.local or self.name == owner

    def check(self, path: str) -> Path:
        """Return where `path` really is.

        Raises:
            BridgeError: it is not absolute, or no path (invalid); outside the roots (forbidden).
        """
        if "\0" in path or not os.path.isabs(path):
            raise BridgeError(
                Code.INVALID, f"{path!r} is no absolute path", "name the file from its root on"
            )
        try:
            real = Path(path).resolve()
        except (OSError, RuntimeError) as error:  # of links that lead in circles
            raise BridgeError(Code.INVALID, f"{path!r} leads nowhere: {error}") from error
        inside = any(real.is_relative_to(root) for root in self.roots)
        if not inside and (self.roots or not self.local):
            places = ", ".join(map(str, self.roots)) or "nowhere"
            raise BridgeError(
                Code.FORBIDDEN, f"{path} is outside the folders that may be used",
                f"files may be in: {places}",
            )  # fmt: skip
        return real


def check(request: Request, owner: Owner) -> None:
    """Check the files that a request names, before it becomes a job.

    Raises:
        BridgeError: see `Owner.check`; a file to read is not there (not_found); one would be
            written over its source, or where something is (invalid).
    """
    for path in _read(request):
        if path.startswith(_UPLOAD):
            raise BridgeError(Code.NOT_FOUND, f"there is no {path} here", "send the file first")
        real = owner.check(path)
        # A pattern's files are looked for when the job runs.
        if not any(mark in real.name for mark in "#%") and not real.exists():
            raise BridgeError(Code.NOT_FOUND, f"{path} is not there", "see whether it was moved")
    if request.output:
        output = owner.check(request.output)
        if any(not path.startswith(_UPLOAD) and owner.check(path) == output
               for path in _read(request)):  # fmt: skip
            raise BridgeError(
                Code.INVALID, f"output: {output} is a source", "choose another name for the result"
            )


def _read(request: Request) -> Iterator[str]:
    """The files that a request names to be read."""
    yield request.clip
    yield from filter(None, (request.mask, request.subject))
    yield from (own.maps for own in request.controls if own.maps)
    for picture in request.pictures:
        yield from picture.pictures
    yield from (own.value for own in request.changes if own.what == "painted")


def uploads(request: Request) -> set[str]:
    """Return the ids of the uploads that a request names."""
    return {path.removeprefix(_UPLOAD) for path in _read(request) if path.startswith(_UPLOAD)}


def placed(request: Request, files: dict[str, Path]) -> Request:
    """Return `request` with the files of uploads, by their ids, in place of their names."""

    def at(path: str) -> str:
        return str(files[path.removeprefix(_UPLOAD)]) if path.startswith(_UPLOAD) else path

    return replace(
        request,
        clip=at(request.clip),
        mask=at(request.mask),
        subject=at(request.subject),
        controls=tuple(replace(own, maps=at(own.maps)) for own in request.controls),
        pictures=tuple(
            replace(own, pictures=tuple(map(at, own.pictures))) for own in request.pictures
        ),
        changes=tuple(
            replace(own, value=at(own.value)) if own.what == "painted" else own
            for own in request.changes
        ),
    )
