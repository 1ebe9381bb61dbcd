"""The zip of Blender's extension: its contents, the same bytes each time, and what is refused."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from host_plugins.blender import build
from tests.hosts.environments import REPOSITORY

from .conftest import CACHE, Inside

BLENDER = REPOSITORY / "host_plugins" / "blender"
WHEELS = BLENDER / "wheels.txt"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="session")
def names(extension: Path) -> list[str]:
    with zipfile.ZipFile(extension) as archive:
        return archive.namelist()


def test_the_root_is_what_blender_wants(extension: Path, names: list[str]) -> None:
    assert extension.name == "fresco_bridge-0.1.0.zip"
    assert {name for name in names if "/" not in name} == {
        "__init__.py",
        "blender_manifest.toml",
        "LICENSE",
        "program.py",
    }
    assert {name.split("/")[0] for name in names if "/" in name} == {"blender", "link", "wheels"}


def test_the_sources_are_verbatim(extension: Path) -> None:
    with zipfile.ZipFile(extension) as archive:
        for name in archive.namelist():
            source = REPOSITORY / "host_plugins" / name
            if name.startswith(("blender/", "link/", "program")) and name != "link/LICENSE":
                assert archive.read(name) == source.read_bytes(), name


def test_all_of_the_sources_and_nothing_else(names: list[str]) -> None:
    link = {at.name for at in (BLENDER.parent / "link").iterdir() if at.is_file()}
    assert {name[5:] for name in names if name.startswith("link/")} == {*link, "LICENSE"}
    modules = {at.name for at in BLENDER.glob("*.py")} - {"build.py"}
    assert {name[8:] for name in names if name.startswith("blender/")} == modules


def test_it_carries_its_licences(extension: Path) -> None:
    with zipfile.ZipFile(extension) as archive:
        assert b"GNU GENERAL PUBLIC LICENSE" in archive.read("LICENSE")
        assert b"Apache License" in archive.read("link/LICENSE")


def test_every_file_says_its_licence() -> None:
    for at in [*BLENDER.rglob("*.py"), *BLENDER.rglob("*.toml")]:
        first = at.read_text(encoding="utf-8").splitlines()[0]
        assert first == "# SPDX-License-Identifier: GPL-3.0-or-later", at


def test_the_wheels_are_those_of_the_list(extension: Path) -> None:
    hashes = set(re.findall(r"sha256:(\w+)", WHEELS.read_text(encoding="utf-8")))
    with zipfile.ZipFile(extension) as archive:
        wheels = [name for name in archive.namelist() if name.startswith("wheels/")]
        assert {hashlib.sha256(archive.read(name)).hexdigest() for name in wheels} == hashes
        manifest = tomlkit.parse(archive.read("blender_manifest.toml")).unwrap()
    assert sorted(manifest["wheels"]) == sorted(f"./{name}" for name in wheels)


@pytest.mark.parametrize("package", ["pyzmq", "msgpack"])
@pytest.mark.parametrize("python", ["cp311-cp311", "cp31[23]-(cp313|abi3)"])
@pytest.mark.parametrize(
    "system", ["manylinux.*x86_64", "win_amd64", "macosx.*(arm64|universal2)", "macosx.*(x86_64|u)"]
)
def test_every_blender_finds_its_wheel(
    names: list[str], package: str, python: str, system: str
) -> None:
    pattern = rf"wheels/{package}-[\d.]+-{python}-{system}.*\.whl"
    assert [name for name in names if re.fullmatch(pattern, name)], pattern


def test_the_same_sources_give_the_same_bytes(extension: Path, tmp_path: Path) -> None:
    """From another folder, at another time, with files of other times."""
    copy = tmp_path / "copy" / "host_plugins"
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("blender", "link"):
        shutil.copytree(BLENDER.parent / part, copy / part, ignore=ignore)
    shutil.copy(BLENDER.parent / "program.py", copy)
    (copy / "__init__.py").touch()
    shutil.copy(REPOSITORY / "LICENSE", copy.parent)
    for at in copy.rglob("*.py"):
        at.touch(mode=0o600)
    (copy / "blender" / ".swap.py.swp").write_text("an editor's")
    words = [sys.executable, "-m", "host_plugins.blender.build", "--cache", str(CACHE)]
    done = subprocess.run(words, cwd=copy.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = copy.parent / "dist" / extension.name
    assert str(Path("dist") / extension.name) in done.stdout
    assert again.read_bytes() == extension.read_bytes()
    assert [at.name for at in again.parent.iterdir()] == [again.name]


def test_fetched_wheels_need_no_network(
    extension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere(monkeypatch)
    again = build.build(tmp_path, CACHE)
    assert again.read_bytes() == extension.read_bytes()


def test_without_network_it_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere(monkeypatch)
    assert build.main(["--output", str(tmp_path / "out"), "--cache", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert "could not be fetched; connect to the network once" in said
    assert not (tmp_path / "out").exists()


def test_a_damaged_wheel_is_not_used(
    extension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no longer known in the cache: pip gets it anew, or nothing."""
    nowhere(monkeypatch)
    cache = shutil.copytree(CACHE, tmp_path / "cache")
    damaged = sorted(cache.glob("*.whl"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(build.NotBuilt, match="could not be fetched"):
        build.build(tmp_path / "out", cache)


def test_another_wheel_than_the_list_names_is_refused(
    extension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry, here a folder, has a wheel of the right name with other bytes."""
    nowhere(monkeypatch)
    registry = shutil.copytree(CACHE, tmp_path / "registry")
    for wheel in registry.glob("*.whl"):
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("more.py", "more = True")
    monkeypatch.setenv("PIP_FIND_LINKS", str(registry))
    with pytest.raises(build.NotBuilt, match=r"is not the one that .*wheels\.txt names"):
        build.build(tmp_path / "out", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.whl"))


def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut pip off from registries, and from this machine's settings."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


# The manifest


@pytest.fixture
def manifest() -> dict[str, Any]:
    return build.read_manifest(BLENDER / "bundle" / "blender_manifest.toml")


def test_the_version_is_the_projects(manifest: dict[str, Any]) -> None:
    project = tomlkit.parse((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")).unwrap()
    assert project["project"]["version"].split(".dev")[0] == manifest["version"]


BROKEN: list[tuple[str, Change]] = [
    ("version is '1.0', which does not fit", lambda m: m.update(version="1.0")),
    ("tagline is missing", lambda m: m.pop("tagline")),
    ("tagline must not end with punctuation", lambda m: m.update(tagline="It styles.")),
    ("tagline has 65 characters; at most 64", lambda m: m.update(tagline="x" * 65)),
    ("bl_info is not a key that Blender knows", lambda m: m.update(bl_info={})),
    ("id is 'fresco__bridge'", lambda m: m.update(id="fresco__bridge")),
    ("license is \\['GPL'\\]", lambda m: m.update(license=["GPL"])),
    ("license is \\[\\]", lambda m: m.update(license=[])),
    ("platforms is \\['amiga'\\]", lambda m: m.update(platforms=["amiga"])),
    ("permissions is {'printer': 'Prints'}", lambda m: m.update(permissions={"printer": "Prints"})),
    ("network must not end", lambda m: m["permissions"].update(network="Talks!")),
    ("wheels is .*back", lambda m: m["wheels"].append(".\\wheels\\back-1-py3-none-any.whl")),
    ("wheels.txt lacks x-1-py3-none-any", lambda m: m["wheels"].append(WHEEL)),
    ("wheels lacks msgpack", lambda m: m["wheels"].pop(0)),
]
WHEEL = "./wheels/x-1-py3-none-any.whl"


def test_the_manifest_holds_the_rules(manifest: dict[str, Any]) -> None:
    assert build.problems(manifest, [Path(wheel).name for wheel in manifest["wheels"]]) == []


@pytest.mark.parametrize(("said", "change"), BROKEN, ids=[said for said, _ in BROKEN])
def test_a_broken_rule_is_named(manifest: dict[str, Any], said: str, change: Change) -> None:
    wheels = [Path(wheel).name for wheel in manifest["wheels"]]
    change(manifest)
    found = build.problems(manifest, wheels)
    assert len(found) == 1, found
    assert re.search(said, found[0]), found


def test_a_manifest_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "blender_manifest.toml").write_text("id = ")
    with pytest.raises(build.NotBuilt, match=r"blender_manifest\.toml cannot be read"):
        build.read_manifest(tmp_path / "blender_manifest.toml")


def test_blenders_own_rules(blender: Inside, extension: Path, tmp_path: Path) -> None:
    """The program that Blender validates and installs extensions with."""
    with zipfile.ZipFile(extension) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert "Success" in blender.run("validate.py", extension)
    assert "Success" in blender.run("validate.py", tmp_path / "unpacked")
