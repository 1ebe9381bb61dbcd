"""LoRAs, textual inversions, IP-Adapters and FreeU on a loaded model, put on and taken off."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fresco import loading
from fresco.adapters import Adapters, FreeU, Inversion, IPAdapter, Lora, _cropped
from fresco.errors import InvalidInput, MissingWeights, UnsupportedModel
from fresco.loading import load
from fresco.models import Model
from fresco.planner import forecast
from fresco.prompts import embed
from fresco.request import Options
from fresco.schedule import Settings
from fresco.translate import translate
from tests.fresco import formats, tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return formats.write_folder(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def model(folder: Path) -> Model:
    return load(folder, device=CPU)


@pytest.fixture
def adapters(model: Model) -> Adapters:
    return Adapters(model)


def restyled(model: Model, prompt: str = "ab", added: dict[str, Any] | None = None) -> Tensor:
    """With FRESCO's attention on, so that it is shown to work beside whatever is put on."""
    frames = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    settings = Settings(steps=2, spatial_weight=0, temporal_loss=False, smooth_at=())
    options = Options(settings=settings, added=added or {})
    return translate(frames, model, options, prompts=prompt, strengths=1.0).images


def merged(model: Model, file: Path, weight: float) -> Model:
    """The LoRA added to the weights by hand, from its definition: W + weight * alpha/rank * B A."""
    for key, down in load_file(file).items():
        if match := re.fullmatch(r"unet\.(.*)\.lora_A\.weight", key):
            name, up_key, alpha = match[1], key.replace("lora_A", "lora_B"), None
            layer = model.unet.get_submodule(name)
        elif match := re.fullmatch(r"lora_(unet|te)_(.*)\.lora_down\.weight", key):
            part = model.unet if match[1] == "unet" else model.text_encoder
            wanted = match[2].removeprefix("text_model_")
            layers = {
                n.removeprefix("text_model.").replace(".", "_"): m for n, m in part.named_modules()
            }
            layer = layers[wanted]
            up_key, alpha = (
                key.replace("lora_down", "lora_up"),
                load_file(file)[f"{match[0].split('.')[0]}.alpha"],
            )
        else:
            continue
        up = load_file(file)[up_key]
        scale = weight if alpha is None else weight * float(alpha) / down.shape[0]
        with torch.no_grad():
            layer.weight += scale * up @ down
    return model


def test_a_diffusers_lora_does_what_its_definition_says(
    folder: Path, model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    file = formats.write_diffusers_lora(tmp_path / "style.v2.safetensors", model.unet)
    plain = restyled(model)
    adapters.wear([Lora(file, 0.5)])
    expected = restyled(merged(load(folder, device=CPU), file, 0.5))
    torch.testing.assert_close(restyled(model), expected, atol=1e-4, rtol=0)
    assert (expected - plain).abs().max() > 0.01


def test_a_kohya_lora_does_what_its_definition_says(
    folder: Path, model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    """Alphas and the text encoder included."""
    file = formats.write_kohya_lora(
        tmp_path / "kohya.safetensors", model.unet, model.text_encoder, rank=4, alpha=2.0
    )
    adapters.wear([Lora(file, 0.3)])
    other = merged(load(folder, device=CPU), file, 0.3)
    text = embed(other, ["ab"]).tokens
    torch.testing.assert_close(embed(model, ["ab"]).tokens, text, atol=1e-5, rtol=1e-5)
    assert (text - embed(load(folder, device=CPU), ["ab"]).tokens).abs().max() > 0.01
    torch.testing.assert_close(restyled(model), restyled(other), atol=1e-4, rtol=0)


def test_a_resized_lora_has_a_rank_and_an_alpha_for_each_layer(
    folder: Path, model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    file = formats.write_kohya_lora(
        tmp_path / "resized.safetensors", model.unet, model.text_encoder, alpha=1.0, vary=True
    )
    adapters.wear([Lora(file, 0.3)])
    other = merged(load(folder, device=CPU), file, 0.3)
    text = embed(other, ["ab"]).tokens
    torch.testing.assert_close(embed(model, ["ab"]).tokens, text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(restyled(model), restyled(other), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("told", "factor"),
    [
        ({"unet.lora_alpha": 8}, 4.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 8 / 2**0.5),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 2, "to_k": 2}}, None),
    ],
)
def test_the_alpha_in_a_files_metadata_counts(
    model: Model, adapters: Adapters, tmp_path: Path, told: dict[str, Any], factor: float | None
) -> None:
    """Against diffusers' own reading of the file."""
    file = formats.write_diffusers_lora(tmp_path / "x.safetensors", model.unet)
    config = {"unet.r": 2, "unet.target_modules": ["to_q", "to_k", "to_v", "to_out.0"], **told}
    notes = {"format": "pt", "lora_adapter_metadata": json.dumps(config)}
    save_file(load_file(file), file, metadata=notes)
    adapters.wear([Lora(file, 0.05)])
    (name,) = adapters.loras
    layer = model.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_v")
    plain = load_file(file)[
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v.lora_B.weight"
    ]
    wanted = 4.0 if factor is None else factor
    torch.testing.assert_close(layer.lora_B[name].weight, plain * wanted)
    if factor is None:
        query = model.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
        key = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight"
        torch.testing.assert_close(query.lora_B[name].weight, load_file(file)[key])


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
def test_loras_that_do_not_name_the_unet(
    model: Model, adapters: Adapters, tmp_path: Path, prefix: str
) -> None:
    file = formats.write_diffusers_lora(tmp_path / "x.safetensors", model.unet)
    adapters.wear([Lora(file, 0.5)])
    expected = restyled(model)
    adapters.wear([])
    other = {prefix + name.removeprefix("unet."): t for name, t in load_file(file).items()}
    save_file(other, tmp_path / "other.safetensors")
    adapters.wear([Lora(tmp_path / "other.safetensors", 0.5)])
    torch.testing.assert_close(restyled(model), expected)


def test_an_sdxl_lora_reaches_both_text_encoders(tmp_path: Path) -> None:
    model = load(formats.write_folder(tmp_path / "xl", xl=True), device=CPU)
    adapters = Adapters(model)
    parts = {}
    for number, (_, encoder) in enumerate(model.text_parts, start=1):
        own = formats.write_kohya_lora(
            tmp_path / f"{number}.safetensors", torch.nn.Module(), encoder
        )
        parts |= {k.replace("lora_te_", f"lora_te{number}_"): t for k, t in load_file(own).items()}
    save_file(parts, tmp_path / "both.safetensors")
    plain = embed(model, ["ab"])
    adapters.wear([Lora(tmp_path / "both.safetensors", 0.5)])
    changed = embed(model, ["ab"])
    width = tiny.TEXT_DIM
    assert not torch.allclose(changed.tokens[..., :width], plain.tokens[..., :width], atol=1e-3)
    assert not torch.allclose(changed.tokens[..., width:], plain.tokens[..., width:], atol=1e-3)
    assert restyled(model).isfinite().all()
    adapters.wear([])
    assert torch.equal(embed(model, ["ab"]).tokens, plain.tokens)


def test_several_loras_add_up_and_come_off_again(
    folder: Path, model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    one = formats.write_diffusers_lora(tmp_path / "one.safetensors", model.unet)
    two = formats.write_kohya_lora(tmp_path / "two.safetensors", model.unet, model.text_encoder)
    plain = restyled(model)
    adapters.wear([Lora(one, 0.5), Lora(two, -0.2)])
    expected = restyled(merged(merged(load(folder, device=CPU), one, 0.5), two, -0.2))
    torch.testing.assert_close(restyled(model), expected, atol=1e-4, rtol=0)
    adapters.wear([Lora(two, 0.7)])
    expected = restyled(merged(load(folder, device=CPU), two, 0.7))
    torch.testing.assert_close(restyled(model), expected, atol=1e-4, rtol=0)
    adapters.wear([])
    assert torch.equal(restyled(model), plain)
    assert len(adapters.loras) == 2
    adapters.drop_idle_loras([])
    assert adapters.loras == set()
    assert torch.equal(restyled(model), plain)


def test_a_lora_can_act_on_the_picture_and_not_on_the_words(
    model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    file = formats.write_kohya_lora(tmp_path / "x.safetensors", model.unet, model.text_encoder)
    text, picture = embed(model, ["ab"]).tokens, restyled(model)
    adapters.wear([Lora(file, 0.5, text_weight=0.0)])
    torch.testing.assert_close(embed(model, ["ab"]).tokens, text)
    assert not torch.allclose(restyled(model), picture, atol=1e-3)


def test_a_known_lora_is_not_read_again_and_a_changed_file_is(
    model: Model, adapters: Adapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = formats.write_diffusers_lora(tmp_path / "x.safetensors", model.unet)
    read: list[Path] = []
    original = Adapters._read_lora
    monkeypatch.setattr(
        Adapters, "_read_lora", lambda self, *a: (read.append(a[-1]), original(self, *a))
    )
    for weight in (0.2, 0.9, -0.4):
        adapters.wear([Lora(file, weight)])
    assert len(read) == 1
    before = restyled(model)
    formats.write_diffusers_lora(file, model.unet, rank=3, seed=77)
    adapters.wear([Lora(file, -0.4)])
    assert len(read) == 2
    assert not torch.allclose(restyled(model), before, atol=1e-3)


def test_loras_of_other_models_are_refused_and_leave_nothing_behind(
    model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    plain = restyled(model)
    wide = tiny.unet(block_out_channels=(16, 16, 32, 32))
    file = formats.write_diffusers_lora(tmp_path / "wide.safetensors", wide)
    with pytest.raises((InvalidInput, UnsupportedModel), match=r"wide\.safetensors"):
        adapters.wear([Lora(file)])
    strange = {
        "unet.nowhere.attn1.to_q.lora_A.weight": torch.zeros(2, 8),
        "unet.nowhere.attn1.to_q.lora_B.weight": torch.zeros(8, 2),
    }
    save_file(strange, tmp_path / "strange.safetensors")
    with pytest.raises((InvalidInput, UnsupportedModel), match=r"strange\.safetensors"):
        adapters.wear([Lora(tmp_path / "strange.safetensors")])
    assert adapters.loras == set()
    assert torch.equal(restyled(model), plain)


def test_a_lora_that_fits_only_in_part_is_refused(
    model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    file = formats.write_diffusers_lora(tmp_path / "x.safetensors", model.unet)
    extra = {
        "unet.nowhere.attn1.to_q.lora_A.weight": torch.zeros(2, 8),
        "unet.nowhere.attn1.to_q.lora_B.weight": torch.zeros(8, 2),
    }
    save_file(load_file(file) | extra, file)
    with pytest.raises((InvalidInput, UnsupportedModel), match=r"x\.safetensors"):
        adapters.wear([Lora(file)])
    assert adapters.loras == set()


def test_what_is_no_lora_is_refused(model: Model, adapters: Adapters, tmp_path: Path) -> None:
    save_file({"a.hada_w1_a": torch.zeros(2, 2)}, tmp_path / "loha.safetensors")
    with pytest.raises(UnsupportedModel, match="LyCORIS"):
        adapters.wear([Lora(tmp_path / "loha.safetensors")])
    save_file({"a.dora_scale": torch.zeros(2, 2)}, tmp_path / "dora.safetensors")
    with pytest.raises(UnsupportedModel, match="DoRA"):
        adapters.wear([Lora(tmp_path / "dora.safetensors")])
    stray = {"lora_unet_x.alpha": torch.tensor(1.0), "lora_unet_y.lora_up.weight": torch.ones(1, 1)}
    save_file(stray, tmp_path / "stray.safetensors")
    with pytest.raises(InvalidInput, match="not the weights that it scales"):
        adapters.wear([Lora(tmp_path / "stray.safetensors")])
    inversion = formats.write_inversion(tmp_path / "word.safetensors")
    with pytest.raises(InvalidInput, match=r"word\.safetensors \(textual inversion\) is no LoRA"):
        adapters.wear([Lora(inversion)])
    (tmp_path / "x.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(InvalidInput, match="carry code"):
        adapters.wear([Lora(tmp_path / "x.pt")])
    with pytest.raises(MissingWeights, match="download some/lora"):
        adapters.wear([Lora("some/lora")])
    file = formats.write_diffusers_lora(tmp_path / "x.safetensors", model.unet)
    with pytest.raises(InvalidInput, match="use a number"):
        adapters.wear([Lora(file, float("nan"))])
    with pytest.raises(InvalidInput, match="listed twice"):
        adapters.wear([Lora(file), Lora(file, 0.2)])


def test_loras_count_in_the_forecast(model: Model, adapters: Adapters, tmp_path: Path) -> None:
    before = forecast(model, 64, 64, 3).weights
    file = formats.write_diffusers_lora(tmp_path / "x.safetensors", model.unet, rank=4)
    adapters.wear([Lora(file)])
    added = sum(4 * tensor.numel() for tensor in load_file(file).values())
    assert forecast(model, 64, 64, 3).weights == before + added


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_textual_inversion_gives_its_word_a_meaning(
    model: Model, adapters: Adapters, tmp_path: Path, vectors: int
) -> None:
    plain = embed(model, ["zap ab", "ab"]).tokens
    file = formats.write_inversion(tmp_path / "zap.safetensors", vectors)
    adapters.learn([Inversion(file)])
    known = embed(model, ["zap ab", "ab"]).tokens
    assert not torch.allclose(known[0], plain[0], atol=1e-3)
    torch.testing.assert_close(known[1], plain[1])
    table = model.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[-vectors:], load_file(file)["emb_params"])
    adapters.learn([Inversion(file, word="<other>")])
    torch.testing.assert_close(embed(model, ["<other> ab"]).tokens[0], known[0])
    adapters.learn([])
    assert torch.equal(embed(model, ["zap ab", "ab"]).tokens, plain)


def test_a_word_of_several_vectors_takes_as_many_places(
    model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    file = formats.write_inversion(tmp_path / "zap.safetensors", 3)
    count = model.text_encoder.get_input_embeddings().num_embeddings
    adapters.learn([Inversion(file)])
    ids = model.tokenizer("a").input_ids
    full = torch.tensor([[ids[0], count, count + 1, count + 2, *[ids[-1]] * 12]])
    torch.testing.assert_close(embed(model, ["zap"]).tokens, model.text_encoder(full)[0])


def test_words_that_look_like_each_others_parts(
    model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    one = formats.write_inversion(tmp_path / "style.safetensors", 1)
    two = formats.write_inversion(tmp_path / "style_1.safetensors", 2)
    alone: dict[str, Tensor] = {}
    for file in (one, two):
        adapters.learn([Inversion(file)])
        alone[file.stem] = embed(model, [file.stem]).tokens
    for order in ((one, two), (two, one)):
        adapters.learn([Inversion(file) for file in order])
        for word, expected in alone.items():
            torch.testing.assert_close(embed(model, [word]).tokens, expected)


def test_a_file_that_names_its_word(model: Model, adapters: Adapters, tmp_path: Path) -> None:
    file = formats.write_inversion(tmp_path / "learned_embeds.safetensors", 1, key="<cat-toy>")
    plain = embed(model, ["<cat-toy>"]).tokens
    adapters.learn([Inversion(file)])
    assert not torch.allclose(embed(model, ["<cat-toy>"]).tokens, plain, atol=1e-3)


def test_an_sdxl_inversion_reaches_both_encoders_and_the_pooled_text(tmp_path: Path) -> None:
    model = load(formats.write_folder(tmp_path / "xl", xl=True), device=CPU)
    adapters = Adapters(model)
    torch.manual_seed(1)
    tables = {"clip_l": torch.randn(2, tiny.TEXT_DIM), "clip_g": torch.randn(2, tiny.XL_TEXT_DIM)}
    save_file(tables, tmp_path / "zap.safetensors")
    adapters.learn([Inversion(tmp_path / "zap.safetensors")])
    known = embed(model, ["zap"])
    tables["clip_g"][1] += 1  # only the second vector of the second encoder
    save_file(tables, tmp_path / "zap.safetensors")
    adapters.learn([Inversion(tmp_path / "zap.safetensors")])
    other = embed(model, ["zap"])
    width = tiny.TEXT_DIM
    torch.testing.assert_close(other.tokens[..., :width], known.tokens[..., :width])
    assert not torch.allclose(other.tokens[..., width:], known.tokens[..., width:], atol=1e-3)
    assert other.pooled is not None
    assert known.pooled is not None
    assert not torch.equal(other.pooled, known.pooled)


def test_inversions_that_do_not_fit_are_refused(
    model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    save_file({"emb_params": torch.zeros(1, 5)}, tmp_path / "narrow.safetensors")
    before = embed(model, ["narrow"]).tokens
    for _ in range(2):  # a failure must not be remembered as done
        with pytest.raises(UnsupportedModel, match="5 wide, the text encoder 16"):
            adapters.learn([Inversion(tmp_path / "narrow.safetensors")])
    save_file(
        {"clip_l": torch.zeros(1, 5), "clip_g": torch.zeros(1, 5)}, tmp_path / "xl.safetensors"
    )
    with pytest.raises(UnsupportedModel, match="expected one embedding"):
        adapters.learn([Inversion(tmp_path / "xl.safetensors")])
    good = formats.write_inversion(tmp_path / "good.safetensors")
    with pytest.raises(InvalidInput, match=r"good\.safetensors: 'a' is a word"):
        adapters.learn([Inversion(good, word="a")])  # a word that the tokenizer has
    adapters.learn([])
    assert torch.equal(embed(model, ["narrow"]).tokens, before)


@pytest.fixture
def seeing(model: Model, tmp_path: Path) -> Model:
    folder = formats.write_image_encoder(tmp_path / "encoder")
    model.image_encoder = loading.read_image_encoder(folder, torch.float32)
    return model


def test_an_ip_adapter_passes_on_its_pictures(
    seeing: Model, adapters: Adapters, tmp_path: Path
) -> None:
    plain = restyled(seeing)
    file = formats.write_ip_adapter(tmp_path / "ip.safetensors", seeing.unet)
    red, blue = torch.zeros(3, 40, 60), torch.zeros(3, 30, 30)
    red[0], blue[2] = 1, 1

    def with_pictures(*pictures: Tensor, scale: float = 0.6) -> Tensor:
        return restyled(seeing, added=adapters.look([IPAdapter(file, pictures, scale)], 2))

    of_red, of_blue = with_pictures(red), with_pictures(blue)
    assert not torch.allclose(of_red, plain, atol=1e-3)
    assert not torch.allclose(of_red, of_blue, atol=1e-3)
    assert not torch.allclose(of_red, with_pictures(red, blue), atol=1e-3)
    torch.testing.assert_close(with_pictures(red, scale=0.0), plain, atol=1e-5, rtol=0)
    two = adapters.look([IPAdapter(file, [red]), IPAdapter(file, [blue], 0.0)], 2)
    torch.testing.assert_close(restyled(seeing, added=two), of_red, atol=1e-5, rtol=0)
    assert adapters.look([], 2) == {}
    torch.testing.assert_close(restyled(seeing), plain, atol=1e-5, rtol=0)


def test_a_plus_adapter_sees_the_encoders_patches(
    seeing: Model, adapters: Adapters, tmp_path: Path
) -> None:
    plain = restyled(seeing)
    file = formats.write_ip_adapter_plus(tmp_path / "plus.safetensors", seeing.unet)
    one, other = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    images = [
        restyled(seeing, added=adapters.look([IPAdapter(file, [picture])], 2))
        for picture in (one, other)
    ]
    assert not torch.allclose(images[0], plain, atol=1e-3)
    assert not torch.allclose(images[0], images[1], atol=1e-4)
    adapters.look([], 2)
    torch.testing.assert_close(restyled(seeing), plain, atol=1e-5, rtol=0)


def test_embeddings_for_other_guidance_are_refused(
    seeing: Model, adapters: Adapters, tmp_path: Path
) -> None:
    file = formats.write_ip_adapter(tmp_path / "ip.safetensors", seeing.unet)
    added = adapters.look([IPAdapter(file, [torch.rand(3, 20, 20)])], 1)
    with pytest.raises(InvalidInput, match=r"rows; guidance of 7\.5 needs 2"):
        restyled(seeing, added=added)


def test_an_ip_adapter_works_beside_a_lora(
    seeing: Model, adapters: Adapters, tmp_path: Path
) -> None:
    file = formats.write_ip_adapter(tmp_path / "ip.safetensors", seeing.unet)
    lora = formats.write_diffusers_lora(tmp_path / "lora.safetensors", seeing.unet)
    picture = IPAdapter(file, [torch.rand(3, 20, 20)])
    only_picture = restyled(seeing, added=adapters.look([picture], 2))
    adapters.wear([Lora(lora, 0.5)])
    both = restyled(seeing, added=adapters.look([picture], 2))
    assert not torch.allclose(both, only_picture, atol=1e-3)
    adapters.wear([])
    again = restyled(seeing, added=adapters.look([picture], 2))
    torch.testing.assert_close(again, only_picture, atol=1e-5, rtol=0)
    forecast(seeing, 64, 64, 3)  # an IP-Adapter's layers are no obstacle


def test_ip_adapters_that_cannot_work_are_refused(
    model: Model, adapters: Adapters, tmp_path: Path
) -> None:
    file = formats.write_ip_adapter(tmp_path / "ip.safetensors", model.unet)
    with pytest.raises(UnsupportedModel, match="needs an image encoder"):
        adapters.look([IPAdapter(file, [torch.rand(3, 20, 20)])], 2)
    model.image_encoder = loading.read_image_encoder(
        formats.write_image_encoder(tmp_path / "encoder"), torch.float32
    )
    with pytest.raises(InvalidInput, match="no picture"):
        adapters.look([IPAdapter(file, [])], 2)
    for picture in (torch.rand(4, 20, 20), torch.rand(20, 20, 3), 255 * torch.rand(3, 9, 9)):
        with pytest.raises(InvalidInput, match="picture for an IP-Adapter"):
            adapters.look([IPAdapter(file, [picture])], 2)
    wide = formats.write_ip_adapter(tmp_path / "wide.safetensors", model.unet, image_dim=9)
    with pytest.raises(UnsupportedModel, match=r"wide\.safetensors reads .* 9 wide"):
        adapters.look([IPAdapter(file, [torch.rand(3, 9, 9)]), IPAdapter(wide, [])], 2)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InvalidInput, match="is no IP-Adapter"):
        adapters.look([IPAdapter(tmp_path / "x.safetensors", [torch.rand(3, 20, 20)])], 2)
    face = load_file(file) | {"ip_adapter.0.to_q_lora.down.weight": torch.zeros(1, 1)}
    save_file(face, tmp_path / "face.safetensors")
    with pytest.raises(UnsupportedModel, match="FaceID"):
        adapters.look([IPAdapter(tmp_path / "face.safetensors", [torch.rand(3, 20, 20)])], 2)
    adapters.look([], 2)
    assert restyled(model).isfinite().all()


def test_pictures_are_cropped_as_clip_saw_them() -> None:
    """A picture of one colour keeps it; the middle of a wide one is taken."""
    wide = torch.zeros(3, 32, 96)
    wide[:, :, 32:64] = 1.0
    seen = _cropped(wide, 16)
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]
    assert seen.shape == (3, 16, 16)
    torch.testing.assert_close(seen[:, :, 4:12], ((1 - mean) / std).expand(3, 16, 8))


def test_freeu_is_diffusers_own_and_comes_off(model: Model, adapters: Adapters) -> None:
    plain = restyled(model)
    adapters.free_u(FreeU(b1=1.2))
    blocks = [block for block in model.unet.up_blocks if getattr(block, "b1", None) is not None]
    assert {(block.s1, block.s2, block.b1, block.b2) for block in blocks} == {(0.9, 0.2, 1.2, 1.6)}
    assert not torch.allclose(restyled(model), plain, atol=1e-3)
    adapters.free_u(None)
    assert torch.equal(restyled(model), plain)
