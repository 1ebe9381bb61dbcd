"""Control maps: what a ControlNet is shown of every frame. The public entry is `control_maps`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fresco.annotators import HedNetwork, LineArtNetwork, load
from fresco.callbacks import CancelToken, never_stop
from fresco.depth import DepthModel, load_depth
from fresco.errors import InvalidInput, MissingWeights
from fresco.frames import Frames, check_values, stack, to_bytes

#: Kind → what the model catalogue calls its weights; the other kinds need none.
WEIGHTS = {
    "softedge": "annotator-hed",
    "hed": "annotator-hed",
    "lineart": "annotator-lineart",
    "depth": "depth-anything-v2-small",
}
#: Of the inverse depth of all frames: what becomes black and white. A few wild pixels do not count.
DEPTH_PERCENTILES = (1.0, 99.0)
#: How many values the percentiles are taken from at most, so that memory does not grow with frames.
_SAMPLE = 2**20
#: Below this the networks' coarsest level has no whole pixel, and nothing to reflect.
_SMALLEST_SIDE = 16


class ControlEstimator(Protocol):
    """Makes the control maps of frames."""

    def __call__(self, frames: Tensor, on_frame: Callable[[], None] = never_stop) -> Tensor:
        """Return the control maps of `frames`.

        frames: (N, 3, H, W) float RGB in [0, 1]
        on_frame: called before every frame; may raise to stop
        returns: (N, 3, H, W) float32 in [0, 1], on the device of `frames`
        """
        ...


def control_maps(
    frames: Frames, kind: ControlEstimator | str = "canny", cancel: CancelToken | None = None
) -> Tensor:
    """Make the control maps of `frames`, one frame at a time.

    frames: (N, 3, H, W) float RGB in [0, 1]
    kind: an estimator (`Canny`, `Tile`, `SoftEdge`, `LineArt`, `Depth`, `Supplied`), or the name of
        one that needs neither weights nor maps: "canny" or "tile"
    cancel: stops it from another thread, before the next frame
    returns: (N, 3, H, W) float32 in [0, 1], on the device of the frames

    Raises:
        InvalidInput: frames that cannot be worked on, or an unknown kind.
        MissingWeights: a kind by name that needs weights.
        Cancelled: the token was set.
    """
    batch = stack(frames)
    estimate = estimator(kind) if isinstance(kind, str) else kind
    return estimate(batch, cancel.check if cancel else never_stop)


class Canny:
    """Edges (Canny, 1986) as OpenCV finds them on the grey frame: white lines on black, no weights.

    low, high: thresholds of the 8-bit gradient: lines start at `high` and go on down to `low`

    Raises:
        InvalidInput: thresholds that are negative or in the wrong order.
    """

    def __init__(self, low: float = 50, high: float = 100) -> None:
        if not 0 <= low <= high < math.inf:
            raise InvalidInput(
                f"the canny thresholds are {low} and {high}; expected 0 <= low <= high."
            )
        self._thresholds = low, high

    def __call__(self, frames: Tensor, on_frame: Callable[[], None] = never_stop) -> Tensor:
        """See `ControlEstimator`."""
        return _each(frames, on_frame, self._map)

    def _map(self, frame: Tensor, _index: int) -> Tensor:
        (image,) = to_bytes(frame)
        edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), *self._thresholds)
        return torch.from_numpy(edges).float() / 255


class Tile:
    """The softened frame, for tile ControlNets and the draft model: colours and shapes, no detail.

    factor: how many times the frame is reduced (by areas) before it is enlarged again (cubic)

    Raises:
        InvalidInput: a factor that is no whole number from 1.
    """

    def __init__(self, factor: int = 4) -> None:
        if factor < 1 or factor % 1:
            raise InvalidInput(f"the tile factor is {factor}; it must be a whole number from 1.")
        self._factor = int(factor)

    def __call__(self, frames: Tensor, on_frame: Callable[[], None] = never_stop) -> Tensor:
        """See `ControlEstimator`."""
        return _each(frames, on_frame, self._map)

    def _map(self, frame: Tensor, _index: int) -> Tensor:
        height, width = frame.shape[-2:]
        small = (max(1, height // self._factor), max(1, width // self._factor))
        reduced = _resized(frame[0], small, cv2.INTER_AREA)
        return _resized(reduced, (height, width), cv2.INTER_CUBIC)  # overshoots: `_each` clamps


class Supplied:
    """The user's own maps, fitted to the frames.

    Maps of another size are reduced by areas or enlarged bilinearly; one channel becomes three.

    maps: a map per frame, (N, 1 or 3, h, w) or as many (1 or 3, h, w); or one for all frames,
        (1 or 3, h, w) or (h, w); float in [0, 1]

    Raises:
        InvalidInput: no maps, or of a shape that is no map; when called: another number than the
            frames', another aspect ratio than theirs, or values outside [0, 1].
    """

    def __init__(self, maps: Tensor | Sequence[Tensor]) -> None:
        stacked = isinstance(maps, Tensor) and maps.ndim == 4
        images = [maps] if isinstance(maps, Tensor) and not stacked else list(maps)
        if not images:
            raise InvalidInput("there are no control maps; give one for each frame, or one.")
        self._maps = [
            _checked_shape(image[None] if image.ndim == 2 else image, index)
            for index, image in enumerate(images)
        ]

    def __call__(self, frames: Tensor, on_frame: Callable[[], None] = never_stop) -> Tensor:
        """See `ControlEstimator`."""
        if len(self._maps) not in (1, len(frames)):
            raise InvalidInput(
                f"{len(self._maps)} control maps for {len(frames)} frames; give one for each "
                "frame, or one for all."
            )
        return _each(frames, on_frame, self._map)

    def _map(self, frame: Tensor, index: int) -> Tensor:
        index = min(index, len(self._maps) - 1)
        given, size = self._maps[index], (frame.shape[-2], frame.shape[-1])
        try:
            check_values(given[None])
        except InvalidInput as error:
            raise InvalidInput(f"control map {index} is no image: {error}") from error
        height, width = given.shape[-2:]
        if (height, width) == size:
            return given
        _check_aspect(index, (height, width), size)
        shrinks = height * width > size[0] * size[1]
        return _resized(given, size, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


class _Drawn:
    """One channel drawn by a network, frame by frame."""

    def __init__(
        self,
        network: HedNetwork | LineArtNetwork,
        device: torch.device | str | None,
        dtype: torch.dtype,
    ) -> None:
        self._network, self._device, self._dtype = network, device, dtype

    def __call__(self, frames: Tensor, on_frame: Callable[[], None] = never_stop) -> Tensor:
        """See `ControlEstimator`."""
        _check_side(frames)
        self._network.to(self._device or frames.device, self._dtype)
        return _each(frames, on_frame, self._map)

    @torch.no_grad()
    def _map(self, frame: Tensor, _index: int) -> Tensor:
        height, width = frame.shape[-2:]
        right, bottom = (-side % self._network.multiple for side in (width, height))
        padded = F.pad(frame, (0, right, 0, bottom), mode="reflect")
        drawn: Tensor = self._network(padded.to(_place(self._network), self._dtype))
        return drawn[..., :height, :width].float()


class SoftEdge(_Drawn):
    """Soft edges by HED: white on black.

    weights: a ``.safetensors`` file of `HedNetwork`'s weights, or the published pickle
    sha256: of that file; a pickle is opened only with it
    device: where to run; by default wherever the frames are
    dtype: what to compute in

    Raises:
        MissingWeights: no weights.
        InvalidInput: weights that cannot be used (see `fresco.annotators.load`); when called:
            frames too small, or a result that is not finite.
    """

    def __init__(
        self,
        weights: Path | None = None,
        sha256: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(load(HedNetwork(), _present(weights, "softedge"), sha256), device, dtype)


class LineArt(_Drawn):
    """Line art by the "informative drawings" generator: white lines on black.

    weights, sha256, device, dtype: as of `SoftEdge`, for `LineArtNetwork`
    dark_lines: dark lines on white instead, as the network draws them; ControlNet's line art models
        expect white lines on black

    Raises:
        MissingWeights, InvalidInput: as `SoftEdge`.
    """

    def __init__(
        self,
        weights: Path | None = None,
        sha256: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        dark_lines: bool = False,
    ) -> None:
        network = load(LineArtNetwork(), _present(weights, "lineart"), sha256)
        super().__init__(network, device, dtype)
        self._dark_lines = dark_lines

    def _map(self, frame: Tensor, _index: int) -> Tensor:
        drawing = super()._map(frame, _index)
        return drawing if self._dark_lines else 1 - drawing


class Depth:
    """Inverse depth by a model of transformers: near is white.

    A map says what is nearer than what, not how far it is: inverse depth is stretched to [0, 1].
    Stretched frame by frame it would flicker whenever something near enters or leaves; so all
    frames of a call share one pair of bounds. A clip that is worked on in pieces needs one pair for
    all of them: measure it once, on frames from the whole clip, and set it.

    folder: a depth_anything or dpt model as transformers saves it, with safetensors weights
    device: where to run; by default wherever the frames are
    dtype: what to compute in
    bounds: the inverse depths that become black and white, in the model's units; by default those
        of the frames of each call

    Raises:
        MissingWeights: no model in the folder.
        InvalidInput: a model that cannot be used; when called: a result that is not finite, or
            bounds in the wrong order.
    """

    def __init__(
        self,
        folder: Path | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        self._model: DepthModel = load_depth(_present(folder, "depth"))
        self._device, self._dtype = device, dtype
        self.bounds = bounds

    def __call__(self, frames: Tensor, on_frame: Callable[[], None] = never_stop) -> Tensor:
        """See `ControlEstimator`."""
        if self.bounds and not -math.inf < self.bounds[0] <= self.bounds[1] < math.inf:
            raise InvalidInput(f"the depth bounds are {self.bounds}; expected low <= high.")
        inverse = self._inverse(frames, on_frame)
        low, high = self.bounds or _robust_bounds(inverse)
        # In place: the maps are all that is held.
        return inverse.sub_(low).div_((high - low) or 1.0).clamp_(0, 1)

    def measure(
        self, frames: Frames, on_frame: Callable[[], None] = never_stop
    ) -> tuple[float, float]:
        """Return the `bounds` of these frames.

        Raises:
            InvalidInput: frames that cannot be worked on, or a result that is not finite.
        """
        return _robust_bounds(self._inverse(stack(frames), on_frame))

    def _inverse(self, frames: Tensor, on_frame: Callable[[], None]) -> Tensor:
        self._model.network.to(self._device or frames.device, self._dtype)
        return _each(frames, on_frame, self._map, limit=False)

    def _map(self, frame: Tensor, _index: int) -> Tensor:
        return self._model.inverse_depth(frame)


#: Name → what makes the estimator, from the path of its weights and their sha256.
ESTIMATORS: dict[str, Callable[[Path | None, str | None], ControlEstimator]] = {
    "canny": lambda _weights, _sha256: Canny(),
    "tile": lambda _weights, _sha256: Tile(),
    "depth": lambda folder, _sha256: Depth(folder),
    "softedge": SoftEdge,
    "hed": SoftEdge,
    "lineart": LineArt,
}


def estimator(
    name: str, weights: Path | None = None, sha256: str | None = None
) -> ControlEstimator:
    """Return the estimator called `name` (a key of `ESTIMATORS`).

    weights: the file, or for depth the folder, of the kinds in `WEIGHTS`
    sha256: of the file

    Raises:
        InvalidInput: no estimator has this name, or the weights cannot be used.
        MissingWeights: there are no weights.
    """
    if name == "supplied":
        raise InvalidInput("supplied maps have to be given: use Supplied(maps).")
    if name not in ESTIMATORS:
        raise InvalidInput(
            f"no kind of control map is called {name!r}; use one of {sorted(ESTIMATORS)}, "
            "or Supplied(maps)."
        )
    return ESTIMATORS[name](weights, sha256)


def _each(
    frames: Tensor,
    on_frame: Callable[[], None],
    work: Callable[[Tensor, int], Tensor],
    limit: bool = True,
) -> Tensor:
    """Make the maps one by one, whatever device `work` leaves them on; one channel fills three."""
    maps = torch.empty_like(frames, dtype=torch.float32)
    for index, frame in enumerate(frames.detach().split(1)):
        on_frame()
        made = work(frame.float().clamp(0, 1), index)
        if not bool(torch.isfinite(made).all()):
            raise InvalidInput(
                f"the control map of frame {index} has NaN or infinite values: the weights are "
                "broken, or need float32."
            )
        maps[index : index + 1].copy_(made.clamp(0, 1) if limit else made)
    return maps


def _resized(image: Tensor, size: tuple[int, int], interpolation: int) -> Tensor:
    pixels = image.detach().float().permute(1, 2, 0).contiguous().cpu().numpy()
    resized = np.atleast_3d(cv2.resize(pixels, size[::-1], interpolation=interpolation))
    return torch.from_numpy(resized).permute(2, 0, 1)


def _robust_bounds(inverse: Tensor) -> tuple[float, float]:
    per_frame = max(1, _SAMPLE // len(inverse))
    values = inverse[:, 0].flatten(1)
    sample = values[:, :: -(-values.shape[1] // per_frame)].cpu().numpy()
    low, high = (float(bound) for bound in np.percentile(sample, DEPTH_PERCENTILES))
    return low, high


def _present(weights: Path | None, kind: str) -> Path:
    if weights is None or not weights.exists():
        where = "were not given" if weights is None else f"are not at {weights}"
        raise MissingWeights(
            f"the weights of {kind} maps {where}; fetch them once with: "
            f"fresco-bridge models download {WEIGHTS[kind]}"
        )
    return weights


def _check_side(frames: Tensor) -> None:
    height, width = frames.shape[-2:]
    if min(height, width) < _SMALLEST_SIDE:
        raise InvalidInput(
            f"frames of {width} x {height} are too small for drawn control maps; "
            f"both sides must be at least {_SMALLEST_SIDE} pixels."
        )


def _checked_shape(image: Tensor, index: int) -> Tensor:
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise InvalidInput(
            f"control map {index} has shape {tuple(image.shape)}; expected (1 or 3, height, width)."
        )
    return image


def _check_aspect(index: int, given: tuple[int, int], wanted: tuple[int, int]) -> None:
    # One pixel of the smaller picture is what rounding can have cost.
    if abs(given[1] * wanted[0] - given[0] * wanted[1]) > max(*given, *wanted):
        raise InvalidInput(
            f"control map {index} is {given[1]} x {given[0]} but the frames are "
            f"{wanted[1]} x {wanted[0]}, another aspect ratio; crop or pad it as the frames were."
        )


def _place(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
