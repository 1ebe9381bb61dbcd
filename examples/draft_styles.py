"""Draws what the draft model makes of the sample clip: a row per style, for the README.

python examples/draft_styles.py docs/pictures/draft-styles.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from bridge_server.library import locate
from bridge_server.media.colour import to_rgb
from bridge_server.media.decode import frames
from bridge_server.media.probe import probe
from fresco.control import Canny, Tile, control_maps
from fresco.loading import load
from fresco.request import Options
from fresco.schedule import Settings
from fresco.translate import translate

CLIP = Path(__file__).parents[1] / "bridge_server/data/demo.mp4"
NUMBERS = (8, 36, 64, 92)
STYLES = (
    "pencil sketch",
    "coloured pencil",
    "watercolour",
    "oil painting",
    "cartoon with ink lines",
    "comic halftone",
    "blueprint",
    "sepia film",
    "mosaic",
    "snowy winter",
    "autumn",
    "golden sunset",
    "neon night",
    "winter watercolour",
)
#: As the catalogue recommends for this model; FRESCO's attention without its optimisation: minutes
#: instead of a quarter of an hour.
SETTINGS = Settings(
    steps=12,
    guidance_scale=2.0,
    temporal_until=0.0,
    repeat_step_noise=True,
    temporal_loss=False,
    spatial_weight=0.0,
)
LABEL = 150


def main(target: Path) -> None:
    """Draw the sheet into `target`."""
    clip = probe(CLIP)
    shown = [to_rgb(frame, clip).rgb for frame in frames(clip) if frame.index in NUMBERS]
    source = torch.stack(shown)
    draft = locate("fresco-draft")
    model = load(draft, controlnets=[draft / "controlnet"] * 2, device=torch.device("cpu"))
    options = Options(settings=SETTINGS, control_scales=[0.5, 0.5])
    maps = [control_maps(source, Tile()), control_maps(source, Canny(100, 200))]
    rows = [row("the clip", source)]
    for style in STYLES:
        made = translate(source, model, options, prompts=style, strengths=0.85, controls=maps)
        rows.append(row(style, made.images))
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 82])


def row(label: str, images: Tensor) -> np.ndarray:
    """The pictures side by side behind their label; BGR, half as large."""
    small = torch.nn.functional.interpolate(images, scale_factor=0.5, mode="area")
    pixels = (torch.cat(tuple(small), dim=2).permute(1, 2, 0).numpy() * 255).round()
    strip = np.full((pixels.shape[0], LABEL, 3), 255, np.uint8)
    for line, word in enumerate(label.split(" ")):
        place = (8, 28 + 22 * line)
        cv2.putText(strip, word, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return np.hstack([strip, cv2.cvtColor(pixels.astype(np.uint8), cv2.COLOR_RGB2BGR)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
