"""Propagation measured against the recorded reference, a scene with known truth, and unlike keys.

    FRESCO_BRIDGE_CLIPS=... python -m tests.benchmarks.propagation [--method auto] [part ...]

PSNR (RGB, 8 bit) and SSIM are means over the frames between.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from fresco.flow import Dis
from fresco.propagate import METHODS, interval
from fresco.propagate.sampling import sample
from tests.benchmarks.measure import measure
from tests.benchmarks.scene import render
from tests.clips import frames as decoded

Bytes = NDArray[np.uint8]
#: Part → clip, short side, first and last key, recoloured; PSNR, SSIM and CPU seconds per frame of
#: the reference, "lossless: EbSynth both, linear blend".
CLIPS = {
    "dog-identity-256": ("dog", 256, 20, 30, False, (39.39, 0.9844, 57.2)),
    "music-identity-128": ("music", 128, 20, 30, False, (32.12, 0.9845, 16.2)),
    "dog-recolor-128": ("dog", 128, 20, 30, True, (27.92, 0.8879, 13.8)),
    "music-recolor-128": ("music", 128, 20, 30, True, (26.31, 0.9268, 16.8)),
    "dog-identity-512": ("dog", 512, 20, 23, False, (43.00, 0.9906, 287.4)),
}
#: Part → motion and seed of the scene, and the light of every second source frame.
SCENES = {
    "textured-small": (0.5, 0, 1.0),
    "textured": (1.0, 0, 1.0),
    "textured-large": (1.6, 2, 1.0),
    "textured-flicker": (1.0, 0, 0.75),
}
#: Part → clip; hue and gain of the left and the right key, and the deviation of their textures.
UNLIKE = {
    "unlike-keys-dog": ("dog", (15, 1.1), (-15, 0.92), 12),
    "unlike-keys-music": ("music", (15, 1.1), (-15, 0.92), 12),
    "unlike-texture-dog": ("dog", (0, 1.0), (0, 1.0), 30),
}


def _clip(name: str, short: int, first: int, last: int) -> list[Bytes]:
    made: list[Bytes] = []
    for index, frame in enumerate(decoded(Path(os.environ["FRESCO_BRIDGE_CLIPS"]) / f"{name}.mp4")):
        if index > last:
            break
        if index >= first:
            image = (frame * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
            scale = short / min(image.shape[:2])
            size = round(image.shape[1] * scale), round(image.shape[0] * scale)
            made.append(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8))
    return made


def _recoloured(image: Bytes) -> Bytes:
    """Invert, turn the hue by 60 degrees, posterise each channel to 6 levels."""
    hsv = cv2.cvtColor(255 - image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + 30) % 180
    levels = np.round(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) / 255 * 5) / 5
    return np.round(levels * 255).astype(np.uint8)


def _tensor(images: list[Bytes]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().float() / 255


def _scores(made: Tensor, truth: list[Bytes]) -> tuple[float, float, float]:
    """PSNR, SSIM, and the strokes that are left: gradient energy over the truth's."""
    images = (made.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(images, truth, strict=True)]
    similar = [
        structural_similarity(a, b, channel_axis=2, data_range=255)
        for a, b in zip(images, truth, strict=True)
    ]
    psnr = [10 * np.log10(255**2 / max(error, 1e-9)) for error in errors]
    energy = _energy(made) / _energy(_tensor(truth))
    return float(np.mean(psnr)), float(np.mean(similar)), energy


def _energy(images: Tensor) -> float:
    grey = images.mean(dim=1)
    return float(grey.diff(dim=-1).square().mean() + grey.diff(dim=-2).square().mean())


def _plain(source: Tensor, styled: Tensor) -> Tensor:
    """Two-sided warping by DIS, mixed by distance."""
    inner, last = source[1:-1], len(source) - 1
    sides = [
        sample(styled[end].expand_as(inner), Dis()(inner, source[end].expand_as(inner)))
        for end in (0, -1)
    ]
    return torch.lerp(sides[0], sides[1], (torch.arange(1, last) / last)[:, None, None, None])


def _agreeing(part: str, method: str) -> str:
    if part in CLIPS:
        name, short, first, last, recolour, (psnr, ssim, seconds) = CLIPS[part]
        source = _clip(name, short, first, last)
        styled = [_recoloured(image) for image in source] if recolour else source
        reference = f"EbSynth {psnr:5.2f} / {ssim:.4f} {seconds:6.1f} s"
    else:
        motion, seed, light = SCENES[part]
        source, styled = render(motion=motion, seed=seed)
        source[1::2] = [np.round(image * light).astype(np.uint8) for image in source[1::2]]
        psnr, ssim, energy = _scores(_plain(_tensor(source), _tensor(styled)), styled[1:-1])
        reference = f"DIS     {psnr:5.2f} / {ssim:.4f} gradients {energy:.2f}"
    frames, keys = _tensor(source), _tensor([styled[0], styled[-1]])
    made: list[Tensor] = []
    taken = measure(lambda: made.append(interval(frames, keys[0], keys[1], method)))
    psnr, ssim, energy = _scores(made[0], styled[1:-1])
    return (
        f"{psnr:5.2f} / {ssim:.4f} gradients {energy:.2f} "
        f"{taken.cpu_s / len(made[0]):5.2f} s/frame "
        f"{taken.peak_bytes / 2**20:4.0f} MB | {reference}"
    )


def _unlike(image: Tensor, hue: float, gain: float, grain: float, seed: int) -> Tensor:
    """A key as diffusion might make it: its own hue, gain and texture."""
    hsv = cv2.cvtColor((image * gain).clamp(0, 1).permute(1, 2, 0).numpy(), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + hue) % 360
    noise = np.random.default_rng(seed).normal(size=hsv.shape[:2]).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.2)
    turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) + (noise / noise.std() * grain / 255)[..., None]
    return torch.from_numpy(np.clip(turned, 0, 1)).permute(2, 0, 1).contiguous()


def _steps(images: Tensor, flow: Tensor, seen: Tensor) -> float:
    """The largest mean change from one image to the next along the source's motion."""
    change = (sample(images[1:], flow) - images[:-1]).abs().mean(dim=1)
    return float(((change * seen).sum(dim=(1, 2)) / seen.sum(dim=(1, 2))).max()) * 255


def _disagreeing(part: str, method: str) -> str:
    clip, ours, theirs, grain = UNLIKE[part]
    frames = _tensor(_clip(clip, 256, 20, 30))
    left, right = _unlike(frames[0], *ours, grain, 1), _unlike(frames[-1], *theirs, grain, 2)
    made = torch.cat((left[None], interval(frames, left, right, method), right[None]))
    forward, backward = (
        Dis(fine=True)(*p) for p in ((frames[:-1], frames[1:]), (frames[1:], frames[:-1]))
    )
    residual = (forward + sample(backward, forward)).norm(dim=1)
    seen = (residual < 0.5 + 0.01 * forward.norm(dim=1)).float()
    across = Dis(fine=True)(frames[:1], frames[-1:])
    apart = float((sample(right[None], across) - left).abs().mean()) * 255
    limit = 1.5 * (_steps(frames, forward, seen) + apart / (len(frames) - 2))
    return f"largest step {_steps(made, forward, seen):.2f} of 255, limit {limit:.2f}"


def main() -> None:
    parts = (*CLIPS, *SCENES, *UNLIKE)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=parts)
    parser.add_argument("--method", choices=METHODS, default="auto")
    options = parser.parse_args()
    if len(options.parts) > 1:
        # Each in a process of its own: memory that one has freed would hide what the next needs.
        command = [sys.executable, "-m", __spec__.name, "--method", options.method]
        for part in options.parts:
            subprocess.run([*command, part], check=True)
        return
    # Waiting threads would count as work.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    (part,) = options.parts
    line = (_disagreeing if part in UNLIKE else _agreeing)(part, options.method)
    sys.stdout.write(f"{part:20} {line}\n")


if __name__ == "__main__":
    main()
