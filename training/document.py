# SPDX-License-Identifier: Apache-2.0
"""Writes SOURCES.md: every package that training pictures come from, with its licences."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from training.sources import SOURCES, Source

HEAD = """# Sources of the training pictures

`fresco-draft` is trained on nothing but the pictures in the packages below, and on pictures that
`training/scenes.py` renders. All of the Debian packages are in the section *main* of release 12,
so they meet the Debian Free Software Guidelines; who made each picture is told in the package's
`/usr/share/doc/PACKAGE/copyright`. No picture of them is shipped with this project. The styled
versions are computed by `training/styles.py`. A tenth of the photos is held out and never trained
on.

| package | version | pictures: trained on | held out | licences |
|---|---|---|---|---|
"""


def write(cache: Path, target: Path) -> None:
    """Counts the fetched pictures and reads the versions from the downloaded packages' names."""
    entries = json.loads((cache / "pictures/index.json").read_text())
    counts = Counter((entry["source"], entry["split"]) for entry in entries)
    rows = []
    for source in SOURCES:
        trained, held = counts[source.package, "train"], counts[source.package, "held"]
        where = f"{source.package} ({source.registry})"
        rows.append(
            f"| {where} | {_version(source, cache)} | {trained} | {held} | {source.licence} |"
        )
    target.write_text(HEAD + "\n".join(rows) + "\n")


def _version(source: Source, cache: Path) -> str:
    if source.version:
        return source.version
    archive = next((cache / "downloads").glob(f"{source.package}_*.deb"))
    return re.sub(r"%3a", ":", archive.stem.split("_")[1])
