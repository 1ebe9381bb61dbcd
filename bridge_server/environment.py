"""Where a result is computed, as far as its bytes depend on it.

FRESCO's optimisation is chaotic: another device, type or number of threads rounds otherwise and
gives another, equally good picture. So all of it is fixed before the work and part of every key.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

import fresco
from fresco.errors import InvalidInput
from fresco.memory import best_device, best_dtype

#: The share of a machine's, or a card's, whole memory that a job may plan with. Of the whole, not
#: of what is free now: the plan, and with it the result, must be the same at the next try.
_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Environment:
    """A device, what it computes in, and the programs.

    threads: of the processor, within one operation
    memory: bytes that may be planned with
    versions: of the libraries that round, and of our own code
    """

    device: str
    dtype: str
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
        InvalidInput: a device that is not there.
    """
    place = _device(device)
    return Environment(
        device=str(place),
        dtype=str(best_dtype(place)).removeprefix("torch."),
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


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    libraries = ("torch", "diffusers", "numpy", "opencv-python")
    named = tuple((name, importlib.metadata.version(name)) for name in libraries)
    return (*named, ("fresco", _code()))


def _code() -> str:
    """A hash of the method's own source: what it makes may change with any line of it."""
    folder = Path(fresco.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
