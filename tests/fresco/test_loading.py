"""Every loading path, with tiny random weights in the real file formats."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from fresco import families, loading
from fresco.errors import InvalidInput, MissingWeights, UnsupportedModel
from fresco.loading import load
from fresco.models import Model
from fresco.request import Options
from fresco.schedule import Settings
from fresco.translate import translate
from tests.fresco import formats, tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return formats.write_folder(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    return formats.config_of(folder, folder.parent / "config")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    return formats.write_checkpoint(folder, folder.parent / "checkpoint.safetensors")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading must never reach for the network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("loading a model asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def states(model: Model) -> dict[str, Tensor]:
    parts = {"unet": model.unet, "vae": model.vae, "text": model.text_encoder}
    return {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def restyled(model: Model, **options: Any) -> Tensor:
    frames = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    settings = Settings.plain(steps=2)  # without the optimisation, which magnifies rounding
    return translate(
        frames, model, Options(settings=settings, **options), prompts="ab", strengths=1.0
    ).images


def test_a_folder_gives_the_networks_that_were_written(folder: Path) -> None:
    model = load(folder, device=CPU)
    written = UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    assert same(written, model.unet.state_dict())
    assert not model.unet.training
    assert not any(parameter.requires_grad for parameter in model.unet.parameters())
    assert type(model.scheduler).__name__ == "DDPMScheduler"
    assert model.tokenizer.model_max_length == 16


def test_a_checkpoint_file_gives_the_same_model_as_its_folder(
    folder: Path, config: Path, checkpoint: Path
) -> None:
    a, b = load(folder, device=CPU), load(checkpoint, config=config, device=CPU)
    assert same(states(a), states(b))
    torch.testing.assert_close(restyled(a), restyled(b), atol=1e-5, rtol=0)


def test_a_model_is_brought_to_the_wanted_type(folder: Path) -> None:
    model = load(folder, device=CPU, dtype=torch.bfloat16)
    assert {parameter.dtype for part in model.modules for parameter in part.parameters()} == {
        torch.bfloat16
    }


def test_the_packages_settings_make_networks_of_the_published_sizes() -> None:
    """The parameter counts of the published models."""
    published = {"sd15": 859_520_964, "sd2": 865_910_724, "sdxl": 2_567_463_684}
    for family in families.FAMILIES:
        with torch.device("meta"):
            config = UNet2DConditionModel.load_config(family.folder / "unet")
            unet = UNet2DConditionModel.from_config(config)
            vae = AutoencoderKL.from_config(AutoencoderKL.load_config(family.folder / "vae"))
        assert unet.num_parameters() == published[family.name]
        assert vae.num_parameters() == 83_653_863


def test_the_packages_tokenizer_reads_as_clips() -> None:
    """Numbers that CLIP's own tokenizer gives for these words."""
    tokenizer = loading._words("<|endoftext|>")
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer.pad_token_id == 49407
    assert loading._words("!").pad_token_id == 0


def test_a_full_size_checkpoint_is_told_to_be_stable_diffusion_15() -> None:
    first = "model.diffusion_model.input_blocks.0.0.weight"
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    xl_key = key.replace("blocks.1.1", "blocks.4.1")
    four = {first: (320, 4, 3, 3)}
    assert families.of_checkpoint("x", {**four, key: (320, 768)}) is families.SD15
    assert families.of_checkpoint("x", {**four, key: (320, 1024)}) is families.SD2
    assert families.of_checkpoint("x", {**four, xl_key: (640, 2048)}) is families.SDXL
    for shapes, reason in (
        ({first: (320, 9, 3, 3), key: (320, 768)}, "9 channels"),
        ({**four, xl_key: (768, 1280)}, "refiner"),
        ({"double_blocks.0.img_attn.proj.weight": (1, 1)}, "transformer"),
        ({"down_blocks.0.attentions.0.proj_in.weight": (1, 1)}, "no model that is known"),
        ({"lora_unet_down_blocks_0.lora_down.weight": (1, 1)}, "is a LoRA"),
        ({"control_model.time_embed.0.weight": (1, 1)}, "is a ControlNet"),
        ({"emb_params": (1, 768)}, "is a textual inversion"),
        ({"decoder.conv_in.weight": (1, 1, 1, 1)}, "is a VAE"),
        ({"whatever": (1,)}, "no model that is known"),
    ):
        with pytest.raises(UnsupportedModel, match=reason):
            families.of_checkpoint("x", shapes)


def test_a_checkpoint_with_the_oldest_names_of_the_text_encoder(
    folder: Path, config: Path, checkpoint: Path, tmp_path: Path
) -> None:
    prefix = "cond_stage_model.transformer."
    old = {k.replace(f"{prefix}text_model.", prefix): v for k, v in load_file(checkpoint).items()}
    save_file(old, tmp_path / "old.safetensors")
    read = load(tmp_path / "old.safetensors", config=config, device=CPU)
    assert same(states(read), states(load(folder, device=CPU)))


def test_a_checkpoint_with_averaged_weights_beside_the_others(
    folder: Path, config: Path, tmp_path: Path
) -> None:
    extra = {
        "model_ema.decay": torch.tensor(0.9),
        "model_ema.diffusion_modelout2bias": torch.ones(4),
    }
    file = formats.write_checkpoint(folder, tmp_path / "x.safetensors", **extra)
    assert same(states(load(file, config=config, device=CPU)), states(load(folder, device=CPU)))


def test_a_half_precision_checkpoint(folder: Path, config: Path, tmp_path: Path) -> None:
    file = formats.write_checkpoint(folder, tmp_path / "x.safetensors")
    save_file({key: value.half() for key, value in load_file(file).items()}, file)
    model = load(file, config=config, device=CPU, dtype=torch.float32)
    expected = states(load(folder, device=CPU))
    assert all(
        torch.equal(value, expected[key].half().float()) for key, value in states(model).items()
    )


def test_a_checkpoint_with_stable_diffusion_2s_text_encoder(
    folder: Path, config: Path, tmp_path: Path
) -> None:
    file = formats.write_open_clip_checkpoint(folder, tmp_path / "x.safetensors")
    read = load(file, config=config, device=CPU)
    assert same(states(read), states(load(folder, device=CPU)))


def test_an_sdxl_checkpoint_gives_the_same_model_as_its_folder(tmp_path: Path) -> None:
    folder = formats.write_folder(tmp_path / "xl", xl=True)
    config = formats.config_of(folder, tmp_path / "config")
    file = formats.write_xl_checkpoint(folder, tmp_path / "xl.safetensors")
    a, b = load(folder, device=CPU), load(file, config=config, device=CPU)
    assert same(states(a), states(b))
    assert same(a.text_encoder_2.state_dict(), b.text_encoder_2.state_dict())
    assert a.zero_empty
    assert b.zero_empty
    torch.testing.assert_close(restyled(a), restyled(b), atol=1e-5, rtol=0)
    other_noise = formats.write_xl_checkpoint(
        folder, tmp_path / "edm.safetensors", edm_mean=torch.zeros(4)
    )
    with pytest.raises(UnsupportedModel, match="EDM"):
        load(other_noise, device=CPU)


def test_sharded_weights(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(copy / "unet", max_shard_size="100KB")
    assert len(list((copy / "unet").glob("*.safetensors"))) > 1
    assert same(states(load(copy, device=CPU)), states(load(folder, device=CPU)))
    assert loading.size(copy, torch.float32) == loading.size(folder, torch.float32)
    next((copy / "unet").glob("*00001-of*")).unlink()
    with pytest.raises(InvalidInput, match="unet"):
        load(copy, device=CPU)


def test_the_size_is_what_is_read(folder: Path, config: Path, checkpoint: Path) -> None:
    model = load(folder, device=CPU)
    numbers = sum(value.numel() for value in states(model).values())
    assert loading.size(folder, torch.float16) == 2 * numbers
    assert loading.size(checkpoint, torch.float32) == 4 * (numbers + 1000)  # its betas, unused


@pytest.mark.parametrize(
    ("extra", "metadata", "expected"),
    [
        ({}, None, "epsilon"),
        ({"v_pred": torch.tensor([])}, None, "v_prediction"),
        ({}, {"modelspec.prediction_type": "v"}, "v_prediction"),
    ],
)
def test_what_a_checkpoint_predicts_is_read_off_it(
    folder: Path,
    config: Path,
    tmp_path: Path,
    extra: dict[str, Tensor],
    metadata: dict[str, str] | None,
    expected: str,
) -> None:
    file = formats.write_checkpoint(folder, tmp_path / "x.safetensors", **extra)
    save_file(load_file(file), file, metadata=metadata)
    model = load(file, config=config, device=CPU)
    assert model.scheduler.config.prediction_type == expected
    told = load(file, config=config, device=CPU, prediction="sample")
    assert told.scheduler.config.prediction_type == "sample"


def test_zero_terminal_noise_is_read_off_a_checkpoint(
    folder: Path, config: Path, tmp_path: Path
) -> None:
    markers = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    file = formats.write_checkpoint(folder, tmp_path / "x.safetensors", **markers)
    scheduler = load(file, config=config, device=CPU).scheduler
    assert float(scheduler.alphas_cumprod[-1]) == 0


def test_an_incomplete_checkpoint_is_refused(
    folder: Path, config: Path, checkpoint: Path, tmp_path: Path
) -> None:
    whole = load_file(checkpoint)
    for lost, what in (
        ("model.diffusion_model.out.2.weight", "conv_out|meta"),
        ("first_stage_model.decoder.conv_out.bias", "conv_out|meta"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.weight", "lacks 1 weights"),
    ):
        file = tmp_path / "incomplete.safetensors"
        save_file({key: value for key, value in whole.items() if key != lost}, file)
        with pytest.raises(InvalidInput, match=what):
            load(file, config=config, device=CPU)


def test_a_checkpoint_without_vae_wants_one_beside_it(
    folder: Path, config: Path, checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "pruned.safetensors"
    kept = {k: v for k, v in load_file(checkpoint).items() if not k.startswith("first_stage")}
    save_file(kept, file)
    with pytest.raises(UnsupportedModel, match="brings no VAE"):
        load(file, config=config, device=CPU)
    model = load(file, config=config, vae=folder / "vae", device=CPU)
    expected = restyled(load(folder, device=CPU))
    torch.testing.assert_close(restyled(model), expected, atol=1e-5, rtol=0)


def test_a_truncated_file_is_refused(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.safetensors"
    data = checkpoint.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidInput, match="damaged"):
        load(file, device=CPU)
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        load(copy, device=CPU)


def test_an_incomplete_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    for part in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        file = copy / f"{part}.safetensors"
        whole = load_file(file)
        lost = sorted(whole)[0]
        save_file({k: v for k, v in whole.items() if k != lost}, file, metadata={"format": "pt"})
        with pytest.raises(InvalidInput, match=r"lacks 1 weights.*" + lost.split(".")[-1]):
            load(copy, device=CPU)
        save_file(whole, file, metadata={"format": "pt"})
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="incomplete"):
        load(copy, device=CPU)
    shutil.copytree(folder / "vae", copy / "vae", dirs_exist_ok=True)
    (copy / "tokenizer" / "vocab.json").write_text("[]")
    with pytest.raises(InvalidInput, match="tokenizer cannot be read"):
        load(copy, device=CPU)
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(InvalidInput, match="tokenizer"):
        load(copy, device=CPU)


class _Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "model.pth"])
def test_files_that_can_carry_code_are_not_opened(name: str, tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    (tmp_path / name).write_bytes(pickle.dumps(_Bomb(fired)))
    with pytest.raises(InvalidInput, match="carry code"):
        load(tmp_path / name, device=CPU)
    assert not fired.exists()


def test_a_folder_with_pickled_weights_only_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    fired = tmp_path / "fired"
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(fired)))
    with pytest.raises(InvalidInput, match="carry code"):
        load(copy, device=CPU)
    assert not fired.exists()


def test_a_folder_cannot_name_other_classes(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    file = copy / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "FluxTransformer"}))
    with pytest.raises(UnsupportedModel, match="FluxTransformer"):
        load(copy, device=CPU)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"_class_name": "FluxPipeline"}, "decoder of a U-Net"),
        ({"_class_name": "StableDiffusion3Pipeline"}, "decoder of a U-Net"),
        (
            {
                "_class_name": "StableDiffusionXLImg2ImgPipeline",
                "unet": ["diffusers", "UNet2DConditionModel"],
                "text_encoder": [None, None],
                "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            },
            "refiner",
        ),
    ],
)
def test_other_kinds_of_models_are_refused_with_the_reason(
    folder: Path, tmp_path: Path, index: dict[str, Any], reason: str
) -> None:
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedModel, match=reason):
        load(copy, device=CPU)


def test_damaged_settings_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder"
    for file, text, error, reason in (
        ("model_index.json", "[]", InvalidInput, "no table"),
        ("unet/config.json", "{", InvalidInput, "damaged"),
        ("scheduler/scheduler_config.json", "{}", UnsupportedModel, "noise schedule"),
        ("scheduler/scheduler_config.json", '{"beta_schedule": "x"}', InvalidInput, "cannot be"),
        (
            "scheduler/scheduler_config.json",
            '{"_class_name": "FlowMatchEulerDiscreteScheduler", "beta_schedule": "linear"}',
            UnsupportedModel,
            "FlowMatch",
        ),
    ):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        (copy / file).write_text(text)
        with pytest.raises(error, match=reason):
            load(copy, device=CPU)


def test_settings_that_cannot_be_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot predict 'foo'"):
        load(folder, device=CPU, prediction="foo")
    with pytest.raises(InvalidInput, match="clip skip is 0"):
        load(folder, device=CPU, clip_skip=0)


@pytest.mark.parametrize("name", ["", " ", "a/b--c", "a/.b", "x" * 5000, "a b/c d"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(MissingWeights):
        load(name, device=CPU)


def test_an_inpainting_model_is_refused(tmp_path: Path) -> None:
    folder = formats.write_folder(tmp_path / "inpainting", in_channels=9)
    with pytest.raises(UnsupportedModel, match="9 channels"):
        load(folder, device=CPU)


def test_half_precision_files_are_found_by_their_variant(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    for part in ("unet", "vae"):
        file = copy / part / "diffusion_pytorch_model.safetensors"
        file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    file = copy / "text_encoder" / "model.safetensors"
    file.rename(file.with_name("model.fp16.safetensors"))
    assert same(states(load(copy, device=CPU)), states(load(folder, device=CPU)))


def test_what_is_missing_is_named_with_the_command_that_brings_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match="fresco-bridge models download some/model"):
        load("some/model", device=CPU)
    with pytest.raises(MissingWeights, match=r"no file or folder .*nowhere\.safetensors"):
        load(tmp_path / "nowhere.safetensors", device=CPU)
    with pytest.raises(MissingWeights, match="download some/net"):
        load(folder, controlnets=["some/net"], device=CPU)


def test_a_hub_id_is_found_in_the_local_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--some--model"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert same(states(load("some/model", device=CPU)), states(load(folder, device=CPU)))
    vae = loading.read_vae("some/model:vae", torch.float32)
    assert same(vae.state_dict(), load(folder, device=CPU).vae.state_dict())


def test_another_vae_from_a_folder(folder: Path, tmp_path: Path) -> None:
    other = tiny.vae()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
    other.save_pretrained(tmp_path / "vae")
    model = load(folder, vae=tmp_path / "vae", device=CPU)
    assert same(model.vae.state_dict(), other.state_dict())
    assert not torch.equal(restyled(model), restyled(load(folder, device=CPU)))


def test_a_vae_file_of_the_published_size_with_original_keys(tmp_path: Path) -> None:
    """As vae-ft-mse-840000 comes: the settings are the package's, so the widths are the real."""
    config = AutoencoderKL.load_config(families.SD15.folder / "vae")
    torch.manual_seed(3)
    vae = AutoencoderKL.from_config(config).half()
    out: dict[str, Tensor] = {}
    for key, value in vae.state_dict().items():
        name = formats.vae_key(key)
        conv = ".mid.attn_1." in name and value.ndim == 2
        out[name] = (value[:, :, None, None] if conv else value).contiguous()
    save_file(out, tmp_path / "vae.safetensors")
    read = loading.read_vae(tmp_path / "vae.safetensors", torch.float16)
    assert same(read.state_dict(), vae.state_dict())
    assert read.config.scaling_factor == 0.18215
    xl = loading.read_vae(tmp_path / "vae.safetensors", torch.float16, families.SDXL)
    assert xl.config.scaling_factor == 0.13025
    with pytest.raises(UnsupportedModel, match=r"\(VAE\) is no ControlNet"):
        loading.read_controlnet(tmp_path / "vae.safetensors", torch.float16)


def test_controlnets_from_folders(folder: Path, tmp_path: Path) -> None:
    net = tiny.controlnet(tiny.unet())
    net.save_pretrained(tmp_path / "net")
    model = load(folder, controlnets=[tmp_path / "net", tmp_path / "net"], device=CPU)
    assert len(model.controlnets) == 2
    assert same(model.controlnets[0].state_dict(), net.state_dict())


def test_a_controlnet_of_another_family_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tiny.unet(cross_attention_dim=24)
    tiny.controlnet(other).save_pretrained(tmp_path / "net")
    with pytest.raises(UnsupportedModel, match="different families"):
        load(folder, controlnets=[tmp_path / "net"], device=CPU)


def test_a_controlnet_file_with_the_originals_keys(folder: Path, tmp_path: Path) -> None:
    net = tiny.controlnet(tiny.unet())
    net.save_pretrained(tmp_path / "net")
    settings = formats.config_of(tmp_path / "net", tmp_path / "settings")
    file = formats.write_controlnet_checkpoint(net, tmp_path / "net.safetensors")
    read = loading.read_controlnet(file, torch.float32, settings)
    assert same(read.state_dict(), net.state_dict())
    plain = tmp_path / "net" / "diffusion_pytorch_model.safetensors"
    again = loading.read_controlnet(plain, torch.float32, settings)
    assert same(again.state_dict(), net.state_dict())


def test_a_controlnet_file_is_told_by_its_keys() -> None:
    key = "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    assert families.of_controlnet("x", {key: (320, 768)}) is families.SD15
    with pytest.raises(UnsupportedModel, match=r"x \(LoRA\) is no ControlNet"):
        families.of_controlnet("x", {"lora_unet_x.lora_up.weight": (1, 1)})
    with pytest.raises(UnsupportedModel, match="several kinds of maps"):
        families.of_controlnet("x", {key: (320, 768), "task_embedding": (6, 320)})


def test_taesd_draws_the_previews(folder: Path, tmp_path: Path) -> None:
    taesd = formats.write_taesd(tmp_path / "taesd")
    model = load(folder, preview_vae=taesd, device=CPU)
    drawn: list[Tensor] = []
    restyled(model, on_step=lambda step: drawn.append(step.preview()))
    assert drawn[0].shape == (2, 3, 64, 64)
    estimated: list[Tensor] = []
    restyled(load(folder, device=CPU), on_step=lambda step: estimated.append(step.preview()))
    assert estimated[0].shape == (2, 3, 8, 8)


def test_taesd_of_the_published_size_comes_as_one_file(tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    torch.manual_seed(2)
    AutoencoderTiny().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    (tmp_path / "config.json").unlink()
    read = loading.read_preview_vae(file, torch.float32)
    assert same(read.state_dict(), load_file(file))
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(InvalidInput, match="no TAESD"):
        loading.read_preview_vae(file, torch.float32)


def test_an_sdxl_folder_translates(tmp_path: Path) -> None:
    model = load(formats.write_folder(tmp_path / "xl", xl=True), device=CPU)
    assert model.is_xl
    images = restyled(model)
    assert images.shape == (2, 3, 64, 64)
    assert images.isfinite().all()


def test_libraries_keep_quiet_and_their_settings(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = (diffusers_logging.get_verbosity(), transformers_logging.get_verbosity())
    load(folder, device=CPU)
    assert before == (diffusers_logging.get_verbosity(), transformers_logging.get_verbosity())
    assert diffusers_logging.is_progress_bar_enabled()
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.skipif("FRESCO_BRIDGE_LONG" not in os.environ, reason="long: 4 GB; make test-long")
def test_a_checkpoint_of_the_real_size_loads_by_the_packages_settings_alone(
    tmp_path: Path,
) -> None:
    """859 M random weights in half precision under the key names of Stable Diffusion 1.5."""
    folder = tmp_path / "full"
    torch.manual_seed(0)
    formats.write_full_size(folder)
    file = formats.write_checkpoint(folder, tmp_path / "full.safetensors")
    expected = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float16)
    model = load(file, device=CPU, dtype=torch.float16)
    assert same(model.unet.state_dict(), expected.state_dict())
    assert model.text_encoder.config.hidden_act == "quick_gelu"
    assert model.multiple == 64
