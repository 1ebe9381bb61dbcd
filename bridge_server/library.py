"""Finding models on this machine, without the network, and checking that they are unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files as package_files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bridge_server import catalogue, config, selection
from bridge_server.cache import Storage, etag_of, fingerprint
from bridge_server.catalogue import PICKLES, Catalogue, Entry, Role
from bridge_server.config import Config
from bridge_server.errors import NotAsPinned
from bridge_server.lock import Lock, Locked
from fresco.errors import InvalidInput, MissingWeights

if TYPE_CHECKING:  # it would bring torch along
    from fresco.callbacks import CancelToken


_WEIGHTS = PICKLES | {".safetensors"}


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that is on this machine.

    root: the folder that its files are in
    files: their paths in it
    revision: the commit; empty for what does not come from a hub
    pinned: whether it was verified and its hashes recorded
    """

    root: Path
    files: tuple[str, ...]
    revision: str = ""
    pinned: bool = False

    @property
    def path(self) -> Path:
        """What a loader opens: the file, if there is but one, or the folder."""
        return self.root / self.files[0] if len(self.files) == 1 else self.root


class State(Enum):
    """What `verify` found of a file."""

    GOOD = "good"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Checked:
    """A file and what is to be said of it; UNKNOWN means that there is no hash to compare with."""

    file: str
    state: State


def locate(
    name: str, role: Role | None = None, subset: str = "", settings: Config | None = None
) -> Path:
    """Return where the model called `name` is on this machine; never asks the network.

    name: a catalogue name, "owner/name", "owner/name:file", or a path: of a weight file, or one
        that is absolute or begins with "." or "~"
    role: what it is needed for; refused if it is for something else
    subset: a file or folder inside the model
    settings: `config.load()` if not given

    A folder, or the file of a model that has but one. Files that are pickles were compared with
    their pinned hash just now.

    Raises:
        MissingWeights: it is not here, or not all of it; names the command that brings it.
        NotAsPinned: a file was changed, or is a pickle that was never pinned.
        InvalidInput: there is no such model, or none for this role.
    """
    settings = settings or config.load()
    if is_path(name):
        return _inside(_local(Path(name).expanduser(), name, role, settings), subset, name)
    entry = catalogue.load(settings).find(name, role)
    if entry.path and not entry.bundled:
        found = _local(_own_path(entry, settings), entry.name, entry.role, settings)
        return _inside(found, subset, name)
    installed = find(entry, settings)
    _check_pickles(entry, installed, settings)
    return _inside(installed.root if subset else installed.path, subset, name)


def check_name(name: str, role: Role, known: Catalogue) -> None:
    """Check that a model may be called `name`, whether it is on this machine or not.

    Raises:
        InvalidInput: there is no such model, or none for this role.
    """
    if not is_path(name):
        known.find(name, role)
    elif Path(name).suffix.lower() in PICKLES:
        _check_takes_pickles(Path(name), role)


def is_path(name: str) -> bool:
    """Whether `name` is a path: a weight file, or one that begins as no hub id can."""
    looks = name.startswith((".", "~")) or Path(name).is_absolute() or "\\" in name
    return looks or (":" not in name and Path(name).suffix.lower() in _WEIGHTS)


def find(entry: Entry, settings: Config) -> Installed:
    """Find all files of `entry`: of the pinned revision, else of the newest that is complete.

    Raises:
        MissingWeights, NotAsPinned: see `locate`.
    """
    if entry.bundled:
        return _bundled(entry)
    if entry.path:
        path = _own_path(entry, settings)
        if not path.exists():
            raise MissingWeights(f"{entry.name}: there is nothing at {path}; {_forget(entry)}")
        return Installed(path.parent, (path.name,)) if path.is_file() else _folder(path)
    locked = Lock(settings.lock_file).get(entry.name)
    if locked.revision and locked.repository == entry.repository:
        return _pinned(entry, locked, settings)
    return _unpinned(entry, settings)


def verify(entry: Entry, settings: Config, cancel: CancelToken | None = None) -> list[Checked]:
    """Hash every file of `entry` again and compare: with the lock, else with the cache's names.

    cancel: polled with every piece that is read

    Raises:
        MissingWeights: nothing of it is here.
        Cancelled: it was asked to stop.
    """
    poll = cancel.check if cancel else _never_stop
    locked = Lock(settings.lock_file).get(entry.name)
    if entry.downloadable and locked.revision and locked.repository == entry.repository:
        root = Storage(settings.folder, entry.repository).snapshot(locked.revision)
        return [
            Checked(file, _compared(root / file, pinned.sha256, poll))
            for file, pinned in locked.files.items()
        ]
    installed = find(entry, settings)
    return [
        Checked(file, _as_pinned_or_named(installed.root / file, locked, file, poll))
        for file in installed.files
    ]


def _compared(path: Path, sha256: str, poll: Callable[[], None]) -> State:
    if not path.exists():
        return State.MISSING
    return State.GOOD if fingerprint(path, poll).sha256 == sha256 else State.CHANGED


def _as_pinned_or_named(path: Path, locked: Locked, file: str, poll: Callable[[], None]) -> State:
    if pinned := locked.files.get(file):
        return _compared(path, pinned.sha256, poll)
    agrees = fingerprint(path, poll).agrees(etag_of(path))
    return {True: State.GOOD, False: State.CHANGED, None: State.UNKNOWN}[agrees]


def _bundled(entry: Entry) -> Installed:
    root = Path(str(package_files("fresco"))) / "data" / entry.path
    if not root.is_dir():
        raise MissingWeights(
            f"{entry.name} should have come with the package but is not at {root}; reinstall it: "
            "pip install --force-reinstall --no-deps fresco-bridge."
        )
    return _folder(root)


def _folder(root: Path) -> Installed:
    paths = (path for path in root.rglob("*") if path.is_file())
    return Installed(root, tuple(sorted(path.relative_to(root).as_posix() for path in paths)))


def _pinned(entry: Entry, locked: Locked, settings: Config) -> Installed:
    root = Storage(settings.folder, entry.repository).snapshot(locked.revision)
    missing = [file for file in locked.files if not (root / file).exists()]
    if missing:
        raise MissingWeights(
            f"{entry.name} is not complete on this machine: {missing[0]} is not in {root}; "
            f"fetch it with `{entry.command}`."
        )
    for file, pinned in locked.files.items():
        if (root / file).stat().st_size != pinned.size:
            raise NotAsPinned(_changed(entry, root / file))
    return Installed(root, tuple(locked.files), locked.revision, pinned=True)


def _unpinned(entry: Entry, settings: Config) -> Installed:
    """Find what another program fetched into the same cache."""
    storage = Storage(settings.folder, entry.repository)
    for commit in storage.commits():
        try:
            chosen = selection.choose(entry, storage.paths(commit))
        except InvalidInput:  # not all of it was fetched
            continue
        if _parts_are_there(storage.snapshot(commit), chosen):
            return Installed(storage.snapshot(commit), tuple(chosen), commit)
    raise MissingWeights(
        f"{entry.name} ({entry.repository}) is not on this machine; "
        f"fetch it with `{entry.command}`."
    )


def _parts_are_there(root: Path, chosen: list[str]) -> bool:
    """Whether a pipeline has all folders that its index names; another program may fetch fewer."""
    if "model_index.json" not in chosen:
        return True
    try:
        index = json.loads((root / "model_index.json").read_text(encoding="utf-8"))
        parts = {key for key, value in index.items() if isinstance(value, list) and any(value)}
    except (AttributeError, ValueError):
        return False
    return parts - selection.UNUSED <= {path.split("/")[0] for path in chosen}


def _own_path(entry: Entry, settings: Config) -> Path:
    """Return the user's file; a relative path counts from the file that names it."""
    return settings.catalogue_file.parent / Path(entry.path).expanduser()


def _forget(entry: Entry) -> str:
    return f"bring it back, or `fresco-bridge models remove {entry.name}`."


def _local(path: Path, name: str, role: Role | None, settings: Config) -> Path:
    if not path.exists():
        raise MissingWeights(f"there is nothing at {path}; correct the path.")
    if path.is_dir():
        if role and not role.takes_pickles and not any(path.rglob("*.safetensors")):
            raise InvalidInput(
                f"{path} has no .safetensors file; models for {role.value} are taken from such "
                "files only: convert it."
            )
        return path
    if path.suffix.lower() in PICKLES:
        _check_own_pickle(path, name, role, settings)
    return path


def _check_own_pickle(path: Path, name: str, role: Role | None, settings: Config) -> None:
    role = _check_takes_pickles(path, role)
    lock, digest = Lock(settings.lock_file), fingerprint(path).sha256
    pinned = lock.get(name).files.get(path.name)
    if pinned is not None and pinned.sha256 != digest:
        raise NotAsPinned(
            f"{path} was changed since it was added as {name}; if that was you, run "
            f"`fresco-bridge models add {name} {path} --role {role.value}` again."
        )
    if pinned is None and not lock.knows(digest):
        raise NotAsPinned(
            f"{path} is a pickle that was never pinned; if you trust where it comes from, run "
            f"`fresco-bridge models add NAME {path} --role {role.value}`."
        )


def _check_takes_pickles(path: Path, role: Role | None) -> Role:
    if role is None or not role.takes_pickles:
        raise InvalidInput(
            f"{path} is a pickle, which can run code when it is loaded; models are taken as "
            ".safetensors only, except annotators and optical flow: use a converted file."
        )
    return role


def _check_pickles(entry: Entry, installed: Installed, settings: Config) -> None:
    pins = Lock(settings.lock_file).get(entry.name).files if installed.pinned else {}
    for file in installed.files:
        if PurePosixPath(file).suffix.lower() not in PICKLES:
            continue
        if file not in pins:
            raise NotAsPinned(
                f"{installed.root / file} is a pickle that another program fetched; have it "
                f"compared with the hub's hash and pinned, without fetching it again, with "
                f"`{entry.command}`."
            )
        if fingerprint(installed.root / file).sha256 != pins[file].sha256:
            raise NotAsPinned(_changed(entry, installed.root / file))


def _changed(entry: Entry, path: Path) -> str:
    return (
        f"{path} is not what was downloaded and pinned; to fetch it again in its place, run "
        f"`{entry.command} --repair`."
    )


def _inside(path: Path, subset: str, name: str) -> Path:
    if not subset:
        return path
    inner = path / subset
    if ".." in PurePosixPath(subset).parts or not inner.exists():
        raise MissingWeights(f"{name} has no {subset!r} in {path}; look there for what it has.")
    return inner


def _never_stop() -> None:
    """Let every piece go on."""
