# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the styles: tone, edges, noise fields, flow-guided strokes."""

from __future__ import annotations

import cv2
import numpy as np

Image = np.ndarray


def grey(image: Image) -> Image:
    """Luma of an RGB picture, (H, W) in [0, 1]."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def blur(image: Image, sigma: float) -> Image:
    """Gaussian blur; sigma in pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def smoothstep(value: Image, low: float, high: float) -> Image:
    """0 below `low`, 1 above `high`, an S curve between."""
    unit = np.clip((value - low) / (high - low), 0, 1)
    return unit * unit * (3 - 2 * unit)


def mix(first: Image, second: Image | float, amount: Image | float) -> Image:
    """Linear blend; a plane as amount is spread over the channels."""
    if isinstance(amount, np.ndarray) and amount.ndim == 2 and first.ndim in (1, 3):
        amount = amount[..., None]
    return first * (1 - amount) + second * amount


def colour(*rgb: float) -> Image:
    """A colour in [0, 1] that broadcasts over a picture."""
    return np.array(rgb, np.float32)


def saturate(image: Image, factor: float) -> Image:
    """Moves the colours away from (factor > 1) or towards their grey."""
    return np.clip(grey(image)[..., None] * (1 - factor) + image * factor, 0, 1)


def equalise(image: Image, amount: float = 0.5) -> Image:
    """Stretches the tones of a plane to [0, 1] between its 2nd and 98th percentile, in part."""
    low, high = (float(level) for level in np.percentile(image, (2, 98)))
    stretched = np.clip((image - low) / max(high - low, 0.15), 0, 1)
    return mix(image, stretched, amount)


def simplify(image: Image, rounds: int = 3, spread: float = 0.15) -> Image:
    """Flattens texture and keeps borders: repeated bilateral filter."""
    for _ in range(rounds):
        image = cv2.bilateralFilter(image, 7, spread, 3.0)
    return image


def ink(image: Image, sigma: float = 1.2, sharpness: float = 18.0, level: float = 0.012) -> Image:
    """Dark lines of a plane as 1 = line, 0 = none (extended difference of Gaussians)."""
    difference = blur(image, sigma) - blur(image, sigma * 1.6)
    return np.clip(-np.tanh(sharpness * (difference + level)), 0, 1)


def gradient(image: Image, sigma: float = 1.0) -> Image:
    """Strength of the edges of a plane, roughly in [0, 1]."""
    soft = blur(image, sigma)
    dx = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3)
    dy = cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3)
    return np.sqrt(dx * dx + dy * dy)


def colour_gradient(image: Image, sigma: float = 1.0) -> Image:
    """The strongest edge over the three channels."""
    return np.maximum.reduce([gradient(image[..., c], sigma) for c in range(3)])


def outlines(image: Image, lows: tuple[float, ...] = (60, 80, 110)) -> Image:
    """The picture's own edges, one pixel wide: the share of canny thresholds that find them.

    The upper threshold is twice the lower one; both count levels of 255 after a slight blur.
    """
    levels = np.round(np.clip(blur(grey(image), 0.7), 0, 1) * 255).astype(np.uint8)
    found = [cv2.Canny(levels, low, 2 * low) for low in lows]
    return np.mean(found, axis=0).astype(np.float32) / 255


def crowded(plane: Image) -> Image:
    """1 where outlines lie so close together (grass, fur) that drawn lines would fill the place."""
    return smoothstep(blur(plane, 5.0), 0.12, 0.3)


def line(plane: Image, width: int = 1) -> Image:
    """Smooth lines of about `width` pixels from a plane of `outlines`; 1 = line.

    Where they are crowded they are thin and faint.
    """
    faint = 1 - 0.6 * crowded(plane)
    thin = blur(plane, 0.7) * 1.7
    if width > 1:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        thin = mix(blur(cv2.dilate(plane, disc), 0.7) * 1.2, thin, crowded(plane))
    return np.clip(thin * faint, 0, 1)


def plain(image: Image, rounds: int = 3, spread: float = 0.15) -> Image:
    """`simplify`, but where edges are crowded the picture stays as it is."""
    return mix(simplify(image, rounds, spread), image, crowded(outlines(image)))


def hatching(shape: tuple[int, ...], rng: np.random.Generator, slope: int = 1) -> Image:
    """Diagonal strokes of uneven weight, one per 8 pixels along a row; about -1 to 1."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    angle = np.full(shape[:2], -slope * np.pi / 4, np.float32)
    waver = along(noise(shape, 2.0, rng), angle, 8)
    strokes = np.cos((x + slope * y) * (2 * np.pi / 8))
    return (0.75 * strokes + 0.4 * waver / (waver.std() + 1e-6)).astype(np.float32)


def coherent(image: Image, rounds: int, length: int, spread: float = 2.5) -> Image:
    """Strokes along the forms that stop at borders: smoothing along the flow, then sharpening.

    After coherence-enhancing filtering (Kyprianidis and Kang, 2011).
    """
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    border = smoothstep(blur(outlines(image), 1.5), 0.03, 0.15)
    for _ in range(rounds):
        image = along(image, flow_angle(grey(image), spread), length)
        sharp = image + 1.6 * (image - blur(image, 1.8))
        sharp = np.clip(sharp, cv2.erode(image, disc), cv2.dilate(image, disc))
        image = mix(image, sharp, border)
    return image


def noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Image:
    """Smooth noise plane with mean 0 and deviation 1; sigma in pixels."""
    field = blur(rng.standard_normal(shape[:2]).astype(np.float32), sigma)
    return (field - field.mean()) / (field.std() + 1e-6)


def flow_angle(image: Image, sigma: float = 4.0) -> Image:
    """Direction along the edges (radians) from the smoothed structure tensor of a plane."""
    dx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3)
    dy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3)
    xx, yy, xy = blur(dx * dx, sigma), blur(dy * dy, sigma), blur(dx * dy, sigma)
    return 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2


def along(image: Image, angle: Image, length: int) -> Image:
    """Averages a picture along a field of directions: brush strokes of `length` pixels each way."""
    height, width = image.shape[:2]
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32)
    step_x, step_y = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    total = image.copy()
    for distance in range(1, length + 1):
        for sign in (-distance, distance):
            total += cv2.remap(
                image,
                grid_x + sign * step_x,
                grid_y + sign * step_y,
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT,
            )
    return total / (2 * length + 1)


def kuwahara(image: Image, radius: int) -> Image:
    """Each pixel takes the mean of the calmest of its four quadrant windows."""
    size = radius + 1
    luma = grey(image)
    mean = cv2.boxFilter(image, -1, (size, size), borderType=cv2.BORDER_REFLECT)
    mean_luma = cv2.boxFilter(luma, -1, (size, size), borderType=cv2.BORDER_REFLECT)
    square = cv2.boxFilter(luma * luma, -1, (size, size), borderType=cv2.BORDER_REFLECT)
    variance = square - mean_luma * mean_luma
    half = size // 2
    shifts = [(dy, dx) for dy in (-half, half) for dx in (-half, half)]
    calm = np.stack([_shifted(variance, *shift) for shift in shifts])
    means = np.stack([_shifted(mean, *shift) for shift in shifts])
    weight = 1 / (calm + 1e-4) ** 4
    weight /= weight.sum(axis=0)
    return (means * weight[..., None]).sum(axis=0)


def _shifted(image: Image, dy: int, dx: int) -> Image:
    pad = max(abs(dy), abs(dx))
    padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REFLECT)
    height, width = image.shape[:2]
    return padded[pad + dy : pad + dy + height, pad + dx : pad + dx + width]


def vignette(shape: tuple[int, ...]) -> Image:
    """Distance from the centre, 0 in the middle and 1 in the corners."""
    height, width = shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    return np.sqrt((x * x + y * y) / 2).astype(np.float32)
