"""Models kept between jobs: what is reused, what is read, what is dropped."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fresco import loading
from fresco.adapters import Adapters, FreeU, Inversion, IPAdapter, Lora
from fresco.errors import FrescoError, MissingWeights
from fresco.loading import load
from fresco.memory import Limits
from fresco.models import Model
from fresco.planner import forecast
from fresco.request import Options
from fresco.schedule import Settings
from fresco.translate import translate
from fresco.warm import ModelSpec, WarmModels
from tests.fresco import formats, tiny

CPU = torch.device("cpu")
PLENTY = 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return formats.write_folder(tmp_path / "base")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read from disk, by the names of the reading functions."""
    done: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(loading, name)

        def count(*args: Any, **kwargs: Any) -> Any:
            done.append(name)
            return original(*args, **kwargs)

        return count

    for name in ("read_base", "read_controlnet", "read_vae", "read_preview_vae"):
        monkeypatch.setattr(loading, name, counted(name))
    return done


def restyled(model: Model, added: Any = None) -> Tensor:
    frames = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    options = Options(settings=Settings.plain(steps=2), added=added or {})
    maps = [torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))]
    controls = maps * len(model.controlnets)
    return translate(frames, model, options, prompts="ab", controls=controls).images


def test_a_second_job_finds_its_model_warm(folder: Path, read: list[str]) -> None:
    warm = WarmModels(PLENTY, CPU)
    first = warm.get(ModelSpec(folder))
    expected = restyled(load(folder, device=CPU))
    read.clear()
    second = warm.get(ModelSpec(folder, sampler="ddim", clip_skip=2))
    assert second.model.unet is first.model.unet
    assert read == []
    assert type(second.model.scheduler).__name__ == "DDIMScheduler"
    assert torch.equal(restyled(warm.get(ModelSpec(folder)).model), expected)


def test_what_is_forgotten_is_read_again(folder: Path, read: list[str]) -> None:
    warm = WarmModels(PLENTY, CPU)
    warm.get(ModelSpec(folder))
    warm.forget()
    assert warm.size == 0
    read.clear()
    warm.get(ModelSpec(folder))
    assert read == ["read_base"]


def test_loras_change_without_reading_the_base(
    folder: Path, tmp_path: Path, read: list[str]
) -> None:
    unet = load(folder, device=CPU).unet
    one = formats.write_diffusers_lora(tmp_path / "one.safetensors", unet, seed=1)
    two = formats.write_diffusers_lora(tmp_path / "two.safetensors", unet, seed=2)
    read.clear()
    warm = WarmModels(PLENTY, CPU)
    images = [
        restyled(warm.get(ModelSpec(folder, loras=loras)).model)
        for loras in ([], [Lora(one)], [Lora(two)], [Lora(one), Lora(two, 0.5)], [Lora(one)], [])
    ]
    assert read == ["read_base"]
    assert torch.equal(images[0], images[5])
    assert torch.equal(images[1], images[4])
    differences = [(a - b).abs().max() for a, b in pairwise(images[:4])]
    assert min(differences) > 0.01


def test_jobs_leave_nothing_on_the_model(folder: Path, tmp_path: Path) -> None:
    warm = WarmModels(PLENTY, CPU)
    plain = restyled(warm.get(ModelSpec(folder)).model)
    unet = tiny.unet()
    tiny.controlnet(unet).save_pretrained(tmp_path / "net")
    everything = ModelSpec(
        folder,
        controlnets=[tmp_path / "net"],
        loras=[Lora(formats.write_diffusers_lora(tmp_path / "l.safetensors", unet))],
        inversions=[Inversion(formats.write_inversion(tmp_path / "zap.safetensors"))],
        ip_adapters=[
            IPAdapter(
                formats.write_ip_adapter(tmp_path / "i.safetensors", unet), [torch.rand(3, 9, 9)]
            )
        ],
        image_encoder=formats.write_image_encoder(tmp_path / "encoder"),
        preview_vae=formats.write_taesd(tmp_path / "taesd"),
        free_u=FreeU(),
        clip_skip=2,
    )
    ready = warm.get(everything)
    assert len(ready.model.controlnets) == 1
    assert ready.model.preview_vae is not None
    assert not torch.allclose(restyled(ready.model, ready.added), plain, atol=1e-3)
    bare = warm.get(ModelSpec(folder))
    assert bare.added == {}
    assert bare.model.preview_vae is None
    assert torch.equal(restyled(bare.model), plain)


def test_another_vae_comes_and_goes(folder: Path, tmp_path: Path, read: list[str]) -> None:
    other = tiny.vae()
    with torch.no_grad():
        next(other.decoder.conv_out.parameters()).mul_(0.5)
    other.save_pretrained(tmp_path / "vae")
    warm = WarmModels(PLENTY, CPU)
    plain = restyled(warm.get(ModelSpec(folder)).model)
    assert not torch.allclose(
        restyled(warm.get(ModelSpec(folder, vae=tmp_path / "vae")).model), plain
    )
    assert torch.equal(restyled(warm.get(ModelSpec(folder)).model), plain)
    assert read == ["read_base", "read_vae"]


def test_what_was_not_used_for_longest_is_dropped_first(tmp_path: Path, read: list[str]) -> None:
    folders = [formats.write_folder(tmp_path / f"model{number}") for number in range(3)]
    one = WarmModels(PLENTY, CPU)
    one.get(ModelSpec(folders[0]))
    two_fit = WarmModels(int(2.2 * one.size), CPU)
    read.clear()
    for number in (0, 1, 0, 2):  # 1 is the one that has to go
        two_fit.get(ModelSpec(folders[number]))
        assert two_fit.size <= two_fit.budget
    assert len(read) == 3
    two_fit.get(ModelSpec(folders[0]))
    assert len(read) == 3
    two_fit.get(ModelSpec(folders[1]))
    assert len(read) == 4


def test_room_is_made_before_a_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [formats.write_folder(tmp_path / f"model{number}") for number in range(2)]
    warm = WarmModels(1, CPU)
    warm.get(ModelSpec(folders[0]))
    held: list[int] = []
    original = loading.read_base
    monkeypatch.setattr(loading, "read_base", lambda *a: (held.append(warm.size), original(*a))[1])
    warm.get(ModelSpec(folders[1]))
    assert held == [0]


def test_room_is_made_of_what_a_job_before_had_beside_its_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        tiny.controlnet(tiny.unet(), seed=number).save_pretrained(tmp_path / f"net{number}")
    warm = WarmModels(1, CPU)
    gone = weakref.ref(
        warm.get(ModelSpec(folder, controlnets=[tmp_path / "net0"])).model.controlnets[0]
    )
    alive: list[bool] = []
    original = loading.read_controlnet

    def look(*args: Any) -> Any:
        gc.collect()
        alive.append(gone() is not None)
        return original(*args)

    monkeypatch.setattr(loading, "read_controlnet", look)
    warm.get(ModelSpec(folder, controlnets=[tmp_path / "net1"]))
    assert alive == [False]


def test_one_folder_under_two_names_is_one_model(
    folder: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = WarmModels(PLENTY, CPU)
    warm.get(ModelSpec(folder))
    monkeypatch.chdir(tmp_path)
    warm.get(ModelSpec(Path("base")))
    (folder / "README.md").write_text("Hello")
    warm.get(ModelSpec(folder))
    assert read == ["read_base"]


def test_a_vae_of_sdxl_computes_in_single_precision_beside_a_half_precision_model(
    tmp_path: Path,
) -> None:
    folder = formats.write_folder(tmp_path / "xl", xl=True)
    tiny.vae(force_upcast=True).save_pretrained(tmp_path / "vae")
    warm = WarmModels(PLENTY, CPU, torch.float16)
    model = warm.get(ModelSpec(folder, vae=tmp_path / "vae")).model
    assert (model.dtype, model.vae.dtype) == (torch.float16, torch.float32)


def test_pictures_are_seen_after_a_job_that_put_networks_aside(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image encoder is brought to the model's device; shown by one that holds no numbers."""
    adapter = formats.write_ip_adapter(tmp_path / "ip.safetensors", tiny.unet())
    spec = ModelSpec(
        folder,
        ip_adapters=[IPAdapter(adapter, [torch.rand(3, 9, 9)])],
        image_encoder=formats.write_image_encoder(tmp_path / "encoder"),
    )
    warm = WarmModels(PLENTY, CPU)
    ready = warm.get(spec)
    aside = Options(
        settings=Settings.plain(steps=1), added=ready.added, limits=Limits(offload=True)
    )
    translate(torch.rand(1, 3, 64, 64), ready.model, aside, prompts="a")
    again = warm.get(spec)
    torch.testing.assert_close(again.added["image_embeds"][0], ready.added["image_embeds"][0])
    moved: list[torch.device] = []
    encoder = again.model.image_encoder
    monkeypatch.setattr(type(encoder), "to", lambda _, place: moved.append(torch.device(place)))
    again.model.place = torch.device("meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        Adapters(again.model).look(spec.ip_adapters, 2)
    assert moved == [torch.device("meta"), CPU]


def test_everything_of_sdxl_at_once(tmp_path: Path) -> None:
    folder = formats.write_folder(tmp_path / "xl", xl=True)
    unet = tiny.xl_unet()
    tiny.controlnet(unet).save_pretrained(tmp_path / "net")
    spec = ModelSpec(
        folder,
        controlnets=[tmp_path / "net"],
        loras=[Lora(formats.write_diffusers_lora(tmp_path / "l.safetensors", unet), 0.5)],
        ip_adapters=[
            IPAdapter(
                formats.write_ip_adapter(tmp_path / "i.safetensors", unet), [torch.rand(3, 9, 9)]
            )
        ],
        image_encoder=formats.write_image_encoder(tmp_path / "encoder"),
    )
    ready = WarmModels(PLENTY, CPU).get(spec)
    frames = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    options = Options(settings=Settings(steps=2, iterations=1, smooth_at=()), added=ready.added)
    controls = [torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))]

    def run(scale: float) -> Tensor:
        with_scale = replace(options, control_scales=[scale])
        return translate(frames, ready.model, with_scale, prompts="ab", controls=controls).images

    assert run(1.0).isfinite().all()
    assert not torch.allclose(run(1.0), run(0.0), atol=1e-3)
    assert forecast(ready.model, 64, 64, 3).peak > 0


def test_a_job_larger_than_the_budget_still_runs(folder: Path) -> None:
    warm = WarmModels(1, CPU)
    assert restyled(warm.get(ModelSpec(folder)).model).isfinite().all()
    assert warm.size > warm.budget


def test_idle_loras_are_dropped_when_memory_is_short(folder: Path, tmp_path: Path) -> None:
    unet = load(folder, device=CPU).unet
    files = [
        formats.write_diffusers_lora(tmp_path / f"{n}.safetensors", unet, seed=n) for n in range(3)
    ]
    generous, tight = WarmModels(PLENTY, CPU), WarmModels(1, CPU)
    for file in files:
        for warm in (generous, tight):
            warm.get(ModelSpec(folder, loras=[Lora(file)]))
    assert len(generous.get(ModelSpec(folder)).model.unet.peft_config) == 3
    kept = tight.get(ModelSpec(folder, loras=[Lora(files[2])])).model.unet.peft_config
    assert len(kept) == 1


def test_a_replaced_file_is_read_again(tmp_path: Path, read: list[str]) -> None:
    folder = formats.write_folder(tmp_path / "model")
    warm = WarmModels(PLENTY, CPU)
    before = restyled(warm.get(ModelSpec(folder)).model)
    shutil.rmtree(folder)
    torch.manual_seed(99)
    formats.write_folder(folder, attention_head_dim=4)
    after = restyled(warm.get(ModelSpec(folder)).model)
    assert len(read) == 2
    assert not torch.equal(before, after)


def test_a_failed_job_leaves_the_next_one_as_it_should_be(folder: Path, tmp_path: Path) -> None:
    warm = WarmModels(PLENTY, CPU)
    plain = restyled(warm.get(ModelSpec(folder)).model)
    bad = formats.write_inversion(tmp_path / "bad.safetensors")
    unet = warm.get(ModelSpec(folder)).model.unet
    lora = formats.write_diffusers_lora(tmp_path / "l.safetensors", unet)
    broken = formats.write_ip_adapter(tmp_path / "broken.safetensors", unet)
    kept = {k: t for k, t in load_file(broken).items() if k != "ip_adapter.3.to_v_ip.weight"}
    save_file(kept, broken)
    for spec in (
        ModelSpec(folder, loras=[Lora(lora), Lora(bad)]),
        ModelSpec(folder, loras=[Lora(lora)], inversions=[Inversion(lora)]),
        ModelSpec(folder, ip_adapters=[IPAdapter(lora, [torch.rand(3, 9, 9)])]),
        ModelSpec(
            folder,
            ip_adapters=[IPAdapter(broken, [torch.rand(3, 9, 9)])],
            image_encoder=formats.write_image_encoder(tmp_path / "encoder"),
        ),
    ):
        with pytest.raises(FrescoError, match=r"safetensors|image encoder"):
            warm.get(spec)
        assert torch.equal(restyled(warm.get(ModelSpec(folder)).model), plain)
    with pytest.raises(MissingWeights):
        warm.get(ModelSpec(tmp_path / "nowhere"))
