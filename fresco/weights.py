"""Weight files on this machine: where they are, what they hold, and which are opened at all.

Diffusion weights are read from safetensors only: other formats can carry code. Nothing here, nor
in what is built on it, ever asks the network.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import SingleFileComponentError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from fresco.errors import FrescoError, InvalidInput, MissingWeights, is_out_of_memory
from fresco.quiet import quietly

SAFE = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(:(?P<file>[\w./ -]+))?")


def find(ref: str | Path) -> Path:
    """Find a file or folder by its path, or by its hub id in the local cache of downloads.

    ref: a path, "owner/name", or "owner/name:file or folder in it"

    Raises:
        MissingWeights: it is not on this machine; the message names the command that brings it.
    """
    if not str(ref).strip():
        raise MissingWeights("a model's name is empty; give a path, or a hub id as owner/name.")
    path = Path(ref).expanduser()
    if _exists(path):
        return path
    hub = _HUB_ID.fullmatch(str(ref))
    meant_as_file = path.is_absolute() or path.suffix in (SAFE, *PICKLES)
    if hub is None or (meant_as_file and not hub["file"]):
        raise MissingWeights(f"there is no file or folder {ref}; check the path.")
    try:
        folder = Path(snapshot_download(hub["repository"], local_files_only=True))
    except HFValidationError as error:
        raise MissingWeights(f"{ref} is neither a file nor a hub id: {error}") from error
    except LocalEntryNotFoundError:
        raise missing(str(ref)) from None
    found = folder / (hub["file"] or "")
    if not found.exists():
        raise missing(str(ref))
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file system takes
        return False


def missing(name: str) -> MissingWeights:
    """The error for weights that are not here, with the command that brings them."""
    return MissingWeights(
        f"{name} is not on this machine; download it with: fresco-bridge models download {name}"
    )


def weight_file(ref: str | Path, usual: str = "") -> Path:
    """Find the one weight file that `ref` names or that its folder holds.

    usual: the file's usual name, taken where a folder holds several

    Raises:
        MissingWeights: there is none.
        InvalidInput: there are several, or it is no safetensors file.
    """
    path = find(ref)
    if path.is_dir():
        files = sorted(path.glob(f"*{SAFE}"))
        usuals = [file for file in files if file.name == usual]
        if len(files) != 1 and not usuals:
            names = ", ".join(file.name for file in files) or "none"
            raise InvalidInput(f"{path} should hold one {SAFE} file ({names}); name the file.")
        path = (usuals or files)[0]
    if path.suffix.lower() != SAFE:
        raise refused(path)
    return path


def refused(path: Path) -> InvalidInput:
    """The error for a weight file of another format."""
    why = (
        "such files can carry code" if path.suffix.lower() in PICKLES else "its format is not known"
    )
    return InvalidInput(
        f"{path.name} is no {SAFE} file, and {why}; use the {SAFE} file that most model pages "
        "offer beside it."
    )


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a safetensors file's tensors; no tensor is read.

    Raises:
        InvalidInput: the file is damaged.
    """
    with _opened(file) as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def notes(file: Path) -> dict[str, str]:
    """What a safetensors file says of itself, as ``modelspec`` and others define it.

    Raises:
        InvalidInput: the file is damaged.
    """
    with _opened(file) as tensors:
        return tensors.metadata() or {}


def tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        InvalidInput: the file is damaged.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> InvalidInput:
    """The error for a file that cannot be read."""
    return InvalidInput(
        f"{file} cannot be read ({error}); it is damaged or incomplete: fetch it again."
    )


def identity(path: Path) -> str:
    """A short word for a file or a folder of weights as it is now; another when it changes."""
    matters = [path]
    if path.is_dir():
        kinds = (SAFE, ".json", ".txt", ".pth", ".bin")
        matters = sorted(file for file in path.rglob("*") if file.suffix in kinds)
    stats = [(file.resolve(), file.stat()) for file in matters]
    said = "|".join(f"{file}:{stat.st_size}:{stat.st_mtime_ns}" for file, stat in stats)
    return sha256(f"{path.resolve()}|{said}".encode()).hexdigest()[:12]


def count(file: Path) -> int:
    """How many numbers a safetensors file holds.

    Raises:
        InvalidInput: the file is damaged.
    """
    return sum(math.prod(shape) for shape in shapes(file).values())


def config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read the settings in a model's folder.

    Raises:
        InvalidInput: there are none, or they cannot be read.
    """
    file = folder / name
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(
            f"{folder} has no {name}, so it is no model in diffusers' layout; "
            f"name a folder with one, or a single {SAFE} file."
        ) from None
    except (OSError, ValueError) as error:
        raise damaged(file, error) from error
    if not isinstance(read, dict):
        raise damaged(file, TypeError("it is no table"))
    return read  # pyright: ignore[reportUnknownVariableType]


def what_is(names: Mapping[str, Any]) -> str:
    """What a weight file is for, by the names of its tensors; "unknown" if it cannot be told."""
    return next((kind for kind, mark in _MARKS.items() if any(map(mark, names))), "unknown")


#: In this order: a checkpoint holds a VAE as well.
_MARKS = {
    "base model": re.compile(r"model\.diffusion_model\.").match,
    "ControlNet": re.compile(r"control_model\.|controlnet_|zero_convs\.").match,
    "LoRA": re.compile(r".*(lora[_.](up|down|A|B|unet|te)|hada_w|lokr_w)").match,
    "IP-Adapter": re.compile(r"ip_adapter\.|image_proj\.").match,
    "VAE": re.compile(r"(first_stage_model\.)?(en|de)coder\.|(post_)?quant_conv\.").match,
    "textual inversion": re.compile(r"emb_params$|clip_[lg]$|<.*>$").match,
}


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise damaged(file, error) from error


@contextmanager
def guarded(path: Path) -> Generator[None]:
    """Say in one line what is wrong with `path`, and keep the libraries' own talk to ourselves."""
    try:
        with quietly():
            yield
    except FrescoError:
        raise
    except (OSError, SafetensorError, SingleFileComponentError) as error:
        raise InvalidInput(f"{path} cannot be loaded: {_first_line(error)}") from error
    except (ValueError, KeyError, TypeError, NotImplementedError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise InvalidInput(
            f"{path} cannot be loaded ({_first_line(error)}); it is damaged, or made for another "
            "kind of model."
        ) from error


def _first_line(error: Exception) -> str:
    """What a library says, without its headline and its advice to programmers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.endswith(":")] or lines or [type(error).__name__]
    return telling[0].split(" If you want to instead")[0][:300]
