"""Optical flow estimators behind one interface, chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fresco.errors import InvalidInput, MissingExtra, MissingWeights
from fresco.frames import to_bytes


class FlowEstimator(Protocol):
    """Estimates where the pixels of one image went in another."""

    def __call__(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the flow from `source` to `target`.

        source, target: (N, 3, H, W) float RGB in [0, 1]
        returns: (N, 2, H, W) float32, pixels, on the grid and the device of `source`
        """
        ...


class Dis:
    """Dense inverse search (Kroeger et al., ECCV 2016) as OpenCV has it: no weights, CPU.

    fine: go down to single pixels with denser patches, as propagation wants it; slower
    """

    #: Below this the coarsest level of the medium preset has no whole patch.
    smallest_side = 16

    def __init__(self, fine: bool = False) -> None:
        self._fine = fine

    def __call__(self, source: Tensor, target: Tensor) -> Tensor:
        """See `FlowEstimator`."""
        height, width = source.shape[-2:]
        if source.shape != target.shape:
            raise InvalidInput(
                f"there is no flow between frames of {tuple(source.shape)} and "
                f"{tuple(target.shape)}; use as many, of one size."
            )
        if min(height, width) < self.smallest_side:
            raise InvalidInput(
                f"frames of {width} x {height} are too small for DIS flow; "
                f"both sides must be at least {self.smallest_side} pixels."
            )
        engine = self._engine()
        fields = [
            engine.calc(before, after, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
            for before, after in zip(_grey(source), _grey(target), strict=True)
        ]
        flow = torch.from_numpy(np.stack(fields)).permute(0, 3, 1, 2)
        return flow.contiguous().to(source.device, torch.float32)

    def _engine(self) -> cv2.DISOpticalFlow:
        engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        if self._fine:
            engine.setFinestScale(0)
            engine.setPatchStride(2)
            engine.setVariationalRefinementIterations(10)
        return engine


class Raft:
    """RAFT (Teed and Deng, ECCV 2020) from torchvision, its "large" model: extra ``[raft]``.

    weights: a file of torchvision's ``raft_large`` state dict. Without it the file is looked for
        where torchvision keeps its downloads; nothing is ever downloaded from here.
    device: where to run; by default wherever the frames are.

    Raises:
        MissingExtra: torchvision is not installed.
        MissingWeights: the weights are not on this machine.
    """

    #: RAFT's encoder divides by 8 and its correlation pyramid by 8 again.
    _multiple, _smallest_side = 8, 128

    def __init__(
        self, weights: Path | None = None, device: torch.device | str | None = None
    ) -> None:
        self._device = device
        self._model = _load_raft(weights)

    def __call__(self, source: Tensor, target: Tensor) -> Tensor:
        """See `FlowEstimator`."""
        device = self._device or source.device
        model = self._model.to(device)
        height, width = source.shape[-2:]
        # One pair at a time: the correlation volume grows with the square of the pixels.
        fields = [
            self._pair(model, before.to(device), after.to(device))[..., :height, :width]
            for before, after in zip(source.split(1), target.split(1), strict=True)
        ]
        return torch.cat(fields).to(source.device, torch.float32)

    @torch.no_grad()
    def _pair(self, model: torch.nn.Module, before: Tensor, after: Tensor) -> Tensor:
        before, after = (self._pad(image) * 2 - 1 for image in (before, after))
        return model(before, after)[-1]

    def _pad(self, image: Tensor) -> Tensor:
        height, width = (
            max(self._smallest_side, -(-side // self._multiple) * self._multiple)
            for side in image.shape[-2:]
        )
        right, bottom = width - image.shape[-1], height - image.shape[-2]
        return F.pad(image.float(), (0, right, 0, bottom), mode="replicate")


#: Name → what makes the estimator.
ESTIMATORS: dict[str, Callable[[], FlowEstimator]] = {"dis": Dis, "raft": Raft}


def estimator(name: str) -> FlowEstimator:
    """Return the flow estimator called `name` (a key of `ESTIMATORS`).

    Raises:
        InvalidInput: no estimator has this name.
        MissingExtra, MissingWeights: see `Raft`.
    """
    if name not in ESTIMATORS:
        raise InvalidInput(
            f"no flow estimator is called {name!r}; use one of {sorted(ESTIMATORS)}."
        )
    return ESTIMATORS[name]()


def _grey(frames: Tensor) -> list[NDArray[np.uint8]]:
    return [
        np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) for image in to_bytes(frames)
    ]


def _load_raft(weights: Path | None) -> torch.nn.Module:
    try:
        from torchvision.models.optical_flow import (  # pyright: ignore[reportMissingImports]
            Raft_Large_Weights,
            raft_large,
        )
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise MissingExtra(
            f"RAFT flow needs a torchvision that fits this torch ({error}): "
            "pip install 'fresco-bridge[raft]', or use flow 'dis'."
        ) from error
    path = weights or _torchvision_download(Raft_Large_Weights.DEFAULT)
    if not path.is_file():
        raise MissingWeights(
            f"the RAFT weights are not at {path}; fetch them once with: python -c "
            '"from torchvision.models.optical_flow import Raft_Large_Weights as W; '
            "W.DEFAULT.get_state_dict(check_hash=True)\", or use flow 'dis'."
        )
    model = raft_large()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise InvalidInput(
            f"{path} does not hold the weights of torchvision's raft_large ({error}); "
            "delete it and fetch it again."
        ) from error
    return model.eval()


def _torchvision_download(weights: Any) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rsplit("/", 1)[-1]
