"""How much memory a run will take, before it starts, and the settings that fit a budget.

The forecast is a rehearsal: the very functions of a run are called on ``meta`` tensors, which have
shapes but no data, while every storage that comes and goes is counted. What differs by device
(buffers inside convolutions, for example) is added by rules stated here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fresco.attention import PATH_SCALES, UNIQUE_SCALES, AttentionGuidance, guided_attention
from fresco.callbacks import never_stop
from fresco.correspondence import Correspondence
from fresco.errors import OutOfMemory
from fresco.guidance import FeatureGuidance, guided_features
from fresco.memory import Limits, tiled
from fresco.models import Model
from fresco.paths import Paths
from fresco.quiet import quietly
from fresco.reference import Reference
from fresco.sampling import Conditions, Guidance, predict, record_in_parts
from fresco.schedule import Settings

_META = torch.device("meta")
#: Share of a batch's tokens that all frames share as keys and values, beside the first frame's.
_NEW_TOKENS = 0.1
#: Token tensors of one half that the optimisation holds: the variable, its gradient, Adam's two
#: moments, a residual and what it scatters to.
_OPTIMISER_TENSORS = 6
#: Batches of this size and more are never outgrown by the last of a clip.
_STEADY_BATCH = 5
#: Length of a CLIP prompt.
_TEXT_LENGTH = 77


@dataclass(frozen=True, slots=True)
class Forecast:
    """The predicted memory of a batch, bytes.

    weights: of all networks that are on the device at once
    working: what comes and goes on top, at its highest, by stage: "reference", "step", "vae"
    limits, frames: what it was made for
    device_type: "cpu" figures are compared with measurements by the tests, others only predicted
    """

    weights: int
    working: dict[str, int]
    limits: Limits
    frames: int
    device_type: str

    @property
    def peak(self) -> int:
        """The highest point."""
        return self.weights + max(self.working.values())

    def __str__(self) -> str:
        label = "" if self.device_type == "cpu" else f" (predicted for {self.device_type})"
        stage = max(self.working, key=lambda name: self.working[name])
        return (
            f"{self.peak / 1e9:.1f} GB{label}: {self.weights / 1e9:.1f} GB of weights and "
            f"{self.working[stage] / 1e9:.1f} GB at the highest point, the {stage}; "
            f"{self.frames} keyframes per batch, {self.limits}"
        )


def forecast(
    model: Model,
    height: int,
    width: int,
    frames: int,
    settings: Settings | None = None,
    limits: Limits | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    outsiders: int = 0,
) -> Forecast:
    """Forecast the memory of one batch.

    model: real, or on the ``meta`` device; only its shapes matter
    outsiders: 1 where a later shot shares the style of the first
    dtype, device: what it will run in and on; by default what it is in and on now
    """
    kind = torch.device(device or model.device).type
    twin = _Twin(model, dtype or model.dtype)
    rehearsal = _Rehearsal(twin, (height, width), frames, settings or Settings(), kind, outsiders)
    return rehearsal.forecast(limits or Limits())


def plan(
    model: Model,
    height: int,
    width: int,
    frames: int,
    budget: int,
    settings: Settings | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    outsiders: int = 0,
    poll: Callable[[], None] = never_stop,
) -> Forecast:
    """Choose limits, and a batch of at most `frames`, that fit into `budget` bytes.

    The batch is kept as large as can be, the blocks next: smaller blocks cost little time, a
    smaller batch costs coherence. It is counted with its anchors, and never made smaller than
    what the last batch of a clip may grow to (`fresco.batches.plan`).

    poll: called before each operator that is rehearsed; what it raises ends the planning

    Raises:
        OutOfMemory: nothing fits; the message says what the smallest would take.
    """
    kind = torch.device(device or model.device).type
    twin = _Twin(model, dtype or model.dtype)
    smallest: Forecast | None = None
    for count in _batch_sizes(frames):
        rehearsal = _Rehearsal(
            twin, (height, width), count, settings or Settings(), kind, outsiders, poll
        )
        for limits in _ladder():
            smallest = rehearsal.forecast(limits)
            if smallest.peak <= budget:
                return smallest
    raise OutOfMemory(
        f"{budget / 1e9:.1f} GB are not enough for {width} x {height}; the smallest way takes "
        f"{smallest}. Use a smaller size, or half precision."
    )


def _batch_sizes(frames: int) -> Iterator[int]:
    yield frames
    yield from (size for size in (6, _STEADY_BATCH) if size < frames)


def _ladder() -> Iterator[Limits]:
    """Limits from the fastest to the smallest."""
    limits = Limits()
    yield limits
    for change in (
        {"split_halves": True},
        {"vae_tile": 256},
        {"gram_block": limits.gram_block // 8},
        {"offload": True},
    ):
        limits = replace(limits, **change)
        yield limits


class _Rehearsal:
    """One batch on ``meta`` tensors."""

    def __init__(
        self,
        twin: _Twin,
        size: tuple[int, int],
        frames: int,
        settings: Settings,
        kind: str,
        outsiders: int,
        poll: Callable[[], None] = never_stop,
    ) -> None:
        self.poll = poll
        self.twin, self.model, self.size, self.frames = twin, twin.model, size, frames
        self.settings, self.kind, self.outsiders = settings, kind, outsiders
        config, scale = self.model.unet.config, self.model.latent_scale
        count = frames + outsiders
        self.latents = self.empty(count, config.in_channels, size[0] // scale, size[1] // scale)
        self.text = self.empty(settings.halves * count, _TEXT_LENGTH, config.cross_attention_dim)

    def forecast(self, limits: Limits) -> Forecast:
        """Go through all stages within `limits`."""
        working = {
            "reference": self.peak(lambda: self.record(limits)),
            "step": self.peak(lambda: self.step(limits)),
            "vae": self.vae(limits),
        }
        return Forecast(self.weights(limits), working, limits, self.frames, self.kind)

    def empty(self, *shape: int) -> Tensor:
        """A tensor of the run's type without data."""
        return torch.empty(shape, dtype=self.model.dtype, device=_META)

    def weights(self, limits: Limits) -> int:
        """Bytes of the networks that are on the device at the same time."""
        twin = self.twin
        if limits.offload:
            # Smoothing the background decodes between two steps.
            both = twin.denoisers + twin.vae
            return both if self.settings.smooth_at else max(twin.denoisers, twin.vae)
        return twin.denoisers + twin.vae + twin.others

    def record(self, limits: Limits) -> Reference:
        """The reference pass, if the settings ask for one."""
        if not (self.settings.spatial or self.settings.spatial_weight):
            return Reference()
        timestep = torch.zeros((), device=_META)
        text = self.text[: self.settings.halves * self.frames]
        conditions = Conditions(text, added=self.added(len(text)))
        latents = self.latents[: self.frames]
        return record_in_parts(self.model.unet, latents, timestep, conditions, limits)

    def added(self, rows: int) -> dict[str, Tensor]:
        """What an SDXL model is told beside the text; reference pictures weigh little."""
        config = self.model.unet.config
        if not self.model.is_xl:
            return {}
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return {"text_embeds": self.empty(rows, pooled), "time_ids": self.empty(rows, 6)}

    def step(self, limits: Limits) -> None:
        """The first denoising step, in which everything is on."""
        reference = self.record(limits)
        attention = _AttentionSketch(
            frames=self.frames,
            reference=reference.attention,
            spatial=self.settings.spatial,
            cross_frame=self.settings.cross_frame,
            temporal=self.settings.temporal,
        )
        attention.sketch(self.size)
        attention.outsiders = self.outsiders
        features = _FeatureSketch(
            _no_correspondence(self.frames, self.size), enabled=self.settings.optimises
        )
        features.outsiders = self.outsiders
        pictures = torch.empty(len(self.latents), 3, *self.size, device=_META)
        features.halves_at_once = 1 if limits.split_halves else self.settings.halves
        features.gram_block = limits.gram_block
        guidance = Guidance(attention, features)
        maps = [self.empty(len(self.latents), 3, *self.size) for _ in self.model.controlnets]
        conditions = Conditions(
            self.text,
            maps,
            [1.0] * len(maps),
            self.settings.guidance_scale,
            self.added(len(self.text)),
        )
        timestep = torch.zeros((), device=_META)
        unet = self.model.unet
        with guided_attention(unet, attention), guided_features(unet, features):
            predict(self.model, self.latents, timestep, conditions, guidance, limits)
        del pictures  # held until here, as the frames are in a run

    def vae(self, limits: Limits) -> int:
        """The highest point of encoding and decoding, one frame at a time."""
        image = torch.empty(1, 3, *self.size, device=_META)
        vae = self.model.vae
        with tiled(vae, limits.vae_tile, self.model.latent_scale):
            decoding = self.peak(lambda: self.model.decode(self.latents[:1]))
            return max(decoding, self.peak(lambda: self.model.encode(image)))

    def peak(self, work: Callable[[], Any]) -> int:
        """Run `work` and return the most bytes that it held at once."""
        with torch.no_grad(), _StorageCount(self.kind, self.poll) as count, _AttentionWithoutMaps():
            work()
        return count.peak


class _AttentionSketch(AttentionGuidance):
    """Guidance with index lists of likely lengths, without data."""

    def sketch(self, size: tuple[int, int]) -> None:
        """Note the token counts of this frame size."""
        self._unique_counts = [size[0] // s * (size[1] // s) for s in UNIQUE_SCALES]
        self._path_counts = [size[0] // s * (size[1] // s) for s in PATH_SCALES]

    def shared_rows(self, tokens: int, device: torch.device) -> Tensor | None:
        """See `AttentionGuidance`."""
        if tokens not in self._unique_counts:
            return None
        shared = tokens + round(_NEW_TOKENS * tokens * (self.frames - 1))
        return torch.empty(shared, dtype=torch.int64, device=device)

    def paths_of(self, tokens: int, device: torch.device) -> Paths | None:
        """See `AttentionGuidance`."""
        if tokens not in self._path_counts:
            return None
        order = torch.empty(self.frames, tokens, dtype=torch.int64, device=device)
        mask = torch.empty(tokens, self.frames, self.frames, dtype=torch.bool, device=device)
        return Paths(order, order, mask)


class _FeatureSketch(FeatureGuidance):
    """An optimisation that only holds what the real one would."""

    halves_at_once: int = 1

    def optimise(self, x: Tensor, block: int) -> Tensor:  # noqa: ARG002 (as the real one)
        """See `FeatureGuidance`."""
        half = x.numel() // self.halves_at_once
        held = [torch.empty(half, device=x.device) for _ in range(_OPTIMISER_TENSORS)]
        held.append(torch.empty(self.gram_block, device=x.device))
        return torch.empty_like(x)


class _StorageCount(TorchDispatchMode):
    """Counts the bytes of all storages that appear inside the ``with`` block, while they live."""

    def __init__(self, kind: str, poll: Callable[[], None] = never_stop) -> None:
        super().__init__()
        self.poll = poll
        self.kind, self.live, self.peak = kind, 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator and count what it made."""
        self.poll()
        result = func(*args, **(kwargs or {}))
        inside = self._inside(func, args, result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        self.peak = max(self.peak, self.live + inside)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def _inside(self, func: Any, args: Sequence[Any], result: Any) -> int:
        """Bytes that an operator holds while it runs, beside its result."""
        if self.kind == "cpu" and func is torch.ops.aten.convolution.default:
            # oneDNN copies input and output into a blocked layout.
            return _bytes(args[0]) + _bytes(result)
        return 0


class _AttentionWithoutMaps(TorchFunctionMode):
    """Attention as every device's fused kernel does it: without the map of all pairs."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer attention with an empty result; leave everything else alone."""
        kwargs = kwargs or {}
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, value = args[0], args[2]
        return query.new_empty(*query.shape[:-1], value.shape[-1])


def _unscaled(latents: Tensor, _timestep: Tensor) -> Tensor:
    return latents


class _Twin:
    """A model of the same shapes without data, in `dtype`, and the bytes of the real one's weights.

    LoRAs and other adapters count among the weights; what they compute beside is small.
    """

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        self.model = Model(
            unet=_on_meta(model.unet, dtype),
            vae=_on_meta(model.vae, dtype),
            scheduler=SimpleNamespace(scale_model_input=_unscaled),
            controlnets=[_on_meta(net, dtype) for net in model.controlnets],
        )
        denoisers = [model.unet, *model.controlnets]
        used = [*denoisers, model.vae]
        others = [net for net in model.modules if not any(net is other for other in used)]
        self.denoisers = sum(_parameter_bytes(net, dtype) for net in denoisers)
        self.vae = _parameter_bytes(model.vae, dtype)
        self.others = sum(_parameter_bytes(net, dtype) for net in others)


def _on_meta(net: Any, dtype: torch.dtype) -> Any:
    # An IP-Adapter's own layers are not made from the configuration.
    plain = {**net.config, "encoder_hid_dim_type": None, "encoder_hid_dim": None}
    with _META, quietly():
        twin = type(net).from_config(plain if "encoder_hid_dim_type" in net.config else net.config)
    # Not the model's own `to`, which warns of parts that would lose precision: there are no values.
    return nn.Module.to(twin, dtype).eval()


def _no_correspondence(frames: int, size: tuple[int, int]) -> Correspondence:
    shapes = ((frames, 2, *size), (frames, 2, *size), (frames, *size), (frames, *size))
    return Correspondence.unchecked(*(torch.empty(shape, device=_META) for shape in shapes))


def _parameter_bytes(net: nn.Module, dtype: torch.dtype) -> int:
    return sum(parameter.numel() for parameter in net.parameters()) * dtype.itemsize


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
