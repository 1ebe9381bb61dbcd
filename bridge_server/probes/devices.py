"""What this machine computes with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from bridge_server.probes.finding import Finding, State

AREA = "devices"
#: Bytes below which real models, on the processor or on a graphics card, need their smallest steps.
_LITTLE_MEMORY, _LITTLE_VIDEO_MEMORY = 8 * 2**30, 4 * 2**30
_WITH_CUDA = (
    "install torch with CUDA: choose the command at https://pytorch.org/get-started/locally"
)
_DRIVER = "https://www.nvidia.com/drivers"


@dataclass(frozen=True, slots=True)
class Card:
    """A graphics card that torch sees.

    total, free: bytes of its memory
    failure: what a first computation on it raised; empty if none
    """

    name: str
    total: int
    free: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver: its version, or what asking for it said; both empty where there is none."""

    version: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Cuda:
    """What torch says of CUDA and ROCm, and the system of NVIDIA.

    built: the CUDA or ROCm that torch was built with; empty for none
    visible: CUDA_VISIBLE_DEVICES; None where it is not set
    """

    torch: str
    built: str
    driver: Driver
    cards: tuple[Card, ...] = ()
    visible: str | None = None


def processor() -> Iterator[Finding]:
    """The processor and main memory of this machine."""
    import psutil

    cores = psutil.cpu_count(logical=False) or 0
    memory = psutil.virtual_memory()
    yield from judge_processor(cores, os.cpu_count() or 1, memory.total, memory.available)


def judge_processor(cores: int, threads: int, total: int, free: int) -> Iterator[Finding]:
    """Judge a processor and its memory, in bytes; no cores where they are not known."""
    text = f"{cores or threads} cores, {threads} threads"
    yield Finding(AREA, "processor", State.OK, text)
    text = f"{_gib(total)}, {_gib(free)} of it free"
    if total < _LITTLE_MEMORY:
        hint = "close other programs for models other than the draft one"
        yield Finding(AREA, "memory", State.NOTE, f"{text}: little for real models", hint)
    else:
        yield Finding(AREA, "memory", State.OK, text)


def cuda() -> Iterator[Finding]:
    """The graphics cards of this machine; Apple's have an examination of their own."""
    if platform.system() != "Darwin":
        yield from judge_cuda(_cuda())


def judge_cuda(facts: Cuda) -> Iterator[Finding]:
    """Judge graphics cards: those that torch sees, and those that it does not."""
    if facts.driver.failure:
        text = f"NVIDIA's driver does not answer: {facts.driver.failure}"
        hint = f"restart the machine; if that does not help, install the driver again ({_DRIVER})"
        yield Finding(AREA, "driver", State.PROBLEM, text, hint)
    for number, card in enumerate(facts.cards):
        yield _judged(number, card, facts)
    if facts.cards or facts.driver.failure:
        return
    if not facts.driver.version:
        yield Finding(AREA, "cuda", State.NOTE, "no graphics card that torch computes with")
    elif not facts.built:
        text = (
            f"NVIDIA's driver {facts.driver.version} is here, but this torch ({facts.torch}) was "
            "built without CUDA"
        )
        yield Finding(AREA, "cuda", State.PROBLEM, text, _WITH_CUDA)
    elif facts.visible is not None:
        text = f"CUDA_VISIBLE_DEVICES={facts.visible} leaves no card visible"
        yield Finding(AREA, "cuda", State.NOTE, text, "unset CUDA_VISIBLE_DEVICES to use the card")
    else:
        text = (
            f"torch {facts.torch} (CUDA {facts.built}) sees no card, although NVIDIA's driver "
            f"{facts.driver.version} is here"
        )
        hint = f"install a newer driver ({_DRIVER}), or torch for an older CUDA"
        yield Finding(AREA, "cuda", State.PROBLEM, text, hint)


def _judged(number: int, card: Card, facts: Cuda) -> Finding:
    subject = f"cuda:{number}"
    driver = f", driver {facts.driver.version}" if facts.driver.version else ""
    text = f"{card.name}, {_gib(card.total)}, {_gib(card.free)} of it free{driver}"
    if card.failure:
        text = f"{text}; a first computation failed: {card.failure}"
        hint = f"close programs that use the card; if that does not help, {_WITH_CUDA}"
        return Finding(AREA, subject, State.PROBLEM, text, hint)
    if card.total < _LITTLE_VIDEO_MEMORY:
        hint = "expect small pictures, or use the processor"
        return Finding(AREA, subject, State.NOTE, f"{text}: little for real models", hint)
    return Finding(AREA, subject, State.OK, text)


def mps() -> Iterator[Finding]:
    """The graphics of an Apple machine."""
    import torch

    backend = torch.backends.mps
    yield from judge_mps(
        platform.system(), platform.machine(), backend.is_built(), backend.is_available()
    )


def judge_mps(system: str, machine: str, built: bool, available: bool) -> Iterator[Finding]:
    """Judge Metal: only macOS on Apple's processors has it."""
    if system != "Darwin":
        return
    if available:
        yield Finding(AREA, "mps", State.OK, "Metal can be used")
    elif machine != "arm64":
        text = "this Python is for Intel's processors: no Metal"
        hint = "on an Apple processor, install a Python for arm64"
        yield Finding(AREA, "mps", State.NOTE, text, hint)
    elif not built:
        text, hint = "this torch was built without Metal", "pip install --force-reinstall torch"
        yield Finding(AREA, "mps", State.PROBLEM, text, hint)
    else:
        hint = "update macOS: torch needs version 14 or newer"
        yield Finding(AREA, "mps", State.PROBLEM, "Metal cannot be used", hint)


def chosen() -> Iterator[Finding]:
    """What a job computes on if nobody says otherwise."""
    from fresco.memory import best_device, best_dtype

    device = best_device()
    text = f"jobs run on {device.type}, in {str(best_dtype(device)).removeprefix('torch.')}"
    if device.type == "cpu":
        hint = "the draft model is made for it; real models take minutes per keyframe"
        yield Finding(AREA, "chosen", State.NOTE, text, hint)
    else:
        yield Finding(AREA, "chosen", State.OK, text)


def _cuda() -> Cuda:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Cuda(
        torch=torch.__version__,
        built=torch.version.cuda or torch.version.hip or "",
        driver=nvidia_driver(),
        cards=tuple(_card(number) for number in range(count)),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def _card(number: int) -> Card:
    import torch

    facts = torch.cuda.get_device_properties(number)
    try:
        # The first allocation and kernel: whether the card works, and this torch knows it.
        free, _ = torch.cuda.mem_get_info(number)
        torch.ones(8, device=f"cuda:{number}").sum().item()
    except RuntimeError as error:
        return Card(facts.name, facts.total_memory, 0, str(error).partition("\n")[0])
    return Card(facts.name, facts.total_memory, free)


def nvidia_driver(program: str | None = None) -> Driver:
    """Ask NVIDIA's own program; where there is none, there is no driver.

    program: its path; looked for where None
    """
    program = program or shutil.which("nvidia-smi")
    if program is None:
        return Driver()
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Driver(failure=str(error))
    said = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[0]
    return Driver(failure=said) if done.returncode else Driver(version=said)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
