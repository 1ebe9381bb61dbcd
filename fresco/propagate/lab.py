"""sRGB and CIE Lab (D65), in float."""

from __future__ import annotations

import torch
from torch import Tensor

_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_EPSILON, _KAPPA = (6 / 29) ** 3, (29 / 3) ** 3


def to_lab(rgb: Tensor) -> Tensor:
    """Convert (N, 3, H, W) sRGB in [0, 1] to L in [0, 100], a and b."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(0.0) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mixed(_matrix(rgb), linear)
    f = torch.where(xyz > _EPSILON, xyz.clamp(_EPSILON) ** (1 / 3), (_KAPPA * xyz + 16) / 116)
    x, y, z = f.unbind(dim=1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=1)


def to_rgb(lab: Tensor) -> Tensor:
    """Convert (N, 3, H, W) Lab to sRGB; what sRGB cannot show is clipped to [0, 1]."""
    lightness, a, b = lab.unbind(dim=1)
    y = (lightness + 16) / 116
    f = torch.stack((y + a / 500, y, y - b / 200), dim=1)
    xyz = torch.where(f > 6 / 29, f**3, (116 * f - 16) / _KAPPA)
    linear = _mixed(torch.linalg.inv(_matrix(lab)), xyz).clamp(0, 1)
    curved = 1.055 * linear.clamp(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, linear * 12.92)


def _matrix(like: Tensor) -> Tensor:
    """The way from linear sRGB to XYZ relative to its white."""
    matrix = like.new_tensor(_TO_XYZ)
    return matrix / matrix.sum(dim=1, keepdim=True)


def _mixed(matrix: Tensor, image: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", matrix, image)
