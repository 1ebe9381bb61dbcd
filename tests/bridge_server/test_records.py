from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from bridge_server import records
from fresco.errors import InvalidInput
from fresco.request import Keyframe, Options
from fresco.schedule import Settings
from fresco.translate import redo, translate, translate_batch
from tests.fresco import tiny


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def done() -> tuple[Keyframe, ...]:
    """Three translated keyframes with a control map each."""
    text = torch.cat([tiny.text(3, 1), tiny.text(3, 2)])
    return translate(
        random(3, 3, 64, 64),
        tiny.model(),
        OPTIONS,
        prompt_embeds=text,
        controls=[random(3, 3, 64, 64, seed=2)],
        strengths=0.8,
        seeds=[3, 4, 5],
        numbers=[10, 20, 30],
    ).keyframes


#: Without the optimisation, which magnifies every rounding.
OPTIONS = Options(settings=Settings(steps=3, spatial_weight=0, temporal_loss=False, smooth_at=()))


def stored(keyframe: Keyframe, folder: Path) -> Keyframe:
    folder.mkdir()
    records.write(keyframe, folder)
    return records.read(folder, keyframe.frame, keyframe.controls)


def test_a_keyframe_comes_back(done: tuple[Keyframe, ...], tmp_path: Path) -> None:
    before = done[1]
    after = stored(replace(before, pooled=random(2, 6)), tmp_path / "k")
    for name in ("number", "seed", "strength", "steps", "scheduler"):
        assert getattr(after, name) == getattr(before, name)
    for name, error in (("image", 1 / 131000), ("latents", 0), ("text", 0), ("track", 4e-3)):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), atol=error, rtol=0)
    assert after.pooled is not None
    torch.testing.assert_close(after.pooled, random(2, 6))
    assert torch.equal(after.frame, before.frame)
    assert after.done


def test_what_is_read_is_written_again_bit_for_bit(
    done: tuple[Keyframe, ...], tmp_path: Path
) -> None:
    once = stored(done[0], tmp_path / "a")
    stored(once, tmp_path / "b")
    for name in (records.PICTURE, records.TENSORS, records.FACTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_read_keyframe_replays(done: tuple[Keyframe, ...], tmp_path: Path) -> None:
    """As an anchor of a next batch, and as a neighbour of an edited one."""
    read = [stored(keyframe, tmp_path / str(keyframe.number)) for keyframe in done]
    new = replace(done[1], number=40, image=None, latents=None, track=None)
    direct = translate_batch([*done[:2], new], tiny.model(), OPTIONS).images
    replayed = translate_batch([*read[:2], new], tiny.model(), OPTIONS).images
    torch.testing.assert_close(replayed, direct, atol=0.02, rtol=0)
    again = redo(read, 1, tiny.model(), OPTIONS, seed=9)
    assert again.image is not None
    assert again.image.isfinite().all()


def test_only_translated_keyframes_have_a_record(
    done: tuple[Keyframe, ...], tmp_path: Path
) -> None:
    for keyframe in (done[0].painted(random(3, 64, 64)), replace(done[0], image=None)):
        with pytest.raises(InvalidInput, match="keyframe 10 has no track"):
            records.write(keyframe, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [records.PICTURE, records.TENSORS, records.FACTS])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_damaged_records_are_refused(
    done: tuple[Keyframe, ...], tmp_path: Path, name: str, damage: str
) -> None:
    records.write(done[0], tmp_path)
    file = tmp_path / name
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    with pytest.raises(InvalidInput, match=r"damaged|cannot be read"):
        records.read(tmp_path, done[0].frame)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_pictures_of_both_depths(tmp_path: Path, dtype: type, white: int) -> None:
    pixels = np.zeros((4, 6, 3), dtype)
    pixels[..., 2] = white  # OpenCV's red
    pixels[0, 0] = (white // 5, 0, white // 3)
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    image = records.read_picture(tmp_path / "x.png")
    assert image.shape == (3, 4, 6)
    assert image[0, 1, 1] == 1
    assert image[:, 0, 0].tolist() == pytest.approx([1 / 3, 0, 1 / 5], abs=1e-5)


def test_pictures_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not there; correct its name"):
        records.read_picture(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InvalidInput, match="no picture"):
        records.read_picture(tmp_path / "text.png")
