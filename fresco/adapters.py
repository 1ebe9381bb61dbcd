"""What is put on a loaded model and taken off again: LoRAs, textual inversions, IP-Adapters, FreeU.

The base model stays as it is in memory: changing any of these reads only the small file that is
new. diffusers' own loaders do the work, so every format that they know is understood.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from fresco import lora_files, weights
from fresco.errors import InvalidInput, UnsupportedModel
from fresco.frames import stack
from fresco.memory import placed
from fresco.models import Model
from fresco.pipelines import pipeline_class
from fresco.quiet import quietly

#: How CLIP's image encoders were shown their pictures.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA, and how strongly it acts.

    file: a path or hub id, see `fresco.weights.find`
    weight: usually 0 to 1; negative ones turn it round
    text_weight: of its part in the text encoders; as `weight` by default
    """

    file: str | Path
    weight: float = 1.0
    text_weight: float | None = None


@dataclass(frozen=True, slots=True)
class Inversion:
    """A textual inversion: a word with a meaning of its own.

    word: what stands for it in prompts; by default the word in the file, else the file's name
    """

    file: str | Path
    word: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class IPAdapter:
    """An IP-Adapter and the pictures that it passes on.

    pictures: (3, H, W) in [0, 1] each, of any size
    scale: how strongly they act, 0 to 1
    """

    file: str | Path
    pictures: Sequence[Tensor]
    scale: float = 0.6


@dataclass(frozen=True, slots=True)
class FreeU:
    """FreeU's factors (Si et al., CVPR 2024): skips s1, s2 and backbone b1, b2; for SD 1.5."""

    s1: float = 0.9
    s2: float = 0.2
    b1: float = 1.5
    b2: float = 1.6


class Adapters:
    """What a model wears. One object per model, for as long as the model lives."""

    def __init__(self, model: Model) -> None:
        self.model = model
        #: What is known to act; None while something is being changed, or that failed.
        self._inversions: tuple[Any, ...] | None = ()
        self._ip_files: tuple[Any, ...] | None = ()
        self._plain = [
            (copy.deepcopy(tokenizer), encoder.get_input_embeddings())
            for tokenizer, encoder in model.text_parts
        ]

    def wear(self, loras: Sequence[Lora]) -> None:
        """Have exactly these LoRAs act. Those known already are not read again.

        Raises:
            MissingWeights, InvalidInput: a file that is not there, damaged or no LoRA.
            UnsupportedModel: a LoRA for another kind of model.
        """
        files = [weights.weight_file(lora.file, _USUAL_LORA) for lora in loras]
        names = [_name(file) for file in files]
        strengths = [self._weights(lora) for lora in loras]
        if len(set(names)) < len(names):
            raise InvalidInput("a LoRA is listed twice; list it once, with the sum of its weights.")
        known = self.loras
        if not names and not known:
            return
        pipeline = self._pipeline()
        for name, file in zip(names, files, strict=True):
            if name not in known:
                self._read_lora(pipeline, name, file)
        if not names:
            pipeline.disable_lora()
            return
        with quietly():
            pipeline.enable_lora()
            pipeline.set_adapters(names, strengths)

    @property
    def loras(self) -> set[str]:
        """The names of all LoRAs in memory, whether they act or not."""
        return {name for part in self._wearing for name in getattr(part, "peft_config", {})}

    @property
    def _wearing(self) -> list[nn.Module]:
        """The networks that a LoRA may change."""
        return [self.model.unet, *(encoder for _, encoder in self.model.text_parts)]

    def drop_idle_loras(self, worn: Sequence[Lora]) -> None:
        """Free the memory of LoRAs that are not in `worn`."""
        wanted = {_name(weights.weight_file(lora.file, _USUAL_LORA)) for lora in worn}
        self._drop(sorted(self.loras - wanted))

    def learn(self, inversions: Sequence[Inversion]) -> None:
        """Have the text encoders know exactly these words.

        Raises:
            MissingWeights, InvalidInput: a file that is not there or damaged, or a word is taken.
            UnsupportedModel: one made for another kind of text encoder.
        """
        files = [weights.weight_file(inversion.file) for inversion in inversions]
        asked = tuple(
            (weights.identity(file), inversion.word)
            for file, inversion in zip(files, inversions, strict=True)
        )
        if asked == self._inversions:
            return
        self._forget()
        for inversion in inversions:
            self._read_inversion(inversion)
        self._inversions = asked

    def look(self, adapters: Sequence[IPAdapter], halves: int) -> dict[str, Any]:
        """Have exactly these IP-Adapters act; return what `fresco.request.Options.added` takes.

        halves: of classifier-free guidance, `fresco.schedule.Settings.halves`

        Raises:
            MissingWeights, InvalidInput: a file that is not there, damaged, or no pictures.
            UnsupportedModel: an adapter for another kind of model, or no image encoder.
        """
        files = [weights.weight_file(adapter.file) for adapter in adapters]
        asked = tuple(weights.identity(file) for file in files)
        if not asked and self._ip_files == ():
            return {}
        pipeline = self._pipeline()
        if asked != self._ip_files:
            if self._ip_files != ():
                pipeline.unload_ip_adapter()
            self._ip_files = None
            if files:
                self._read_ip_adapters(pipeline, files)
            self._ip_files = asked
        if not adapters:
            return {}
        encoder = self.model.image_encoder
        pipeline.register_modules(image_encoder=encoder)
        pipeline.set_ip_adapter_scale([adapter.scale for adapter in adapters])
        pictures = [_as_clip_sees(adapter, encoder.config.image_size) for adapter in adapters]
        home = next(encoder.parameters()).device  # elsewhere after a job that offloaded networks
        away = home != self.model.device
        with torch.no_grad(), placed(self.model.device, away, encoder):
            embeds = pipeline.prepare_ip_adapter_image_embeds(
                pictures, None, self.model.device, 1, halves == 2
            )
        return {"image_embeds": [embed.to(self.model.dtype) for embed in embeds]}

    def free_u(self, factors: FreeU | None) -> None:
        """Switch FreeU on or off."""
        if factors is None:
            self.model.unet.disable_freeu()
        else:
            self.model.unet.enable_freeu(factors.s1, factors.s2, factors.b1, factors.b2)

    def _pipeline(self) -> Any:
        """A pipeline of diffusers around the very same networks, for its loaders."""
        model = self.model
        parts: dict[str, Any] = {
            "vae": model.vae,
            "text_encoder": model.text_encoder,
            "tokenizer": model.tokenizer,
            "unet": model.unet,
            # Not the model's: the pipeline changes settings of it that it thinks outdated.
            "scheduler": DDPMScheduler(steps_offset=1, clip_sample=False),
            "feature_extractor": None,
        }
        if model.is_xl:
            second = {"text_encoder_2": model.text_encoder_2, "tokenizer_2": model.tokenizer_2}
            extras: dict[str, Any] = {**second, "add_watermarker": False}
        else:
            extras = {"safety_checker": None, "requires_safety_checker": False}
        with quietly():
            return pipeline_class(model.is_xl)(**parts, **extras)

    def _read_lora(self, pipeline: Any, name: str, file: Path) -> None:
        found = lora_files.read(file)
        expected = lora_files.layers(found)
        try:
            with weights.guarded(file):
                pipeline.load_lora_weights(found, adapter_name=name)
            acting = self._layers(name)
        except InvalidInput as error:
            self._drop([name])
            raise UnsupportedModel(
                f"{file.name} does not fit this model: its layers have other shapes or names; it "
                "was made for another kind of model."
            ) from error
        if acting < expected:
            self._drop([name])
            raise UnsupportedModel(
                f"{file.name} changes {expected} layers, of which this model has {acting}; it was "
                "made for another kind of model."
            )

    def _drop(self, names: Sequence[str]) -> None:
        there = [name for name in names if name in self.loras]
        if there:
            with quietly():
                self._pipeline().delete_adapters(there)

    def _layers(self, lora: str) -> int:
        layers = [layer for part in self._wearing for layer in part.modules()]
        return sum(isinstance(x, BaseTunerLayer) and lora in _adapter_names(x) for x in layers)

    def _weights(self, lora: Lora) -> dict[str, float]:
        text = lora.weight if lora.text_weight is None else lora.text_weight
        if not (math.isfinite(lora.weight) and math.isfinite(text)):
            raise InvalidInput(f"{lora.file} has the weight {lora.weight}; use a number.")
        parts = ("unet", "text_encoder", "text_encoder_2")[: 1 + len(self.model.text_parts)]
        return {part: lora.weight if part == "unet" else text for part in parts}

    def _read_inversion(self, inversion: Inversion) -> None:
        file = weights.weight_file(inversion.file)
        found = weights.tensors(file)
        names = ["clip_l", "clip_g"][: len(self.model.text_parts)]
        if self.model.is_xl and not set(names) <= set(found):
            raise UnsupportedModel(f"{file.name} is no textual inversion for SDXL.")
        if not self.model.is_xl and len(found) != 1:
            raise UnsupportedModel(
                f"{file.name} holds {', '.join(found)}; expected one embedding, as textual "
                "inversions for Stable Diffusion 1.5 and 2 have."
            )
        word = inversion.word or _word(file, found)
        tables = [found[name] for name in names] if self.model.is_xl else list(found.values())
        tables = [table.reshape(-1, table.shape[-1]) for table in tables]
        tokens = [word, *(f"{word}\u2063{place}" for place in range(1, len(tables[0])))]
        for table, (tokenizer, encoder) in zip(tables, self.model.text_parts, strict=True):
            known = encoder.get_input_embeddings()
            if table.shape[-1] != known.embedding_dim:
                raise UnsupportedModel(
                    f"{file.name} is {table.shape[-1]} wide, the text encoder "
                    f"{known.embedding_dim}; it was made for another kind of model."
                )
            if word in tokenizer.get_vocab() or tokenizer.add_tokens(tokens) != len(tokens):
                raise InvalidInput(
                    f"{file.name}: {word!r} is a word that the model knows already; name another."
                )
            whole = torch.cat((known.weight, table[: len(tokens)].to(known.weight)))
            encoder.set_input_embeddings(nn.Embedding.from_pretrained(whole))
        self.model.words[word] = tuple(tokens)

    def _forget(self) -> None:
        """Give tokenizers and text encoders back the words that they came with."""
        fresh = [copy.deepcopy(tokenizer) for tokenizer, _ in self._plain]
        for (_, encoder), (_, table) in zip(self.model.text_parts, self._plain, strict=True):
            encoder.set_input_embeddings(table.to(encoder.device))
        self._inversions = None
        self.model.words = {}
        if fresh:
            self.model.tokenizer = fresh[0]
        if len(fresh) == 2:
            self.model.tokenizer_2 = fresh[1]

    def _read_ip_adapters(self, pipeline: Any, files: Sequence[Path]) -> None:
        if self.model.image_encoder is None:
            raise UnsupportedModel(
                "an IP-Adapter needs an image encoder, and none was given; name its folder."
            )
        states = [_parted(file, self.model.image_encoder.config) for file in files]
        with weights.guarded(Path(", ".join(file.name for file in files))):
            pipeline.register_modules(
                image_encoder=self.model.image_encoder, feature_extractor=_Unused()
            )
            pipeline.load_ip_adapter(states, subfolder="", weight_name=[f.name for f in files])
        nn.Module.to(self.model.unet, self.model.device, self.model.dtype)


_USUAL_LORA = "pytorch_lora_weights.safetensors"
_BARE_EMBEDDING = "emb_params"


def _name(file: Path) -> str:
    """A name for a file as it is now; without dots, as peft asks."""
    return f"{_plain(file.stem)}_{weights.identity(file)}"


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _adapter_names(layer: Any) -> set[str]:
    return {name for table in layer.adapter_layer_names for name in getattr(layer, table, ())}


def _word(file: Path, found: Mapping[str, Tensor]) -> str:
    """The word that a textual inversion's file gives itself, else its name."""
    (name, *others) = found
    return file.stem if others or name == _BARE_EMBEDDING else name


def _parted(file: Path, encoder: Any) -> dict[str, dict[str, Tensor]]:
    """An IP-Adapter's file as diffusers takes it: its projection and its attention layers.

    encoder: the configuration of the image encoder that it is to see through
    """
    found = weights.tensors(file)
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in found.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            kind = weights.what_is(found)
            raise InvalidInput(f"{file.name} ({kind}) is no IP-Adapter; add it as what it is.")
        parts[part][rest] = value
    if any("lora" in key for key in parts["ip_adapter"]):
        raise UnsupportedModel(
            f"{file.name} is a FaceID adapter, which needs a face recogniser; use a plain one."
        )
    _check_width(file, parts["image_proj"], encoder)
    return parts


def _check_width(file: Path, projection: Mapping[str, Tensor], encoder: Any) -> None:
    """Check that the adapter reads what the encoder writes (one vector, or for *plus* many)."""
    plain, plus = projection.get("proj.weight"), projection.get("proj_in.weight")
    first = plain if plain is not None else plus
    width = encoder.projection_dim if plain is not None else encoder.hidden_size
    if first is not None and first.shape[1] != width:
        raise UnsupportedModel(
            f"{file.name} reads image embeddings {first.shape[1]} wide, the image encoder makes "
            f"{width}; name the encoder that the adapter was published with."
        )


def _as_clip_sees(adapter: IPAdapter, size: int) -> Tensor:
    """An adapter's pictures as CLIP's image encoder takes them: (count, 3, size, size)."""
    if not adapter.pictures:
        raise InvalidInput("an IP-Adapter has no picture to pass on; give one or more.")
    try:
        checked = [stack([picture])[0] for picture in adapter.pictures]
    except InvalidInput as error:
        raise InvalidInput(f"a picture for an IP-Adapter cannot be used: {error}") from error
    return torch.stack([_cropped(picture.float(), size) for picture in checked])


def _cropped(picture: Tensor, size: int) -> Tensor:
    """The middle of a picture, its short side `size`, normalised."""
    height, width = picture.shape[-2:]
    scale = size / min(height, width)
    fitting = [max(size, round(side * scale)) for side in (height, width)]
    small = F.interpolate(picture[None], fitting, mode="bicubic", antialias=True)[0].clamp(0, 1)
    top, left = ((side - size) // 2 for side in fitting)
    middle = small[:, top : top + size, left : left + size]
    mean, std = (
        torch.tensor(values)[:, None, None].to(middle) for values in (_CLIP_MEAN, _CLIP_STD)
    )
    return (middle - mean) / std


class _Unused:
    """Stands for the feature extractor: pictures are brought to CLIP's form here."""
