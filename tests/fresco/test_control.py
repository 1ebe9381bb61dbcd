from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessorPil,
)

from fresco import control
from fresco.annotators import HedNetwork, LineArtNetwork
from fresco.callbacks import CancelToken
from fresco.control import Canny, Depth, LineArt, SoftEdge, Supplied, Tile, control_maps
from fresco.depth import load_depth
from fresco.errors import Cancelled, InvalidInput, MissingWeights
from tests.fresco import cases

#: As the published Depth Anything V2 has it, but for the size.
PREPARATION: dict[str, Any] = {
    "size": {"height": 70, "width": 70},
    "ensure_multiple_of": 14,
    "keep_aspect_ratio": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
}


def square(height: int = 48, width: int = 64) -> Tensor:
    """A bright square on black, with a faint one beside it."""
    frame = torch.zeros(1, 3, height, width)
    frame[..., 12:36, 10:30] = 0.9
    frame[..., 12:36, 40:56] = 0.03
    return frame


# --- canny ---


def test_canny_is_opencvs_on_the_grey_frame() -> None:
    frames = torch.cat([square(), cases.frames(1, 48, 64)])
    maps = control_maps(frames)
    assert maps.shape == frames.shape
    assert maps.dtype == torch.float32
    for frame, made in zip(frames, maps, strict=True):
        image = (frame.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
        edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 50, 100)
        for channel in made:
            np.testing.assert_array_equal(channel.numpy() * 255, edges)


def test_canny_draws_the_outline_of_a_square_and_nothing_else() -> None:
    lines = control_maps(square(), "canny")[0, 0]
    assert set(lines.unique().tolist()) == {0.0, 1.0}
    rows, columns = lines.nonzero(as_tuple=True)
    near = [abs(rows - edge) <= 1 for edge in (11.5, 35.5)]
    near += [abs(columns - edge) <= 1 for edge in (9.5, 29.5)]
    assert bool(torch.stack(near).any(dim=0).all())
    assert int(columns.max()) <= 31, "the faint square is below the thresholds"
    assert len(rows) >= 2 * (20 + 24) - 8


def test_canny_thresholds_decide_what_is_a_line() -> None:
    assert Canny(10, 20)(square())[..., 40:].any()
    assert not Canny(50, 100)(square())[..., 40:].any()
    assert not Canny(2000, 2000)(square()).any()


@pytest.mark.parametrize("thresholds", [(100, 50), (-1, 50), (0, float("nan"))])
def test_canny_refuses_thresholds_in_the_wrong_order(thresholds: tuple[float, float]) -> None:
    with pytest.raises(InvalidInput, match="0 <= low <= high"):
        Canny(*thresholds)


# --- tile ---


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_tile_is_reduced_by_areas_and_enlarged_cubically(factor: int) -> None:
    frames = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    frames = torch.cat([frames, square()])  # beside its corners the cubic falls below 0
    small = F.avg_pool2d(frames, factor)
    expected = F.interpolate(small, size=(48, 64), mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(control_maps(frames, Tile(factor)), expected, rtol=0, atol=1e-5)
    if factor == 4:
        assert torch.equal(control_maps(frames, "tile"), Tile(4)(frames))


def test_tile_takes_sides_that_are_no_multiple_and_smaller_than_the_factor() -> None:
    even = torch.full((1, 3, 3, 21), 0.25)
    torch.testing.assert_close(Tile(4)(even), even)


@pytest.mark.parametrize("factor", [0, -4, 2.5])
def test_tile_refuses_a_factor_that_is_none(factor: int) -> None:
    with pytest.raises(InvalidInput, match="whole number from 1"):
        Tile(factor)


# --- soft edges and line art ---


def small_hed() -> HedNetwork:
    return HedNetwork(widths=(4, 4, 6, 6, 8))


def small_lineart() -> LineArtNetwork:
    return LineArtNetwork(width=4)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks as published, but narrow."""
    monkeypatch.setattr(control, "HedNetwork", small_hed)
    monkeypatch.setattr(control, "LineArtNetwork", small_lineart)


def written(network: nn.Module, path: Path) -> nn.Module:
    """Fill `network` with random weights and write them."""
    generator = torch.Generator().manual_seed(0)
    for value in network.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    save_file(network.state_dict(), path)
    return network.eval()


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(
    ("name", "make", "line_art"),
    [("softedge", small_hed, False), ("hed", small_hed, False), ("lineart", small_lineart, True)],
)
def test_drawn_maps_are_the_networks_with_white_lines(
    name: str, make: Callable[[], nn.Module], line_art: bool, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    network = written(make(), path)
    frames = cases.frames(2, 48, 64)
    maps = control.estimator(name, path)(frames)
    with torch.no_grad():
        drawn = torch.cat([network(frame) for frame in frames.split(1)])
    expected = (1 - drawn if line_art else drawn).expand_as(frames)
    assert expected.std() > 1e-3
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-6)
    assert torch.equal(maps, control_maps(frames, control.estimator(name, path)))
    if line_art:
        torch.testing.assert_close(LineArt(path, dark_lines=True)(frames), 1 - maps)


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(
    ("kind", "make", "multiple"), [(SoftEdge, small_hed, 16), (LineArt, small_lineart, 4)]
)
def test_drawn_maps_of_any_size_are_padded_by_reflection_and_cropped(
    kind: Any, make: Callable[[], nn.Module], multiple: int, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    written(make(), path)
    frames, estimate = cases.frames(1, 41, 53), kind(path)
    maps = estimate(frames)
    assert maps.shape == frames.shape
    padding = (0, -53 % multiple, 0, -41 % multiple)
    padded = F.pad(frames, padding, mode="reflect")
    assert padded.shape != frames.shape
    assert torch.equal(maps, estimate(padded)[..., :41, :53])


@pytest.mark.usefixtures("small_networks")
def test_drawn_maps_run_in_the_type_asked_for(tmp_path: Path) -> None:
    path, frames = tmp_path / "net.safetensors", cases.frames(1, 32, 32)
    written(small_lineart(), path)
    single, brief = LineArt(path)(frames), LineArt(path, dtype=torch.bfloat16)(frames)
    assert brief.dtype == torch.float32
    assert not torch.equal(single, brief)
    torch.testing.assert_close(single, brief, rtol=0, atol=0.1)


@pytest.mark.usefixtures("small_networks")
def test_drawn_maps_refuse_small_frames_and_broken_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    network = written(small_hed(), path)
    with pytest.raises(InvalidInput, match="64 x 15 are too small"):
        SoftEdge(path)(torch.zeros(1, 3, 15, 64))
    network.norm.data.fill_(float("nan"))  # pyright: ignore
    save_file(network.state_dict(), path)
    with pytest.raises(InvalidInput, match=r"frame 0 has NaN .* need float32"):
        SoftEdge(path)(torch.zeros(1, 3, 16, 16))


# --- depth ---


def depth_anything(folder: Path, **changes: Any) -> DepthAnythingForDepthEstimation:
    """Write a tiny random Depth Anything as it is published, and return it."""
    torch.manual_seed(3)
    backbone = Dinov2Config(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        mlp_ratio=2,
        out_indices=[1, 2, 3, 4],  # pyright: ignore[reportCallIssue]
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=8,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=4,
        head_hidden_size=4,
        **changes,
    )
    network = DepthAnythingForDepthEstimation(config)
    randomise(network)
    torch.nn.init.constant_(network.head.conv3.bias, 2.0)  # pyright: ignore # the last unit is a ReLU: keep it alive
    network.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARATION))
    return network


def dpt(folder: Path) -> DPTForDepthEstimation:
    """Write a tiny random DPT in the older published form, and return it."""
    torch.manual_seed(3)
    config = DPTConfig(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=4,
        use_auxiliary_head=False,
    )
    network = DPTForDepthEstimation(config)
    randomise(network)
    network.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 64, "do_resize": True}))
    return network


def randomise(network: nn.Module) -> None:
    # Their own beginnings are so small that every picture would look alike.
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def tilted() -> Tensor:
    return torch.linspace(0, 1, 84).expand(1, 3, 70, 84).clone()


@pytest.mark.parametrize(
    ("make", "preparation"), [(depth_anything, PREPARATION), (dpt, {"size": 64})]
)
def test_inverse_depth_is_the_models_own(
    make: Callable[[Path], nn.Module], preparation: dict[str, Any], tmp_path: Path
) -> None:
    """As transformers' own model has it, on what its own preparation gives but for rounding."""
    network, frames = make(tmp_path), cases.frames(1, 100, 160)
    image = (frames[0].permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
    frames = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    size = preparation["size"]
    size = {"height": size, "width": size} if isinstance(size, int) else size
    processor = DPTImageProcessorPil(**{**preparation, "size": size})
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    model = load_depth(tmp_path)
    torch.testing.assert_close(model.prepare(frames), pixels, rtol=0, atol=0.025)
    with torch.no_grad():
        expected = network(model.prepare(frames)).predicted_depth[:, None]
    expected = F.interpolate(expected, size=(100, 160), mode="bilinear")
    assert expected.std() > 1e-2
    assert torch.equal(model.inverse_depth(frames), expected)


@pytest.mark.parametrize("size", [(540, 960), (960, 540), (512, 512), (100, 2000), (518, 519)])
@pytest.mark.parametrize("keep", [True, False])
def test_the_size_is_the_one_transformers_chooses(
    size: tuple[int, int], keep: bool, tmp_path: Path
) -> None:
    depth_anything(tmp_path)
    changed = {**PREPARATION, "keep_aspect_ratio": keep}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(changed))
    pixels = DPTImageProcessorPil(**changed)(np.zeros((*size, 3), np.uint8), return_tensors="pt")
    chosen = load_depth(tmp_path).prepare.size_for(*size)
    assert chosen == tuple(pixels["pixel_values"].shape[-2:])


class Slope(nn.Module):
    """A depth model whose prediction is the red channel."""

    def __init__(self, largest: float = 1.0) -> None:
        super().__init__()
        self.largest = nn.Parameter(torch.tensor(largest))

    def forward(self, pixels: Tensor) -> Any:
        class Output:
            predicted_depth = pixels[:, 0] * self.largest

        return Output


def sloped(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Depth:
    """A real folder whose network is exchanged for `Slope`; its preparation changes nothing."""
    depth_anything(folder, **changes)
    plain = {"size": {"height": 70, "width": 84}, "image_mean": [0] * 3, "image_std": [1] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(plain))
    monkeypatch.setattr("fresco.depth._load_network", lambda _: Slope())
    return Depth(folder)


def test_near_is_white_whatever_the_model_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = sloped(tmp_path / "relative", monkeypatch)(tilted())[0, 0, 35]
    assert (relative.diff() >= 0).all(), "a larger inverse depth is nearer"
    metric = sloped(tmp_path / "metric", monkeypatch, depth_estimation_type="metric")
    near = metric(0.1 + 0.8 * tilted())[0, 0, 35]
    assert (near.diff() <= 0).all(), "a larger distance is farther"
    for row in (relative, near):
        assert row.min() == 0
        assert row.max() == 1
    expected = 1 / (0.1 + 0.8 * tilted()[0, 0, 35])
    low, high = np.percentile(expected.expand(70, 84).numpy(), (1, 99))
    torch.testing.assert_close(near, ((expected - low) / (high - low)).clamp(0, 1))


def test_all_frames_share_the_bounds_so_that_depth_does_not_flicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = sloped(tmp_path, monkeypatch)
    far, near = tilted() * 0.5, tilted()
    both = depth(torch.cat([far, near]))
    assert both[0].max() < 0.6, "what is far in one frame is not stretched to white"
    assert both[1].max() == 1
    # In pieces: the same, once the bounds of the whole are set.
    assert depth(far).max() == 1
    depth.bounds = depth.measure(torch.cat([far, near]))
    assert torch.equal(torch.cat([depth(far), depth(near)]), both)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_depth_refuses_bounds_in_the_wrong_order(
    bounds: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = sloped(tmp_path, monkeypatch)
    depth.bounds = bounds
    with pytest.raises(InvalidInput, match="expected low <= high"):
        depth(tilted())


def test_a_few_wild_pixels_do_not_decide_the_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth, frame = sloped(tmp_path, monkeypatch), tilted() * 0.5
    calm = depth(frame)
    frame[..., 10:13, 10:13] = 1
    assert (depth(frame) - calm)[..., 20:, :].abs().max() < 0.02


def test_flat_depth_is_black_and_not_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not sloped(tmp_path, monkeypatch)(torch.full((2, 3, 70, 84), 0.5)).any()


def test_depth_maps_have_the_frames_size_and_the_same_bits_again(tmp_path: Path) -> None:
    depth_anything(tmp_path)
    frames = cases.frames(2, 60, 77)
    first, second = (control_maps(frames, control.estimator("depth", tmp_path)) for _ in range(2))
    assert first.shape == frames.shape
    assert first.min() == 0
    assert first.max() == 1
    assert torch.equal(first, second)
    assert torch.equal(first[:, 0], first[:, 2])


def test_depth_needs_every_tensor_but_the_one_nobody_uses(tmp_path: Path) -> None:
    network = dpt(tmp_path)
    frame, complete = cases.frames(1, 64, 64), load_depth(tmp_path)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    unused = [key for key in state if "fusion_stage.layers.0.residual_layer1." in key]
    assert unused
    published = {key: value for key, value in state.items() if key not in unused}
    save_file(published, tmp_path / "model.safetensors", {"format": "pt"})
    assert torch.equal(load_depth(tmp_path).inverse_depth(frame), complete.inverse_depth(frame))
    del published["head.head.0.weight"]
    save_file(published, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InvalidInput, match=r"lack 1 tensors \(head\.head\.0\.weight"):
        load_depth(tmp_path)


def test_depth_reads_no_pickle(tmp_path: Path) -> None:
    network = depth_anything(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingWeights, match=r"no \.safetensors weights"):
        Depth(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("config.json", {"model_type": "glpn"}, "type 'glpn'"),
        ("config.json", {"backbone": "some/where", "backbone_config": None}, "be downloaded"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 518}}, "does not say"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "does not say"),
        ("preprocessor_config.json", {"image_std": [0.0, 1, 1]}, "0 or less"),
        ("preprocessor_config.json", {"do_pad": True}, "padding"),
        ("preprocessor_config.json", None, "no JSON"),
    ],
)
def test_depth_refuses_folders_it_cannot_use(
    name: str, change: dict[str, Any] | None, words: str, tmp_path: Path
) -> None:
    depth_anything(tmp_path)
    path = tmp_path / name
    path.write_text(
        "{" if change is None else json.dumps({**json.loads(path.read_text()), **change})
    )
    with pytest.raises(InvalidInput, match=words):
        Depth(tmp_path)


def test_depth_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"no config\.json"):
        Depth(tmp_path)


# --- supplied ---


def test_supplied_maps_of_the_same_size_are_taken_as_they_are() -> None:
    frames, maps = torch.zeros(3, 3, 20, 30), torch.rand(3, 3, 20, 30)
    assert torch.equal(control_maps(frames, Supplied(maps)), maps)
    assert torch.equal(control_maps(frames, Supplied(list(maps.double()))), maps)


@pytest.mark.parametrize("shape", [(3, 20, 30), (1, 20, 30), (20, 30), (1, 1, 20, 30)])
def test_one_supplied_map_serves_all_frames(shape: tuple[int, ...]) -> None:
    given = torch.rand(shape)
    expected = given.reshape(-1, 20, 30).expand(2, 3, 20, 30)
    assert torch.equal(control_maps(torch.zeros(2, 3, 20, 30), Supplied(given)), expected)


def test_supplied_maps_shrink_by_areas_and_grow_bilinearly() -> None:
    frames, maps = torch.zeros(2, 3, 20, 30), torch.rand(2, 1, 80, 120)
    shrunk = F.avg_pool2d(maps, 4).expand(2, 3, 20, 30)
    torch.testing.assert_close(control_maps(frames, Supplied(maps)), shrunk)
    small = torch.rand(2, 3, 10, 15)
    grown = F.interpolate(small, size=(20, 30), mode="bilinear")
    torch.testing.assert_close(control_maps(frames, Supplied(small)), grown)


def test_supplied_maps_may_be_off_by_rounding_but_not_of_another_shape() -> None:
    frames = torch.zeros(1, 3, 1080, 1920)
    assert Supplied(torch.ones(1, 480, 853))(frames).min() == 1
    with pytest.raises(InvalidInput, match="is 640 x 480 but the frames are 1920 x 1080"):
        Supplied(torch.ones(1, 480, 640))(frames)
    with pytest.raises(InvalidInput, match="crop or pad it"):
        Supplied(torch.ones(1, 544, 960))(frames)


def test_supplied_maps_that_are_none_are_refused() -> None:
    frames = torch.zeros(3, 3, 20, 30)
    with pytest.raises(InvalidInput, match="2 control maps for 3 frames"):
        Supplied(torch.zeros(2, 3, 20, 30))(frames)
    with pytest.raises(InvalidInput, match="no control maps"):
        Supplied([])
    with pytest.raises(InvalidInput, match=r"map 0 has shape \(5, 20, 30\)"):
        Supplied(torch.zeros(5, 20, 30))
    with pytest.raises(InvalidInput, match=r"map 1 is no image: .* run from 255"):
        Supplied([torch.zeros(1, 20, 30), torch.full((1, 20, 30), 255.0), torch.zeros(1, 20, 30)])(
            frames
        )
    with pytest.raises(InvalidInput, match=r"map 0 is no image: .*divide 8-bit by 255"):
        Supplied(torch.zeros(1, 20, 30, dtype=torch.uint8))(frames)


# --- all of them ---


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"'pose'; use one of .*'canny'.*'tile'"):
        control_maps(torch.zeros(1, 3, 20, 30), "pose")
    with pytest.raises(InvalidInput, match=r"Supplied\(maps\)"):
        control_maps(torch.zeros(1, 3, 20, 30), "supplied")


@pytest.mark.parametrize("kind", sorted(control.WEIGHTS))
@pytest.mark.parametrize("given", [True, False])
def test_missing_weights_name_the_command(kind: str, given: bool, tmp_path: Path) -> None:
    command = f"fresco-bridge models download {control.WEIGHTS[kind]}$"
    with pytest.raises(MissingWeights, match=command):
        control.estimator(kind, tmp_path / "nothing" if given else None)


@pytest.mark.parametrize("kind", [Canny(), Tile(), Supplied(torch.zeros(20, 30))])
def test_frames_come_in_any_form_and_bad_ones_are_refused(kind: Any) -> None:
    frames = cases.frames(2, 20, 30)
    assert torch.equal(control_maps(list(frames), kind), control_maps(frames, kind))
    half = control_maps(frames.to(torch.bfloat16), kind)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, control_maps(frames.to(torch.bfloat16).float(), kind))
    with pytest.raises(InvalidInput, match="scale them to"):
        control_maps(frames * 255, kind)
    with pytest.raises(InvalidInput, match="there are no frames"):
        control_maps([], kind)


@pytest.mark.parametrize("kind", [Canny(), Tile(), Supplied(torch.rand(7, 3, 20, 30))])
def test_a_frame_does_not_depend_on_the_others(kind: Any) -> None:
    frames = cases.frames(7, 20, 30)
    before = frames.clone()
    whole = control_maps(frames, kind)
    assert torch.equal(frames, before)
    if not isinstance(kind, Supplied):
        singles = torch.cat([control_maps(frame, kind) for frame in frames.split(1)])
        assert torch.equal(whole, singles)


def test_cancelling_is_seen_before_the_next_frame() -> None:
    token, seen = CancelToken(), list[int]()

    def stops_at_the_third(frame: Tensor, index: int) -> Tensor:
        seen.append(index)
        if index == 2:
            threading.Thread(target=token.cancel).run()
        return frame

    kind = Canny()
    kind._map = stops_at_the_third  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        control_maps(cases.frames(5, 20, 30), kind, token)
    assert seen == [0, 1, 2]


def test_cancelled_before_the_start_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = CancelToken()
    token.cancel()
    for kind in (Canny(), Tile(), Supplied(torch.zeros(70, 84)), sloped(tmp_path, monkeypatch)):
        with pytest.raises(Cancelled):
            control_maps(tilted(), kind, token)
