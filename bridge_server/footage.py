"""A clip as the method works on it: upright, square pixels, at the working size, padded.

What is added on the way in is taken away on the way out, so that a result has the source's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bridge_server.media import decode, orient
from bridge_server.media.clip import Clip
from bridge_server.media.colour import Picture, to_rgb
from bridge_server.media.frame import Frame
from bridge_server.media.probe import probe
from bridge_server.media.transfer import Hdr
from bridge_server.records import read_picture
from fresco.callbacks import CancelToken
from fresco.errors import InvalidInput

#: What every family of models can work on (`fresco.models.Model.multiple`).
MULTIPLE = 64


@dataclass(frozen=True, slots=True)
class WorkSize:
    """The size that a clip is worked at.

    height, width: of the picture
    padded_height, padded_width: with what is reflected at its right and bottom edges
    """

    height: int
    width: int
    padded_height: int
    padded_width: int

    @classmethod
    def of(cls, clip: Clip, short: int | None) -> WorkSize:
        """Fit the short side of `clip`, as it is shown, to `short`; its own size where None.

        Raises:
            InvalidInput: the other side would get too long to work on.
        """
        height, width = shown_size(clip)
        factor = Fraction(short, min(height, width)) if short else Fraction(1)
        sides = [max(1, round(side * factor)) for side in (height, width)]
        if max(sides) > 16 * min(sides):
            raise InvalidInput(
                f"{clip.path.name} is shown {width} x {height}, too narrow to be worked on; crop "
                "it first."
            )
        padded = [-(-side // MULTIPLE) * MULTIPLE for side in sides]
        return cls(*sides, *padded)

    def fit(self, image: Tensor) -> Tensor:
        """Scale (C, H, W) to this size and pad it: (C, padded_height, padded_width)."""
        scaled = resized(image, self.height, self.width)
        down, right = self.padded_height - self.height, self.padded_width - self.width
        while down or right:  # a reflection is shorter than what it reflects
            now = min(down, scaled.shape[-2] - 1), min(right, scaled.shape[-1] - 1)
            scaled = F.pad(scaled[None], (0, now[1], 0, now[0]), mode="reflect")[0]
            down, right = down - now[0], right - now[1]
        return scaled

    def crop(self, image: Tensor) -> Tensor:
        """Take the padding off (..., padded_height, padded_width)."""
        return image[..., : self.height, : self.width]


def shown_size(clip: Clip) -> tuple[int, int]:
    """Height and width of `clip` as a player shows it: upright, with square pixels."""
    width = round(clip.width * clip.pixel_aspect)
    turned = orient.turn(clip.matrix)[1] % 2
    return (width, clip.height) if turned else (clip.height, width)


def upright_size(clip: Clip) -> tuple[int, int]:
    """Height and width of `clip` upright, with its own pixels."""
    turned = orient.turn(clip.matrix)[1] % 2
    return (clip.width, clip.height) if turned else (clip.height, clip.width)


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Scale (C, H, W) in [0, 1]: by areas where it shrinks, bicubic where it grows."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    pixels = image.detach().float().permute(1, 2, 0).contiguous().cpu().numpy()
    shrinks = height * width < image.shape[-2] * image.shape[-1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    scaled = np.atleast_3d(cv2.resize(pixels, (width, height), interpolation=how))
    return torch.from_numpy(scaled).permute(2, 0, 1).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class Footage:
    """The frames of a clip, decoded when they are asked for.

    hdr: what becomes of PQ and HLG
    cancel: polled with every frame
    """

    clip: Clip
    size: WorkSize
    hdr: Hdr
    cancel: CancelToken

    def source(self, start: int, stop: int) -> Iterator[Frame]:
        """Yield the frames [start, stop) with their own samples."""
        return decode.frames(self.clip, start, stop, self.cancel)

    def picture(self, frame: Frame) -> Picture:
        """What is seen of a frame, at the source's size."""
        return to_rgb(frame, self.clip, self.hdr)

    def frames(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield the frames [start, stop), (3, padded_height, padded_width) RGB in [0, 1]."""
        for frame in self.source(start, stop):
            yield self.size.fit(self.picture(frame).rgb)

    def at(self, numbers: Sequence[int]) -> Tensor:
        """Return single frames (N, 3, padded_height, padded_width)."""
        return torch.stack([next(self.frames(number, number + 1)) for number in numbers])


def painting(file: Path, number: int, clip: Clip) -> Tensor:
    """Read a painted keyframe, (3, H, W) in [0, 1], in the shape of the shown or the stored frame.

    Where pixels are not square, programs export frames either way.

    Raises:
        InvalidInput: it cannot be read, or is of another shape than the frame.
    """
    image = read_picture(file)
    height, width = image.shape[-2:]
    shown = shown_size(clip)
    if not _fits(height, width, clip):
        raise InvalidInput(
            f"{file} is {width} x {height}, another shape than frame {number}, which is shown as "
            f"{shown[1]} x {shown[0]}; paint it at that size."
        )
    return image


def _fits(height: int, width: int, clip: Clip) -> bool:
    """Whether a picture has the shape of the shown or the stored frame of a clip."""
    aspects = [each[0] / each[1] for each in (shown_size(clip), upright_size(clip))]
    return any(abs(height / width - aspect) <= 0.02 * aspect for aspect in aspects)


def stretched(own: Clip, clip: Clip) -> bool:
    """Whether a clip beside the source has to be stretched to lie over it."""
    return not any(_fits(*size, clip) for size in (shown_size(own), upright_size(own)))


@dataclass(frozen=True, slots=True)
class Beside:
    """A black and white clip beside the source. first: the source's frame that its first is of."""

    clip: Clip
    first: int = 0


def beside(path: Path, source: Clip, wanted: range, what: str, cancel: CancelToken) -> Beside:
    """Probe a clip beside the source: a mask, a subject, or control maps.

    wanted: the source's frames that are wanted, without handles
    what: the name of the field, for messages

    Raises:
        UnreadableMedia, UnsupportedMedia: see `probe`.
        InvalidInput: neither an image, nor as many frames as the source has, or as are wanted.
    """
    clip = probe(path, source.rate, cancel)
    if clip.count in (1, source.count):
        return Beside(clip)
    if clip.count == len(wanted):
        return Beside(clip, wanted.start)
    raise InvalidInput(
        f"{what}: {path.name} has {clip.count} frames and {source.path.name} has {source.count}, "
        f"of which {len(wanted)} are wanted; give an image, a clip as long as the source, or one "
        "as long as what is wanted of it, without handles."
    )


class Matte:
    """The frames of a clip `beside` the source; its first and last are held where it has none."""

    def __init__(self, own: Beside, cancel: CancelToken) -> None:
        self.clip, self._first, self._cancel = own.clip, own.first, cancel

    def frames(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield what belongs to the source's frames [start, stop): (3, H, W) in [0, 1]."""
        decoded = self._decoded(self._own(start), self._own(stop - 1) + 1)
        numbers = map(self._own, range(start, stop))
        for picture, (_, held) in zip(decoded, groupby(numbers), strict=True):
            for _ in held:
                yield picture

    def at(self, number: int) -> Tensor:
        """What belongs to one frame of the source: (3, H, W) in [0, 1]."""
        return next(self.frames(number, number + 1))

    def _own(self, number: int) -> int:
        """Its own frame for a frame of the source."""
        return min(max(number - self._first, 0), self.clip.count - 1)

    def _decoded(self, start: int, stop: int) -> Iterator[Tensor]:
        for frame in decode.frames(self.clip, start, stop, self._cancel):
            picture = to_rgb(frame, self.clip, Hdr.REFUSE)
            if self.clip.alpha and picture.alpha is not None:
                yield picture.alpha.expand(3, -1, -1)
            else:
                yield picture.rgb


def coverage(matte: Tensor, height: int, width: int, feather: float = 0.0) -> Tensor:
    """How much of each pixel a matte covers, (H, W) in [0, 1].

    matte: (3, h, w), of any size
    feather: width of the ramp at the edge, pixels; it lies inside, so that what is black stays 0
    """
    grey = resized(matte, height, width).mean(dim=0)
    if feather <= 0:
        return grey
    blurred = torch.from_numpy(cv2.GaussianBlur(grey.numpy(), (0, 0), feather / 2))
    return torch.minimum((2 * blurred - 1).clamp(0, 1), grey)
