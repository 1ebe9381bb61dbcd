"""What is held at once and made smaller when it does not fit; where and in what to compute."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import nn

from fresco.errors import OutOfMemory, is_out_of_memory
from fresco.losses import GRAM_BLOCK

_T = TypeVar("_T")
_SMALLEST_GRAM_BLOCK = 2**14
_FIRST_TILE, _SMALLEST_TILE = 512, 128


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run holds at once. Every value is equally right; other values round otherwise.

    gram_block: entries of a Gram matrix in the feature optimisation
    split_halves: give the U-Net the halves of classifier-free guidance one after the other
    vae_tile: side of the VAE's tiles in pixels; None = whole frames
    offload: keep only the networks at work on the device, the others in main memory
    """

    gram_block: int = GRAM_BLOCK
    split_halves: bool = False
    vae_tile: int | None = None
    offload: bool = False

    def smaller_step(self) -> Limits | None:
        """The next smaller way to run a denoising step; None if there is none."""
        if not self.split_halves:
            return replace(self, split_halves=True)
        if self.gram_block > _SMALLEST_GRAM_BLOCK:
            return replace(self, gram_block=self.gram_block // 8)
        return None

    def smaller_vae(self) -> Limits | None:
        """The next smaller way to run the VAE; None if there is none."""
        tile = _FIRST_TILE if self.vae_tile is None else self.vae_tile // 2
        return replace(self, vae_tile=tile) if tile >= _SMALLEST_TILE else None


@dataclass(slots=True)
class Budget:
    """The limits of one run, which shrink when memory runs out.

    shrunk: what was made smaller, in words, in order
    """

    limits: Limits = field(default_factory=Limits)
    shrunk: list[str] = field(default_factory=list[str])

    def step(self, work: Callable[[Limits], _T]) -> _T:
        """Run a denoising step's `work`, again with smaller limits while memory runs out.

        Raises:
            OutOfMemory: it does not fit however small.
        """
        return self._run(work, Limits.smaller_step, "a denoising step", "fewer keyframes per batch")

    def vae(self, work: Callable[[Limits], _T]) -> _T:
        """Run the VAE's `work`, again with smaller tiles while memory runs out.

        Raises:
            OutOfMemory: it does not fit however small.
        """
        return self._run(work, Limits.smaller_vae, "the VAE", "a smaller size")

    def _run(
        self,
        work: Callable[[Limits], _T],
        smaller: Callable[[Limits], Limits | None],
        what: str,
        advice: str,
    ) -> _T:
        while True:
            try:
                return work(self.limits)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                limits = smaller(self.limits)
                if limits is None:
                    raise OutOfMemory(
                        f"{what} does not fit into memory even in the smallest blocks; "
                        f"use {advice}, or close other programs."
                    ) from error
            # Outside the except block: the traceback no longer holds the failed tensors.
            self.shrunk.append(f"{what} ran out of memory; went on with {limits}")
            self.limits = limits
            free_caches()


def free_caches() -> None:
    """Give back what Python and the device's allocator hold without need."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def best_device() -> torch.device:
    """CUDA if there is one, else MPS, else the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """What to compute in: bf16 where a CUDA device has it, fp16 on others and MPS, else fp32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32


@contextmanager
def tiled(vae: Any, tile: int | None, latent_scale: int) -> Generator[None]:
    """Run `vae` in tiles of `tile` pixels inside the ``with`` block; None leaves it as it is."""
    if tile is None:
        yield
        return
    names = ("use_tiling", "tile_sample_min_size", "tile_latent_min_size")
    before = {name: getattr(vae, name) for name in names if hasattr(vae, name)}
    try:
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // latent_scale
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)


@contextmanager
def placed(device: torch.device, offload: bool, *modules: nn.Module) -> Generator[None]:
    """Have `modules` on `device` inside the ``with`` block; with `offload` only there."""
    for module in modules:
        module.to(device)
    try:
        yield
    finally:
        if offload:
            for module in modules:
                module.to("cpu")
            free_caches()
