"""Reading images and flows at displaced places, and changing their size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(image: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Return ``image(p + flow(p))``; beyond the border the border's value goes on.

    image: (N, C, H, W) float
    flow: (N, 2, h, w) float32, pixels of this resolution, [0] = dx, [1] = dy
    mode: of `torch.nn.functional.grid_sample`; bicubic keeps what bilinear blurs
    """
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=torch.float32)
    y = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None]
    grid = torch.stack(
        (
            (x + flow[:, 0]) * (2 / image.shape[-1]) + (1 / image.shape[-1] - 1),
            (y + flow[:, 1]) * (2 / image.shape[-2]) + (1 / image.shape[-2] - 1),
        ),
        dim=-1,
    )
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=False)


#: Pixels around a place that are asked where a flow is torn, how many deviations of their answers
#: the place's own may differ, and the spread of their flows (pixels) at which this sets in and at
#: which it is whole.
_AROUND = 2
_DEVIATIONS = 0.75
_TORN = (0.3, 1.0)


def read(key: Tensor, flow: Tensor) -> Tensor:
    """Return ``key(p + flow(p))`` sharply, without the specks that a torn flow would read.

    Between neighbours that come from different parts of the key, a pixel is kept near what the
    flows around it read there: variance clipping, as games' temporal antialiasing does it (Salvi,
    2016). Taking the mean instead costs 1 dB on footage that plain reading gives back well.

    key: (3, H, W) in [0, 1]
    flow: (1, 2, H, W)
    returns: (1, 3, H, W) in [0, 1]
    """
    # Bicubic reading overshoots at edges.
    sharp = sample(key[None], flow, "bicubic").clamp_(0, 1)
    weight = ((_spread(flow) - _TORN[0]) / (_TORN[1] - _TORN[0])).clamp_(0, 1)
    y, x = weight[0, 0].nonzero(as_tuple=True)
    if not len(y):
        return sharp
    own = sharp[0, :, y, x]
    mean, deviation = _around(key, flow, y, x)
    kept = torch.clamp(own, mean - _DEVIATIONS * deviation, mean + _DEVIATIONS * deviation)
    sharp[0, :, y, x] = torch.lerp(own, kept, weight[0, :, y, x])
    return sharp


def _spread(flow: Tensor) -> Tensor:
    """The deviation of the flows around every pixel, (N, 1, H, W) in pixels."""
    variance = box(flow * flow, _AROUND) - box(flow, _AROUND) ** 2
    return variance.sum(1, keepdim=True).clamp_(min=0).sqrt_()


def _around(key: Tensor, flow: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (3, N) each, of what the flows around N places read there."""
    height, width = flow.shape[-2:]
    steps = torch.arange(-_AROUND, _AROUND + 1, device=flow.device)
    down, across = (step.flatten()[:, None] for step in torch.meshgrid(steps, steps, indexing="ij"))
    rows, columns = (y + down).clamp(0, height - 1), (x + across).clamp(0, width - 1)
    places = torch.stack((x, y))[:, None] + flow[0, :, rows, columns]
    size = flow.new_tensor((width, height))[:, None, None]
    grid = ((2 * places + 1) / size - 1).permute(1, 2, 0)[None]
    found = F.grid_sample(key[None], grid, "bilinear", "border", align_corners=False)[0]
    deviation, mean = torch.std_mean(found, dim=1)
    return mean, deviation


def halved(image: Tensor) -> Tensor:
    """Return (N, C, H, W) at half its size, averaged over areas."""
    return F.interpolate(image, (image.shape[-2] // 2, image.shape[-1] // 2), mode="area")


def resized_flow(flow: Tensor, height: int, width: int) -> Tensor:
    """Return a flow on the grid of another resolution, in that resolution's pixels."""
    if flow.shape[-2:] == (height, width):
        return flow
    scale = flow.new_tensor((width / flow.shape[-1], height / flow.shape[-2]))
    grown = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
    return grown * scale[:, None, None]


def box(x: Tensor, radius: int = 1) -> Tensor:
    """Return the mean over the window of `radius` around every pixel, mirrored at the border."""
    padded = F.pad(x, (radius,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * radius + 1, stride=1)


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Return (N, C, H, W) blurred by a Gaussian of `sigma` pixels, the border repeated."""
    radius = max(1, round(3 * sigma))
    place = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(place**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(x.shape[1], 1, 1)
    across = F.pad(x, (radius, radius, 0, 0), mode="replicate")
    across = F.conv2d(across, kernel[:, :, None], groups=x.shape[1])
    down = F.pad(across, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(down, kernel[..., None], groups=x.shape[1])
