from __future__ import annotations

import numpy as np
import torch

from fresco.frames import stack, to_bytes
from tests.fresco import cases


def test_a_list_of_images_is_a_batch() -> None:
    batch = cases.frames(3, 8, 12)
    assert torch.equal(stack(list(batch)), batch)
    assert stack(batch) is batch


def test_every_8_bit_value_survives() -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, -1, -1)
    images = to_bytes(values.float() / 255)
    assert len(images) == 2
    assert all(image.flags["C_CONTIGUOUS"] for image in images)
    assert np.array_equal(images[1][..., 2], values[0, 0].numpy())


def test_rounding_beyond_the_range_is_clipped() -> None:
    (image,) = to_bytes(torch.tensor([-0.0005, 1.0005, 0.5]).reshape(1, 3, 1, 1))
    assert image.flatten().tolist() == [0, 255, 128]
