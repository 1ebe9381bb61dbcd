"""What a change between two jobs costs, beside reading the base model anew (SD 1.5's size).

    python -m tests.benchmarks.loading [--folder FOLDER]

Writes 2.2 GB of random weights into a temporary folder, and needs about 6 GB of memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fresco.adapters import Lora
from fresco.warm import ModelSpec, WarmModels
from tests.fresco import formats

CPU = torch.device("cpu")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as place:
        measure(Path(place))


def measure(folder: Path) -> None:
    formats.write_full_size(folder / "parts")
    base = formats.write_checkpoint(folder / "parts", folder / "base.safetensors")
    warm = WarmModels(10**11, CPU, torch.float16)
    reading = seconds(lambda: warm.get(ModelSpec(base)))
    unet = warm.get(ModelSpec(base)).model.unet
    loras = [
        formats.write_diffusers_lora(folder / f"{n}.safetensors", unet, rank=16, seed=n)
        for n in range(2)
    ]

    def wearing(*which: int, weight: float = 1.0) -> Callable[[], object]:
        spec = ModelSpec(base, loras=[Lora(loras[n], weight) for n in which])
        return lambda: warm.get(spec)

    rows = {
        "base model from one file": reading,
        "the same again": seconds(wearing()),
        "a LoRA, new (rank 16)": seconds(wearing(0)),
        "another LoRA, new": seconds(wearing(1)),
        "the first again": seconds(wearing(0)),
        "both, other weights": seconds(wearing(0, 1, weight=0.5)),
        "none": seconds(wearing()),
    }
    print(f"| a job wants | seconds | of reading the base |\n|{'---|' * 3}")
    for what, took in rows.items():
        print(f"| {what} | {took:.2f} | {took / reading:.3f} |")
    print(f"in memory: {warm.size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
