"""What is said where a Blender cannot be had: the reason that its tests are skipped with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts import desktop, environments
from tests.hosts.environments import BLENDERS, FOLDER, REPOSITORY, USUAL, Blender, NotHere

HERE = ".".join(map(str, sys.version_info[:2]))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))


def test_one_that_is_not_set_up_names_the_command() -> None:
    with pytest.raises(NotHere, match=r"run `python -m tests\.hosts\.environments 4\.5`"):
        _ = BLENDERS[USUAL].python


def test_one_of_another_version_is_not_used(tmp_path: Path) -> None:
    (tmp_path / USUAL).mkdir()
    (tmp_path / USUAL / "ready").write_text("bpy==4.5.0", encoding="utf-8")
    assert not BLENDERS[USUAL].ready


def test_the_python_inside_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(NotHere, match=r"no Python 3\.99 .*`pyenv install 3\.99`"):
        Blender("9.9", "bpy==9.9.9", "3.99").set_up()
    assert not list(tmp_path.iterdir())


def test_a_package_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert not environments.set_up(Blender("9.9", "bpy==9.9.9", HERE))
    assert "its tests are skipped: bpy==9.9.9 could not be installed" in capsys.readouterr().out
    assert not (tmp_path / "9.9" / "ready").exists()


def test_libraries_are_named_by_any_python(tmp_path: Path) -> None:
    """The script that asks for them has nothing installed yet."""
    words = [sys.executable, "-S", "-m", "tests.hosts.environments", "--libraries"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "libx11-6" in done.stdout.split()


def test_a_screen_asks_for_its_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotHere, match="`apt-get install xvfb xdotool` brings them"):
        desktop.Desktop("blender", "", tmp_path)


def test_something_else_is_no_blender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in desktop.NEEDED:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotHere, match="is no Blender: Python"):
        desktop.Desktop(sys.executable, "", tmp_path)
    with pytest.raises(NotHere, match="cannot be started"):
        desktop.Desktop(str(tmp_path / "none"), "", tmp_path)


def test_an_old_blender_has_no_extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in desktop.NEEDED:
        (tmp_path / name).touch(mode=0o755)
    old = tmp_path / "blender"
    old.write_text("#!/bin/sh\necho Blender 3.4.1\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotHere, match=r"Blender 3\.4\.1 has no extensions; 4\.2 has"):
        desktop.Desktop(str(old), "", tmp_path)
