"""Where a result is computed, as far as its bytes depend on it.

FRESCO's optimisation is chaotic: another device, type or number of threads rounds otherwise and
gives another, equally good picture. So all of it is fixed before the work and part of every key.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import psutil
import torch

import fresco
from fresco.errors import InvalidInput
from fresco.memory import best_device, best_dtype

#: The share of a machine's, or a card's, whole memory that a job may plan with. Of the whole, not
#: of what is free now: the plan, and with it the result, must be the same at the next try.
_SHARE = 0.7
#: Our own modules, beside the media, that a result's bytes go through.
_MAKERS = ("footage", "records", "resolve", "stages")


@dataclass(frozen=True, slots=True)
class Environment:
    """A device, what it computes in, and the programs.

    hardware: what rounds: the card, or the processor's kind and widest instructions
    threads: of the processor, within one operation
    memory: bytes that may be planned with
    versions: of the libraries that round, and of our own code
    """

    device: str
    dtype: str
    hardware: str
    threads: int
    memory: int
    versions: tuple[tuple[str, str], ...]

    def facts(self) -> dict[str, Any]:
        """Return what results depend on, for keys."""
        facts = asdict(self)
        del facts["memory"]  # it acts through the limits, which are in the keys themselves
        return facts

    @property
    def torch_device(self) -> torch.device:
        """The device to compute on."""
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type to compute in."""
        return getattr(torch, self.dtype)


def here(device: str = "", threads: int = 0) -> Environment:
    """Return the environment of this process.

    device: "cuda", "cuda:1", "mps", "cpu"; the best there is by default
    threads: as many as there are processors for this process by default

    Raises:
        InvalidInput: a device that is not there, a number of threads that cannot be.
    """
    if threads < 0:
        raise InvalidInput(f"threads: {threads} cannot be; use 1 or more, or 0 for all.")
    place = _device(device)
    return Environment(
        device=str(place),
        dtype=str(best_dtype(place)).removeprefix("torch."),
        hardware=_hardware(place),
        threads=threads or processors(),
        memory=round(_memory(place) * _SHARE),
        versions=_versions(),
    )


def processors() -> int:
    """How many processors this process may use; an upper bound set for OpenMP counts too."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bound = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed or 1, int(bound)) if bound.isdigit() and int(bound) else allowed or 1


def _device(name: str) -> torch.device:
    if not name:
        return best_device()
    try:
        place = torch.device(name)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(
            f"there is no device {name!r} here ({str(error).splitlines()[0]}); leave --device out, "
            "or see `fresco-bridge doctor`."
        ) from error
    return place


def _memory(place: torch.device) -> int:
    if place.type == "cuda":
        return torch.cuda.get_device_properties(place).total_memory
    return psutil.virtual_memory().total


def _hardware(place: torch.device) -> str:
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    libraries = (
        "torch",
        "diffusers",
        "transformers",
        "peft",
        "compel",
        "numpy",
        "av",
        "OpenImageIO",
    )
    named = tuple((name, importlib.metadata.version(name)) for name in libraries)
    return (*named, ("opencv", cv2.__version__), ("code", _code()))


def _code() -> str:
    """A hash of the source of all that results go through: they may change with any line of it."""
    ours, method = Path(__file__).parent, Path(fresco.__file__).parent
    files = [*method.rglob("*.py"), *(ours / "media").rglob("*.py")]
    files += [ours / f"{name}.py" for name in _MAKERS]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.parent.name}/{file.name}".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
