"""Who may do what: owners, and the folders that their requests may name (PROTOCOL.md, section 2).

Looked at when a job is submitted, and again when it starts. Workers of jobs whose owner is bound to
folders are given the places where the files really are, and open them without following links
(`media.confine`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge_server import library
from bridge_server.request import Request, with_files, with_models
from host_plugins.link.errors import BridgeError, Code

#: The user who runs the server.
LOCAL = "local"
#: Suffixes of files that may be one of a sequence.
_IMAGES = (".png", ".tif", ".tiff", ".exr")
#: Bytes of a path (PROTOCOL.md, section 1).
LONGEST_PATH = 4096
#: Before the id of an upload, where a request names files.
UPLOAD = "upload:"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who asks.

    name: `LOCAL`, or the client's public key
    roots: folders, resolved, that files may be in; none: any, for `LOCAL` alone
    """

    name: str = LOCAL
    roots: tuple[Path, ...] = ()

    @property
    def bound(self) -> bool:
        """Whether only files in some folders may be named."""
        return bool(self.roots) or not self.local

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
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise BridgeError(Code.INVALID, f"a path has at most {LONGEST_PATH} bytes")
        try:
            real = Path(path).resolve()
        except (OSError, RuntimeError) as error:  # of links that lead in circles
            raise BridgeError(Code.INVALID, f"{path!r} leads nowhere: {error}") from error
        if self.bound and not any(real.is_relative_to(root) for root in self.roots):
            places = ", ".join(map(str, self.roots)) or "nowhere"
            raise BridgeError(
                Code.FORBIDDEN, f"{path} is outside the folders that may be used",
                f"files may be in: {places}",
            )  # fmt: skip
        return real


def check(request: Request, owner: Owner) -> None:
    """Check the files that a request names, before it becomes a job.

    Raises:
        BridgeError: see `Owner.check`; a file to read is not there (not_found), or is none
            (invalid); one would be written over its source (invalid).
    """
    for path in sources(request):
        if not path.startswith(UPLOAD):
            check_read(path, owner)
    if owner.bound:
        for name in filter(library.is_path, models(request)):
            owner.check(name)
    if request.output:
        output = owner.check(request.output)
        if any(not path.startswith(UPLOAD) and owner.check(path) == output
               for path in sources(request)):  # fmt: skip
            raise BridgeError(
                Code.INVALID, f"output: {output} is a source", "choose another name for the result"
            )


def check_read(path: str, owner: Owner) -> Path:
    """Check a file to be read, or a folder or pattern of some; returns where it really is.

    Raises:
        BridgeError: see `check`.
    """
    real = owner.check(path)
    pattern = any(mark in real.name for mark in "#%")
    try:
        # A pattern's files are looked for when the job runs.
        kind = stat.S_IFREG if pattern else stat.S_IFMT(real.stat().st_mode)
    except FileNotFoundError as error:
        hint = "see whether it was moved"
        raise BridgeError(Code.NOT_FOUND, f"{path} is not there", hint) from error
    except OSError as error:
        raise BridgeError(Code.INVALID, f"{path} cannot be read: {error.strerror}") from error
    if kind not in (stat.S_IFREG, stat.S_IFDIR):  # of a pipe, who opens it waits for ever
        raise BridgeError(Code.INVALID, f"{path} is neither a file nor a folder")
    if owner.bound and (kind == stat.S_IFDIR or pattern or real.suffix.lower() in _IMAGES):
        for link in _links(real if kind == stat.S_IFDIR else real.parent, real.suffix):
            owner.check(link)
    return real


def _links(folder: Path, suffix: str) -> list[str]:
    """The symbolic links of a folder that may be frames: an image stands for its sequence.

    suffix: that they have; empty: any
    """
    try:
        with os.scandir(folder) as entries:
            return [each.path for each in entries if each.is_symlink()
                    and each.name.lower().endswith(suffix.lower())]  # fmt: skip
    except FileNotFoundError:  # of a pattern: said when the job runs
        return []
    except OSError as error:
        raise BridgeError(Code.INVALID, f"{folder} cannot be read: {error.strerror}") from error


def models(request: Request) -> Iterator[str]:
    """Yield the models that a request names; some names may be paths."""
    yield from filter(None, (request.model, request.vae, *request.embeddings))
    yield from (own.name for own in (*request.loras, *request.pictures) if own.name)
    yield from (own.model for own in request.controls if own.model)


def sources(request: Request) -> Iterator[str]:
    """Yield the files that a request names to be read."""
    yield request.clip
    yield from filter(None, (request.mask, request.subject))
    yield from (own.maps for own in request.controls if own.maps)
    for picture in request.pictures:
        yield from picture.pictures
    yield from (own.value for own in request.changes if own.what == "painted")


def uploads(request: Request) -> set[str]:
    """Return the uploads that a request names, as ``upload:ID``."""
    return {path for path in sources(request) if path.startswith(UPLOAD)}


def placed(request: Request, owner: Owner, files: dict[str, Path]) -> Request:
    """Return `request` as the worker is given it.

    In place of uploads are their files; in place of paths of an owner who is bound to folders, also
    of models, is where they really are.

    Raises:
        BridgeError: see `Owner.check`; there is no such upload (not_found).
    """

    def at(path: str) -> str:
        if path.startswith(UPLOAD):
            if path not in files:
                raise BridgeError(Code.NOT_FOUND, f"there is no {path} here", "send the file first")
            return str(files[path])
        return str(owner.check(path)) if path and owner.bound else path

    def model(name: str) -> str:
        here = name and owner.bound and library.is_path(name)
        return str(owner.check(name)) if here else name

    return with_models(with_files(request, at), model)
