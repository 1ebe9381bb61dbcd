"""The catalogue: what models there are, for what, from where, and on what terms.

Two TOML files of one form, a table per model: the one shipped beside this module, and the user's.
A table of the user's that has the name of a shipped one changes only what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from bridge_server.config import Config
from fresco.errors import InvalidInput

SHIPPED = Path(__file__).with_name("models.toml")

#: Files that unpickling would run code from.
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})

#: What a base model is led by where neither a request nor the catalogue says it.
USUAL_CONTROL = "canny"
CONTROLS = ("canny", "depth", "lineart", "other", "softedge", "tile")

#: The source of an entry that no file names.
HUB_ID = "hub"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?::([^:]+))?", re.ASCII)
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


class Role(Enum):
    """What a model does in a run."""

    BASE = "base"
    VAE = "vae"
    PREVIEW = "preview"
    CONTROLNET = "controlnet"
    LORA = "lora"
    IP_ADAPTER = "ip-adapter"
    EMBEDDING = "embedding"
    ANNOTATOR = "annotator"
    FLOW = "flow"

    @property
    def takes_pickles(self) -> bool:
        """Whether its files may be other than safetensors: never those of a diffusion model."""
        return self in (Role.ANNOTATOR, Role.FLOW)


class Family(Enum):
    """The kind of base model that a part belongs to."""

    SD15 = "sd15"
    SD2 = "sd2"
    SDXL = "sdxl"


@dataclass(frozen=True, slots=True)
class Licence:
    """The terms of a model.

    id: an SPDX id, or the hub's
    url: where they are to be read
    accept: whether they bind whoever uses the model, and so must be accepted before the download
    """

    id: str
    url: str
    accept: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What a model is best run with; None where it does not matter or is not known.

    sampler: a name of `fresco.samplers.SAMPLERS`
    temporal_until, repeat_step_noise: of `fresco.schedule.Settings`, where the model wants another
        than the method's
    vae: the catalogue name of one that should replace the model's own
    scale: of a ControlNet, LoRA or IP-Adapter; 1 is full
    control: the kind of control map that a base model is best led by
    size: the short side of the pictures that a base model was trained on, pixels
    """

    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    strength: float | None = None
    temporal_until: float | None = None
    repeat_step_noise: bool | None = None
    vae: str | None = None
    scale: float | None = None
    control: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One model.

    name: its key; stable
    title: in plain words
    source: the file that says so, or HUB_ID
    repository: on the hub, "owner/name"; or
    path: a file or folder of the user's own; a bundled model's folder inside `fresco/data`
    files: path patterns to fetch; none means the safetensors files and their configuration
    revision: a branch, tag or commit; none means the newest at the first download
    control: what kind of picture a ControlNet takes
    base: the one base model that a ControlNet is for; empty: all of its family
    licence: None where it is unknown to the catalogue
    size: bytes, approximately; 0 if unknown
    """

    name: str
    title: str
    role: Role
    source: str
    repository: str = ""
    path: str = ""
    bundled: bool = False
    files: tuple[str, ...] = ()
    revision: str = ""
    family: Family | None = None
    control: str = ""
    base: str = ""
    licence: Licence | None = None
    size: int = 0
    recommended: Settings = field(default_factory=Settings)

    @property
    def downloadable(self) -> bool:
        """Whether it comes from the hub."""
        return bool(self.repository)

    @property
    def command(self) -> str:
        """The command that brings it."""
        role = f" --role {self.role.value}" if self.source == HUB_ID else ""
        return f"fresco-bridge models download {self.name}{role}"


class Catalogue(Mapping[str, Entry]):
    """All models by name, the shipped ones first."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str, role: Role | None = None) -> Entry:
        """Return the model called `name`: a catalogue name or a hub id.

        Raises:
            InvalidInput: there is none, or it has another role than `role`.
        """
        entry = self._entries.get(name) or self._by_repository(name, role) or from_hub(name, role)
        if entry is None:
            raise InvalidInput(
                f"no model is called {name!r}; `fresco-bridge models list` names them all; "
                'others are written "owner/name" or "owner/name:file.safetensors".'
            )
        if role is not None and entry.role is not role:
            raise InvalidInput(
                f"{name} is a model for {entry.role.value}, and one for {role.value} is needed; "
                f"`fresco-bridge models list --role {role.value}` names them."
            )
        return entry

    def network(self, kind: str, base: str, family: str) -> Entry:
        """Return the ControlNet for maps of `kind` that goes with a base model.

        base: by its catalogue name; family: that it is of

        Raises:
            InvalidInput: there is none; names the kinds of which there is one.
        """
        nets = [entry for entry in self._entries.values() if entry.role is Role.CONTROLNET]
        own = [entry for entry in nets if entry.base == base]
        fitting = own or [
            entry for entry in nets
            if not entry.base and entry.family is not None and entry.family.value == family
        ]  # fmt: skip
        wanted = "softedge" if kind == "hed" else kind
        for entry in fitting:
            if entry.control == wanted:
                return entry
        kinds = ", ".join(dict.fromkeys(entry.control for entry in fitting)) or "none"
        raise InvalidInput(
            f"no ControlNet for {kind} is known that goes with {base} (there are: {kinds}); name "
            f"one as in {kind}:0.8:NAME, or leave it out with --control none."
        )

    def _by_repository(self, name: str, role: Role | None) -> Entry | None:
        """Find the one model that `name` is the repository of, so that one id has one record."""
        fitting = [
            entry
            for entry in self._entries.values()
            if name and entry.repository == name and role in (None, entry.role)
        ]
        return fitting[0] if len(fitting) == 1 else None


def load(config: Config) -> Catalogue:
    """Read the shipped catalogue and the user's.

    Raises:
        InvalidInput: a file, entry or field that cannot be; says which and how to mend it.
    """
    shipped = _shipped()
    own = _tables(config.catalogue_file) if config.catalogue_file.exists() else {}
    entries = {name: parse(name, table, SHIPPED) for name, table in shipped.items()}
    for name, table in own.items():
        merged = _merged(shipped.get(name, {}), table)
        entries[name] = parse(name, merged, config.catalogue_file)
    return Catalogue(entries)


def from_hub(identifier: str, role: Role | None = None) -> Entry | None:
    """Make an entry of "owner/name" or "owner/name:file"; None if it is neither."""
    match = _HUB_ID.fullmatch(identifier)
    if match is None or not _REPOSITORY.fullmatch(match[1]):
        return None
    files = (match[2],) if match[2] else ()
    role = role or Role.BASE
    entry = Entry(identifier, identifier, role, HUB_ID, repository=match[1], files=files)
    _check_files(entry.files, role, f'"{identifier}"')
    return entry


def read_document(path: Path) -> tomlkit.TOMLDocument:
    """Read `path` as TOML that can be changed and written again.

    Raises:
        InvalidInput: it cannot be read.
    """
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from error
    except TOMLKitError as error:
        raise InvalidInput(f"{path} is not TOML: {error}.") from error


def parse(name: str, table: Any, source: Path) -> Entry:
    """Make an entry of one table.

    Raises:
        InvalidInput: see `load`.
    """
    where = f"{source}, [{name}]"
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{where}: a name is lower-case letters, digits, '.', '_' and '-', as in [my-style-2]."
        )
    values = _typed(table, _FIELDS, where)
    role = _one_of(Role, values.get("role"), f"{where}, role")
    entry = Entry(
        name=name,
        title=values.get("title", name),
        role=role,
        source=str(source),
        repository=values.get("repository", ""),
        path=values.get("path", ""),
        bundled=values.get("bundled", False),
        files=tuple(values.get("files", ())),
        revision=values.get("revision", ""),
        family=_one_of(Family, values["family"], f"{where}, family")
        if "family" in values
        else None,
        control=values.get("control", ""),
        base=values.get("base", ""),
        licence=_licence(values, where),
        size=round(values.get("size_mb", 0) * 1e6),
        recommended=Settings(
            **_typed(values.get("recommended", {}), _SETTINGS, f"{where}, recommended")
        ),
    )
    _check(entry, where)
    return entry


_FIELDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "title": ((str,), '"plain words"'),
    "role": ((str,), '"lora"'),
    "repository": ((str,), '"owner/name"'),
    "path": ((str,), '"a file or folder"'),
    "bundled": ((bool,), "true or false"),
    "files": ((list,), '["a.safetensors", "config.json"]'),
    "revision": ((str,), '"main"'),
    "family": ((str,), '"sd15"'),
    "control": ((str,), '"canny"'),
    "base": ((str,), '"sd15"'),
    "licence": ((str,), '"mit"'),
    "licence_url": ((str,), '"https://..."'),
    "accept_licence": ((bool,), "true or false"),
    "size_mb": ((int, float), "a number of megabytes"),
    "recommended": ((dict,), "{ steps = 20 }"),
}
_SETTINGS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "steps": ((int,), "20"),
    "guidance": ((int, float), "7.5"),
    "sampler": ((str,), '"ddim"'),
    "strength": ((int, float), "0.75"),
    "temporal_until": ((int, float), "0.35"),
    "repeat_step_noise": ((bool,), "true or false"),
    "vae": ((str,), "the name of a vae"),
    "scale": ((int, float), "0.8"),
    "control": ((str,), '"canny"'),
    "size": ((int,), "512"),
}


@cache
def _shipped() -> dict[str, Any]:
    """The tables of the shipped catalogue, which stays as it is while a process lives."""
    return _tables(SHIPPED)


def _tables(path: Path) -> dict[str, Any]:
    return read_document(path).unwrap()


def _merged(shipped: Mapping[str, Any], own: Any) -> Any:
    """Lay the user's table over a shipped one; another place replaces everything about the old."""
    if not isinstance(own, dict):
        return own
    moved = ("repository", "path", "bundled", "files", "revision", "size_mb")
    licence = ("licence", "licence_url", "accept_licence")
    kept = dict(shipped)
    if own.get("path") or own.get("repository", kept.get("repository")) != kept.get("repository"):
        kept = {key: value for key, value in kept.items() if key not in moved + licence}
    recommended = {**kept.get("recommended", {}), **own.get("recommended", {})}
    return {**kept, **own, **({"recommended": recommended} if recommended else {})}


def _typed(
    table: Any, fields: Mapping[str, tuple[tuple[type, ...], str]], where: str
) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise InvalidInput(f"{where}: must be a table; write its fields below [the name].")
    for key, value in table.items():
        if key not in fields:
            raise InvalidInput(f"{where}: there is no field {key!r}; use {', '.join(fields)}.")
        kinds, example = fields[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InvalidInput(f"{where}, {key}: {value!r} cannot be; write {example}.")
    return table


def _one_of(kind: Any, value: Any, where: str) -> Any:
    values = [member.value for member in kind]
    if value not in values:
        said = "is missing" if value is None else f"{value!r} is unknown"
        raise InvalidInput(f"{where}: {said}; use one of {', '.join(values)}.")
    return kind(value)


def _licence(values: Mapping[str, Any], where: str) -> Licence | None:
    if "licence" not in values:
        if values.get("accept_licence"):
            raise InvalidInput(f"{where}, accept_licence: name the licence too.")
        return None
    return Licence(
        values["licence"], values.get("licence_url", ""), values.get("accept_licence", False)
    )


def _check(entry: Entry, where: str) -> None:
    if bool(entry.repository) + bool(entry.path) != 1:
        raise InvalidInput(f"{where}: give either repository or path, and not both.")
    if entry.repository and not _REPOSITORY.fullmatch(entry.repository):
        raise InvalidInput(
            f'{where}, repository: {entry.repository!r} cannot be; write "owner/name".'
        )
    if entry.control and entry.control not in CONTROLS:
        raise InvalidInput(
            f"{where}, control: {entry.control!r} is unknown; use one of {', '.join(CONTROLS)}."
        )
    if entry.role is Role.CONTROLNET and not entry.control:
        raise InvalidInput(f"{where}, control: is missing; use one of {', '.join(CONTROLS)}.")
    _check_files(entry.files or ((entry.path,) if entry.path else ()), entry.role, where)


def _check_files(files: tuple[Any, ...], role: Role, where: str) -> None:
    for file in files:
        if not isinstance(file, str) or not file:
            raise InvalidInput(f"{where}, files: {file!r} is no path; write paths in quotes.")
        if PurePosixPath(file).suffix.lower() in PICKLES and not role.takes_pickles:
            raise InvalidInput(
                f"{where}: {file} is a pickle, which can run code when it is loaded; "
                f"models for {role.value} are taken as .safetensors only: use a converted file."
            )
