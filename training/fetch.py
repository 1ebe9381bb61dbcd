# SPDX-License-Identifier: Apache-2.0
"""Fetches the sources into a cache and turns them into a tidy folder of pictures with an index."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from training.sources import SOURCES, Source

log = logging.getLogger(__name__)

SHORT_SIDE = 400
"""Pixels: pictures are reduced to this short side."""
SMALLEST = 150
"""Pixels: pictures with a smaller short side are left out (cutouts: half of it)."""
HELD_OUT_ONE_IN = 10
PICTURE = re.compile(rb"RIFF....WEBP|\xff\xd8\xff", re.DOTALL)


def fetch(cache: Path) -> Path:
    """Downloads every source and writes `pictures/` and `pictures/index.json` below `cache`."""
    target = cache / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, str]] = []
    for source in SOURCES:
        root = _unpacked(source, cache)
        found = [_store(source, name, image, target) for name, image in _pictures(source, root)]
        entries += [entry for entry in found if entry is not None]
        log.info("%s: %d pictures", source.package, sum(entry is not None for entry in found))
    unique = {entry["digest"]: entry for entry in entries}
    index = target / "index.json"
    index.write_text(json.dumps(list(unique.values()), indent=1))
    log.info("%d pictures in %s", len(unique), index)
    return index


def _unpacked(source: Source, cache: Path) -> Path:
    root = cache / "unpacked" / source.package
    if root.exists():
        return root
    downloads = cache / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    part = cache / "unpacked" / f"{source.package}.part"  # a whole folder or none
    part.mkdir(parents=True, exist_ok=True)
    if source.registry == "debian":
        subprocess.run(["apt-get", "download", "-q", source.package], cwd=downloads, check=True)
        archive = next(downloads.glob(f"{source.package}_*.deb"))
        subprocess.run(["dpkg", "-x", archive, part], check=True)
    else:
        _download_wheel(source, downloads)
        archive = next(downloads.glob(f"{source.package.replace('-', '_')}-*.whl"))
        zipfile.ZipFile(archive).extractall(part)
    part.rename(root)
    return root


def _download_wheel(source: Source, downloads: Path) -> None:
    """The wheel is only unpacked, so it may be one for another Python."""
    old = ["--python-version", "3.8"] if source.version.startswith("0.17") else []
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    wanted = f"{source.package}=={source.version}"
    subprocess.run([*command, *old, "-d", str(downloads), wanted], check=True)


def _pictures(source: Source, root: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yields (name, image as read by OpenCV, with alpha where there is one)."""
    for pattern in source.include:
        for path in sorted(root.glob(pattern)):
            if any(word in str(path) for word in source.exclude) or not path.is_file():
                continue
            if source.kind == "bundle":
                yield from _carve(path)
            else:
                yield path.stem, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def _carve(path: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    data = path.read_bytes()
    for number, match in enumerate(PICTURE.finditer(data)):
        start = match.start()
        end = data.find(b"\xff\xd9", start) + 2
        if data[start : start + 4] == b"RIFF":
            end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        if end - start > 15_000:
            raw = np.frombuffer(data[start:end], np.uint8)
            yield f"{path.stem}-{number:03d}", cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)


def _store(
    source: Source, name: str, image: np.ndarray | None, target: Path
) -> dict[str, str] | None:
    """Writes one picture, reduced; None when it is broken, small, flat or a drawing in a bundle."""
    if image is None or image.ndim == 2 or image.dtype != np.uint8:
        image = None if image is None else _as_colour(image)
    if image is None:
        return None
    transparent = image.shape[2] == 4 and (image[..., 3] < 128).mean() > 0.02
    if transparent != (source.kind == "cutout"):
        return None
    image = _reduced(image if transparent else image[..., :3])
    if min(image.shape[:2]) < SMALLEST // (2 if transparent else 1) or image.std() < 12:
        return None
    digest = hashlib.sha256(cv2.resize(image[..., :3], (16, 16)).tobytes()).hexdigest()[:16]
    file = f"{source.package}-{re.sub(r'[^a-zA-Z0-9]+', '-', name).lower()}-{digest[:6]}.png"
    cv2.imwrite(str(target / file), image)
    held = int(digest, 16) % HELD_OUT_ONE_IN == 0 and not transparent
    return {
        "file": file,
        "source": source.package,
        "name": name,
        "kind": "cutout" if transparent else "photo",
        "split": "held" if held else "train",
        "digest": digest,
    }


def _as_colour(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


def _reduced(image: np.ndarray) -> np.ndarray:
    scale = SHORT_SIDE / min(image.shape[:2])
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
