"""The user's own catalogue: adding to it and taking out of it, comments and all kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomlkit

from bridge_server import catalogue, library
from bridge_server.cache import fingerprint
from bridge_server.catalogue import PICKLES, Entry
from bridge_server.config import Config
from bridge_server.lock import Lock, Pinned, replace_text
from fresco.errors import InvalidInput

_HEADER = "Models of your own. What may be written here is in docs/models.md of FreSCo Bridge."


def add(name: str, target: str, fields: Mapping[str, Any], settings: Config) -> Entry:
    """Write the model `name` into the user's catalogue, in place of one of that name there.

    target: a path, or "owner/name", or "owner/name:file"
    fields: the other fields of its table

    Raises:
        InvalidInput: it would be no valid entry; nothing was written.
    """
    table = {**_place(target), **fields}
    entry = catalogue.parse(name, table, settings.catalogue_file)
    document = _document(settings)
    document[name] = table
    if entry.path:
        _pin(entry, Path(entry.path), settings)
    replace_text(settings.catalogue_file, tomlkit.dumps(document))
    return entry


def remove(name: str, settings: Config) -> None:
    """Take the model `name` out of the user's catalogue; its files stay.

    Raises:
        InvalidInput: it is not in there.
    """
    document = _document(settings)
    if name not in document:
        raise InvalidInput(
            f"{name} is not in {settings.catalogue_file}; only what you added can be removed."
        )
    del document[name]
    replace_text(settings.catalogue_file, tomlkit.dumps(document))


def _document(settings: Config) -> tomlkit.TOMLDocument:
    if settings.catalogue_file.exists():
        return catalogue.read_document(settings.catalogue_file)
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEADER))
    document.add(tomlkit.nl())
    return document


def _place(target: str) -> dict[str, Any]:
    path = Path(target).expanduser()
    if library.is_path(target) or path.is_file():
        if not path.exists():
            raise InvalidInput(f"there is nothing at {path}; correct the path.")
        return {"path": str(path.absolute())}
    entry = catalogue.from_hub(target, catalogue.Role.ANNOTATOR)  # the role is checked later
    if entry is None:
        raise InvalidInput(
            f'{target!r} is neither a hub id ("owner/name" or "owner/name:file.safetensors") nor a '
            'path; paths of folders begin with "/", "./" or "~".'
        )
    return {"repository": entry.repository, **({"files": list(entry.files)} if entry.files else {})}


def _pin(entry: Entry, path: Path, settings: Config) -> None:
    """Record what a pickle is now, because it is loaded only as long as it stays that."""
    if path.suffix.lower() not in PICKLES:
        return
    print_ = fingerprint(path)
    pins = {path.name: Pinned(print_.size, print_.sha256)}
    Lock(settings.lock_file).update(
        entry.name, lambda known: replace(known, repository="", revision="", files=pins)
    )
