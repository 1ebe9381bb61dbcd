# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the extension's zip, one for every system, without Blender.

python -m host_plugins.blender.build [--output FOLDER] [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

BLENDER = Path(__file__).resolve().parent
LINK = BLENDER.parent / "link"
PROGRAM = BLENDER.parent / "program.py"
REPOSITORY = BLENDER.parent.parent
MANIFEST = "blender_manifest.toml"
# The Pythons inside Blender: 3.11 up to 5.0, 3.13 from 5.1 on.
PYTHONS = ("3.11", "3.13")
# Of Blender's own oldest systems, in the words of wheels' names.
SYSTEMS = ("manylinux_2_28_x86_64", "win_amd64", "macosx_11_0_arm64", "macosx_11_0_x86_64")
# What is in the source tree, but not in the zip's package.
_NOT_INSIDE = ("build.py", "bundle", "wheels.txt", "LICENSE")
_EPOCH = (1980, 1, 1, 0, 0, 0)

#: A pattern of the whole text; of each item of a list; of each key and value of a table.
Rule = str | list[str] | dict[str, str]
Rules = dict[str, Rule]


class NotBuilt(Exception):
    """Why there is no zip, and what helps."""


def build(output: Path, cache: Path, requirements: Path = BLENDER / "wheels.txt") -> Path:
    """Write `output`/ID-VERSION.zip and return its path; the same sources give the same bytes.

    cache: folder of wheels, which are fetched only where they are missing

    Raises:
        NotBuilt: a wheel could not be fetched or is another one, or the manifest breaks a rule.
    """
    wheels = fetch(requirements, cache)
    manifest = read_manifest(BLENDER / "bundle" / MANIFEST)
    if wrong := problems(manifest, [wheel.name for wheel in wheels]):
        raise NotBuilt("\n  ".join([f"{MANIFEST} breaks Blender's rules:", *wrong]))
    output.mkdir(parents=True, exist_ok=True)
    target = output / f"{manifest['id']}-{manifest['version']}.zip"
    write(target, contents(wheels))
    return target


# The wheels


def fetch(requirements: Path, cache: Path) -> list[Path]:
    """Return the wheels whose hashes `requirements` lists, by name; fetch those not in `cache`."""
    hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", requirements.read_text(encoding="utf-8"))
    cache.mkdir(parents=True, exist_ok=True)
    if not set(hashes) <= _by_hash(cache).keys():
        for python in PYTHONS:
            for system in SYSTEMS:
                _download(requirements, cache, python, system)
    found = _by_hash(cache)
    if missing := [hash_ for hash_ in hashes if hash_ not in found]:
        raise NotBuilt(
            f"no Blender needs the wheels of these hashes in {requirements}: {', '.join(missing)};"
            " remove them"
        )
    return sorted((found[hash_] for hash_ in hashes), key=lambda wheel: wheel.name)


def _by_hash(folder: Path) -> dict[str, Path]:
    return {hashlib.sha256(at.read_bytes()).hexdigest(): at for at in folder.glob("*.whl")}


def _download(requirements: Path, cache: Path, python: str, system: str) -> None:
    """Let pip fetch what one Blender needs; it compares the hashes."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    words += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", str(cache)]
    words += ["--python-version", python, "--platform", system, "--requirement", str(requirements)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise NotBuilt(
            f"a wheel for Python {python} on {system} is not the one that {requirements} names;"
            f" trust it only if you know why:\n{done.stderr.strip()}"
        )
    raise NotBuilt(
        f"the wheels for Python {python} on {system} could not be fetched; connect to the network"
        f" once, afterwards they are in {cache}. pip says:\n{done.stderr.strip()}"
    )


# The manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        NotBuilt: it is not there, or no TOML.
    """
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise NotBuilt(f"{path} cannot be read: {error}") from error


def problems(manifest: Mapping[str, Any], wheels: Sequence[str]) -> list[str]:
    """Return what of Blender's rules for extensions a manifest breaks, in words."""
    wrong = list(_field_problems(manifest))
    return wrong or [*_text_problems(manifest), *_wheel_problems(manifest, wheels)]


_SEMVER = r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
_REQUIRED: Rules = {
    "schema_version": _SEMVER,
    "id": r"[A-Za-z](_?[A-Za-z0-9])*",
    "version": _SEMVER,
    "name": r"\S(.*\S)?",
    "tagline": r"\S(.*\S)?",
    "maintainer": r"\S(.*\S)?",
    "type": r"add-on|theme",
    "blender_version_min": r"\d+\.\d+\.\d+",
    "license": [r"SPDX:[A-Za-z0-9.+-]+"],
}
_OPTIONAL: Rules = {
    "blender_version_max": r"\d+\.\d+\.\d+",
    "website": r"https?://\S+",
    "copyright": [r"\d{4}(-\d{4})? \S.*"],
    "tags": [r"\S(.*\S)?"],
    "platforms": [r"(linux|macos|windows)-(x64|arm64)"],
    "wheels": [r"\./wheels/[^-/\"\\]+(-[^-/\"\\]+){4,5}\.whl"],
    "permissions": {"files|network|clipboard|camera|microphone": r"\S(.*\S)?"},
}
_LONGEST = 64


def _field_problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    rules = {**_REQUIRED, **_OPTIONAL}
    yield from (f"{key} is missing" for key in _REQUIRED if key not in manifest)
    for key, value in manifest.items():
        if key not in rules:
            yield f"{key} is not a key that Blender knows"
        elif not _fits(value, rules[key]):
            yield f"{key} is {value!r}, which does not fit {rules[key]!r}"


def _fits(value: Any, rule: Rule) -> bool:
    """Whether a value, each item of a list, or each key and value of a table fits."""
    if isinstance(rule, list):
        return isinstance(value, list) and bool(value) and all(_fits(one, rule[0]) for one in value)
    if isinstance(rule, dict):
        ((keys, values),) = rule.items()
        return isinstance(value, dict) and all(
            _fits(key, keys) and _fits(text, values) for key, text in value.items()
        )
    return isinstance(value, str) and re.fullmatch(rule, value) is not None


def _text_problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Short texts are shown in one line of Blender's preferences."""
    for key, text in {"tagline": manifest["tagline"], **manifest.get("permissions", {})}.items():
        if len(text) > _LONGEST:
            yield f"{key} has {len(text)} characters; at most {_LONGEST} are shown"
        if not (text[-1].isalnum() or text[-1] in ")]}"):
            yield f"{key} must not end with punctuation"


def _wheel_problems(manifest: Mapping[str, Any], wheels: Sequence[str]) -> Iterator[str]:
    named = {Path(wheel).name for wheel in manifest.get("wheels", [])}
    yield from (f"wheels lacks {name}" for name in sorted(set(wheels) - named))
    yield from (f"wheels.txt lacks {name}" for name in sorted(named - set(wheels)))


# The zip


def contents(wheels: Sequence[Path]) -> dict[str, Path]:
    """Return the files of the zip: their names in it → where they are."""
    inside = {f"blender/{name}": at for name, at in _files(BLENDER, _NOT_INSIDE)}
    inside |= {f"link/{name}": at for name, at in _files(LINK)}
    inside |= {PROGRAM.name: PROGRAM}
    inside |= dict(_files(BLENDER / "bundle"))
    inside |= {f"wheels/{wheel.name}": wheel for wheel in wheels}
    # What is in `link`, and `program`, is under the repository's licence.
    return inside | {"LICENSE": BLENDER / "LICENSE", "link/LICENSE": REPOSITORY / "LICENSE"}


def _files(folder: Path, without: Sequence[str] = ()) -> Iterator[tuple[str, Path]]:
    for at in folder.rglob("*"):
        parts = at.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if at.is_file() and not hidden and parts[0] not in without:
            yield "/".join(parts), at


def write(target: Path, files: Mapping[str, Path]) -> None:
    """Write a zip whose bytes depend on nothing but the files' names and bytes.

    Nothing is compressed: wheels are already, and what deflate writes differs between its releases.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.create_system = 3  # as on Unix, wherever it is built
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, files[name].read_bytes())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def main(words: Sequence[str] | None = None) -> int:
    """Build, and say where the zip is."""
    parser = argparse.ArgumentParser(prog="build", description="Build Blender's extension.")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="folder of the zip")
    cache = Path("build") / "wheels"
    parser.add_argument("--cache", type=Path, default=cache, help="folder of fetched wheels")
    chosen = parser.parse_args(words)
    try:
        target = build(chosen.output, chosen.cache)
    except (NotBuilt, OSError) as error:
        print(f"The extension was not built: {error}", file=sys.stderr)
        return 1
    print(
        f"{target} ({target.stat().st_size / 1e6:.1f} MB): in Blender, Preferences > Get Extensions"
    )
    print("> Install from Disk, or drop the file onto its window. It is for 4.2 and later.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
