from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from fresco import flow
from fresco.errors import FrescoError, InvalidInput, MissingExtra, MissingWeights
from tests.fresco import cases

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
needs_torchvision = pytest.mark.skipif(
    not HAS_TORCHVISION, reason="torchvision (extra [raft]) is not installed"
)


_DECLARED: list[torch.library.Library] = []


@pytest.fixture
def torchvision_on_cpu() -> None:
    """Let torchvision be imported beside a torch build that its compiled operators do not fit.

    RAFT uses none of them; without these two declarations the package's own import stops.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)  # the declarations live as long as their library
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]


def textured(height: int, width: int) -> torch.Tensor:
    coarse = cases.features(1, 3, height // 6, width // 6).sigmoid()
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def test_dis_points_from_the_source_into_the_target() -> None:
    image = textured(96, 120)
    field = flow.estimator("dis")(image, image.roll((3, 5), dims=(2, 3)))
    assert field.shape == (1, 2, 96, 120)
    assert field.dtype == torch.float32
    middle = field[0, :, 24:72, 24:96].mean((1, 2))
    torch.testing.assert_close(middle, torch.tensor([5.0, 3.0]), rtol=0, atol=0.3)


def test_dis_gives_the_same_bits_again() -> None:
    frames = cases.frames(3, 64, 64)
    first, second = (flow.estimator("dis")(frames, frames.roll(1, 0)) for _ in range(2))
    assert torch.equal(first, second)


def test_dis_refuses_what_it_cannot_see() -> None:
    frames = torch.zeros(1, 3, 8, 64)
    with pytest.raises(InvalidInput, match="64 x 8 are too small"):
        flow.estimator("dis")(frames, frames)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"'gmflow'; use one of \['dis', 'raft'\]"):
        flow.estimator("gmflow")


@pytest.mark.skipif(HAS_TORCHVISION, reason="torchvision is installed: nothing is missing")
def test_raft_without_torchvision_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"fresco-bridge\[raft\]"):
        flow.estimator("raft")


@needs_torchvision
@pytest.mark.usefixtures("torchvision_on_cpu")
def test_raft_without_weights_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match="get_state_dict"):
        flow.estimator("raft")


@needs_torchvision
@pytest.mark.usefixtures("torchvision_on_cpu")
def test_raft_runs_from_a_file_at_any_size(tmp_path: Path) -> None:
    from torchvision.models.optical_flow import (  # pyright: ignore[reportMissingImports]
        raft_large,
    )

    torch.manual_seed(0)
    path = tmp_path / "raft.pth"
    torch.save(raft_large().state_dict(), path)
    frames = cases.frames(2, 72, 133)
    field = flow.Raft(path)(frames, frames.roll(1, 0))
    assert field.shape == (2, 2, 72, 133)
    assert torch.isfinite(field).all()


@needs_torchvision
@pytest.mark.usefixtures("torchvision_on_cpu")
def test_raft_refuses_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "raft.pth"
    path.write_bytes(b"half a download")
    with pytest.raises(FrescoError, match="fetch it again"):
        flow.Raft(path)
