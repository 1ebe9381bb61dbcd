# SPDX-License-Identifier: Apache-2.0
"""`python -m training`: the whole recipe, or one stage of it.

Every stage skips what its folder already holds and continues an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderTiny

from training import (
    autoencoder,
    classifier,
    clips,
    curves,
    diffusion,
    document,
    judge,
    latents,
    pool,
    sheet,
)
from training.fetch import fetch
from training.loop import Run
from training.sampling import Painter, Settings

log = logging.getLogger("training")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stage", nargs="?", default="all", choices=["all", *STAGES])
    parser.add_argument(
        "--work", type=Path, default=Path("."), help="folder of cache/, runs/, weights/"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shards", type=int, default=2, help="training shards to build or use")
    parser.add_argument("--pictures", type=int, default=900, help="source pictures per shard")
    parser.add_argument("--steps", type=int, help="steps of this stage, counted from its beginning")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop the stage after this time")
    parser.add_argument("--batch", type=int, help="pictures of one step of this stage")
    parser.add_argument(
        "--size", type=int, default=128, help="pixels of the diffusion stage's crops"
    )
    parser.add_argument("--rate", type=float, help="learning rate of this stage")
    parser.add_argument("--decay", type=int, help="last steps, with a falling rate")
    parser.add_argument(
        "--restyle", action="store_true", help="draw the styles of existing shards anew"
    )
    parser.add_argument("--decoder-only", action="store_true", help="leave the encoder as it is")
    parser.add_argument("--start", type=Path, help="begin with the weights of this folder")
    parser.add_argument("--guidance", type=float, default=Settings().guidance)
    parser.add_argument("--strength", type=float, default=Settings().strength)
    parser.add_argument("--control", choices=["tile", "canny"], default="tile")
    parser.add_argument("--count", type=int, default=12, help="pictures that `judge` looks at")
    parser.add_argument("--sampling-steps", type=int, default=Settings().steps)
    parser.add_argument("--output", type=Path, help="where `sheet` writes its picture")
    return parser.parse_args(arguments)


def _run(
    options: argparse.Namespace, name: str, steps: int, rate: float, batch: int, decay: int = 0
) -> Run:
    """The stage's own figures, where the command line has no others."""
    return Run(
        folder=options.work / "runs" / name,
        steps=options.steps or steps,
        batch=options.batch or batch,
        rate=options.rate or rate,
        seed=options.seed,
        decay=decay if options.decay is None else options.decay,
        minutes=options.minutes,
    )


def _shards(options: argparse.Namespace) -> list[Path]:
    return [options.work / "cache/shards" / f"train-{number}" for number in range(options.shards)]


def _held(options: argparse.Namespace) -> Path:
    return options.work / "cache/shards/held"


def data(options: argparse.Namespace) -> None:
    """Fetches the pictures and builds the shards that are missing."""
    cache = options.work / "cache"
    if not (cache / "pictures/index.json").exists():
        fetch(cache)
        document.write(cache, Path(__file__).with_name("SOURCES.md"))
    if not (_held(options) / "facts.json").exists():
        pool.build(cache, _held(options), min(48, options.pictures), "held", options.seed + 999)
    for number, shard in enumerate(_shards(options)):
        if not (shard / "facts.json").exists():
            pool.build(cache, shard, options.pictures, "train", options.seed + number + 1)
    if options.restyle:
        for number, shard in enumerate([_held(options), *_shards(options)]):
            facts = json.loads((shard / "facts.json").read_text())
            pool.restyle(shard, facts, options.seed + number + 500)
            (shard / "latents.npy").unlink(missing_ok=True)


def train_autoencoder(options: argparse.Namespace) -> None:
    """Trains the autoencoder, or with --decoder-only and --start its decoder alone."""
    name = "decoder" if options.decoder_only else "autoencoder"
    run = _run(options, name, 8500, 1.5e-3, 16)
    crop = min(options.size, 64)
    autoencoder.train(run, _shards(options), crop, options.start, options.decoder_only)
    curves.draw(run.folder / "log.csv", run.folder / "curves.png")
    table = autoencoder.measure(run.folder / "average", _held(options))
    (run.folder / "psnr.json").write_text(json.dumps(table, indent=1))
    log.info("PSNR of held-out pictures, dB: %s", table)


def _vae(options: argparse.Namespace) -> Path:
    """The newest autoencoder: refined decoder, own run, or the one shipped with the weights."""
    places = [options.work / "runs" / name / "average" for name in ("decoder", "autoencoder")]
    places.append(options.work / "weights/vae")
    return next(place for place in places if (place / "config.json").exists())


def encode(options: argparse.Namespace) -> None:
    """Stores the latents of all shards."""
    model = AutoencoderTiny.from_pretrained(_vae(options)).float()
    for shard in [*_shards(options), _held(options)]:
        if not (shard / "latents.npy").exists():
            latents.encode(model, shard)


def train_diffusion(options: argparse.Namespace) -> None:
    """Trains U-Net, ControlNet and text encoder."""
    run = _run(options, "diffusion", 40_000, 5e-4, 16)
    _diffuse(options, run, options.size, options.start)


def refine(options: argparse.Namespace) -> None:
    """Trains them on at the size that they are meant for, in the end with a falling rate."""
    run = _run(options, "refine", 5350, 3e-4, 4, decay=1500)
    _diffuse(options, run, 256, options.start or options.work / "runs/diffusion/average")


def _diffuse(options: argparse.Namespace, run: Run, size: int, start: Path | None) -> None:
    diffusion.train(run, _shards(options), latents.Mixture(size=size), start, _vae(options))
    curves.draw(run.folder / "log.csv", run.folder / "curves.png")


def train_classifier(options: argparse.Namespace) -> None:
    """Trains the judge of styles and prints its accuracy on held-out pictures."""
    run = _run(options, "classifier", 2600, 2e-3, 42)
    classifier.train(run, _shards(options), _vae(options))
    curves.draw(run.folder / "log.csv", run.folder / "curves.png")
    table = classifier.measure(run.folder / "classifier.safetensors", _held(options))
    (run.folder / "accuracy.json").write_text(json.dumps(table, indent=1))
    log.info("accuracy on held-out pictures: %s", table)


def _networks(options: argparse.Namespace) -> Path:
    """The newest averaged weights of the diffusion model."""
    places = [options.work / "runs" / name / "average" for name in ("refine", "diffusion")]
    return next(place for place in places if (place / "model_index.json").exists())


def export(options: argparse.Namespace) -> None:
    """Copies the averaged weights to `weights/`, with the newest decoder."""
    target = options.work / "weights"
    shutil.copytree(_networks(options), target, dirs_exist_ok=True)
    shutil.copytree(_vae(options), target / "vae", dirs_exist_ok=True)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    log.info("%s: %.1f MB", target, size / 1e6)


def _painter(options: argparse.Namespace) -> Painter:
    return Painter(options.start or _networks(options))


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        steps=options.sampling_steps,
        guidance=options.guidance,
        strength=options.strength,
        control=options.control,
        seed=options.seed,
    )


def contact_sheet(options: argparse.Namespace) -> None:
    """Draws a contact sheet of held-out pictures."""
    pictures = np.load(_held(options) / "source.npy")[::8]
    target = options.output or options.work / "runs/sheet.png"
    sheet.write(sheet.draw(_painter(options), pictures, _settings(options)), target)


def evaluate(options: argparse.Namespace) -> None:
    """Measures recognition, the agreement of edges and the autoencoder on held-out pictures."""
    model = classifier.load(options.work / "runs/classifier/classifier.safetensors")
    pictures = np.load(_held(options) / "source.npy")[: options.count]
    table = judge.judge(_painter(options), model, pictures, _settings(options))
    table["autoencoder"] = autoencoder.measure(_vae(options), _held(options))
    (options.work / "runs/judge.json").write_text(json.dumps(table, indent=1))
    log.info("%s", json.dumps(table, indent=1))


def own_clips(options: argparse.Namespace) -> None:
    """Writes short clips with known motion for tuning."""
    clips.write(options.work / "cache", options.work / "cache/clips", options.seed)


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "data": data,
    "autoencoder": train_autoencoder,
    "encode": encode,
    "classifier": train_classifier,
    "diffusion": train_diffusion,
    "refine": refine,
    "export": export,
    "sheet": contact_sheet,
    "judge": evaluate,
    "clips": own_clips,
}


def main() -> None:
    """Runs one stage, or all of them in order."""
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    for name, stage in STAGES.items():
        if options.stage in (name, "all"):
            log.info("stage %s", name)
            stage(options)


if __name__ == "__main__":
    main()
