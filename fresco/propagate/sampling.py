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
