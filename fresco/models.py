"""The diffusers models of one run, and what the method asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fresco.errors import InvalidInput, UnsupportedModel


@dataclass(slots=True)
class Model:
    """The parts of a Stable Diffusion model, as diffusers loads them.

    unet: a UNet2DConditionModel
    vae: an AutoencoderKL or AutoencoderTiny
    scheduler: any single-step diffusers scheduler with a DDPM schedule behind it
    controlnets: any number of ControlNetModel
    tokenizer, text_encoder: of the CLIP kind; not needed by who brings prompt embeddings
    tokenizer_2, text_encoder_2: the second ones of an SDXL model
    image_encoder: a CLIPVisionModelWithProjection; needed by an IP-Adapter only
    preview_vae: an AutoencoderTiny (TAESD) that draws previews; without one they are estimated
    clip_skip: 1 = the text encoder as trained, 2 = without its last layer, as model pages say it
    words: words that textual inversions brought → the tokens that each is written with
    zero_empty: an empty negative prompt is embedded as zeros (SDXL)
    place: where the networks run; by default where the U-Net is
    """

    unet: Any
    vae: Any
    scheduler: Any
    controlnets: Sequence[Any] = field(default_factory=list[Any])
    tokenizer: Any = None
    text_encoder: Any = None
    tokenizer_2: Any = None
    text_encoder_2: Any = None
    image_encoder: Any = None
    preview_vae: Any = None
    clip_skip: int = 1
    words: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    zero_empty: bool = False
    place: torch.device | None = None

    def __post_init__(self) -> None:
        # Fixed now: with offloading the U-Net is not always where it runs.
        self.place = self.place or next(self.unet.parameters()).device

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        assert self.place is not None, "set when the model was made"
        return self.place

    @property
    def dtype(self) -> torch.dtype:
        """What the U-Net computes in."""
        return next(self.unet.parameters()).dtype

    @property
    def modules(self) -> list[nn.Module]:
        """All networks of the model."""
        parts = [
            self.unet,
            self.vae,
            *self.controlnets,
            self.text_encoder,
            self.text_encoder_2,
            self.image_encoder,
            self.preview_vae,
        ]
        return [part for part in parts if isinstance(part, nn.Module)]

    def to(self, device: torch.device, dtype: torch.dtype) -> Model:
        """Move all networks (`fresco.memory.best_device`, `best_dtype`); return this model."""
        for part in self.modules:
            # Not diffusers' own `to`, which warns of parts in float32 that are not there.
            nn.Module.to(part, device, dtype)
        self.place = device
        return self.with_vae(self.vae)

    def with_vae(self, vae: Any) -> Model:
        """Use another VAE; return this model. SDXL's own overflows in half precision."""
        self.vae = vae
        half = self.is_xl and self.dtype == torch.float16
        if half and vae is not None and vae.config.get("force_upcast"):
            vae.to(dtype=torch.float32)
        return self

    @property
    def is_xl(self) -> bool:
        """Whether the U-Net wants what SDXL's wants: pooled text and picture sizes."""
        return getattr(self.unet.config, "addition_embed_type", None) == "text_time"

    @property
    def text_parts(self) -> list[tuple[Any, Any]]:
        """The tokenizers with their text encoders."""
        parts = [(self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2)]
        return [(tokenizer, encoder) for tokenizer, encoder in parts if encoder is not None]

    @property
    def remembers_steps(self) -> bool:
        """Whether the scheduler builds on what the model said in earlier steps (UniPC, PNDM)."""
        config = self.scheduler.config
        return config.get("solver_order", 1) > 1 or "skip_prk_steps" in config

    @property
    def multiple(self) -> int:
        """What both sides of a frame must be a multiple of, pixels: 64 for SD 1.5."""
        return self.latent_scale * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @property
    def latent_scale(self) -> int:
        """Pixels per latent along one side: 8 for SD 1.5."""
        config = self.vae.config
        channels = getattr(config, "block_out_channels", None) or config.encoder_block_out_channels
        return 2 ** (len(channels) - 1)

    def check(self) -> None:
        """Check that the method can run on this model.

        Raises:
            InvalidInput: a setting that cannot be.
            UnsupportedModel: it cannot, and why.
        """
        if self.vae is None:
            raise UnsupportedModel(
                "this checkpoint brings no VAE; name one beside it (sd-vae-ft-mse, for example)."
            )
        if self.clip_skip < 1:
            raise InvalidInput(f"clip skip is {self.clip_skip}; use 1 (none) or 2.")
        if self.vae.config.get("latents_mean") is not None:
            raise UnsupportedModel(
                "the VAE normalises its latents by their mean (as EDM models' do), which is not "
                "supported; use the VAE of Stable Diffusion 1.5, 2 or SDXL."
            )
        channels, latents = self.unet.config.in_channels, self.vae.config.latent_channels
        if channels != latents:
            raise UnsupportedModel(
                f"this U-Net takes {channels} channels, the VAE makes {latents}: it is made for "
                "inpainting or instructions, or the VAE belongs to another model."
            )
        if getattr(self.unet.config, "time_cond_proj_dim", None) is not None:
            raise UnsupportedModel(
                "this U-Net is distilled for an embedded guidance scale (a full LCM model); "
                "use the plain model with its LCM LoRA instead."
            )
        for net in self.controlnets:
            own, wanted = net.config.cross_attention_dim, self.unet.config.cross_attention_dim
            if own != wanted:
                raise UnsupportedModel(
                    f"a ControlNet takes text embeddings {own} wide, the model {wanted}: they "
                    "belong to different families; use a ControlNet made for this model."
                )
        if not hasattr(self.scheduler, "alphas_cumprod"):
            raise UnsupportedModel(
                f"{type(self.scheduler).__name__} has no DDPM noise schedule behind it; "
                "use DDPM, DDIM, Euler ancestral, LCM or another Stable Diffusion scheduler."
            )
        if explodes(self.scheduler) and self.scheduler.config.prediction_type == "sample":
            raise UnsupportedModel(
                f"{type(self.scheduler).__name__} does not run models that predict the sample; "
                "use DDPM, DDIM or LCM."
            )
        runge_kutta = self.scheduler.config.get("skip_prk_steps") is False
        if getattr(self.scheduler, "order", 1) != 1 or runge_kutta:
            raise UnsupportedModel(
                f"{type(self.scheduler).__name__} runs the model several times per step; "
                "use a scheduler of order 1."
            )

    def encode(self, images: Tensor) -> Tensor:
        """Encode (N, 3, H, W) in [0, 1] to scaled latents (N, c, h, w): the mode, one at a time."""
        return torch.cat([self._encode_one(image) for image in images.split(1)])

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (N, c, h, w) to float32 images (N, 3, H, W) in [0, 1]."""
        return torch.cat([self._decode_one(latent) for latent in latents.split(1)])

    @torch.no_grad()
    def _encode_one(self, image: Tensor) -> Tensor:
        parameter = next(self.vae.parameters())
        encoded = self.vae.encode(image.to(parameter) * 2 - 1)
        likely = getattr(encoded, "latent_dist", None)  # AutoencoderTiny is not variational
        latents = encoded.latents if likely is None else likely.mode()
        shift, scale = self._latent_statistics()
        return ((latents - shift) * scale).to(self.device, self.dtype)

    @torch.no_grad()
    def _decode_one(self, latents: Tensor) -> Tensor:
        shift, scale = self._latent_statistics()
        parameter = next(self.vae.parameters())
        image = self.vae.decode((latents / scale + shift).to(parameter)).sample
        return as_image(image).to(self.device)

    def _latent_statistics(self) -> tuple[float, float]:
        config = self.vae.config
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor


def as_image(pixels: Tensor) -> Tensor:
    """What a VAE decodes, around [-1, 1], as float32 in [0, 1]."""
    return (pixels.float() / 2 + 0.5).clamp(0, 1)


def explodes(scheduler: Any) -> bool:
    """Whether the scheduler keeps latents variance-exploding (diffusers' Euler family)."""
    return hasattr(scheduler, "is_scale_input_called")


def check_size(model: Model, height: int, width: int) -> None:
    """Check that `model` can work on frames of this size.

    Raises:
        InvalidInput: a side is not a multiple of the model's.
    """
    multiple = model.multiple
    if height % multiple or width % multiple:
        up = [-(-side // multiple) * multiple for side in (width, height)]
        raise InvalidInput(
            f"frames are {width} x {height}; this model needs multiples of {multiple}: "
            f"pad them by reflection to {up[0]} x {up[1]} and crop the result."
        )
