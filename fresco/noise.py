"""Every random number of a run, from seeds or from a recording.

Numbers are drawn on the processor, so that a seed means the same on every device, and each frame
has streams of its own, so that it keeps its noise whatever batch it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fresco.errors import InvalidInput

_REFERENCE, _START, _STEPS = range(3)


class Noise(Protocol):
    """The random tensors of one batch, each (N, c, h, w)."""

    def reference(self) -> Tensor:
        """For the reference pass."""
        ...

    def start(self) -> Tensor:
        """Added to the encoded frames where denoising starts."""
        ...

    def step(self, step: int, run_step: int) -> Tensor:
        """Added by an ancestral scheduler in `step` of the schedule, the `run_step`-th run."""
        ...


class SeededNoise:
    """Noise from one seed per frame.

    seeds, frames: of each frame its seed and its number in the clip
    shape: (c, h, w)
    repeat_start: frames of one seed share their start noise; otherwise each frame has its own
    repeat_steps: the same for the noise of each step

    Raises:
        InvalidInput: a negative seed or frame number.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        frames: Sequence[int],
        shape: Sequence[int],
        repeat_start: bool = True,
        repeat_steps: bool = False,
    ) -> None:
        self._shape = tuple(shape)
        if any(number < 0 for number in (*seeds, *frames)):
            raise InvalidInput(f"seeds {list(seeds)} or frames {list(frames)} are negative.")
        shared = [0] * len(frames)
        self._own = list(zip(seeds, frames, strict=True))
        self._start = list(zip(seeds, shared if repeat_start else frames, strict=True))
        self._steps = list(zip(seeds, shared if repeat_steps else frames, strict=True))

    def reference(self) -> Tensor:
        """See `Noise`."""
        return self._draw(self._own, _REFERENCE)

    def start(self) -> Tensor:
        """See `Noise`."""
        return self._draw(self._start, _START)

    def step(self, step: int, run_step: int) -> Tensor:  # noqa: ARG002 (as `Noise`)
        """See `Noise`: by the schedule's step, so that other frames' strengths change nothing."""
        return self._draw(self._steps, _STEPS + step)

    def _draw(self, streams: Sequence[tuple[int, int]], purpose: int) -> Tensor:
        return torch.stack([self._normal(seed, frame, purpose) for seed, frame in streams])

    def _normal(self, seed: int, frame: int, purpose: int) -> Tensor:
        mixed = np.random.SeedSequence((seed, frame, purpose)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0] >> 1))
        return torch.randn(self._shape, generator=generator)


@dataclass(frozen=True, slots=True)
class GivenNoise:
    """Noise recorded elsewhere, to replay a run.

    reference_noise, start_noise: (N, c, h, w)
    step_noises: (steps run, N, c, h, w)
    """

    reference_noise: Tensor
    start_noise: Tensor
    step_noises: Tensor

    def reference(self) -> Tensor:
        """See `Noise`."""
        return self.reference_noise

    def start(self) -> Tensor:
        """See `Noise`."""
        return self.start_noise

    def step(self, step: int, run_step: int) -> Tensor:  # noqa: ARG002 (as `Noise`)
        """See `Noise`."""
        if run_step >= len(self.step_noises):
            raise InvalidInput(
                f"noise was given for {len(self.step_noises)} steps, but the run has more."
            )
        return self.step_noises[run_step]


class DrawFrom(TorchFunctionMode):
    """Inside the ``with`` block ``torch.randn`` returns the given noise.

    diffusers' schedulers draw the noise of a step themselves and take no tensor for it. This hands
    it to them, in this thread only, and whichever scheduler it is.
    """

    def __init__(self, noise: Callable[[], Tensor]) -> None:
        super().__init__()
        self._noise = noise

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer `torch.randn`; leave everything else alone."""
        kwargs = kwargs or {}
        if func is not torch.randn:
            return func(*args, **kwargs)
        return self._noise().to(device=kwargs.get("device"), dtype=kwargs.get("dtype"))
