"""Tiny real diffusers models, random but reproducible."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

TEXT_DIM = 16


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


def text(count: int, seed: int = 0) -> Tensor:
    """Prompt embeddings (count, 5, TEXT_DIM)."""
    return torch.randn(count, 5, TEXT_DIM, generator=torch.Generator().manual_seed(seed))


def self_attention(width: int, heads: int, seed: int = 0) -> Attention:
    """One self-attention layer as Stable Diffusion's, with random weights."""
    torch.manual_seed(seed)
    return Attention(query_dim=width, heads=heads, dim_head=width // heads).eval()
