"""One decoded frame with its native samples, so that an untouched pixel stays what it was."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import av
import numpy as np
from av.video.plane import VideoPlane
from numpy.typing import NDArray

from bridge_server.media.clip import ColourTags
from bridge_server.media.layout import Family, Layout, parse


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame in the file's own numbers.

    index: 0-based, of the source
    pts: in the clip's time base
    planes: (rows, columns) each, `layout.dtype`, canonical order (Y Cb Cr | R G B | Y, alpha last)
    extra: image sequences only: channels beside colour and alpha, (rows, columns) each
    """

    index: int
    pts: int
    layout: Layout
    planes: tuple[NDArray[Any], ...]
    extra: tuple[NDArray[Any], ...] = ()

    def with_planes(self, planes: tuple[NDArray[Any], ...], layout: Layout) -> Frame:
        """Return this frame with other samples."""
        return replace(self, planes=planes, layout=layout)


def from_av(picture: av.VideoFrame, index: int, pts: int) -> Frame:
    """Copy the samples of PyAV's `picture`.

    Raises:
        UnsupportedMedia: a pixel format not known here.
    """
    layout = parse(picture.format.name)
    return Frame(index, pts, layout, _read(picture, layout))


def _read(picture: av.VideoFrame, layout: Layout) -> tuple[NDArray[Any], ...]:
    if layout.packed:
        pixels = _samples(picture.planes[0], layout, picture.width * layout.step)
        pixels = pixels.reshape(picture.height, picture.width, layout.step)
        return tuple(np.ascontiguousarray(pixels[..., place]) for place in layout.packed)
    planes: list[NDArray[Any]] = []
    for component, plane in zip(_stored_order(layout), picture.planes, strict=True):
        columns = layout.plane_size(component, picture.width, picture.height)[1]
        planes.append(_samples(plane, layout, columns).copy())
    order = _stored_order(layout)
    return tuple(planes[order.index(component)] for component in range(layout.components))


def _stored_order(layout: Layout) -> list[int]:
    """The canonical component that each of FFmpeg's planes holds: it stores G, B, R."""
    order = [1, 2, 0] if layout.family is Family.RGB else list(range(layout.components))
    return order if len(order) == layout.components else [*order, 3]


def _samples(plane: VideoPlane, layout: Layout, columns: int) -> NDArray[Any]:
    every = np.frombuffer(cast("Any", plane), layout.dtype)
    rows = every[: plane.height * (plane.line_size // every.itemsize)].reshape(plane.height, -1)
    return rows[:, :columns]


def to_av(frame: Frame, tags: ColourTags) -> av.VideoFrame:
    """Return `frame` as PyAV's, with `tags` on it for the encoders that read them there."""
    height, width = frame.planes[0].shape
    picture = av.VideoFrame(width, height, frame.layout.name)
    picture.color_primaries = tags.primaries
    picture.color_trc = tags.transfer
    picture.colorspace = tags.matrix
    picture.color_range = {None: 0, False: 1, True: 2}[tags.full]
    _write(picture, frame)
    return picture


def _write(picture: av.VideoFrame, frame: Frame) -> None:
    layout = frame.layout
    if layout.packed:
        height, width = frame.planes[0].shape
        pixels = np.zeros((height, width, layout.step), layout.dtype)
        for place, plane in zip(layout.packed, frame.planes, strict=True):
            pixels[..., place] = plane
        _fill(picture.planes[0], pixels.reshape(height, -1))
        return
    for component, plane in zip(_stored_order(layout), picture.planes, strict=True):
        _fill(plane, frame.planes[component])


def _fill(plane: VideoPlane, samples: NDArray[Any]) -> None:
    rows = plane.buffer_size // plane.line_size
    padded = np.zeros((rows, plane.line_size // samples.itemsize), samples.dtype)
    padded[: samples.shape[0], : samples.shape[1]] = samples
    plane.update(cast("Any", padded.data))
