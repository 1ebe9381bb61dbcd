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
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
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
from fresco.quiet import quietly
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
_TEXT_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection")
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_VAE_PART, _TEXT_PART = "first_stage_model.", "cond_stage_model.transformer."
_TEXT_PARTS = ("cond_stage_model.", "conditioner.embedders.")
_OLD_TEXT_PARTS = tuple(
    _TEXT_PART + part for part in ("embeddings.", "encoder.", "final_layer_norm.")
)


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
        model.with_vae(read_vae(vae, dtype, family_of(base, config)))
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
    if _is_pipeline(path):
        return _from_folder(path, dtype)
    return _from_checkpoint(path, dtype, config)


def family_of(base: str | Path, config: Path | None = None) -> Family:
    """Tell the family of a base model without reading its weights.

    Raises:
        MissingWeights, InvalidInput, UnsupportedModel: see `load`.
    """
    path = weights.find(base)
    folder = path if _is_pipeline(path) else config
    if folder is not None:
        index = weights.config(folder, "model_index.json")
        return families.of_folder(folder.name, index, weights.config(folder / "unet"))
    file = weights.weight_file(path)
    return families.of_checkpoint(file.name, weights.shapes(file))


def size(ref: str | Path, dtype: torch.dtype) -> int:
    """Bytes that a model, or one network, will take in memory.

    Raises:
        MissingWeights, InvalidInput: see `load`.
    """
    path = weights.find(ref)
    if not path.is_dir() or (not (path / "config.json").exists() and not _is_pipeline(path)):
        return weights.count(weights.weight_file(path)) * dtype.itemsize
    folders = [path / part for part in _PARTS] if _is_pipeline(path) else [path]
    files = [file for folder in folders if folder.is_dir() for file in _chosen(folder)]
    return sum(map(weights.count, files)) * dtype.itemsize


def read_vae(ref: str | Path, dtype: torch.dtype, family: Family = families.SD15) -> Any:
    """Read a VAE: a folder, or a file with the key names of diffusers or of the original.

    family: whose latents it makes; a file does not say it

    Raises:
        MissingWeights, InvalidInput, UnsupportedModel: see `load`.
    """
    path = weights.find(ref)
    if path.is_dir():
        return _read_component(path, _VAES, dtype)
    return _read_file(AutoencoderKL, path, "VAE", family.folder / "vae", dtype)


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


def _is_pipeline(path: Path) -> bool:
    return (path / "model_index.json").exists()


def _from_folder(folder: Path, dtype: torch.dtype) -> tuple[Model, Mapping[str, Any]]:
    """Read a folder in diffusers' layout; return the model and its scheduler's configuration."""
    index = weights.config(folder, "model_index.json")
    family = family_of(folder)
    model = Model(
        unet=_read_component(folder / "unet", ("UNet2DConditionModel",), dtype),
        vae=_read_component(folder / "vae", _VAES, dtype),
        scheduler=None,
        tokenizer=_read_tokenizer(folder / "tokenizer"),
        text_encoder=_read_component(folder / "text_encoder", _TEXT_ENCODERS, dtype),
        zero_empty=bool(index.get("force_zeros_for_empty_prompt", False)),
    )
    if family.is_xl:
        model.tokenizer_2 = _read_tokenizer(folder / "tokenizer_2")
        model.text_encoder_2 = _read_component(folder / "text_encoder_2", _TEXT_ENCODERS, dtype)
    return model, weights.config(folder / "scheduler", "scheduler_config.json")


def _from_checkpoint(
    path: Path, dtype: torch.dtype, config: Path | None
) -> tuple[Model, Mapping[str, Any]]:
    """Read one checkpoint file; return the model and what its noise schedule was."""
    file = weights.weight_file(path)
    family = family_of(file, config)
    folder = config or family.folder
    state = {_usual(name): tensor for name, tensor in weights.tensors(file).items()}
    tokenizers = [_words(padding) for padding in family.padding]
    if config is not None:
        names = ("tokenizer", "tokenizer_2")[: len(tokenizers)]
        tokenizers = [_read_tokenizer(config / name) for name in names]
    model = Model(
        unet=_converted(UNet2DConditionModel, state, file, folder / "unet", dtype),
        vae=_converted(AutoencoderKL, state, file, folder / "vae", dtype)
        if any(name.startswith(_VAE_PART) for name in state)
        else None,
        scheduler=None,
        tokenizer=tokenizers[0],
        text_encoder=_text_encoder(CLIPTextModel, state, file, folder / "text_encoder", dtype),
        zero_empty=family.is_xl,
    )
    if family.is_xl:
        second = folder / "text_encoder_2"
        model.tokenizer_2 = tokenizers[1]
        model.text_encoder_2 = _text_encoder(
            CLIPTextModelWithProjection, state, file, second, dtype
        )
    trained = weights.config(folder / "scheduler", "scheduler_config.json")
    return model, {**trained, **_said(file, state)}


def _usual(name: str) -> str:
    """The oldest checkpoints name the text encoder's parts without its own name."""
    if name.startswith(_OLD_TEXT_PARTS):
        return name.replace(_TEXT_PART, f"{_TEXT_PART}text_model.")
    return name


def _converted(
    kind: Any, state: Mapping[str, Tensor], file: Path, config: Path, dtype: torch.dtype
) -> Any:
    """Read one network out of a checkpoint's tensors."""
    with weights.guarded(file):
        network = kind.from_single_file(
            dict(state), config=str(config), local_files_only=True, torch_dtype=dtype
        )
    _check_complete(network, file)
    return _fixed(network)


def _text_encoder(
    kind: Any, state: Mapping[str, Tensor], file: Path, config: Path, dtype: torch.dtype
) -> Any:
    """Read a text encoder out of a checkpoint's tensors."""
    if not any(name.startswith(_TEXT_PARTS) for name in state):
        raise UnsupportedModel(
            f"{file.name} brings no text encoder; use the full version of the checkpoint, or a "
            "folder in diffusers' layout that has one."
        )
    with weights.guarded(file):
        encoder = create_diffusers_clip_model_from_ldm(
            kind,
            dict(state),
            subfolder=config.name,
            config=str(config.parent),
            torch_dtype=dtype,
            local_files_only=True,
        )
    _check_complete(encoder, file)
    return _fixed(encoder.to(dtype))


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


def _words(padding: str) -> Any:
    """CLIP's tokenizer, padding as a family's text encoder wants it."""
    return CLIPTokenizer.from_pretrained(families.WORDS, model_max_length=77, pad_token=padding)


def _read_tokenizer(folder: Path) -> Any:
    if not folder.is_dir():
        raise weights.damaged(folder, FileNotFoundError("there is no such folder"))
    try:
        with quietly():
            return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing more precise
        raise weights.damaged(folder, error) from error


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


def _chosen(folder: Path) -> list[Path]:
    """The files of a folder's variant."""
    variant = _variant(folder)
    files = sorted(folder.glob(f"*{SAFE}"))
    return [f for f in files if (match := _VARIANT.match(f.name)) and match[1] == variant]


def _read_file(kind: Any, file: Path, what: str, config: Path, dtype: torch.dtype) -> Any:
    """Read one network from a file with diffusers' or the original key names."""
    file = weights.weight_file(file)
    names = weights.shapes(file)
    found = weights.what_is(names)
    if found not in (what, "unknown", "base model" if what == "VAE" else what):
        raise UnsupportedModel(f"{file.name} is a {found}, not a {what}; add it as such.")
    return _converted(kind, weights.tensors(file), file, config, dtype)


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
