"""How good the pictures are: the paper's ablation on real clips, for any model.

    python -m tests.benchmarks.quality [--model FOLDER_OR_FILE] [--controlnet ...] [--clips FOLDER]

The defaults are what the draft model wants; for Stable Diffusion 1.5, for example:

    python -m tests.benchmarks.quality --model sd15.safetensors --controlnet control_sd15_tile \
        --control tile:1.0 --size 512 --guidance 7.5 --strength 0.75 --temporal-until 0.35 \
        --no-repeat-step-noise --device cuda

Consecutive keyframes of every clip are translated to every style: each by itself; where the model
wants the noise of the steps repeated, with that; with FRESCO's attention; with its optimisation;
with all. A row is printed as each of them is done, and
at the end tables over all clips. With `--journal FILE` a run goes on where it was stopped.
The columns:

recognised  share of frames in which a classifier finds the prompted style. It was trained on
            procedurally styled photographs (`training/`), never on any model's pictures
instead     what it found in the other frames
edges       F-measure of the canny edges of source and result, matched within 2 pixels, over the
            drawing and painting styles
Pixel-MSE   mean squared difference of consecutive results aligned by the source's flow, occlusions
            excluded (the paper's measure), in 8-bit steps, and its ratio to each frame by itself:
            of the sums, and in the mean over clips and styles. (Dots and tiles that stay on the
            screen have many times the error of other styles, so the sums are mostly theirs)
s per key   processor time of all threads, which does not change with what else the machine does
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bridge_server.request import ControlChoice
from fresco.control import Canny, ControlEstimator, control_maps
from fresco.correspondence import Correspondence, estimate, warp
from fresco.frames import to_bytes
from fresco.loading import load
from fresco.models import Model
from fresco.request import Options
from fresco.schedule import Settings
from fresco.translate import translate
from tests.clips import frames as decoded
from training import captions
from training.classifier import Classifier
from training.classifier import load as load_classifier
from training.judge import edge_agreement

ROOT = Path(__file__).parents[2]
CLASSIFIER = ROOT / "training" / "logs" / "classifier.safetensors"
DRAFT = ROOT / "fresco" / "data" / "draft"
#: The styles whose edges are to agree with the source's.
DRAWN = ("pencil", "coloured-pencil", "watercolour", "oil", "cartoon")

_NO_ATTENTION = {"spatial": False, "cross_frame": False, "temporal": False}
_NO_OPTIMISATION = {"temporal_loss": False, "spatial_weight": 0.0}
_NO_REPETITION = {"repeat_step_noise": False}
#: Name → what is switched off. Attention and optimisation come on top of the repeated noise.
WAYS = {
    "none": {**_NO_ATTENTION, **_NO_OPTIMISATION, **_NO_REPETITION},
    "+ noise": {**_NO_ATTENTION, **_NO_OPTIMISATION},
    "+ attention": _NO_OPTIMISATION,
    "+ optimisation": _NO_ATTENTION,
    "all": {},
}


@dataclass(slots=True)
class Scores:
    """What was measured of one way, or of one style in it."""

    recognised: list[bool] = field(default_factory=list[bool])
    instead: list[str] = field(default_factory=list[str])
    edges: list[float] = field(default_factory=list[float])
    errors: list[float] = field(default_factory=list[float])
    ratios: list[float] = field(default_factory=list[float])
    seconds: list[float] = field(default_factory=list[float])

    def add(self, other: Scores) -> None:
        self.recognised += other.recognised
        self.instead += other.instead
        self.edges += other.edges
        self.errors += other.errors
        self.ratios += other.ratios
        self.seconds += other.seconds


class Journal:
    """What was measured so far, a line of JSON each in a file; nothing without a file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.scores = {name: Scores(**found) for name, found in map(json.loads, lines)}

    def known(self, name: str) -> Scores | None:
        return self.scores.get(name)

    def add(self, name: str, scores: Scores) -> None:
        """Keep what is new."""
        if self.path is not None and name not in self.scores:
            self.scores[name] = scores
            with self.path.open("a") as file:
                file.write(json.dumps([name, asdict(scores)]) + "\n")


def keyframes(clip: Path, count: int, every: int, size: int) -> Tensor:
    """Frames 0, every, 2 every ... of a clip, (count, 3, size, size), cut square."""
    chosen = islice(decoded(clip), 0, count * every, every)
    return torch.stack([_square(frame, size) for frame in chosen])


def _square(image: Tensor, size: int) -> Tensor:
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = image[:, top : top + side, left : left + side]
    return F.interpolate(cut[None], size=(size, size), mode="area")[0]


def pixel_errors(images: Tensor, correspondence: Correspondence) -> list[float]:
    """Mean squared error of each pair of neighbours, aligned, without what was hidden; of 255²."""
    flows = correspondence.backward[:-1]  # the last pair closes the circle
    seen = 1 - correspondence.occ_backward[:-1]
    difference = (images[1:] - warp(images[:-1], flows)).square().mean(dim=1)
    return ((difference * seen).sum(dim=(1, 2)) / seen.sum(dim=(1, 2)) * 255**2).tolist()


def measure(
    model: Model,
    classifier: Classifier,
    frames: Tensor,
    correspondence: Correspondence,
    style: str,
    settings: Settings,
    args: argparse.Namespace,
) -> Scores:
    """Translate `frames` to `style` and look at the result."""
    started = time.process_time()
    maps = [control_maps(frames, estimator(args, own.kind)) for own in args.control]
    images = translate(
        frames,
        model,
        Options(settings=settings, control_scales=[own.scale for own in args.control]),
        prompts=captions.WORDS[style][0],
        strengths=args.strength,
        controls=maps,
        seeds=args.seed,
        correspondence=correspondence,
    ).images
    seconds = (time.process_time() - started) / len(frames)
    before, after = (np.stack(to_bytes(pictures)) for pictures in (frames, images))
    drawn = zip(before, after, strict=True) if style in DRAWN else ()
    found = classifier.names(after)
    return Scores(
        recognised=[name == style for name in found],
        instead=[name for name in found if name != style],
        edges=[edge_agreement(*pair) for pair in drawn],
        errors=pixel_errors(images, correspondence),
        seconds=[seconds],
    )


def estimator(args: argparse.Namespace, kind: str) -> ControlEstimator | str:
    return Canny(*args.canny) if kind == "canny" else kind


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def row(name: str, scores: Scores, alone: Scores) -> str:
    error, single = mean(scores.errors), mean(alone.errors)
    return (
        f"| {name} | {100 * mean(scores.recognised):.0f} % | {_counted(scores.instead)} "
        f"| {mean(scores.edges):.2f} "
        f"| {error:.1f} | {error / single - 1:+.0%} | {mean(scores.ratios) - 1:+.0%} "
        f"| {mean(scores.seconds):.1f} |"
    )


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).most_common())


def head(first: str) -> str:
    names = (
        first,
        "recognised",
        "instead",
        "edges",
        "Pixel-MSE",
        "to none",
        "in the mean",
        "s per key",
    )
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def clips(folder: Path) -> Iterator[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix in (".mp4", ".mov", ".mkv"))
    if not found:
        raise SystemExit(f"there are no clips in {folder}.")
    yield from found


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    model = load(args.model, controlnets=args.controlnet, device=torch.device(args.device))
    classifier = load_classifier(CLASSIFIER)
    journal = Journal(args.journal)
    ways = [way for way in WAYS if way in ("none", *args.ways)]
    if not args.repeat_step_noise:
        ways = [way for way in ways if way != "+ noise"]
    by_style = {style: {way: Scores() for way in ways} for style in args.styles}
    print(head("clip, style, FRESCO"), flush=True)
    for clip in clips(args.clips):
        frames = keyframes(clip, args.frames, args.every, args.size)
        correspondence = estimate(frames, "dis")
        for style, totals in by_style.items():
            here: dict[str, Scores] = {}
            for way in ways:
                name = f"{clip.stem}, {style}, {way}"
                here[way] = journal.known(name) or measure(
                    model, classifier, frames, correspondence, style, settings(args, way), args
                )
                journal.add(name, here[way])
                here[way].ratios = [mean(here[way].errors) / mean(here["none"].errors)]
                totals[way].add(here[way])
                print(row(name, here[way], here["none"]), flush=True)
    print_tables(by_style)


def settings(args: argparse.Namespace, way: str) -> Settings:
    usual = Settings(
        steps=args.steps,
        guidance_scale=args.guidance,
        temporal_until=args.temporal_until,
        repeat_step_noise=args.repeat_step_noise,
    )
    return replace(usual, **WAYS[way])


def print_tables(by_style: dict[str, dict[str, Scores]]) -> None:
    totals = {way: Scores() for way in next(iter(by_style.values()))}
    for ways in by_style.values():
        for way, scores in ways.items():
            totals[way].add(scores)
    print("\nall clips and styles\n\n" + head("FRESCO"))
    for way, scores in totals.items():
        print(row(way, scores, totals["none"]))
    print("\nall of it, by style\n\n" + head("style"))
    for style, ways in by_style.items():
        print(row(style, list(ways.values())[-1], ways["none"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [name for name in captions.WORDS if name != "photo"]
    parser.add_argument("--model", type=Path, default=DRAFT)
    parser.add_argument("--controlnet", type=Path, nargs="*", default=[DRAFT / "controlnet"] * 2)
    parser.add_argument(
        "--control", type=ControlChoice.parse, nargs="*",
        default=[ControlChoice("tile", 0.5), ControlChoice("canny", 0.5)],
        help="of each ControlNet: the kind of its maps, and how firmly it leads",
    )  # fmt: skip
    parser.add_argument("--canny", type=float, nargs=2, default=(100, 200), help="thresholds")
    default = os.environ.get("FRESCO_BRIDGE_CLIPS", "clips")
    parser.add_argument("--clips", type=Path, default=Path(default))
    parser.add_argument("--styles", nargs="*", default=known, choices=known)
    parser.add_argument("--ways", nargs="*", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--frames", type=int, default=8, help="keyframes of each clip")
    parser.add_argument("--every", type=int, default=10, help="frames from one to the next")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--strength", type=float, default=0.85)
    parser.add_argument(
        "--temporal-until", type=float, default=0.0, help="0.35 for Stable Diffusion"
    )
    parser.add_argument(
        "--repeat-step-noise", action=argparse.BooleanOptionalAction, default=True,
        help="no for Stable Diffusion",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--journal", type=Path, help="of one set of options: what is done already")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if len(args.control) != len(args.controlnet):
        parser.error("give as many --control as --controlnet, as in --control tile:1.0")
    return args


if __name__ == "__main__":
    main()
