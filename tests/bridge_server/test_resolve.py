"""From names to a model that translates: through the catalogue, a download and the loaders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bridge_server import additions, catalogue, config, downloads
from bridge_server.catalogue import Role
from bridge_server.config import Config
from bridge_server.errors import NotAsPinned
from bridge_server.resolve import control_estimator, resolve, with_preset
from fresco.adapters import Inversion, IPAdapter, Lora
from fresco.annotators import HedNetwork
from fresco.control import WEIGHTS, control_maps
from fresco.errors import InvalidInput, MissingWeights
from fresco.request import Options
from fresco.samplers import preset, presets
from fresco.schedule import Settings
from fresco.translate import translate
from fresco.warm import ModelSpec, WarmModels
from tests.bridge_server.hub_server import HubServer
from tests.fresco import formats, tiny

CPU = torch.device("cpu")


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def published(hub: HubServer, tmp_path: Path) -> HubServer:
    """A hub with a small model, an IP-Adapter with its encoder, and a LoRA."""
    hub.publish("tiny/base", files(formats.write_folder(tmp_path / "base")))
    adapter = tmp_path / "ip" / "models"
    adapter.mkdir(parents=True)
    formats.write_ip_adapter(adapter / "ip-adapter_tiny.safetensors", tiny.unet())
    formats.write_image_encoder(adapter / "image_encoder")
    hub.publish("tiny/ip", files(tmp_path / "ip"))
    return hub


def add(name: str, target: str, role: Role, settings: Config, **fields: str) -> None:
    additions.add(name, target, {"role": role.value, "licence": "mit", **fields}, settings)


def fetch(name: str, settings: Config) -> None:
    entry = catalogue.load(settings).find(name)
    downloads.download(entry, settings, downloads.Wish(accept_licence=True))


def test_names_become_a_model_that_translates(
    published: HubServer, settings: Config, tmp_path: Path
) -> None:
    add("base", "tiny/base", Role.BASE, settings, family="sd15")
    with settings.catalogue_file.open("a", encoding="utf-8") as catalogue_file:
        catalogue_file.write('[ip]\nrole = "ip-adapter"\nrepository = "tiny/ip"\n')
        catalogue_file.write('title = "Small"\nfiles = ["models/*", "models/image_encoder/*"]\n')
    unet = tiny.unet()
    tiny.controlnet(unet).save_pretrained(tmp_path / "net")
    add("net", str(tmp_path / "net"), Role.CONTROLNET, settings, control="canny")
    lora = formats.write_diffusers_lora(tmp_path / "lcm.safetensors", unet)
    add("lcm-lora-sd15", str(lora), Role.LORA, settings)
    word = formats.write_inversion(tmp_path / "zap.safetensors")
    spec = ModelSpec(
        "base",
        controlnets=["net"],
        inversions=[Inversion(str(word))],
        ip_adapters=[IPAdapter("ip", [torch.rand(3, 20, 20)])],
    )
    with pytest.raises(MissingWeights) as missing:
        resolve(spec, settings)
    for name in ("base", "ip"):
        assert f"fresco-bridge models download {name}" in str(missing.value)
    for name in ("base", "ip"):
        fetch(name, settings)
    published.requests.clear()

    wanted = resolve(with_preset(spec, "lcm", settings), settings)
    chosen = preset("lcm").settings(Settings.plain())
    ready = WarmModels(10**9, CPU).get(wanted, chosen.halves)
    frames = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    images = translate(
        frames,
        ready.model,
        Options(settings=chosen, added=ready.added),
        prompts="zap",
        controls=[control_maps(frames, control_estimator("canny", settings))],
    ).images
    assert images.shape == frames.shape
    assert images.isfinite().all()
    assert type(ready.model.scheduler).__name__ == "LCMScheduler"
    assert [name.partition("_")[0] for name in ready.model.unet.peft_config] == ["lcm"]
    assert published.requests == []  # everything came from this machine


def test_the_draft_model_needs_nothing_but_its_names(settings: Config) -> None:
    spec = resolve(ModelSpec("fresco-draft", controlnets=["fresco-draft-tile"]), settings)
    ready = WarmModels(10**9, CPU).get(spec)
    frames = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    images = translate(
        frames,
        ready.model,
        Options(settings=Settings.plain(steps=2, guidance_scale=2.0)),
        prompts="watercolour",
        controls=[control_maps(frames, control_estimator("tile", settings))],
    ).images
    assert images.isfinite().all()


def test_a_preset_brings_its_lora_once_and_only_to_its_family(settings: Config) -> None:
    spec = with_preset(ModelSpec("sd15", loras=[Lora("mine", 0.4)]), "hyper", settings)
    assert [(lora.file, lora.weight) for lora in spec.loras] == [
        ("mine", 0.4),
        ("hyper-sd15-8step", 1.0),
    ]
    assert spec.sampler == "ddim_trailing"
    assert with_preset(spec, "hyper", settings).loras == spec.loras
    assert with_preset(ModelSpec("sd15"), "quality", settings).loras == []
    with pytest.raises(InvalidInput, match="hyper is made for sd15, and sdxl is of sdxl"):
        with_preset(ModelSpec("sdxl"), "hyper", settings)


def test_what_presets_and_maps_name_is_in_the_catalogue() -> None:
    known = catalogue.load(config.load())
    for entry in presets().values():
        if entry.lora:
            assert known[entry.lora].role is Role.LORA
            family = known[entry.lora].family
            assert family is not None
            assert [family.value] == list(entry.families)
    for name in WEIGHTS.values():
        assert known[name].role is Role.ANNOTATOR


def test_a_model_for_something_else_is_refused(settings: Config) -> None:
    with pytest.raises(InvalidInput, match="taesd is a model for preview, and one for base"):
        resolve(ModelSpec("taesd"), settings)


def test_an_annotators_pickle_is_opened_by_its_pinned_hash_only(
    hub: HubServer, settings: Config, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    torch.save(HedNetwork().state_dict(), tmp_path / "hed.pth")
    hub.publish("lllyasviel/Annotators", {"ControlNetHED.pth": (tmp_path / "hed.pth").read_bytes()})
    with pytest.raises(MissingWeights, match="models download annotator-hed"):
        control_estimator("softedge", settings)
    fetch("annotator-hed", settings)
    maps = control_maps(torch.rand(1, 3, 32, 32), control_estimator("hed", settings))
    assert maps.shape == (1, 3, 32, 32)
    (file,) = settings.folder.rglob("ControlNetHED.pth")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.resolve().write_bytes(content)
    with pytest.raises(NotAsPinned, match=r"ControlNetHED\.pth"):
        control_estimator("softedge", settings)
