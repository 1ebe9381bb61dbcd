"""Looks: values of the effect's parameters under a name, as data; the user adds more.

Two TOML files of one form, a table per look: the one shipped in `data`, and the user's presets.toml
beside config.toml. The user's look replaces a shipped one of its name.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bridge_server import descriptor
from bridge_server.catalogue import read_document
from bridge_server.config import Config
from fresco.errors import InvalidInput

SHIPPED = Path(__file__).with_name("data") / "presets.toml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_FIELDS = {"title": (str, '"plain words"'), "values": (dict, '{ prompt = "snowy winter" }')}


@dataclass(frozen=True, slots=True)
class Look:
    """A look.

    name: its key; stable
    title: in plain words
    source: the file that says so
    values: by parameter; all others stay as they are set
    """

    name: str
    title: str
    source: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])

    def table(self) -> dict[str, Any]:
        """Plain values, for the wire."""
        return asdict(self)


def load(config: Config) -> dict[str, Look]:
    """Read the shipped looks and the user's, by name.

    Raises:
        InvalidInput: a file, a look or a value that cannot be; says which and how to mend it.
    """
    own = user_file(config)
    return _read(SHIPPED) | (_read(own) if own.exists() else {})


def user_file(config: Config) -> Path:
    """Where the user's looks are; it need not exist."""
    return config.settings_file.with_name("presets.toml")


def _read(file: Path) -> dict[str, Look]:
    tables: dict[str, Any] = read_document(file).unwrap()
    return {name: _look(name, table, file) for name, table in tables.items()}


def _look(name: str, table: Any, file: Path) -> Look:
    where = f"{file}, [{name}]"
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{where}: a name is lower-case letters, digits, '.', '_' and '-', as in [my-style-2]."
        )
    if not isinstance(table, dict):
        raise InvalidInput(f"{where}: must be a table; write title and values below [{name}].")
    told: dict[str, Any] = table
    for key, value in told.items():
        if key not in _FIELDS:
            raise InvalidInput(f"{where}: there is no field {key!r}; use title and values.")
        kind, example = _FIELDS[key]
        if not isinstance(value, kind):
            raise InvalidInput(f"{where}, {key}: {value!r} cannot be; write {example}.")
    values = told.get("values", {})
    _check(values, where)
    return Look(name, told.get("title", name), str(file), values)


def _check(values: dict[str, Any], where: str) -> None:
    """Check that an editor can set these values: that there are such, and choices among theirs."""
    outside = sorted(set(values) & descriptor.HOST_ONLY)
    if outside:
        raise InvalidInput(f"{where}: {outside[0]} is nothing that a look can set.")
    try:
        descriptor.check(values)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error
    for each in descriptor.load()["parameters"]:
        keys = [choice["key"] for choice in each.get("choices", ())]
        value = values.get(each["name"])
        if value is not None and keys and value not in keys:
            told = ", ".join(filter(None, keys))
            raise InvalidInput(f"{where}, {each['name']}: {value!r} cannot be; use one of {told}.")
        if value is not None and "min" in each and not each["min"] <= value <= each["max"]:
            span = f"{each['min']} to {each['max']}"
            raise InvalidInput(f"{where}, {each['name']}: {value!r} cannot be; use {span}.")
