"""The networks that draw ControlNet's soft edges and line art, and how their files are read.

Both are written down from what their published weights hold, so that these files can be used
without a further package. Weights are read from safetensors files. The published ones are pickles,
which may hold more than weights: those are opened only when their bytes are the ones the caller
pinned, and then by torch's reader of plain weights, which runs nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from fresco import weights
from fresco.errors import InvalidInput, MissingWeights

_Network = TypeVar("_Network", bound=nn.Module)
_SAFE = ".safetensors"
_CHUNK = 2**20


class HedNetwork(nn.Module):
    """Holistically-nested edges (Xie and Tu, ICCV 2015) as in ControlNet's ``ControlNetHED.pth``.

    Five blocks of convolutions, each at half the size of the one before, each with its own guess of
    the edges; the edges are the sigmoid of the guesses' mean at full size.

    widths, depths: channels and convolutions of the blocks, as published
    """

    #: What both sides of a picture must be a multiple of.
    multiple = 16

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        depths: Sequence[int] = (2, 2, 3, 3, 3),
    ) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        for number, (before, width, depth) in enumerate(
            zip((3, *widths[:-1]), widths, depths, strict=True), start=1
        ):
            self.add_module(f"block{number}", _HedBlock(before, width, depth))

    def forward(self, images: Tensor) -> Tensor:
        """Edges (N, 1, H, W) in [0, 1] of images (N, 3, H, W) in [0, 1]."""
        x, guesses = images * 255 - self.norm, list[Tensor]()
        for block in self.children():
            x, guess = block(F.max_pool2d(x, 2) if guesses else x)
            guesses.append(guess)
        whole = [F.interpolate(guess, size=images.shape[-2:], mode="bilinear") for guess in guesses]
        return torch.stack(whole).mean(dim=0).sigmoid()


class LineArtNetwork(nn.Module):
    """The generator of "informative drawings" (Chan et al., CVPR 2022), as in ``sk_model.pth``.

    width, blocks: channels at full size, and residual blocks, as published
    """

    #: What both sides of a picture must be a multiple of.
    multiple = 4

    def __init__(self, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        half, quarter = 2 * width, 4 * width
        self.model0 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), *_normed(width))
        self.model1 = nn.Sequential(
            *(nn.Conv2d(width, half, 3, stride=2, padding=1), *_normed(half)),
            *(nn.Conv2d(half, quarter, 3, stride=2, padding=1), *_normed(quarter)),
        )
        self.model2 = nn.Sequential(*(_Residual(quarter) for _ in range(blocks)))
        self.model3 = nn.Sequential(*_doubled(quarter, half), *_doubled(half, width))
        self.model4 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, 1, 7), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """A drawing (N, 1, H, W), dark lines on 1, of images (N, 3, H, W) in [0, 1]."""
        x = images
        for part in self.children():
            x = part(x)
        return x


class _HedBlock(nn.Module):
    def __init__(self, before: int, width: int, depth: int) -> None:
        super().__init__()
        inputs = (before, *[width] * (depth - 1))
        self.convs = nn.Sequential(*(nn.Conv2d(count, width, 3, padding=1) for count in inputs))
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for convolution in self.convs:
            x = convolution(x).relu()
        return x, self.projection(x)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), *_normed(width)),
            *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def _normed(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(width), nn.ReLU()


def _doubled(before: int, after: int) -> tuple[nn.Module, ...]:
    enlarged = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
    return enlarged, *_normed(after)


def load(network: _Network, path: Path, sha256: str | None = None) -> _Network:
    """Fill `network` from a file of weights and return it, ready to run.

    path: a ``.safetensors`` file, or the pickle that was published
    sha256: of the file; a pickle is opened only when it is given and right

    Raises:
        MissingWeights: there is no such file.
        InvalidInput: a pickle without its hash, another hash, or not the weights of `network`.
    """
    state, wanted = read(path, sha256), network.state_dict()
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape]
    if missing or unknown or shapes:
        raise InvalidInput(
            f"{path} does not hold the weights of {type(network).__name__}: "
            f"{_some('missing', missing)}, {_some('unknown', unknown)}, "
            f"{_some('of another shape', sorted(shapes))}; use the file that was made for it."
        )
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def read(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a file of weights; see `load`.

    Raises:
        MissingWeights, InvalidInput: see `load`.
    """
    if not path.is_file():
        raise MissingWeights(f"there are no weights at {path}.")
    if path.suffix == _SAFE and sha256 is None:
        return weights.tensors(path)
    if sha256 is None:
        raise InvalidInput(
            f"{path} is a pickle, which can hold more than weights; give the sha256 that was "
            f"pinned for it, or a {_SAFE} file."
        )
    with path.open("rb") as file:
        _check_hash(file, path, sha256)
        if path.suffix == _SAFE:
            return weights.tensors(path)
        # From the file that was checked, still open: nobody can put another in its place.
        return _read_pickle(file, path)


def convert(source: Path, target: Path, sha256: str) -> None:
    """Write the weights of a published pickle as safetensors, so that it is opened only once.

    sha256: of `source`

    Raises:
        MissingWeights, InvalidInput: see `load`; or `target` is not called ``.safetensors``.
    """
    if target.suffix != _SAFE:
        raise InvalidInput(f"{target} must be called {_SAFE}, to be read as what it is.")
    # Copies: the format refuses tensors that share memory.
    state = {key: value.clone().contiguous() for key, value in read(source, sha256).items()}
    part = target.with_name(target.name + ".part")
    save_file(state, part)
    os.replace(part, target)


def _read_pickle(file: BinaryIO, path: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of a broken pickle bring about
        raise InvalidInput(
            f"{path} holds something other than plain weights and was not read "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):  # pyright: ignore
        raise InvalidInput(f"{path} is not a table of weights; use the file that was published.")
    return {str(key): value.detach() for key, value in state.items()}  # pyright: ignore


def _check_hash(file: BinaryIO, path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    if digest.hexdigest() != sha256.lower():
        raise InvalidInput(
            f"{path} has the sha256 {digest.hexdigest()}, not {sha256}: it is another file or a "
            "broken one and was not opened; delete it and fetch it again."
        )
    file.seek(0)


def _some(what: str, keys: Sequence[str]) -> str:
    examples = ", ".join([*keys[:1], *["..."] * (len(keys) > 1)])
    return f"{len(keys)} {what}" + (f" ({examples})" if examples else "")
