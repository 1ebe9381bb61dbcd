from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fresco.annotators import HedNetwork, LineArtNetwork, convert, load, read
from fresco.errors import InvalidInput, MissingWeights
from tests.fresco import cases

#: Of what the published files hold: names and shapes.
HED_SHAPES = {
    "norm": (1, 3, 1, 1),
    "block1.convs.0.weight": (64, 3, 3, 3),
    "block1.convs.1.weight": (64, 64, 3, 3),
    "block2.convs.0.weight": (128, 64, 3, 3),
    "block3.convs.2.weight": (256, 256, 3, 3),
    "block5.convs.2.bias": (512,),
    "block5.projection.weight": (1, 512, 1, 1),
    "block5.projection.bias": (1,),
}
LINEART_SHAPES = {
    "model0.1.weight": (64, 3, 7, 7),
    "model1.0.weight": (128, 64, 3, 3),
    "model1.3.bias": (256,),
    "model2.0.conv_block.1.weight": (256, 256, 3, 3),
    "model2.2.conv_block.5.bias": (256,),
    "model3.0.weight": (256, 128, 3, 3),
    "model3.3.weight": (128, 64, 3, 3),
    "model4.1.weight": (1, 64, 7, 7),
}


def small_hed() -> HedNetwork:
    return HedNetwork(widths=(4, 4, 6, 6, 8))


def small_lineart() -> LineArtNetwork:
    return LineArtNetwork(width=4)


def randomised(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) * 0.2
        for key, value in network.state_dict().items()
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plain_hed(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The network again, from its table of weights alone."""
    x, total = images * 255 - state["norm"], torch.zeros(())
    for number in range(1, 6):
        if number > 1:  # the largest of every 2 x 2
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
        index = 0
        while f"block{number}.convs.{index}.weight" in state:
            name = f"block{number}.convs.{index}"
            x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).clamp(min=0)
            index += 1
        name = f"block{number}.projection"
        guess = torch.einsum("nchw,c->nhw", x, state[f"{name}.weight"][0, :, 0, 0])
        guess = guess[:, None] + state[f"{name}.bias"]
        total = total + F.interpolate(guess, size=images.shape[-2:], mode="bilinear")
    return 1 / (1 + torch.exp(-total / 5))


def plain_lineart(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The generator again, from its table of weights alone."""

    def convolved(x: Tensor, name: str, reflect: int = 0, **options: int) -> Tensor:
        x = F.pad(x, (reflect,) * 4, mode="reflect") if reflect else x
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def normed(x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt()

    def doubled(x: Tensor, name: str) -> Tensor:
        # A transposed convolution is a convolution of the picture with zeros in between.
        spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2] + 2, 2 * x.shape[3] + 2)
        spread[:, :, 1:-1:2, 1:-1:2] = x
        kernel = state[f"{name}.weight"].transpose(0, 1).flip(2, 3)
        return F.conv2d(spread, kernel, state[f"{name}.bias"])

    x = normed(convolved(images, "model0.1", reflect=3)).relu()
    for name in ("model1.0", "model1.3"):
        x = normed(convolved(x, name, stride=2, padding=1)).relu()
    for block in range(3):
        name = f"model2.{block}.conv_block"
        inner = normed(convolved(x, f"{name}.1", reflect=1)).relu()
        x = x + normed(convolved(inner, f"{name}.5", reflect=1))
    for name in ("model3.0", "model3.3"):
        x = normed(doubled(x, name)).relu()
    return 1 / (1 + torch.exp(-convolved(x, "model4.1", reflect=3)))


@pytest.mark.parametrize(
    ("network", "shapes", "tensors", "parameters"),
    [
        # VGG-16's convolutions, the projections, the mean colour
        (HedNetwork, HED_SHAPES, 1 + 2 * (13 + 5), 14_714_688 + 1_477 + 3),
        # first, down, residual, up, last
        (
            LineArtNetwork,
            LINEART_SHAPES,
            2 * (1 + 2 + 6 + 2 + 1),
            9_472 + 73_856 + 295_168 + 6 * 590_080 + 295_040 + 73_792 + 3_137,
        ),
    ],
)
def test_the_networks_have_the_published_tables(
    network: type[nn.Module], shapes: dict[str, tuple[int, ...]], tensors: int, parameters: int
) -> None:
    with torch.device("meta"):
        state = network().state_dict()
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    assert len(state) == tensors
    assert sum(value.numel() for value in state.values()) == parameters


@pytest.mark.parametrize(
    ("network", "plain"), [(small_hed(), plain_hed), (small_lineart(), plain_lineart)]
)
def test_the_networks_agree_with_a_plain_second_implementation(
    network: nn.Module, plain: Callable[[dict[str, Tensor], Tensor], Tensor]
) -> None:
    state, images = randomised(network), cases.frames(2, 48, 32)
    network.load_state_dict(state)
    drawn = network(images)
    assert drawn.shape == (2, 1, 48, 32)
    assert drawn.std() > 1e-3, "the comparison would see nothing"
    torch.testing.assert_close(drawn, plain(state, images), rtol=0, atol=2e-5)


@pytest.mark.parametrize("make", [small_hed, small_lineart])
def test_pickle_and_safetensors_give_the_same_weights(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    state = randomised(make())
    pth, safe, converted = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.safetensors"))
    torch.save(state, pth)
    save_file(state, safe)
    convert(pth, converted, sha256(pth))
    assert load_file(converted).keys() == state.keys()
    loaded = [load(make(), pth, sha256(pth)), load(make(), safe), load(make(), converted)]
    images = cases.frames(1, 32, 32)
    for network in loaded:
        assert not network.training
        for key, value in network.state_dict().items():
            assert torch.equal(value, state[key])
    first, second, third = (network(images) for network in loaded)
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.pth",
        "b.safetensors",
        "c.safetensors",
    ]


def test_a_pickle_is_refused_without_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(randomised(small_hed()), path)
    with pytest.raises(InvalidInput, match=r"is a pickle, .* give the sha256"):
        load(small_hed(), path)


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_another_hash_is_refused_before_the_file_is_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(b"whatever")
    monkeypatch.setattr(torch, "load", lambda *_: pytest.fail("it was opened"))
    monkeypatch.setattr("fresco.weights.load_file", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(InvalidInput, match="is another file or a broken one and was not opened"):
        load(small_hed(), path, "0" * 64)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("bare", [True, False])
def test_a_malicious_pickle_with_the_right_hash_is_not_executed(tmp_path: Path, bare: bool) -> None:
    path, witness = tmp_path / "net.pth", tmp_path / "witness"
    state: dict[str, object] = {**randomised(small_hed()), "payload": Malicious(witness)}
    if bare:  # the protocol that torch's reader knows best
        path.write_bytes(pickle.dumps(state, protocol=2))
    else:
        torch.save(state, path)
    with pytest.raises(InvalidInput, match="something other than plain weights and was not read"):
        load(small_hed(), path, sha256(path))
    assert not witness.exists()
    torch.load(path, weights_only=False) if not bare else pickle.loads(path.read_bytes())
    assert witness.exists(), "the pickle was harmless: this test would see nothing"


@pytest.mark.parametrize("content", [b"", b"half a download", b"\x80\x02."])
def test_broken_files_are_refused(content: bytes, tmp_path: Path) -> None:
    pth, safe = tmp_path / "net.pth", tmp_path / "net.safetensors"
    pth.write_bytes(content)
    safe.write_bytes(content)
    with pytest.raises(InvalidInput, match="was not read"):
        read(pth, sha256(pth))
    with pytest.raises(InvalidInput, match="fetch it again"):
        read(safe)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}])
def test_a_pickle_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(content, path)
    with pytest.raises(InvalidInput, match="not a table of weights"):
        read(path, sha256(path))


def test_weights_stored_in_half_precision_run_in_single(tmp_path: Path) -> None:
    """The published HED file is one of these."""
    path = tmp_path / "net.safetensors"
    half = {key: value.half() for key, value in randomised(small_hed()).items()}
    save_file(half, path)
    for key, value in load(small_hed(), path).state_dict().items():
        assert torch.equal(value, half[key].float())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"block2.projection.bias": None}, "1 missing (block2.projection.bias), 0 unknown"),
        ({"extra": torch.zeros(1)}, "0 missing, 1 unknown (extra), 0 of another shape"),
        (
            {"block1.convs.0.bias": torch.zeros(5), "norm": torch.zeros(1)},
            "0 unknown, 2 of another shape (block1.convs.0.bias, ...)",
        ),
    ],
)
def test_weights_of_something_else_are_refused_by_name(
    changes: dict[str, Tensor | None], words: str, tmp_path: Path
) -> None:
    path, state = tmp_path / "net.safetensors", {**randomised(small_hed()), **changes}
    save_file({key: value for key, value in state.items() if value is not None}, path)
    with pytest.raises(InvalidInput, match=re.escape(words)):
        load(small_hed(), path)


def test_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="no weights at"):
        load(small_hed(), tmp_path / "net.safetensors")


def test_converting_needs_the_safe_name_and_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(randomised(small_hed()), path)
    with pytest.raises(InvalidInput, match=r"must be called \.safetensors"):
        convert(path, tmp_path / "net.bin", sha256(path))
    with pytest.raises(InvalidInput, match="was not opened"):
        convert(path, tmp_path / "net.safetensors", "0" * 64)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.pth"]


def test_hand_set_edges_stand_where_the_step_is() -> None:
    """Weights that measure the horizontal slope at full size show a step, and nothing else."""
    network = HedNetwork(widths=(2, 1, 1, 1, 1), depths=(1, 1, 1, 1, 1))
    state = {key: torch.zeros_like(value) for key, value in network.state_dict().items()}
    state["norm"] += 100.0  # cancels in a slope
    slope = torch.tensor([-1.0, 0.0, 1.0]) / 255
    state["block1.convs.0.weight"][0, :, 1] = slope  # up and down: relu keeps one sign each
    state["block1.convs.0.weight"][1, :, 1] = -slope
    state["block1.projection.weight"] += 20.0
    state["block1.projection.bias"] -= 20.0
    network.load_state_dict(state)
    image = torch.zeros(1, 3, 32, 32)
    image[..., 13:] = 1
    edges = network(image)[0, 0, 4:-4, 4:-4]
    expected = torch.full((24,), -4.0).sigmoid()
    expected[8:10] = torch.sigmoid(torch.tensor((20.0 * 3 - 20) / 5))  # columns 12 and 13
    torch.testing.assert_close(edges, expected.expand(24, 24))
