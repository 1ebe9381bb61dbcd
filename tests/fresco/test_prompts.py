"""Prompts as embeddings: against diffusers' own encoding, and by what weights and lengths mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

from fresco.errors import InvalidInput, UnsupportedModel
from fresco.loading import load
from fresco.models import Model
from fresco.noise import GivenNoise
from fresco.prompts import Text, _in_compels_words, alike, embed
from fresco.request import Options, keyframes
from fresco.request import embed as embed_request
from fresco.schedule import Settings
from fresco.translate import redo, translate, translate_batch
from tests.fresco import formats, tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return formats.write_folder(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return formats.write_folder(tmp_path_factory.mktemp("models") / "xl", xl=True)


@pytest.fixture
def model(folder: Path) -> Model:
    return load(folder, device=CPU)


def tokens(model: Model, prompt: str) -> Tensor:
    return embed(model, [prompt]).tokens[0]


@pytest.mark.parametrize("prompt", ["", "ab cd", "(a", ":) x", "a, (b), c"])
def test_a_plain_prompt_is_what_diffusers_makes_of_it(
    folder: Path, model: Model, prompt: str
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    written = prompt.replace("(b)", "b ").replace("  ", " ")  # brackets alone mean nothing
    expected = pipeline.encode_prompt(written, "cpu", 1, False)[0][0]
    if "(b)" not in prompt:
        torch.testing.assert_close(tokens(model, prompt), expected)
    assert tokens(model, prompt).shape == expected.shape


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_leaves_out_the_last_layers(model: Model, clip_skip: int) -> None:
    """By definition: the hidden state before the skipped layers, under the final normalisation."""
    encoder = model.text_encoder
    ids = model.tokenizer("ab cd", padding="max_length", max_length=16, return_tensors="pt")
    hidden = encoder(ids.input_ids, output_hidden_states=True).hidden_states[-clip_skip]
    model.clip_skip = clip_skip
    torch.testing.assert_close(tokens(model, "ab cd"), encoder.final_layer_norm(hidden)[0])
    model.clip_skip = 1
    assert len(encoder.encoder.layers) == formats.LAYERS


def test_clip_skip_with_sdxl_counts_from_the_layer_that_it_reads(xl_folder: Path) -> None:
    model = load(xl_folder, device=CPU, clip_skip=2)
    ids = model.tokenizer("ab", padding="max_length", max_length=16, return_tensors="pt").input_ids
    states = [
        encoder(ids, output_hidden_states=True).hidden_states[-3] for _, encoder in model.text_parts
    ]
    text = embed(model, ["ab"])
    torch.testing.assert_close(text.tokens, torch.cat(states, dim=2))
    pooled = model.text_encoder_2(ids).text_embeds
    torch.testing.assert_close(text.pooled, pooled)


def test_a_clip_skip_that_leaves_nothing_is_refused(model: Model) -> None:
    model.clip_skip = formats.LAYERS + 1
    with pytest.raises(InvalidInput, match="leaves nothing"):
        tokens(model, "ab")


def test_weights_stretch_words_from_the_empty_prompt(model: Model) -> None:
    """compel's definition: empty + weight * (prompt - empty), at the weighted tokens only."""
    plain, empty = tokens(model, "a b c"), tokens(model, "")
    weighted = tokens(model, "a (b)1.5 c")
    expected = plain.clone()
    expected[2] = empty[2] + 1.5 * (plain[2] - empty[2])
    torch.testing.assert_close(weighted, expected)
    torch.testing.assert_close(tokens(model, "a (b:1.5) c"), weighted)
    torch.testing.assert_close(tokens(model, "a (b: 1.5) c"), weighted)


@pytest.mark.parametrize(
    ("written", "compels"),
    [
        (r"(a \(b\):1.2)", r"(a \(b\))1.2"),
        ("((a:1.2), b:1.3)", "((a)1.2 , b)1.3"),
        ("(a:1.)", "(a)1"),
        ("(a:1.4)5", "(a)1.4 5"),
        ("(a:.5)", "(a)0.5"),
        ("(a 16:9)", "(a 16:9)"),
        ("(route 66:1.2)", "(route 66)1.2"),
        ("(a:2)", "(a)2"),
        ("(a", "(a"),
        ("a) b:1.2)", "a) b:1.2)"),
        (r"a \(b:1.2\)", r"a \(b:1.2\)"),
        ("(a)1.3 b++", "(a)1.3 b++"),
    ],
)
def test_weights_behind_a_colon_are_compels(written: str, compels: str) -> None:
    assert _in_compels_words(written).strip() == compels


def test_nested_weights_multiply(model: Model) -> None:
    plain, empty = tokens(model, "a b"), tokens(model, "")
    weighted = tokens(model, "((a:1.2) b:1.5)")
    torch.testing.assert_close(weighted[1], empty[1] + 1.8 * (plain[1] - empty[1]))
    torch.testing.assert_close(weighted[2], empty[2] + 1.5 * (plain[2] - empty[2]))


def test_weights_without_a_meaning_are_refused(model: Model) -> None:
    with pytest.raises(InvalidInput, match="below 0"):
        tokens(model, "(a:-0.5)")
    with pytest.raises(InvalidInput, match="come to nothing"):
        tokens(model, '("a", "b").blend(1, -1)')


def test_escaped_brackets_are_words(model: Model) -> None:
    assert not torch.allclose(tokens(model, r"a \(b:1.5\)"), tokens(model, "a (b:1.5)"))


def test_blends_and_sequences(model: Model) -> None:
    a, b = tokens(model, "a"), tokens(model, "b")
    torch.testing.assert_close(tokens(model, '("a", "b").blend(0.25, 0.75)'), 0.25 * a + 0.75 * b)
    torch.testing.assert_close(tokens(model, '("a", "b").and()'), torch.cat((a, b)))


def test_long_prompts_are_read_to_their_end(model: Model) -> None:
    """16 places hold 14 letters; the 15th stands in the next piece."""
    short, long = " ".join("abcdefghijklmn"), " ".join("abcdefghijklmno")
    assert tokens(model, short).shape[0] == 16
    assert tokens(model, long).shape[0] == 32
    other = " ".join("abcdefghijklmnp")
    assert not torch.allclose(tokens(model, long), tokens(model, other))


def test_prompts_of_all_lengths_are_embedded_alike(model: Model) -> None:
    text = embed(model, ["a", " ".join("abcdefghijklmnop")]).tokens
    assert text.shape == (2, 32, tiny.TEXT_DIM)
    torch.testing.assert_close(text[0, :16], tokens(model, "a"))
    torch.testing.assert_close(text[0, 16:], tokens(model, ""))


def test_keyframes_with_prompts_of_different_lengths_meet_in_one_batch(model: Model) -> None:
    frames = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    options = Options(settings=Settings.plain(steps=2))
    done = translate(frames, model, options, prompts="ab").keyframes
    long = "ab " * 20
    again = redo(done, 1, model, options, prompt=long)
    assert again.text.shape[1] > done[0].text.shape[1]
    alone = keyframes(frames[1:2], model, prompts=long, numbers=[1], settings=options.settings)
    expected = translate_batch([done[0], *alone, done[2]], model, options).keyframes[0]
    assert again.image is not None
    assert expected.image is not None
    torch.testing.assert_close(again.image, expected.image, atol=1e-5, rtol=0)
    back = redo([done[0], again, done[2]], 1, model, options, negative="x")
    assert torch.equal(back.text[1], again.text[1])
    assert not torch.equal(back.text[0], again.text[0])


def test_embeddings_of_another_model_do_not_fit(model: Model) -> None:
    with pytest.raises(InvalidInput, match="5 and 32 tokens meet"):
        alike(model, [torch.zeros(2, 5, tiny.TEXT_DIM), torch.zeros(2, 32, tiny.TEXT_DIM)])


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("a <lora:style:0.8> b", "not chosen in the prompt"),
        ("a cat.swap(dog)", "no meaning here"),
    ],
)
def test_what_prompts_cannot_do_is_said(model: Model, prompt: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        tokens(model, prompt)


@pytest.mark.parametrize("prompt", ["()", "   ", "(((", "a) b", '"', "++", "a.blend(", "\n", "é中"])
def test_odd_prompts_are_embedded(model: Model, prompt: str) -> None:
    assert tokens(model, prompt).isfinite().all()


def test_without_a_text_encoder_prompts_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no text encoder"):
        embed(tiny.model(), ["a"])


def test_sdxl_prompts_are_what_diffusers_makes_of_them(xl_folder: Path) -> None:
    model = load(xl_folder, device=CPU)
    pipeline = StableDiffusionXLPipeline.from_pretrained(xl_folder)
    expected, unwanted, pooled, unwanted_pooled = pipeline.encode_prompt(
        "ab cd", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    text = embed_request(model, ["ab cd"], [""], 2)
    assert text.pooled is not None
    torch.testing.assert_close(text.tokens, torch.cat((unwanted, expected)))
    torch.testing.assert_close(text.pooled, torch.cat((unwanted_pooled, pooled)))
    assert not text.tokens[0].any()  # SDXL's own: an empty negative prompt is zeros
    other = embed_request(model, ["ab cd"], ["x"], 2)
    assert other.tokens[0].any()


def test_sdxl_with_everything_off_is_diffusers_own(xl_folder: Path) -> None:
    """Against StableDiffusionXLImg2ImgPipeline's U-Net call: text, pooled text and sizes."""
    model = load(xl_folder, device=CPU, sampler="ddim")
    pipeline = StableDiffusionXLPipeline.from_pretrained(xl_folder, scheduler=model.scheduler)
    frames = torch.full((1, 3, 64, 96), 0.5)
    settings = Settings.plain(steps=3, guidance_scale=5.0)
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(2))
    given = GivenNoise(noise, noise, torch.zeros(3, 1, 4, 8, 12))
    result = translate(
        frames, model, Options(settings=settings), prompts="ab", strengths=1.0, noise=given
    )
    clean = model.encode(frames)
    model.scheduler.set_timesteps(3)
    start = model.scheduler.add_noise(clean, noise, model.scheduler.timesteps[:1])
    expected = pipeline(
        prompt="ab",
        height=64,
        width=96,
        num_inference_steps=3,
        guidance_scale=5.0,
        latents=start,
        output_type="latent",
    ).images
    torch.testing.assert_close(result.latents, expected, atol=1e-4, rtol=1e-4)


def test_an_empty_negative_prompt_of_sdxl_stays_zero_beside_a_longer_one(xl_folder: Path) -> None:
    model = load(xl_folder, device=CPU)
    short = embed_request(model, ["a"], [""], 2).tokens
    long = embed_request(model, [" ".join("abcdefghijklmnop")], [""], 2).tokens
    padded, same = alike(model, [short, long])
    assert padded.shape == same.shape
    assert not padded[0].any()
    torch.testing.assert_close(padded[1, 16:], embed(model, [""]).tokens[0])


def test_sdxl_wants_pooled_embeddings(xl_folder: Path) -> None:
    model = load(xl_folder, device=CPU)
    frames = torch.rand(1, 3, 64, 64)
    settings = Settings.plain(steps=1)
    bare = torch.zeros(2, 16, tiny.TEXT_DIM + tiny.XL_TEXT_DIM)
    with pytest.raises(InvalidInput, match="pooled"):
        translate(frames, model, Options(settings=settings), prompt_embeds=bare)
    whole = Text(bare, torch.zeros(2, tiny.XL_TEXT_DIM))
    images = translate(frames, model, Options(settings=settings), prompt_embeds=whole).images
    assert images.isfinite().all()
