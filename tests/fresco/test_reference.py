from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from fresco.errors import InvalidInput, UnsupportedModel
from fresco.reference import record
from tests.fresco import plain, tiny
from tests.vectors import Vectors


@pytest.mark.parametrize("batch", [0, 1])
def test_recorded_features(
    golden: Callable[[str], Vectors], reference_dir: Path, batch: int
) -> None:
    v, b = golden(f"i_end_to_end_batch{batch}"), f"b{batch}"
    tiny = reference_dir / "tiny_models"
    unet = UNet2DConditionModel.from_pretrained(tiny / "unet")
    scheduler = DDPMScheduler.from_pretrained(tiny / "scheduler")
    last = v["timesteps"][-1:]
    noisy = scheduler.add_noise(v[f"{b}_vae_x0_latents"], v[f"{b}_intraframe_noise"], last)

    reference = record(unet, noisy, last, v["prompt_embeds"])

    for index, features in reference.features.items():
        gram = plain.gram(features)
        if gram.shape[1] > 64:  # recorded subsampled
            gram = gram[:, ::7, ::5]
        torch.testing.assert_close(gram, v[f"{b}_corr{index}"], rtol=0, atol=1e-4)
    stored = list(reference.attention.values())
    assert [list(x.shape) for x in stored] == v[f"{b}_stored_attn_shapes"].tolist()
    torch.testing.assert_close(stored[0], v[f"{b}_stored_attn_first"], rtol=0, atol=1e-4)
    last_layer = v[f"{b}_stored_attn_last_frame0"]
    torch.testing.assert_close(stored[-1][0], last_layer, rtol=0, atol=1e-4)


def test_one_pass_keeps_both_halves_and_leaves_no_hooks() -> None:
    unet = tiny.unet()
    latents = torch.randn(2, 4, 8, 8)
    reference = record(unet, latents, 1, tiny.text(4))
    assert sorted(reference.features) == [0, 1, 2, 3]
    assert [len(x) for x in reference.features.values()] == [4] * 4
    assert [x.shape[-1] for x in reference.features.values()] == [1, 2, 4, 8]
    assert len(reference.attention) == 6
    assert not any(module._forward_pre_hooks for module in unet.modules())
    assert not any(x.requires_grad for x in reference.features.values())


def test_embeddings_of_other_frames_are_refused() -> None:
    with pytest.raises(InvalidInput, match="3 prompt embeddings do not belong to 2 frames"):
        record(tiny.unet(), torch.randn(2, 4, 8, 8), 1, tiny.text(3))


def test_a_model_without_the_blocks_is_refused() -> None:
    unet = tiny.unet(up_block_types=("UpBlock2D",) * 4)
    with pytest.raises(UnsupportedModel, match="no self-attention"):
        record(unet, torch.randn(1, 4, 8, 8), 1, tiny.text(2))


def test_freeu_does_not_change_what_is_kept() -> None:
    unet = tiny.unet()
    latents, text = torch.randn(1, 4, 8, 8), tiny.text(2)
    before = record(unet, latents, 1, text)
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    after = record(unet, latents, 1, text)
    # Block 0 gets its input before FreeU has touched anything.
    assert torch.equal(before.features[0], after.features[0])
    assert not torch.allclose(before.features[1], after.features[1])
