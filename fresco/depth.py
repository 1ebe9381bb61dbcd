"""Depth models of transformers, read from a folder; nothing is ever downloaded from here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fresco.errors import InvalidInput, MissingWeights
from fresco.quiet import quietly

#: The architectures whose output is known here.
_ARCHITECTURES = ("depth_anything", "dpt")
#: The first fusion layer has nothing to add this to, so published DPT weights leave it out.
_UNUSED = "fusion_stage.layers.0.residual_layer1."
#: Metric depths below this count as this: millimetres.
_NEAREST = 1e-3


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a model wants its frames to be like.

    size: height and width that it was trained for
    multiple: what both sides must be a multiple of
    keep_aspect: scale both sides alike, by the factor of the one that changes less
    mean, std: of the channels
    """

    size: tuple[int, int]
    multiple: int
    keep_aspect: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that a frame of this size is given."""
        factors = self.size[0] / height, self.size[1] / width
        if self.keep_aspect:
            factors = (min(factors, key=lambda factor: abs(1 - factor)),) * 2
        return self._rounded(factors[0] * height), self._rounded(factors[1] * width)

    def __call__(self, frame: Tensor) -> Tensor:
        """Return a frame (1, 3, H, W) in [0, 1] as the model wants it."""
        size = self.size_for(frame.shape[-2], frame.shape[-1])
        # On the processor: the same pixels whatever device the model runs on.
        resized = F.interpolate(frame.cpu(), size=size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (resized - mean) / std

    def _rounded(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


@dataclass(frozen=True, slots=True)
class DepthModel:
    """A depth model and what it needs to know.

    network: of transformers
    prepare: makes its input of frames
    metric: whether it gives distances; otherwise inverse depth
    """

    network: nn.Module
    prepare: Preparation
    metric: bool

    @torch.no_grad()
    def inverse_depth(self, frame: Tensor) -> Tensor:
        """Inverse depth (1, 1, H, W) float32, larger = nearer, of (1, 3, H, W) in [0, 1]."""
        parameter = next(self.network.parameters())
        predicted: Tensor = self.network(self.prepare(frame).to(parameter)).predicted_depth
        depth = F.interpolate(predicted[:, None].float(), size=frame.shape[-2:], mode="bilinear")
        return 1 / depth.clamp(min=_NEAREST) if self.metric else depth


def load_depth(folder: Path) -> DepthModel:
    """Load the model in `folder`, as transformers saves it, with safetensors weights.

    Raises:
        MissingWeights: a file is missing.
        InvalidInput: another architecture, or files that do not belong together.
    """
    config = _read_json(folder / "config.json")
    _check_architecture(config, folder)
    prepare = _read_preparation(folder / "preprocessor_config.json")
    return DepthModel(
        _load_network(folder), prepare, config.get("depth_estimation_type") == "metric"
    )


def _load_network(folder: Path) -> nn.Module:
    # Here, because importing it takes seconds.
    from transformers import AutoModelForDepthEstimation

    if not any(folder.glob("*.safetensors")):
        raise MissingWeights(f"{folder} has no .safetensors weights; fetch the model again.")
    try:
        with quietly():
            loaded: Any = AutoModelForDepthEstimation.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # whatever files that do not belong together bring about
        raise InvalidInput(
            f"{folder} holds no depth model that can be loaded ({error}); fetch it again."
        ) from error
    network, report = loaded
    # transformers fills with random numbers what a file leaves out.
    missing = sorted(key for key in report["missing_keys"] if _UNUSED not in key)
    if missing:
        raise InvalidInput(
            f"the weights in {folder} lack {len(missing)} tensors ({missing[0]}, ...); "
            "fetch the model again."
        )
    return network.eval().requires_grad_(False)


def _check_architecture(config: dict[str, Any], folder: Path) -> None:
    architecture = config.get("model_type")
    if architecture not in _ARCHITECTURES:
        raise InvalidInput(
            f"{folder} holds a model of type {architecture!r}; depth maps are made by one of "
            f"{list(_ARCHITECTURES)}."
        )
    if config.get("backbone") and not config.get("backbone_config"):
        raise InvalidInput(
            f"the model in {folder} only names its backbone, which would have to be downloaded; "
            "use one that describes it."
        )


def _read_preparation(path: Path) -> Preparation:
    config = _read_json(path)
    if config.get("do_pad"):
        raise InvalidInput(f"{path} asks for padding, which depth models here do without.")
    try:
        size: Any = config.get("size", 384)
        sides = (size, size) if isinstance(size, int) else (size["height"], size["width"])
        prepare = Preparation(
            size=(int(sides[0]), int(sides[1])),
            multiple=int(config.get("ensure_multiple_of") or 1),
            keep_aspect=bool(config.get("keep_aspect_ratio", False)),
            mean=_channels(config.get("image_mean")),
            std=_channels(config.get("image_std")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{path} does not say how frames are prepared ({error!r}); fetch the model again."
        ) from error
    if min(*prepare.size, prepare.multiple, *prepare.std) <= 0:
        raise InvalidInput(f"{path} has sizes or deviations of 0 or less; fetch the model again.")
    return prepare


def _channels(values: Any) -> tuple[float, ...]:
    red, green, blue = values if values is not None else (0.5, 0.5, 0.5)  # transformers' default
    return float(red), float(green), float(blue)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingWeights(f"there is no {path.name} in {path.parent}; fetch the model again.")
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(f"{path} is no JSON ({error}); fetch the model again.") from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} is no table; fetch the model again.")
    return config  # pyright: ignore[reportUnknownVariableType]
