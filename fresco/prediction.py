"""What a model's output says about the clean latents, whatever it predicts (Salimans & Ho, 2022).

A diffusers scheduler keeps latents either variance-preserving (``sqrt(a) x0 + sqrt(1-a) eps``) or,
in the Euler family, variance-exploding (``x0 + sigma eps``). Both are one formula
``signal * x0 + spread * eps``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fresco.errors import UnsupportedModel
from fresco.models import explodes


@dataclass(frozen=True, slots=True)
class Mixture:
    """How much of the clean latents and of the noise the latents of one step hold.

    signal, spread: the factors of x0 and of eps
    kind: what the model predicts: "epsilon", "v_prediction" or "sample"
    """

    signal: float
    spread: float
    kind: str

    @classmethod
    def at(cls, scheduler: Any, timestep: Tensor) -> Mixture:
        """Read it off a scheduler that stands before the step of `timestep`.

        Raises:
            UnsupportedModel: the scheduler's models predict something else.
        """
        kind = scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction", "sample"):
            raise UnsupportedModel(
                f"this model predicts {kind!r}; use one that predicts epsilon, v or the sample."
            )
        if explodes(scheduler):
            return cls(1.0, _sigma(scheduler), kind)
        alpha = float(scheduler.alphas_cumprod[int(timestep)])
        return cls(alpha**0.5, (1 - alpha) ** 0.5, kind)

    def clean(self, output: Tensor, latents: Tensor) -> Tensor:
        """The clean latents that `output` predicts from `latents`."""
        if self.kind == "sample":
            return output
        if self.kind == "epsilon":
            return (latents - self.spread * output) / self.signal
        signal, spread, length = self._preserving()
        return signal * latents / length - spread * output

    def output(self, clean: Tensor, latents: Tensor) -> Tensor:
        """The inverse of `clean`: the output that predicts `clean` from `latents`."""
        if self.kind == "sample":
            return clean
        if self.kind == "epsilon":
            return (latents - self.signal * clean) / self.spread
        signal, spread, length = self._preserving()
        return (signal * latents / length - clean) / spread

    def _preserving(self) -> tuple[float, float, float]:
        """The factors in variance-preserving latents, on which v is defined, and their divisor."""
        length = (self.signal**2 + self.spread**2) ** 0.5
        return self.signal / length, self.spread / length, length


def noised(scheduler: Any, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
    """Noise clean latents to `timestep` as a model expects to see them (variance-preserving)."""
    alpha = float(scheduler.alphas_cumprod[timestep])  # half precision would round the spread to 0
    return alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise.to(latents)


def _sigma(scheduler: Any) -> float:
    place = scheduler.step_index if scheduler.step_index is not None else scheduler.begin_index
    return float(scheduler.sigmas[place or 0])
