"""The method side by side with a plain version, at Stable Diffusion 1.5's shapes.

8 frames of 512 x 512 under classifier-free guidance. Every figure of ours stands beside one of the
plain version (whole Gram matrices and autograd, a walk over tokens, keys and values copied per
frame) measured in the same run, each call in a process of its own:

    python -m tests.benchmarks.method [--threads 2] [--iterations 2] [part ...]

Memory is what a call needs beyond its inputs and outputs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco import features
from fresco.attention import AttentionGuidance, FrescoAttnProcessor
from fresco.correspondence import Correspondence, photometric_occlusion
from fresco.paths import link
from tests.benchmarks.measure import Measured, in_fresh_process, measure, report
from tests.fresco import cases, plain, tiny

FRAMES, SIDE = 8, 512
#: The inputs of the four up blocks: channels at side.
BLOCKS = {"1280@8": (1280, 8), "1280@16": (1280, 16), "1280@32": (1280, 32), "640@64": (640, 64)}
#: The guided self-attentions: width at side.
LAYERS = {"640@32": (640, 32), "320@64": (320, 64)}
SCALES = {"paths/8": 8, "paths/16": 16}
#: Below this, what the process's memory grows by says nothing about one call.
_RESOLUTION = 64 * 2**20
PARTS = (*BLOCKS, *SCALES, *LAYERS)


def _clip() -> tuple[Tensor, Correspondence]:
    frames = cases.frames(FRAMES, SIDE, SIDE)
    forward = cases.flows(FRAMES, SIDE, SIDE, reach=12)
    backward = -forward + cases.flows(FRAMES, SIDE, SIDE, reach=0.5, seed=1)
    occluded = photometric_occlusion(frames, forward, backward)
    return frames, Correspondence(forward, backward, *occluded)


def _optimisation(part: str, who: str, iterations: int) -> Measured:
    channels, side = BLOCKS[part]
    _, pairs = _clip()
    x = cases.features(2 * FRAMES, channels, side, side)
    reference = cases.features(2 * FRAMES, channels, side, side, seed=1)
    if who == "ours":
        call: Callable[[], object] = lambda: features.optimise(  # noqa: E731
            x, pairs, reference, iterations=iterations
        )
    else:
        target = plain.gram(reference)  # the plain version's input is the whole matrix
        quadruple = (pairs.forward, pairs.backward, pairs.occ_forward, pairs.occ_backward)
        call = lambda: plain.optimise(x, quadruple, target, iterations)  # noqa: E731
    measured = measure(call)
    output = x.numel() * x.element_size()
    return Measured(measured.wall_s, measured.cpu_s, measured.peak_bytes - output)


def _linking(part: str, who: str) -> Measured:
    frames, pairs = _clip()
    arguments = (pairs.backward, pairs.occ_backward, frames, SCALES[part])
    if who == "plain":
        return measure(lambda: plain.link(*arguments), repeat=2)
    return measure(lambda: link(*arguments), repeat=20)


def _cross_frame(part: str, who: str) -> Measured:
    width, side = LAYERS[part]
    frames, pairs = _clip()
    guidance = AttentionGuidance.of(frames, pairs)
    guidance.spatial = guidance.temporal = False
    layer = tiny.self_attention(width, heads=8)
    x = torch.randn(2 * FRAMES, side * side, width)
    layer.set_processor(FrescoAttnProcessor(guidance))
    shown = guidance.unique[side * side].flatten()

    def copied_per_frame() -> Tensor:
        query, key, value = (project(x) for project in (layer.to_q, layer.to_k, layer.to_v))  # pyright: ignore
        key, value = (
            y.unflatten(0, (2, FRAMES)).flatten(1, 2)[:, shown].repeat_interleave(FRAMES, 0)
            for y in (key, value)
        )
        split = [y.unflatten(2, (8, -1)).transpose(1, 2) for y in (query, key, value)]
        out = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return layer.to_out[0](out)  # pyright: ignore[reportOptionalSubscript]

    with torch.no_grad():
        return measure(lambda: layer(x) if who == "ours" else copied_per_frame(), repeat=2)


def _measure(part: str, who: str, iterations: int) -> Measured:
    if part in BLOCKS:
        return _optimisation(part, who, iterations)
    return _linking(part, who) if part in SCALES else _cross_frame(part, who)


def _row(part: str, options: list[str]) -> str:
    ours, plainly = (
        in_fresh_process(__spec__.name, part, who, *options) for who in ("ours", "plain")
    )
    if plainly.peak_bytes < _RESOLUTION:
        memory = "too small to tell"
    else:
        memory = f"{ours.peak_bytes / plainly.peak_bytes:6.3f}"
    ratios = f"time {ours.wall_s / plainly.wall_s:7.4f}   memory {memory}"
    return f"{part:9} ours  {ours}\n{'':9} plain {plainly}\n{'':9} ratio {ratios}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=2, help="of the optimisation")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = arguments.parts or list(PARTS)
    if parts[1:] in (["ours"], ["plain"]):
        report(_measure(parts[0], parts[1], arguments.iterations))
        return
    options = ["--threads", str(arguments.threads), "--iterations", str(arguments.iterations)]
    for part in parts:
        sys.stdout.write(_row(part, options) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
