"""Where the settings, the user's catalogue, the lock and the models are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs
import tomlkit
from tomlkit.exceptions import TOMLKitError

from fresco.errors import InvalidInput

APPLICATION = "fresco-bridge"
HUB = "https://huggingface.co"

#: Moves everything into one folder: a portable install, or a test.
HOME = "FRESCO_BRIDGE_HOME"
#: The folder of results.
STORE = "FRESCO_BRIDGE_STORE"
#: How much it may hold; beats `store_budget` in config.toml.
BUDGET = "FRESCO_BRIDGE_STORE_BUDGET"
#: Each beats the setting of the same name in config.toml.
FOLDER, MIRROR, OFFLINE = "FRESCO_BRIDGE_MODELS", "FRESCO_BRIDGE_MIRROR", "FRESCO_BRIDGE_OFFLINE"

#: The server's journal, in `state_folder`.
JOURNAL = "journal.sqlite"

_TRUE, _FALSE = {"1", "on", "yes", "true"}, {"0", "off", "no", "false", ""}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt]?)b|([kmgt])ib)?", re.IGNORECASE | re.ASCII)
#: Of each table its settings: type, and what to write.
_SETTINGS: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    "models": {
        "mirror": (str, '"https://..."'),
        "folder": (str, "a path in quotes"),
        "offline": (bool, "true or false"),
    },
    "server": {
        "listen": (str, '"tcp://0.0.0.0:7420"'),
        "loopback": (bool, "true or false"),
        "clients": (list, 'a list of public keys, as ["..."]'),
        "roots": (list, 'a list of folders, as ["/films"]'),
        "devices": (list, 'a list of devices, as ["cuda:0"]'),
        "threads": (int, "a whole number; 0 means all"),
        "hang": ((int, float), "seconds"),
    },
}


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is to run that was started without options.

    listen: a TCP address for other machines; empty: none
    loopback: whether there is an endpoint for clients without CURVE
    clients: CURVE public keys (Z85) that may come in
    roots: folders that files may be in; none: any
    devices: a worker on each; none: one on the best
    threads: of each worker; 0: all of the processor
    hang: seconds without a step after which a worker is started anew
    """

    listen: str = ""
    loopback: bool = False
    clients: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    devices: tuple[str, ...] = ()
    threads: int = 0
    hang: float = 900.0


@dataclass(frozen=True, slots=True)
class Config:
    """The settings, resolved once per command.

    settings_file, catalogue_file: config.toml and the user's models.toml; they need not exist
    lock_file: what was downloaded, and its hashes
    store: results of jobs, each under a key of what it was made from
    store_budget: bytes that they may take; None: see `store.allowance`
    folder: the models, in the layout of the Hugging Face cache
    endpoint: where downloads come from
    sends_token: whether the user's Hugging Face token goes there: never to a mirror
    offline: whether only `models download` may use the network
    forbidden: the variable that forbids the network altogether, or empty
    """

    settings_file: Path
    catalogue_file: Path
    lock_file: Path
    store: Path
    folder: Path
    endpoint: str = HUB
    sends_token: bool = True
    offline: bool = True
    forbidden: str = ""
    server: ServerSettings = field(default_factory=ServerSettings)
    store_budget: int | None = None

    def through(self, mirror: str) -> Config:
        """Return these settings with downloads from `mirror`.

        Raises:
            InvalidInput: it is no web address.
        """
        return replace(self, endpoint=_address(mirror, "the mirror"), sends_token=False)


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Read the settings file and the environment, now.

    Raises:
        InvalidInput: a setting that cannot be; says where.
    """
    environ = os.environ if environ is None else environ
    config_dir, data_dir = _folders(environ)
    settings_file = config_dir / "config.toml"
    document = _read(settings_file)
    settings = _table(document, "models", settings_file)
    endpoint, ours = _endpoint(settings, settings_file, environ)
    return Config(
        settings_file=settings_file,
        catalogue_file=config_dir / "models.toml",
        lock_file=data_dir / "models.lock",
        store=_store(environ),
        folder=_models(settings, environ),
        endpoint=endpoint,
        sends_token=ours,
        offline=_flag(environ, OFFLINE, bool(settings.get("offline", True))),
        forbidden=next(
            (
                key
                for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
                if _flag(environ, key, False)
            ),
            "",
        ),
        server=_server(_table(document, "server", settings_file), settings_file),
        store_budget=_budget(document, settings_file, environ),
    )


def state_folder(settings: Config) -> Path:
    """Where the server keeps its journal, what it prints, and the jobs' logs."""
    return settings.lock_file.parent / "server"


def _folders(environ: Mapping[str, str]) -> tuple[Path, Path]:
    if home := environ.get(HOME):
        return Path(home).expanduser(), Path(home).expanduser()
    config = platformdirs.user_config_path(APPLICATION, appauthor=False)
    return config, platformdirs.user_data_path(APPLICATION, appauthor=False)


def _store(environ: Mapping[str, str]) -> Path:
    """Find the folder of results: large, and made again if it is lost."""
    if chosen := environ.get(STORE):
        return Path(chosen).expanduser()
    if home := environ.get(HOME):
        return Path(home).expanduser() / "store"
    return platformdirs.user_cache_path(APPLICATION, appauthor=False) / "store"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
    except FileNotFoundError:
        return {}
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from error


def _table(document: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Return a table of the file, its settings looked at."""
    settings: Any = document.get(name, {})
    if not isinstance(settings, dict):
        raise InvalidInput(
            f"{path}: {name} must be a table; write [{name}] and its settings below."
        )
    table: dict[str, Any] = settings  # pyright: ignore[reportUnknownVariableType]
    known = _SETTINGS[name]
    for key, value in table.items():
        if key not in known:
            raise InvalidInput(
                f"{path}, [{name}]: there is no setting {key!r}; use one of {sorted(known)}."
            )
        kind, example = known[key]
        if not _is_a(kind, value):
            raise InvalidInput(f"{path}, [{name}], {key}: {value!r} cannot be; write {example}.")
    return table


def _is_a(kind: Any, value: Any) -> bool:
    if kind is list:
        texts: list[Any] = value if isinstance(value, list) else [None]
        return all(isinstance(each, str) and each for each in texts)
    return isinstance(value, kind) and isinstance(value, bool) is (kind is bool)


def _server(table: dict[str, Any], path: Path) -> ServerSettings:
    """Read the table of the server.

    Raises:
        InvalidInput: a folder that is not absolute; a number that cannot be.
    """
    folders = [Path(text).expanduser() for text in table.get("roots", [])]
    for folder in folders:
        if not folder.is_absolute():
            raise InvalidInput(f"{path}, [server], roots: {folder} is not absolute; begin at /.")
    if table.get("threads", 0) < 0 or not table.get("hang", 1) > 0:
        raise InvalidInput(f"{path}, [server]: threads from 0, and hang above 0 seconds.")
    lists: dict[str, Any] = {
        "clients": tuple(table.get("clients", ())),
        "roots": tuple(folders),
        "devices": tuple(table.get("devices", ())),
    }
    return ServerSettings(**{**table, **lists})


def _budget(document: Mapping[str, Any], path: Path, environ: Mapping[str, str]) -> int | None:
    if told := environ.get(BUDGET):
        return parse_size(told, BUDGET)
    if "store_budget" in document:
        return parse_size(document["store_budget"], f"{path}, store_budget")
    return None


def parse_size(told: Any, where: str) -> int:
    """Read a count of bytes: 20000000000, "20 GB" (powers of 1000) or "20 GiB" (of 1024).

    where: what it is a setting of, for the message

    Raises:
        InvalidInput: it is none.
    """
    found = _SIZE.fullmatch(str(told).strip())
    if found is None or isinstance(told, bool) or not isinstance(told, str | int):
        raise InvalidInput(f'{where}: {told!r} is no size; write "20 GB", or a number of bytes.')
    number, decimal, binary = found.groups(default="")
    power = " kmgt".index((decimal or binary).lower() or " ")
    return int(Fraction(number) * (1024 if binary else 1000) ** power)


def _endpoint(
    settings: Mapping[str, Any], source: Path, environ: Mapping[str, str]
) -> tuple[str, bool]:
    """Return the address, and whether it is one that the user's token belongs to."""
    if mirror := environ.get(MIRROR):
        return _address(mirror, MIRROR), False
    if mirror := settings.get("mirror"):
        return _address(mirror, f"{source}, [models], mirror"), False
    return _address(environ.get("HF_ENDPOINT") or HUB, "HF_ENDPOINT"), True


def _address(value: str, where: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise InvalidInput(f"{where}: {value!r} is no web address; write https://host.")
    return value.rstrip("/")


def _models(settings: Mapping[str, Any], environ: Mapping[str, str]) -> Path:
    """Find the models' folder: ours if one is set, else the cache that other tools share."""
    if chosen := environ.get(FOLDER) or settings.get("folder"):
        return Path(chosen).expanduser()
    if home := environ.get(HOME):
        return Path(home).expanduser() / "models"
    if cache := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(cache)).expanduser()
    if hub_home := environ.get("HF_HOME"):
        return Path(os.path.expandvars(hub_home)).expanduser() / "hub"
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


def _flag(environ: Mapping[str, str], key: str, default: bool) -> bool:
    value = environ.get(key)
    if value is None:
        return default
    if value.lower() not in _TRUE | _FALSE:
        raise InvalidInput(f"{key} is {value!r}; set it to 1 or 0.")
    return value.lower() in _TRUE
