"""Models kept warm between jobs, within a memory budget.

A job says what it wants (`ModelSpec`). What is in memory already is used again: another LoRA,
prompt word, ControlNet or sampler never reads the base model anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fresco import loading, samplers, weights
from fresco.adapters import Adapters, FreeU, Inversion, IPAdapter, Lora
from fresco.memory import best_device, best_dtype, free_caches
from fresco.models import Model


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a job wants to translate with; the fields are those of `fresco.loading.load`.

    image_encoder: folder of the encoder that IP-Adapters see through
    """

    base: str | Path
    vae: str | Path | None = None
    controlnets: Sequence[str | Path] = ()
    preview_vae: str | Path | None = None
    sampler: str = samplers.DEFAULT
    prediction: str | None = None
    clip_skip: int = 1
    config: Path | None = None
    loras: Sequence[Lora] = ()
    inversions: Sequence[Inversion] = ()
    ip_adapters: Sequence[IPAdapter] = ()
    image_encoder: str | Path | None = None
    free_u: FreeU | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A model as a job asked for it, until the next job asks.

    added: for `fresco.request.Options`
    """

    model: Model
    added: Mapping[str, Any]


class WarmModels:
    """The networks in one process's memory. Serves one job at a time, on one thread.

    budget: bytes of weights that may stay; what the current job needs is kept even beyond
    device, dtype: the best there are by default
    """

    def __init__(
        self, budget: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.budget = budget
        self.device = device or best_device()
        self.dtype = dtype or best_dtype(self.device)
        self._kept: dict[str, _Kept] = {}  # the least recently used first

    def get(self, spec: ModelSpec, halves: int = 2) -> Ready:
        """Make the model that `spec` describes, of what is warm and what must be read.

        halves: of classifier-free guidance, `fresco.schedule.Settings.halves`

        Raises:
            MissingWeights, InvalidInput, UnsupportedModel: see `fresco.loading.load` and
                `fresco.adapters.Adapters`. What was warm before stays usable.
        """
        wanted = _Wanted(spec, self.dtype)
        self._undress()
        for key, (read, path) in wanted.parts.items():
            kept = self._kept.pop(key, None)
            if kept is None:
                self._make_room(loading.size(path, self.dtype), wanted)
                kept = _Kept(read())
                kept.to(self.device, self.dtype)
            self._kept[key] = kept
        ready = self._dressed(spec, wanted, halves)
        self._make_room(0, wanted)
        return ready

    def forget(self) -> None:
        """Drop everything."""
        self._kept.clear()
        free_caches()

    @property
    def size(self) -> int:
        """Bytes of all weights in memory."""
        return sum(kept.size for kept in self._kept.values())

    def _dressed(self, spec: ModelSpec, wanted: _Wanted, halves: int) -> Ready:
        base = self._kept[wanted.base].part
        model: Model = base.model
        model.with_vae(self._kept[wanted.vae].part if wanted.vae else base.vae)
        model.scheduler = samplers.sampler(spec.sampler, base.trained, spec.prediction)
        model.controlnets = [self._kept[key].part for key in wanted.controlnets]
        model.preview_vae = self._kept[wanted.preview].part if wanted.preview else None
        model.image_encoder = self._kept[wanted.encoder].part if wanted.encoder else None
        model.clip_skip = spec.clip_skip
        model.check()
        base.adapters.wear(spec.loras)
        base.adapters.learn(spec.inversions)
        added = base.adapters.look(spec.ip_adapters, halves)
        base.adapters.free_u(spec.free_u)
        if self.size > self.budget:
            base.adapters.drop_idle_loras(spec.loras)
        return Ready(model, added)

    def _undress(self) -> None:
        """Take off what lies beside the base models, so that what is dropped is gone."""
        for kept in self._kept.values():
            if isinstance(kept.part, _Base):
                model = kept.part.model
                model.vae, model.controlnets = kept.part.vae, []
                model.preview_vae = model.image_encoder = None

    def _make_room(self, coming: int, wanted: _Wanted) -> None:
        """Drop what was not used for longest and is not wanted, until `coming` bytes fit."""
        idle = [key for key in self._kept if key not in wanted.parts]
        while idle and self.size + coming > self.budget:
            del self._kept[idle.pop(0)]
            free_caches()


@dataclass(slots=True)
class _Base:
    """A base model, what it wears, and its noise schedule."""

    model: Model
    trained: Mapping[str, Any]
    vae: Any = field(init=False)
    adapters: Adapters = field(init=False)

    def __post_init__(self) -> None:
        self.vae = self.model.vae
        self.adapters = Adapters(self.model)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A part in memory: a base model, or one network beside it."""

    part: Any

    @property
    def size(self) -> int:
        tensors = [tensor for network in self.networks for tensor in network.parameters()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def networks(self) -> list[nn.Module]:
        if isinstance(self.part, nn.Module):
            return [self.part]
        model, vae = self.part.model, self.part.vae
        encoders = [encoder for _, encoder in model.text_parts]
        return [model.unet, *encoders, *([] if vae is None else [vae])]

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        if isinstance(self.part, nn.Module):
            nn.Module.to(self.part, device)
        else:
            self.part.model.to(device, dtype)


class _Wanted:
    """The parts that a spec is made of: key → how to read it, and where it is."""

    def __init__(self, spec: ModelSpec, dtype: torch.dtype) -> None:
        self.parts: dict[str, tuple[Callable[[], Any], Path]] = {}
        base = weights.find(spec.base)

        def read() -> _Base:
            return _Base(*loading.read_base(base, dtype, spec.config))

        self.base = self._add(f"base|{spec.config}", base, read)
        family = loading.family_of(base, spec.config)

        def read_vae(path: Path, dtype: torch.dtype) -> Any:
            return loading.read_vae(path, dtype, family)

        self.vae = self._add_read(f"vae of {family.name}", spec.vae, dtype, read_vae)
        self.controlnets = [
            self._add_read("controlnet", ref, dtype, loading.read_controlnet)
            for ref in spec.controlnets
        ]
        self.preview = self._add_read("preview", spec.preview_vae, dtype, loading.read_preview_vae)
        self.encoder = self._add_read(
            "image encoder", spec.image_encoder, dtype, loading.read_image_encoder
        )

    def _add(self, kind: str, path: Path, read: Callable[[], Any]) -> str:
        key = f"{kind}|{weights.identity(path)}"
        self.parts[key] = (read, path)
        return key

    def _add_read(
        self,
        kind: str,
        ref: str | Path | None,
        dtype: torch.dtype,
        read: Callable[[Path, torch.dtype], Any],
    ) -> str:
        """Add a network beside the base; no key if the spec has none."""
        if ref is None:
            return ""
        path = weights.find(ref)
        return self._add(kind, path, lambda: read(path, dtype))
