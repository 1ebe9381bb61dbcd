"""Tiny random weights in the file formats that users bring, with the formats' own key names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDPMScheduler,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from fresco import families
from tests.fresco import tiny

LAYERS = 3


def write_tokenizer(folder: Path) -> int:
    """A CLIP tokenizer of single letters; return how many words it has."""
    folder.mkdir(parents=True)
    letters = [chr(number) for number in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    told = {
        "model_max_length": 16,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return len(words)


def text_config(words: int, width: int, **changes: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        **changes,
    )


def write_folder(folder: Path, xl: bool = False, **changes: Any) -> Path:
    """A whole model in diffusers' layout."""
    folder.mkdir(parents=True)
    words = write_tokenizer(folder / "tokenizer")
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    torch.manual_seed(7)
    CLIPTextModel(text_config(words, tiny.TEXT_DIM)).save_pretrained(folder / "text_encoder")
    unet = tiny.unet(**changes)
    if xl:
        unet = tiny.xl_unet()
        shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
        second = CLIPTextModelWithProjection(
            text_config(words, tiny.XL_TEXT_DIM, projection_dim=tiny.XL_TEXT_DIM)
        )
        second.save_pretrained(folder / "text_encoder_2")
        parts |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
        }
    unet.save_pretrained(folder / "unet")
    tiny.vae().save_pretrained(folder / "vae")
    DDPMScheduler(**tiny.SCHEDULE).save_pretrained(folder / "scheduler")
    name = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    extras = {"force_zeros_for_empty_prompt": True} if xl else {"requires_safety_checker": False}
    index = {"_class_name": name, "_diffusers_version": "0.33.0", **parts, **extras}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def config_of(folder: Path, to: Path) -> Path:
    """The same folder without weights."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))
    return to


def write_checkpoint(folder: Path, file: Path, **extra: Tensor) -> Path:
    """The model of `folder` as one file with the original key names of Stable Diffusion 1.5."""
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").state_dict()
    names = {key: f"cond_stage_model.transformer.text_model.{_bare(key)}" for key in text}
    out = unet_and_vae(folder) | {names[key]: value for key, value in text.items()}
    out["betas"] = torch.linspace(0, 1, 1000)  # checkpoints carry what nobody loads
    return _write(out | extra, file)


def write_open_clip_checkpoint(folder: Path, file: Path) -> Path:
    """The same with Stable Diffusion 2's names for the text encoder."""
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").state_dict()
    return _write(unet_and_vae(folder) | open_clip("cond_stage_model.model.", text), file)


def write_xl_checkpoint(folder: Path, file: Path, **extra: Tensor) -> Path:
    """The model of an SDXL `folder` as one file with the original key names."""
    first = CLIPTextModel.from_pretrained(folder / "text_encoder").state_dict()
    prefix = "conditioner.embedders.0.transformer.text_model."
    out = unet_and_vae(folder) | {prefix + _bare(key): value for key, value in first.items()}
    second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2").state_dict()
    return _write(out | open_clip("conditioner.embedders.1.model.", second) | extra, file)


def unet_and_vae(folder: Path) -> dict[str, Tensor]:
    """U-Net and VAE under their original names."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    levels = len(unet.up_blocks)
    out = {
        f"model.diffusion_model.{unet_key(key, levels)}": value
        for key, value in unet.state_dict().items()
    }
    for key, value in AutoencoderKL.from_pretrained(folder / "vae").state_dict().items():
        name = vae_key(key)
        # The original's attention layers are convolutions.
        conv = ".mid.attn_1." in name and value.ndim == 2
        out[f"first_stage_model.{name}"] = value[:, :, None, None] if conv else value
    return out


def open_clip(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP text encoder under open_clip's names, which holds queries, keys and values in one."""
    out: dict[str, Tensor] = {}
    together: dict[str, dict[str, Tensor]] = {}
    plain = {
        "text_projection.weight": "text_projection",
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    inner = (
        ("self_attn.out_proj", "attn.out_proj"),
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    )
    for key, value in state.items():
        name = _bare(key)
        if name in plain:
            out[prefix + plain[name]] = value.T if name.startswith("text_projection") else value
        elif match := re.match(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(.*)", name):
            block = f"{prefix}transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}"
            together.setdefault(block, {})[match[2]] = value
        elif match := re.match(r"encoder\.layers\.(\d+)\.(.*)", name):
            rest = match[2]
            for ours, theirs in inner:
                rest = rest.replace(ours, theirs)
            out[f"{prefix}transformer.resblocks.{match[1]}.{rest}"] = value
    return out | {name: torch.cat([p[x] for x in "qkv"]) for name, p in together.items()}


def _bare(key: str) -> str:
    return key.removeprefix("text_model.")


def _write(out: dict[str, Tensor], file: Path) -> Path:
    save_file({key: value.contiguous().clone() for key, value in out.items()}, file)
    return file


def write_full_size(folder: Path) -> None:
    """Networks of Stable Diffusion 1.5's real size, random, in half precision: 2.2 GB."""
    source = families.SD15.folder
    torch.set_default_dtype(torch.float16)
    try:
        for kind, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
            kind.from_config(kind.load_config(source / part)).save_pretrained(folder / part)
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(source / "text_encoder"))
        text.save_pretrained(folder / "text_encoder")
    finally:
        torch.set_default_dtype(torch.float32)


def unet_key(key: str, levels: int = 4) -> str:
    """A key of diffusers' UNet2DConditionModel with two layers per block → the original one."""
    for pattern, new in (
        (r"^time_embedding\.linear_1\.", "time_embed.0."),
        (r"^time_embedding\.linear_2\.", "time_embed.2."),
        (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
        (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
        (r"^conv_in\.", "input_blocks.0.0."),
        (r"^conv_norm_out\.", "out.0."),
        (r"^conv_out\.", "out.2."),
        (r"^mid_block\.resnets\.0\.", "middle_block.0."),
        (r"^mid_block\.attentions\.0\.", "middle_block.1."),
        (r"^mid_block\.resnets\.1\.", "middle_block.2."),
    ):
        key = re.sub(pattern, new, key)
    if match := re.match(r"down_blocks\.(\d)\.(resnets|attentions|downsamplers)\.(\d)\.(.*)", key):
        block, kind, layer, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "downsamplers":
            key = f"input_blocks.{3 * block + 3}.0.{rest.replace('conv.', 'op.')}"
        else:
            key = f"input_blocks.{3 * block + layer + 1}.{int(kind == 'attentions')}.{rest}"
    if match := re.match(r"up_blocks\.(\d)\.(resnets|attentions|upsamplers)\.(\d)\.(.*)", key):
        block, kind, layer, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "upsamplers":
            # Behind the resnet and, where there is one, the attention of the block's last place.
            key = f"output_blocks.{3 * block + 2}.{1 if block == 0 and levels == 4 else 2}.{rest}"
        else:
            key = f"output_blocks.{3 * block + layer}.{int(kind == 'attentions')}.{rest}"
    return _resnet(
        key, "in_layers.0", "in_layers.2", "out_layers.0", "out_layers.3", "skip_connection"
    )


def _resnet(key: str, norm1: str, conv1: str, norm2: str, conv2: str, shortcut: str) -> str:
    if "transformer_blocks" in key:
        return key
    for ours, theirs in (
        (".norm1.", f".{norm1}."),
        (".conv1.", f".{conv1}."),
        (".norm2.", f".{norm2}."),
        (".conv2.", f".{conv2}."),
        (".time_emb_proj.", ".emb_layers.1."),
        (".conv_shortcut.", f".{shortcut}."),
    ):
        key = key.replace(ours, theirs)
    return key


def vae_key(key: str) -> str:
    """A key of diffusers' AutoencoderKL with four levels → the original one."""
    key = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.(\d)\.", r"encoder.down.\1.block.\2.", key)
    key = re.sub(
        r"encoder\.down_blocks\.(\d)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", key
    )
    for ours, theirs in ((r"resnets\.(\d)\.", r"block.\2."), (r"upsamplers\.0\.", "upsample.")):
        key = re.sub(
            rf"decoder\.up_blocks\.(\d)\.{ours}",
            lambda m, theirs=theirs: (
                f"decoder.up.{3 - int(m[1])}."
                + theirs.replace(r"\2", m[2] if m.lastindex == 2 else "")
            ),
            key,
        )
    key = key.replace("mid_block.resnets.0.", "mid.block_1.").replace(
        "mid_block.resnets.1.", "mid.block_2."
    )
    key = key.replace("mid_block.attentions.0.", "mid.attn_1.").replace("conv_norm_out", "norm_out")
    if ".attn_1." in key:
        for ours, theirs in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v")):
            key = key.replace(f".{ours}.", f".{theirs}.")
        return key.replace(".to_out.0.", ".proj_out.")
    return key.replace(".conv_shortcut.", ".nin_shortcut.")


def write_diffusers_lora(file: Path, unet: Any, rank: int = 2, seed: int = 3) -> Path:
    """A LoRA with diffusers' (peft's) key names, for the U-Net's attention."""
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, Tensor] = {}
    for name, layer in unet.named_modules():
        if re.search(r"attn[12]\.(to_q|to_k|to_v|to_out\.0)$", name):
            weight = layer.weight
            out[f"unet.{name}.lora_A.weight"] = torch.randn(
                rank, weight.shape[1], generator=generator
            )
            out[f"unet.{name}.lora_B.weight"] = torch.randn(
                weight.shape[0], rank, generator=generator
            )
    save_file(out, file)
    return file


def write_kohya_lora(
    file: Path,
    unet: Any,
    text: Any,
    rank: int = 2,
    alpha: float = 1.0,
    seed: int = 4,
    vary: bool = False,
) -> Path:
    """A LoRA as kohya's scripts write them, with alphas, for U-Net and text encoder.

    vary: layers differ in rank and alpha, as those of a resized LoRA do
    """
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, Tensor] = {}

    def add(name: str, weight: Tensor) -> None:
        place = len(out) // 3 if vary else 0
        own = rank + place % 3
        out[f"{name}.lora_down.weight"] = torch.randn(own, weight.shape[1], generator=generator)
        out[f"{name}.lora_up.weight"] = torch.randn(weight.shape[0], own, generator=generator)
        out[f"{name}.alpha"] = torch.tensor(alpha * (1 + place % 2))

    for name, layer in unet.named_modules():
        if re.search(r"attn[12]\.(to_q|to_k|to_v|to_out\.0)$", name):
            add("lora_unet_" + name.replace(".", "_"), layer.weight)
    for name, layer in text.named_modules():
        if re.search(r"self_attn\.(q|k|v|out)_proj$", name):
            inner = name.removeprefix("text_model.").replace(".", "_")
            add(f"lora_te_text_model_{inner}", layer.weight)
    save_file(out, file)
    return file


def write_ip_adapter(file: Path, unet: Any, image_dim: int = 6, seed: int = 5) -> Path:
    """An IP-Adapter's safetensors file."""
    generator = torch.Generator().manual_seed(seed)
    width = unet.config.cross_attention_dim

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    out = {
        "image_proj.proj.weight": random(4 * width, image_dim),
        "image_proj.proj.bias": random(4 * width),
        "image_proj.norm.weight": random(width),
        "image_proj.norm.bias": random(width),
    }
    # Counted as the original does: every attention layer, those on text at odd numbers.
    names = [name for name in unet.attn_processors if ".attn2." in name]
    for place, name in enumerate(names):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        size = layer.to_q.out_features
        out[f"ip_adapter.{2 * place + 1}.to_k_ip.weight"] = random(size, width)
        out[f"ip_adapter.{2 * place + 1}.to_v_ip.weight"] = random(size, width)
    save_file(out, file)
    return file


def write_ip_adapter_plus(file: Path, unet: Any, hidden: int = 8, seed: int = 6) -> Path:
    """A *plus* adapter: it reads the image encoder's patches through a resampler."""
    generator = torch.Generator().manual_seed(seed)
    width, inner, heads, queries = unet.config.cross_attention_dim, 64, 1, 4

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    out = {
        "latents": random(1, queries, inner),
        "proj_in.weight": random(inner, hidden),
        "proj_in.bias": random(inner),
        "proj_out.weight": random(width, inner),
        "proj_out.bias": random(width),
        "norm_out.weight": random(width),
        "norm_out.bias": random(width),
    }
    head = heads * 64
    for layer in (f"layers.{number}" for number in range(4)):
        for name in ("0.norm1", "0.norm2", "1.0"):
            out |= {f"{layer}.{name}.weight": random(inner), f"{layer}.{name}.bias": random(inner)}
        out |= {
            f"{layer}.0.to_q.weight": random(head, inner),
            f"{layer}.0.to_kv.weight": random(2 * head, inner),
            f"{layer}.0.to_out.weight": random(inner, head),
            f"{layer}.1.1.weight": random(4 * inner, inner),
            f"{layer}.1.3.weight": random(inner, 4 * inner),
        }
    plain = load_file(write_ip_adapter(file, unet, seed=seed))
    attention = {key: value for key, value in plain.items() if key.startswith("ip_adapter.")}
    save_file(attention | {f"image_proj.{key}": value for key, value in out.items()}, file)
    return file


def write_image_encoder(folder: Path, image_dim: int = 6) -> Path:
    torch.manual_seed(8)
    config = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
        projection_dim=image_dim,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def write_inversion(file: Path, vectors: int = 1, key: str = "emb_params") -> Path:
    torch.manual_seed(9)
    save_file({key: torch.randn(vectors, tiny.TEXT_DIM)}, file)
    return file


def write_controlnet_checkpoint(net: nn.Module, file: Path) -> Path:
    """A ControlNet with the original's key names (``control_model.``)."""
    out: dict[str, Tensor] = {}
    for key, value in net.state_dict().items():
        if match := re.match(r"controlnet_down_blocks\.(\d+)\.(.*)", key):
            name = f"zero_convs.{match[1]}.0.{match[2]}"
        elif match := re.match(r"controlnet_mid_block\.(.*)", key):
            name = f"middle_block_out.0.{match[1]}"
        elif match := re.match(r"controlnet_cond_embedding\.conv_in\.(.*)", key):
            name = f"input_hint_block.0.{match[1]}"
        elif match := re.match(r"controlnet_cond_embedding\.blocks\.(\d)\.(.*)", key):
            name = f"input_hint_block.{2 * (int(match[1]) + 1)}.{match[2]}"
        elif match := re.match(r"controlnet_cond_embedding\.conv_out\.(.*)", key):
            name = f"input_hint_block.14.{match[1]}"
        else:
            name = unet_key(key)
        out[f"control_model.{name}"] = value.contiguous()
    save_file(out, file)
    return file


def write_taesd(folder: Path) -> Path:
    torch.manual_seed(10)
    narrow = {"encoder_block_out_channels": (4,) * 4, "decoder_block_out_channels": (4,) * 4}
    AutoencoderTiny(**narrow).save_pretrained(folder)
    return folder
