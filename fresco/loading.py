"""Models from files: diffusers folders, single-file checkpoints, VAEs, ControlNets.

Everything is read from this machine (`fresco.weights.find`), from safetensors, and checked: a
network with a missing or misshapen weight is refused, never filled with random numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedModel,
)
from transformers import CLIPVisionModelWithProjection as ImageEncoder

from fresco import families, samplers, weights
from fresco.errors import InvalidInput, UnsupportedModel
from fresco.families import Family
from fresco.memory import best_device, best_dtype
from fresco.models import Model
from fresco.pipelines import pipeline_class
from fresco.weights import SAFE

#: The classes that a folder may name; nothing else is imported for it.
_CLASSES: dict[str, Any] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderTiny": AutoencoderTiny,
    "ControlNetModel": ControlNetModel,
    "CLIPTextModel": CLIPTextModel,
    "CLIPTextModelWithProjection": CLIPTextModelWithProjection,
    "CLIPVisionModelWithProjection": ImageEncoder,
}
#: "model.fp16-00001-of-00002.safetensors" → "fp16"
_VARIANT = re.compile(r"[^.]+?(?:\.([\w]+?))?(?:-\d+-of-\d+)?\.safetensors")
_VAES = ("AutoencoderKL", "AutoencoderTiny")


def load(
    base: str | Path,
    *,
    vae: str | Path | None = None,
    controlnets: Sequence[str | Path] = (),
    preview_vae: str | Path | None = None,
    sampler: str = samplers.DEFAULT,
    prediction: str | None = None,
    clip_skip: int = 1,
    config: Path | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """Load a model to translate with.

    base: a folder in diffusers' layout, a hub id in the local cache, or one checkpoint file
    vae: another VAE: a folder or a file
    controlnets: folders or files
    preview_vae: a TAESD's folder or file, to draw previews with
    sampler: a name in `fresco.samplers.SAMPLERS`
    prediction: "epsilon" or "v_prediction", where the model does not say it (right) itself
    clip_skip: see `fresco.models.Model`
    config: a folder in diffusers' layout without weights, for a single file of unusual widths
    device, dtype: the best there are by default

    Raises:
        MissingWeights: something is not on this machine; the message says how it gets there.
        InvalidInput: a file is damaged, of another kind, or not safe to open.
        UnsupportedModel: the method cannot run on it.
    """
    device = device or best_device()
    dtype = dtype or best_dtype(device)
    model, trained = read_base(base, dtype, config)
    if vae is not None:
        model.vae = read_vae(vae, dtype)
    model.scheduler = samplers.sampler(sampler, trained, prediction)
    model.controlnets = [read_controlnet(ref, dtype) for ref in controlnets]
    model.preview_vae = None if preview_vae is None else read_preview_vae(preview_vae, dtype)
    model.clip_skip = clip_skip
    model.check()
    return model.to(device, dtype)


def read_base(
    base: str | Path, dtype: torch.dtype, config: Path | None = None
) -> tuple[Model, Mapping[str, Any]]:
    """Read a model without ControlNets; return it and what its noise schedule was.

    The model has no scheduler yet (`fresco.samplers.sampler` makes one of the schedule), and no VAE
    if the checkpoint brings none.

    Raises:
        MissingWeights, InvalidInput, UnsupportedModel: see `load`.
    """
    path = weights.find(base)
    if path.is_dir() and (path / "model_index.json").exists():
        return _from_folder(path, dtype)
    return _from_checkpoint(path, dtype, config)


def read_vae(ref: str | Path, dtype: torch.dtype) -> Any:
    """Read a VAE: a folder, or a file with the key names of diffusers or of the original.

    Raises:
        MissingWeights, InvalidInput, UnsupportedModel: see `load`.
    """
    path = weights.find(ref)
    if path.is_dir():
        return _read_component(path, _VAES, dtype)
    return _read_file(AutoencoderKL, path, "VAE", families.SD15.folder / "vae", dtype)


def read_preview_vae(ref: str | Path, dtype: torch.dtype) -> AutoencoderTiny:
    """Read a TAESD: a folder, or its one file in diffusers' format.

    Raises:
        MissingWeights, InvalidInput, UnsupportedModel: see `load`.
    """
    path = weights.find(ref)
    if path.is_dir():
        return _read_component(path, ("AutoencoderTiny",), dtype)
    with weights.guarded(path), torch.device("meta"):
        small = AutoencoderTiny()
    return _fixed(_filled(small, weights.weight_file(path), "TAESD").to(dtype))


def read_controlnet(
    ref: str | Path, dtype: torch.dtype, config: Path | None = None
) -> ControlNetModel:
    """Read a ControlNet: a folder, or a file with the key names of diffusers or of the original.

    config: folder of its settings, for a single file of unusual widths

    Raises:
        MissingWeights, InvalidInput, UnsupportedModel: see `load`.
    """
    path = weights.find(ref)
    if path.is_dir() and (path / "config.json").exists():
        return _read_component(path, ("ControlNetModel",), dtype)
    file = weights.weight_file(path)
    if config is None:
        family = families.of_controlnet(file.name, weights.shapes(file))
        config = family.folder / "controlnet"
    return _read_file(ControlNetModel, file, "ControlNet", config, dtype)


def read_image_encoder(ref: str | Path, dtype: torch.dtype) -> Any:
    """Read the image encoder that an IP-Adapter sees its pictures through: a folder.

    Raises:
        MissingWeights, InvalidInput, UnsupportedModel: see `load`.
    """
    folder = weights.find(ref)
    return _read_component(folder, ("CLIPVisionModelWithProjection",), dtype)


def _from_folder(folder: Path, dtype: torch.dtype) -> tuple[Model, Mapping[str, Any]]:
    """Read a folder in diffusers' layout; return the model and its scheduler's configuration."""
    index = weights.config(folder, "model_index.json")
    unet_config = weights.config(folder / "unet")
    family = families.of_folder(folder.name, index, unet_config)
    encoders = ["text_encoder", "text_encoder_2"][: len(family.padding)]
    texts = [
        _read_component(folder / name, ("CLIPTextModel", "CLIPTextModelWithProjection"), dtype)
        for name in encoders
    ]
    tokenizers = [
        _read_tokenizer(folder / name.replace("text_encoder", "tokenizer")) for name in encoders
    ]
    model = Model(
        unet=_read_component(folder / "unet", ("UNet2DConditionModel",), dtype),
        vae=_read_component(folder / "vae", _VAES, dtype),
        scheduler=None,
        tokenizer=tokenizers[0],
        text_encoder=texts[0],
        tokenizer_2=tokenizers[1] if family.is_xl else None,
        text_encoder_2=texts[1] if family.is_xl else None,
        zero_empty=bool(index.get("force_zeros_for_empty_prompt", False)),
    )
    return model, weights.config(folder / "scheduler", "scheduler_config.json")


def _from_checkpoint(
    path: Path, dtype: torch.dtype, config: Path | None
) -> tuple[Model, Mapping[str, Any]]:
    """Read one checkpoint file; return the model and what its noise schedule was."""
    file = weights.weight_file(path)
    names = weights.shapes(file)
    family = families.of_checkpoint(file.name, names) if config is None else _configured(config)
    folder = config or family.folder
    given: dict[str, Any] = {
        name: _words(padding)
        for name, padding in zip(("tokenizer", "tokenizer_2"), family.padding, strict=False)
    }
    if config is not None:
        given = {name: _read_tokenizer(config / name) for name in given}
    if not any(name.startswith("first_stage_model.") for name in names):
        given["vae"] = None
    if not family.is_xl:
        given |= {"safety_checker": None, "requires_safety_checker": False}
    with weights.guarded(file):
        parts = pipeline_class(family.is_xl).from_single_file(
            str(file),
            config=str(folder),
            local_files_only=True,
            torch_dtype=dtype,
            feature_extractor=None,
            image_encoder=None,
            **given,
        )
    for part in _networks(parts):
        _check_complete(_fixed(part), file)
    model = Model(
        unet=parts.unet,
        vae=parts.vae,
        scheduler=None,
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        tokenizer_2=getattr(parts, "tokenizer_2", None),
        text_encoder_2=getattr(parts, "text_encoder_2", None),
        zero_empty=family.is_xl,
    )
    trained = weights.config(folder / "scheduler", "scheduler_config.json")
    return model, {**trained, **_said(file, names)}


def _said(file: Path, names: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its noise schedule: in its metadata, or by marker tensors."""
    said: dict[str, Any] = {}
    kind = weights.notes(file).get("modelspec.prediction_type", "")
    if kind.startswith("v") or "v_pred" in names:
        said["prediction_type"] = "v_prediction"
    elif kind == "epsilon":
        said["prediction_type"] = "epsilon"
    if "ztsnr" in names:
        said["rescale_betas_zero_snr"] = True
    return said


def _configured(folder: Path) -> Family:
    index = weights.config(folder, "model_index.json")
    return families.of_folder(folder.name, index, weights.config(folder / "unet"))


def _networks(parts: Any) -> list[nn.Module]:
    names = ("unet", "vae", "text_encoder", "text_encoder_2")
    found = (getattr(parts, name, None) for name in names)
    return [network for network in found if network is not None]


def _words(padding: str) -> Any:
    """CLIP's tokenizer, padding as a family's text encoder wants it."""
    return CLIPTokenizer.from_pretrained(families.WORDS, model_max_length=77, pad_token=padding)


def _read_tokenizer(folder: Path) -> Any:
    if not folder.is_dir():
        raise weights.damaged(folder, FileNotFoundError("there is no such folder"))
    with weights.guarded(folder):
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _read_component(folder: Path, allowed: Sequence[str], dtype: torch.dtype) -> Any:
    """Read one network from its folder in diffusers' or transformers' layout.

    allowed: the classes that it may be of
    """
    config = weights.config(folder)
    name = config.get("_class_name") or next(iter(config.get("architectures") or ["unknown"]))
    if name not in allowed:
        raise UnsupportedModel(f"{folder} holds a {name}; expected {' or '.join(allowed)}.")
    of_transformers = issubclass(_CLASSES[name], PreTrainedModel)
    with weights.guarded(folder):
        network, found = _CLASSES[name].from_pretrained(
            folder,
            variant=_variant(folder),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **{"dtype" if of_transformers else "torch_dtype": dtype},
        )
    wrong = [*found["missing_keys"], *found.get("mismatched_keys", ())]
    if wrong:
        raise _incomplete(folder, wrong)
    return _fixed(network)


def _variant(folder: Path) -> str | None:
    """Which of a folder's weights are read: the plain ones, else those in half precision.

    Raises:
        InvalidInput: there are none in safetensors.
    """
    files = [file.name for file in folder.glob(f"*{SAFE}")]
    if not files:
        others = [file for file in folder.iterdir() if file.suffix in weights.PICKLES]
        if others:
            raise weights.refused(others[0])
        raise InvalidInput(f"{folder} holds no {SAFE} file; the download is incomplete: repeat it.")
    variants = {match[1] for match in map(_VARIANT.match, files) if match}
    return None if None in variants or not variants else min(variants)


def _read_file(kind: Any, file: Path, what: str, config: Path, dtype: torch.dtype) -> Any:
    """Read one network from a file with diffusers' or the original key names."""
    file = weights.weight_file(file)
    names = weights.shapes(file)
    found = weights.what_is(names)
    if found not in (what, "unknown", "base model" if what == "VAE" else what):
        raise UnsupportedModel(f"{file.name} is a {found}, not a {what}; add it as such.")
    with weights.guarded(file):
        network = kind.from_single_file(
            str(file), config=str(config), local_files_only=True, torch_dtype=dtype
        )
    _check_complete(network, file)
    return _fixed(network)


def _fixed(network: Any) -> Any:
    """A network for use only: nothing in it is trained."""
    return network.eval().requires_grad_(False)


def _filled(network: Any, file: Path, what: str) -> Any:
    """Give a network without data its weights."""
    found = weights.tensors(file)
    with weights.guarded(file):
        missing, unknown = network.load_state_dict(found, strict=False, assign=True)
    if missing or unknown:
        raise InvalidInput(
            f"{file.name} is no {what}: it lacks {len(missing)} of its weights and has "
            f"{len(unknown)} others."
        )
    return network


def _check_complete(network: nn.Module, file: Path) -> None:
    """Check that every weight came from `file`: diffusers leaves the others without data."""
    empty = [name for name, parameter in network.named_parameters() if parameter.is_meta]
    if empty:
        raise _incomplete(file, empty)


def _incomplete(path: Path, names: Sequence[Any]) -> InvalidInput:
    return InvalidInput(
        f"{path} lacks {len(names)} weights or has them in another shape ({names[0]}, ...); it is "
        "damaged, or made for another kind of model."
    )
