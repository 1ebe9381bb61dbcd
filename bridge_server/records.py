"""A translated keyframe on disk: the picture, and what later batches and edits replay.

What is read back is what every later unit works on, also in the run that wrote it; so a run that
was interrupted goes on from the same numbers as one that was not.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bridge_server.media import confine
from fresco.errors import InvalidInput
from fresco.request import Keyframe

PICTURE, TENSORS, FACTS = "keyframe.png", "record.safetensors", "record.json"
_WHITES = {"uint8": 2**8 - 1, "uint16": 2**16 - 1}
_FACTS = ("number", "seed", "strength", "steps", "scheduler")


def write(keyframe: Keyframe, folder: Path) -> None:
    """Write what came of a keyframe: its picture in 16 bits, its latents, and its track in half.

    The picture is for people and for propagation, and may be cropped; nothing is replayed from it.

    Raises:
        InvalidInput: it is not translated, or painted by hand: there is nothing to replay.
        OSError: it cannot be written.
    """
    if keyframe.image is None or keyframe.latents is None or keyframe.track is None:
        raise InvalidInput(f"keyframe {keyframe.number} has no track; only translated ones have.")
    write_picture(keyframe.image, folder / PICTURE)
    tensors = {
        "latents": keyframe.latents.float(),
        "track": keyframe.track.half(),
        "text": keyframe.text.float(),
    }
    if keyframe.pooled is not None:
        tensors["pooled"] = keyframe.pooled.float()
    # Not `save_file`, whose error does not say that the disk is full.
    data = save({name: x.cpu().contiguous() for name, x in tensors.items()})
    (folder / TENSORS).write_bytes(data)
    facts = {name: getattr(keyframe, name) for name in _FACTS}
    (folder / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def read(folder: Path, frame: Tensor, controls: tuple[Tensor, ...] = ()) -> Keyframe:
    """Read a keyframe back, as a done one.

    frame, controls: of the source, as they were when it was translated

    Raises:
        InvalidInput: the record is damaged.
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
        return Keyframe(
            frame=frame,
            controls=controls,
            text=tensors["text"],
            pooled=tensors.get("pooled"),
            image=read_picture(folder / PICTURE),
            latents=tensors["latents"],
            track=tensors["track"].float(),
            **{name: facts[name] for name in _FACTS},
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InvalidInput(
            f"the record in {folder} is damaged ({error}); remove the folder, and it is made anew."
        ) from error


def write_picture(image: Tensor, file: Path) -> None:
    """Write (3, H, W) RGB in [0, 1] as a PNG of 16 bits, an error of at most 1/131070.

    Raises:
        OSError: it cannot be written.
    """
    file.write_bytes(encoded(image))


def encoded(image: Tensor) -> bytes:
    """What `write_picture` writes."""
    pixels = (
        (image.detach().float().clamp(0, 1) * _WHITES["uint16"])
        .round()
        .permute(1, 2, 0)
        .cpu()
        .numpy()
    )
    done, data = cv2.imencode(".png", cv2.cvtColor(pixels.astype(np.uint16), cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"a picture of {image.shape[2]} x {image.shape[1]} could not be encoded.")
    return data.tobytes()


def read_picture(file: Path) -> Tensor:
    """Read a picture of 8 or 16 bits as (3, H, W) RGB in [0, 1].

    Raises:
        InvalidInput: there is none, or it is no picture that OpenCV knows.
    """
    try:
        with confine.file(file) as name:
            data = np.frombuffer(name.read_bytes(), np.uint8)
    except FileNotFoundError as error:
        raise InvalidInput(f"the picture {file} is not there; correct its name.") from error
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error}") from error
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if len(data) else None
    white = None if pixels is None else _WHITES.get(pixels.dtype.name)
    if pixels is None or white is None:
        raise InvalidInput(f"{file} is no picture of 8 or 16 bits; use PNG, TIFF or JPEG.")
    rgb = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.float32)
    return torch.from_numpy(rgb).permute(2, 0, 1) / white
