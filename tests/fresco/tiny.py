"""Tiny real diffusers models, random but reproducible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fresco.models import Model

TEXT_DIM = 16
#: Of SDXL's second text encoder.
XL_TEXT_DIM = 24


def unet(**changes: object) -> UNet2DConditionModel:
    """A U-Net with Stable Diffusion 1.5's four levels, 8 to 16 channels wide."""
    config: dict[str, object] = {
        "sample_size": 8,
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        "attention_head_dim": 2,
        "cross_attention_dim": TEXT_DIM,
        "norm_num_groups": 4,
    }
    torch.manual_seed(0)
    return UNet2DConditionModel(**{**config, **changes}).eval()


def xl_unet() -> UNet2DConditionModel:
    """A U-Net with SDXL's three levels and its extra conditions."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 2),
        cross_attention_dim=TEXT_DIM + XL_TEXT_DIM,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=XL_TEXT_DIM + 6 * 4,
    ).eval()


def text(count: int, seed: int = 0) -> Tensor:
    """Prompt embeddings (count, 5, TEXT_DIM)."""
    return torch.randn(count, 5, TEXT_DIM, generator=torch.Generator().manual_seed(seed))


def self_attention(width: int, heads: int, seed: int = 0) -> Attention:
    """One self-attention layer as Stable Diffusion's, with random weights."""
    torch.manual_seed(seed)
    return Attention(query_dim=width, heads=heads, dim_head=width // heads).eval()


def vae(**changes: object) -> AutoencoderKL:
    """A VAE that reduces by 8, as Stable Diffusion's."""
    config: dict[str, object] = {
        "block_out_channels": (4, 4, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 2,
        "latent_channels": 4,
        "sample_size": 64,
    }
    torch.manual_seed(1)
    return AutoencoderKL(**{**config, **changes}).eval()


def controlnet(of: UNet2DConditionModel, seed: int = 2) -> ControlNetModel:
    """A ControlNet for `of` that does change something."""
    net = ControlNetModel.from_unet(of, conditioning_embedding_out_channels=(4, 4, 8, 8)).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        if not parameter.any():  # its outputs start as zero convolutions
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return net


def model(controlnets: int = 1, scheduler: Any = None, **changes: object) -> Model:
    """A whole tiny model without a text encoder."""
    network = unet(**changes)
    return Model(
        unet=network,
        vae=vae(),
        scheduler=scheduler or DDPMScheduler(**SCHEDULE),
        controlnets=[controlnet(network, seed) for seed in range(controlnets)],
    )


#: Stable Diffusion 1.5's noise schedule.
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
}


def text_encoder(folder: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """A tokenizer of single letters and a text encoder, written to and read from `folder`."""
    letters = [chr(ord("a") + index) for index in range(26)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=8)
    torch.manual_seed(4)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT_DIM,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    return tokenizer, CLIPTextModel(config).eval()


def add_ip_adapter(network: UNet2DConditionModel, image_dim: int = 6) -> None:
    """Load a random IP-Adapter by diffusers' own loader."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    projection = {
        "proj.weight": random(4 * TEXT_DIM, image_dim),
        "proj.bias": random(4 * TEXT_DIM),
        "norm.weight": random(TEXT_DIM),
        "norm.bias": random(TEXT_DIM),
    }
    weights: dict[str, Tensor] = {}
    number = 1
    for name, layer in network.named_modules():
        if isinstance(layer, Attention) and name.endswith("attn2"):
            width = layer.to_q.out_features  # pyright: ignore
            weights[f"{number}.to_k_ip.weight"] = random(width, TEXT_DIM)
            weights[f"{number}.to_v_ip.weight"] = random(width, TEXT_DIM)
            number += 2
    network._load_ip_adapter_weights(  # pyright: ignore
        [{"image_proj": projection, "ip_adapter": weights}]
    )
