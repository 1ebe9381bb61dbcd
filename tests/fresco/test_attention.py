from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import Tensor

from fresco.attention import AttentionGuidance, FrescoAttnProcessor, guided_attention
from fresco.blocks import guided_blocks, self_attentions
from fresco.errors import InvalidInput, UnsupportedModel
from fresco.paths import Paths
from fresco.reference import record
from tests.fresco import cases, plain, tiny
from tests.vectors import Vectors

OFF = {"spatial": False, "cross_frame": False, "temporal": False}


def recorded_layer(v: Vectors) -> Attention:
    layer = Attention(
        query_dim=v["to_q_weight"].shape[0], heads=int(v["heads"]), dim_head=int(v["head_dim"])
    )
    weights = {
        "to_q.weight": v["to_q_weight"],
        "to_k.weight": v["to_k_weight"],
        "to_v.weight": v["to_v_weight"],
        "to_out.0.weight": v["to_out_weight"],
        "to_out.0.bias": v["to_out_bias"],
    }
    layer.load_state_dict(weights)
    return layer.eval()


def recorded_guidance(v: Vectors, switches: dict[str, bool | float]) -> AttentionGuidance:
    tokens = v["attn_mask"].shape[1]
    paths = Paths(v["fwd_mapping"][:, 0], v["bwd_mapping"][:, 0], v["interattn_mask"][:, 0])
    return AttentionGuidance(
        frames=int(v["n_frames"]),
        unique={tokens: v["attn_mask"]},
        paths={tokens: paths},
        reference={"": v["stored_ref_hidden_states"]},
        **{**OFF, **switches},  # pyright: ignore[reportArgumentType]
    )


@pytest.mark.parametrize(
    ("output", "switches"),
    [
        ("out_none", {}),
        ("out_spatial", {"spatial": True}),
        ("out_spatial_bias3", {"spatial": True, "spatial_bias": 3.0}),
        ("out_cross", {"cross_frame": True}),
        ("out_temporal", {"temporal": True}),
        ("out_cross_temporal", {"cross_frame": True, "temporal": True}),
        ("out_all", {"spatial": True, "cross_frame": True, "temporal": True}),
    ],
)
def test_recorded_attention(
    golden: Callable[[str], Vectors], output: str, switches: dict[str, bool | float]
) -> None:
    v = golden("d_fresco_attention")
    layer = recorded_layer(v)
    layer.set_processor(FrescoAttnProcessor(recorded_guidance(v, switches)))
    with torch.no_grad():
        result = layer(v["hidden_states"])
    torch.testing.assert_close(result, v[output], rtol=0, atol=1e-4)


def test_recorded_attention_without_a_mask_of_this_size(golden: Callable[[str], Vectors]) -> None:
    v = golden("d_fresco_attention")
    layer = recorded_layer(v)
    guidance = recorded_guidance(v, {"cross_frame": True})
    guidance.unique = {}  # no layer's size
    layer.set_processor(FrescoAttnProcessor(guidance))
    with torch.no_grad():
        result = layer(v["hidden_states"])
    torch.testing.assert_close(result, v["out_cross_nomatch_mask"], rtol=0, atol=1e-4)


def test_recorded_text_attention_ignores_all_three(golden: Callable[[str], Vectors]) -> None:
    v = golden("d_fresco_attention")
    layer = recorded_layer(v)
    everything = {"spatial": True, "cross_frame": True, "temporal": True}
    layer.set_processor(FrescoAttnProcessor(recorded_guidance(v, everything)))
    with torch.no_grad():
        result = layer(v["hidden_states"], encoder_hidden_states=v["text_states"])
    expected = v["out_crossattn_text_all_controllers_on"]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def guided(layer: Attention, x: Tensor, guidance: AttentionGuidance) -> Tensor:
    before = layer.get_processor()
    layer.set_processor(FrescoAttnProcessor(guidance))
    with torch.no_grad():
        result = layer(x)
    layer.set_processor(before)
    return result


def heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(-3, -2)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 2]), st.integers(0, 100))
def test_all_parts_equal_attention_written_out(
    frames: int, rows: int, halves: int, seed: int
) -> None:
    """Against whole maps, one frame and one path at a time."""
    width, count, tokens = 8, 2, rows * 4
    layer = tiny.self_attention(width, count, seed)
    pairs = cases.correspondence(frames, rows * 8, 32, seed)
    guidance = AttentionGuidance.of(cases.frames(frames, rows * 8, 32, seed), pairs)
    guidance.spatial, guidance.spatial_bias = True, 0.5
    stored, x = (
        torch.randn(halves * frames, tokens, width, generator=torch.Generator().manual_seed(s))
        for s in (seed, seed + 1)
    )
    guidance.reference = {"": stored}
    result = guided(layer, x, guidance)

    d = width // count
    with torch.no_grad():
        q, k, v = (heads(p(x), count) for p in (layer.to_q, layer.to_k, layer.to_v))  # pyright: ignore
        rq, rk = (heads(p(stored), count) for p in (layer.to_q, layer.to_k))  # pyright: ignore
        smooth = ((0.2 * rq @ rk.mT) / d**0.5 + 0.5 * torch.eye(tokens)).softmax(-1) @ q
        out = torch.empty_like(q)
        shown = guidance.unique[tokens].flatten()
        for half in range(halves):
            own = slice(half * frames, (half + 1) * frames)
            shared_k, shared_v = (y[own].transpose(0, 1).flatten(1, 2)[:, shown] for y in (k, v))
            for frame in range(own.start, own.stop):
                out[frame] = plain.attention(smooth[frame], shared_k, shared_v, d**-0.5)
        final = out.clone()
        paths = guidance.paths[tokens]
        for half in range(halves):
            for path in range(tokens):
                at = (torch.arange(frames) + half * frames, slice(None), paths.order[:, path])
                along = (y[at].transpose(0, 1) for y in (q, k, out))
                mixed = plain.attention(*along, scale=0.2 * d**-0.5, mask=paths.mask[path])
                final[at] = mixed.transpose(0, 1)
        expected = layer.to_out[0](final.transpose(1, 2).flatten(2))  # pyright: ignore
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 4), st.integers(1, 20), st.sampled_from([1, 2]))
def test_everything_off_is_plain_attention(frames: int, tokens: int, halves: int) -> None:
    layer = tiny.self_attention(8, 2)
    x = torch.randn(halves * frames, tokens, 8, generator=torch.Generator().manual_seed(tokens))
    with torch.no_grad():
        expected = layer(x)
    assert isinstance(layer.get_processor(), AttnProcessor2_0)
    off = guided(layer, x, AttentionGuidance(frames, **OFF))
    torch.testing.assert_close(off, expected, rtol=1e-5, atol=1e-6)


def test_equal_still_frames_stay_equal_and_one_frame_is_plain() -> None:
    layer = tiny.self_attention(8, 2)
    still = cases.still(3, 16, 16)
    guidance = AttentionGuidance.of(cases.frames(1, 16, 16).repeat(3, 1, 1, 1), still)
    x = torch.randn(1, 4, 8).repeat(6, 1, 1)
    with torch.no_grad():
        alone = layer(x)
    # All frames show the same: sharing their tokens and mixing along paths changes nothing.
    torch.testing.assert_close(guided(layer, x, guidance), alone, rtol=1e-5, atol=1e-6)


def test_shared_keys_and_values_exist_once_per_half(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(query: Tensor, key: Tensor, value: Tensor, **options: object) -> Tensor:
        seen.append(tuple(key.shape))
        return real(query, key, value, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    frames, tokens = 4, 4
    guidance = AttentionGuidance.of(cases.frames(frames, 16, 16), cases.still(frames, 16, 16))
    guidance.temporal = False
    guided(tiny.self_attention(8, 2), torch.randn(2 * frames, tokens, 8), guidance)
    assert seen == [(2, 2, tokens, 4)]  # two halves, two heads, only frame 0's tokens are new


def batch_of(unet: UNet2DConditionModel, frames: int = 3) -> Callable[[], Tensor]:
    latents = torch.randn(2 * frames, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    text = tiny.text(2 * frames)

    def run() -> Tensor:
        with torch.no_grad():
            return unet(latents, 500, encoder_hidden_states=text).sample

    return run


def guidance_for(unet: UNet2DConditionModel, frames: int = 3) -> AttentionGuidance:
    latents = torch.randn(frames, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    stored = record(unet, latents, 1, tiny.text(2 * frames))
    images, pairs = cases.frames(frames, 64, 64), cases.correspondence(frames, 64, 64)
    return AttentionGuidance.of(images, pairs, stored.attention)


def test_only_the_self_attention_of_the_last_two_blocks_is_replaced_and_given_back() -> None:
    unet = tiny.unet()
    run = batch_of(unet)
    before, plainly = dict(unet.attn_processors), run()
    with guided_attention(unet, guidance_for(unet)):
        replaced = {
            name
            for name, processor in unet.attn_processors.items()
            if isinstance(processor, FrescoAttnProcessor)
        }
        assert not torch.allclose(run(), plainly)
    assert replaced == {
        name
        for name in before
        if name.startswith(("up_blocks.2", "up_blocks.3")) and "attn1" in name
    }
    assert len(replaced) == 6
    assert dict(unet.attn_processors) == before
    assert torch.equal(run(), plainly)


def test_processors_are_given_back_after_an_error() -> None:
    unet = tiny.unet()
    before = dict(unet.attn_processors)
    with pytest.raises(RuntimeError, match="stop"), guided_attention(unet, guidance_for(unet)):
        raise RuntimeError("stop")
    assert dict(unet.attn_processors) == before


@pytest.mark.parametrize("part", ["spatial", "cross_frame", "temporal"])
def test_each_part_changes_the_model_alone(part: str) -> None:
    unet = tiny.unet()
    run = batch_of(unet)
    plainly = run()
    guidance = guidance_for(unet)
    for name in OFF:
        setattr(guidance, name, name == part)
    with guided_attention(unet, guidance):
        assert (run() - plainly).abs().max() > 1e-5


def test_a_lora_takes_part() -> None:
    unet = tiny.unet()
    run = batch_of(unet)
    guidance = guidance_for(unet)
    with guided_attention(unet, guidance):
        without = run()
    config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    torch.manual_seed(0)
    unet.add_adapter(config)
    with guided_attention(unet, guidance):
        adapted = run()
        unet.disable_adapters()
        disabled = run()
    assert (adapted - without).abs().max() > 1e-4
    torch.testing.assert_close(disabled, without)


def with_ip_adapter(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Install a random IP-Adapter as diffusers' own loader does: on the cross-attention only."""
    unet = copy.deepcopy(unet)
    torch.manual_seed(3)
    for name, layer in unet.named_modules():
        if isinstance(layer, Attention) and name.endswith("attn2"):
            width = layer.to_q.out_features  # pyright: ignore[reportOptionalMemberAccess]
            layer.set_processor(  # pyright: ignore[reportArgumentType]
                IPAdapterAttnProcessor2_0(width, tiny.TEXT_DIM, num_tokens=(2,))  # pyright: ignore
            )
    return unet


def test_an_ip_adapter_keeps_working() -> None:
    unet = with_ip_adapter(tiny.unet())
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    text = tiny.text(4)
    adapters = {n: p for n, p in unet.attn_processors.items() if "attn2" in n}

    def run(seed: int) -> Tensor:
        image = torch.randn(4, 1, 2, tiny.TEXT_DIM, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return unet(latents, 500, encoder_hidden_states=(text, [image])).sample

    guidance = AttentionGuidance.of(cases.frames(2, 64, 64), cases.still(2, 64, 64))
    plainly = run(5)
    with guided_attention(unet, guidance):
        assert {n: p for n, p in unet.attn_processors.items() if "attn2" in n} == adapters
        assert (run(5) - plainly).abs().max() > 1e-5
        assert (run(5) - run(6)).abs().max() > 1e-5
    assert torch.equal(run(5), plainly)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            lambda: tiny.unet(up_block_types=("UpBlock2D",) * 4),
            "last 2 up blocks .* no self-attention",
        ),
        (
            lambda: UNet2DConditionModel(
                block_out_channels=(8, 8),
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "UpBlock2D"),
                attention_head_dim=2,
                cross_attention_dim=8,
                norm_num_groups=4,
            ),
            "last 2 up blocks .* no self-attention",
        ),
        (lambda: AutoencoderKL(block_out_channels=(8,), norm_num_groups=4), "has 0 up blocks"),
    ],
)
def test_a_model_without_the_blocks_is_refused(
    model: Callable[[], torch.nn.Module], says: str
) -> None:
    with (
        pytest.raises(UnsupportedModel, match=says),
        guided_attention(model(), AttentionGuidance(frames=1)),
    ):
        pass


def test_the_blocks_at_the_latents_size_and_half_of_it_are_guided() -> None:
    assert guided_blocks(tiny.unet()) == (2, 3)
    assert guided_blocks(tiny.xl_unet()) == (1,)
    with pytest.raises(UnsupportedModel, match=r"up block 0 .* no self-attention"):
        self_attentions(tiny.unet(), [0])
    with pytest.raises(UnsupportedModel, match="has 4 up blocks"):
        self_attentions(tiny.unet(), [4])


def test_what_does_not_belong_to_the_batch_is_refused() -> None:
    layer, x = tiny.self_attention(8, 2), torch.randn(4, 4, 8)
    with pytest.raises(InvalidInput, match="does not hold 3 frames"):
        guided(layer, x, AttentionGuidance(3, **OFF))
    with pytest.raises(InvalidInput, match="at least one"):
        AttentionGuidance(0)
    with pytest.raises(InvalidInput, match="mask of unique tokens"):
        AttentionGuidance(2, unique={4: torch.ones(3, 4, dtype=torch.bool)})
    with pytest.raises(InvalidInput, match="no features are stored"):
        guided(layer, x, AttentionGuidance(2))
    with pytest.raises(InvalidInput, match="record them at the size"):
        guided(layer, x, AttentionGuidance(2, reference={"": x[:2]}))
    layer.set_processor(FrescoAttnProcessor(AttentionGuidance(2, **OFF)))
    with pytest.raises(InvalidInput, match="no attention mask"):
        layer(x, attention_mask=torch.zeros(4, 1, 4))
