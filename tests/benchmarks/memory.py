"""The planner's forecast beside the measured peak, for a randomly initialised model.

One denoising step with everything of FRESCO on and two iterations of the optimisation, on the
processor, Stable Diffusion 1.5's U-Net and ControlNet from their configurations (no download):

    python -m tests.benchmarks.memory [--side 512] [--frames 8] [--width 320] [--threads 2]

What is measured is the growth of the process from before the networks exist.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import torch
from diffusers import ControlNetModel, DDPMScheduler, UNet2DConditionModel

from fresco.memory import Limits
from fresco.models import Model
from fresco.planner import Forecast, forecast, plan
from fresco.request import Options, Translation
from fresco.schedule import Settings
from fresco.translate import translate
from tests.benchmarks.measure import measure
from tests.fresco import cases, tiny

SETTINGS = Settings(steps=4, iterations=2, optimise_until=1.0, temporal_until=0.0)


def networks(width: int) -> Model:
    """SD 1.5's networks; `width` is 320 for the real ones."""
    widths = (width, 2 * width, 4 * width, 4 * width)
    common = {"cross_attention_dim": 768, "block_out_channels": widths, "attention_head_dim": 8}
    unet = UNet2DConditionModel(**common, sample_size=64).eval()
    return Model(
        unet=unet,
        vae=tiny.vae(),
        scheduler=DDPMScheduler(**tiny.SCHEDULE),
        controlnets=[ControlNetModel(**common).eval()],
    )


def measured(side: int, frames: int, width: int, split: bool) -> int:
    """Run one step and return the growth of the process, bytes."""
    options = Options(SETTINGS, limits=Limits(split_halves=split))
    text = torch.randn(2 * frames, 77, 768)
    pictures = cases.frames(frames, side, side)

    def step() -> Translation:
        asked = {"prompt_embeds": text, "controls": [pictures], "strengths": 0.25}
        return translate(pictures, networks(width), options, **asked)  # pyright: ignore

    return measure(step).peak_bytes


def predicted(side: int, frames: int, width: int, split: bool) -> Forecast:
    """The planner's word on the same."""
    with torch.device("meta"):
        model = networks(width)
    limits = Limits(split_halves=split)
    return forecast(model, side, side, frames, SETTINGS, limits, device="cpu")


def compare(side: int, frames: int, width: int, split: bool, threads: int) -> tuple[int, Forecast]:
    """Measure in a process of its own, and forecast here."""
    arguments = [str(value) for value in (side, frames, width, int(split), threads)]
    command = [sys.executable, "-m", "tests.benchmarks.memory", "--measure", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1]), predicted(side, frames, width, split)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--split", action="store_true", help="the guidance halves one by one")
    parser.add_argument("--measure", type=int, nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        side, frames, width, split, threads = given.measure
        torch.set_num_threads(threads)
        sys.stdout.write(f"{measured(side, frames, width, bool(split))}\n")
        return
    start = time.perf_counter()
    real, said = compare(given.side, given.frames, given.width, given.split, given.threads)
    lines = [
        f"predicted {said}",
        f"measured  {real / 1e9:.2f} GB, predicted {said.peak / 1e9:.2f} GB: "
        f"{said.peak / real:.3f} of it ({time.perf_counter() - start:.0f} s)",
    ]
    with torch.device("meta"):
        model = networks(given.width)
    half = plan(
        model, given.side, given.side, given.frames, 8 * 10**9, dtype=torch.float16, device="cuda"
    )
    lines.append(f"fp16, 8 GB: {half}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
