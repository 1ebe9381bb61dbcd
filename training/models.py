# SPDX-License-Identifier: Apache-2.0
"""The networks of the draft model, in the classes and the folder layout of Stable Diffusion 1.5."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from training import text

LATENT_CHANNELS = 8
INDEX = {
    "_class_name": "StableDiffusionControlNetImg2ImgPipeline",
    "controlnet": ["diffusers", "ControlNetModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
}
"""The pipeline folder's `model_index.json`."""
WIDTHS = (80, 112, 112, 112)
LAYERS = 2
GROUPS = 16
HEADS = 4


@dataclass(slots=True)
class Draft:
    """The trained networks together with the tokenizer."""

    unet: UNet2DConditionModel
    controlnet: ControlNetModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    def modules(self) -> dict[str, nn.Module]:
        """The networks by their folder names."""
        return {
            "unet": self.unet,
            "controlnet": self.controlnet,
            "text_encoder": self.text_encoder,
        }

    def tokens(self, prompts: list[str]) -> torch.Tensor:
        """(N, length) int64 token numbers, padded to the fixed length."""
        return self.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=text.LENGTH,
            return_tensors="pt",
        ).input_ids

    def embed(self, prompts: list[str]) -> torch.Tensor:
        """(N, length, width) prompt embeddings."""
        return self.text_encoder(self.tokens(prompts)).last_hidden_state

    def predict(self, noisy: torch.Tensor, steps: torch.Tensor, embeds: torch.Tensor,
                control: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:  # fmt: skip
        """The velocity for noisy latents (N, 8, h, w); scale (N,) is the control's, per picture."""
        down, middle = self.controlnet(noisy, steps, embeds, control, return_dict=False)
        weight = scale.view(-1, 1, 1, 1)
        return self.unet(
            noisy,
            steps,
            embeds,
            down_block_additional_residuals=[residual * weight for residual in down],
            mid_block_additional_residual=middle * weight,
        ).sample


def scheduler() -> DDPMScheduler:
    """The noise schedule of Stable Diffusion with velocity prediction."""
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="leading",
        steps_offset=1,
    )


def create(tokenizer_folder: Path) -> Draft:
    """Fresh networks with their vocabulary: the one in the folder, or else a new one."""
    if (tokenizer_folder / "vocab.json").exists():
        tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder, model_max_length=text.LENGTH)
    else:
        tokenizer = text.build_tokenizer(tokenizer_folder)
    return Draft(*networks(), text.create_encoder(tokenizer), tokenizer)


def networks(
    widths: tuple[int, ...] = WIDTHS, layers: int = LAYERS
) -> tuple[UNet2DConditionModel, ControlNetModel]:
    """U-Net and ControlNet as they are before training."""
    shared = {
        "in_channels": LATENT_CHANNELS,
        "block_out_channels": widths,
        "layers_per_block": layers,
        "cross_attention_dim": text.WIDTH,
        "attention_head_dim": HEADS,
        "norm_num_groups": GROUPS,
    }
    unet = UNet2DConditionModel(sample_size=32, out_channels=LATENT_CHANNELS, **shared)
    controlnet = ControlNetModel(conditioning_embedding_out_channels=(8, 16, 32, 64), **shared)
    _open_control(controlnet)
    return unet, controlnet


def _open_control(controlnet: ControlNetModel) -> None:
    """Replaces the ControlNet's zero weights: trained from the start, it may be heard at once."""
    outputs = [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]
    for layer in outputs:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        layer.weight.data *= 0.3
    embedding = controlnet.controlnet_cond_embedding
    for layer in embedding.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    carry_colours(embedding)


@torch.no_grad()
def carry_colours(embedding: ControlNetConditioningEmbedding) -> None:
    """Lets the first three channels of the control's embedding carry the map's mean colours.

    Normalised networks are slow to notice colours, which hardly vary over a crop. The values are
    shifted to where SiLU is nearly linear; the last layer hands them to all channels.
    """
    blocks = [layer for layer in embedding.blocks if isinstance(layer, nn.Conv2d)]
    for layer in (embedding.conv_in, *blocks):
        layer.weight[:3] = 0
        layer.weight[3:, :3] *= layer is embedding.conv_in
        assert layer.bias is not None
        layer.bias[:3] = 2.0 if layer is embedding.conv_in else 0.2
        for channel in range(3):
            if layer.stride[0] == 2:
                layer.weight[channel, channel, 1:, 1:] = 0.25
            else:
                layer.weight[channel, channel, 1, 1] = 4.0 if layer is embedding.conv_in else 1.0
    last = embedding.conv_out
    last.weight[:, :3] = 0
    last.weight[:, :3, 1, 1] = 0.35 * torch.randn(len(last.weight), 3)
    last.bias -= 4.0 * last.weight[:, :3, 1, 1].sum(dim=1)


def load(folder: Path) -> Draft:
    """Reads the networks from a diffusers folder, as float32."""
    return Draft(
        UNet2DConditionModel.from_pretrained(folder / "unet").float(),
        ControlNetModel.from_pretrained(folder / "controlnet").float(),
        CLIPTextModel.from_pretrained(folder / "text_encoder").float(),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
    )


def save_autoencoder(autoencoder: AutoencoderTiny, folder: Path) -> None:
    """Writes the autoencoder in half precision, without the entry that its own loader warns of."""
    autoencoder.half().save_pretrained(folder)
    autoencoder.float()
    config = json.loads((folder / "config.json").read_text())
    config.pop("block_out_channels", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def save(draft: Draft, autoencoder: AutoencoderTiny, folder: Path) -> None:
    """Writes everything in half precision as a pipeline folder."""
    for name, module in draft.modules().items():
        module.half().save_pretrained(folder / name)
        module.float()
    save_autoencoder(autoencoder, folder / "vae")
    draft.tokenizer.save_pretrained(folder / "tokenizer")
    text.write_vocabulary(draft.tokenizer, folder / "tokenizer")
    scheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
