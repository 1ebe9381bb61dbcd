"""The command that opens the panel, and what it says where that cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_server import config, panel
from bridge_server.probes.finding import Finding, State
from fresco.errors import FrescoError, MissingExtra
from host_plugins.link import endpoint
from tests.ui import qt

SCREEN = {"DISPLAY": ":0"}
_FINE = Finding("panel", "qt", State.OK, "PySide6 6.8.3")
#: What the panel's process was started with, and in which folder, as JSON on stdout.
_TELLS = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd()]))"


def command(
    tmp_path: Path, *words: str, before: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run `fresco-bridge panel`, with something done in its process before."""
    code = f"{before}\nimport sys; sys.argv[1:] = ['panel', *{list(words)!r}]\n"
    code += "from bridge_server.__main__ import main; main()"
    told = {config.HOME: str(tmp_path / "home"), endpoint.FOLDER: str(tmp_path / "run"), **environ}
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **told}, cwd=tmp_path,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_without_pyside_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    told = command(tmp_path, before="import sys; sys.modules['PySide6'] = None")
    assert told.returncode == 1
    assert told.stdout == ""
    (line,) = told.stderr.splitlines()
    assert "PySide6 is not installed" in line
    assert "pip install" in line
    assert "PySide6-Essentials" in line


def test_a_library_of_the_system_that_is_missing_is_named_with_the_command(tmp_path: Path) -> None:
    """The package is there, and its library does not load, as on a machine without a desktop."""
    broken = tmp_path / "site" / "PySide6"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("")
    (broken / "QtWidgets.py").write_text(
        "raise ImportError('libEGL.so.1: cannot open shared object file: No such file')"
    )
    path = os.pathsep.join([str(broken.parent), os.environ.get("PYTHONPATH", "")])
    told = command(tmp_path, PYTHONPATH=path)
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert "libEGL.so.1" in line
    assert "install" in line.split("libEGL.so.1", 1)[1]


def test_without_a_screen_that_is_said() -> None:
    with pytest.raises(FrescoError, match="no screen"):
        panel.check([_FINE], {}, "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        panel.check([_FINE], {name: "x"}, "linux")
    panel.check([_FINE], {}, "darwin")


def test_libraries_that_only_windows_of_x_need_stop_only_those() -> None:
    lacking = Finding("panel", "windows", State.PROBLEM, "no windows without libxcb", "get libxcb")
    with pytest.raises(MissingExtra, match="no windows without libxcb; get libxcb"):
        panel.check([_FINE, lacking], SCREEN, "linux")
    panel.check([_FINE, lacking], {**SCREEN, "WAYLAND_DISPLAY": "wayland-0"}, "linux")


def test_another_version_than_the_panel_is_for_is_refused() -> None:
    unfit = Finding("versions", "PySide6-Essentials", State.PROBLEM, "<6.12 is needed", "pip it")
    with pytest.raises(MissingExtra, match=r"<6\.12 is needed; pip it"):
        panel.check([unfit], SCREEN, "linux")


@pytest.mark.skipif(bool(qt.missing()), reason=f"no window: {qt.missing()}")
def test_another_package_called_ui_is_not_taken_for_ours(tmp_path: Path) -> None:
    theirs = tmp_path / "site" / "ui"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("")
    path = os.pathsep.join([str(theirs.parent), os.environ.get("PYTHONPATH", "")])
    told = command(tmp_path, PYTHONPATH=path, QT_QPA_PLATFORM="offscreen")
    assert told.returncode == 1
    assert str(theirs) in told.stderr
    assert len(told.stderr.splitlines()) == 1


@pytest.mark.skipif(bool(qt.missing()), reason=f"no window: {qt.missing()}")
def test_the_panel_is_started_with_what_it_needs_away_from_this_folder(tmp_path: Path) -> None:
    tells = (
        "import subprocess, sys\ncall = subprocess.call\n"
        f"words = [sys.executable, '-c', {_TELLS!r}]\n"
        "subprocess.call = lambda told, **more: call([*words, *told], **more)"
    )
    told = command(tmp_path, "--job", "a1b2", before=tells, QT_QPA_PLATFORM="offscreen")
    assert told.returncode == 0, told.stderr
    words, folder = json.loads(told.stdout)
    assert words[:3] == [sys.executable, "-m", "ui"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert json.loads(options["--program"]) == [sys.executable, "-m", "bridge_server"]
    assert options["--job"] == "a1b2"
    assert Path(options["--printed"]).parent == Path(folder) == (tmp_path / "home" / "server")


@pytest.mark.skipif(bool(qt.missing()), reason=f"no window: {qt.missing()}")
def test_ctrl_c_closes_the_window(tmp_path: Path) -> None:
    environ = {
        **os.environ,
        endpoint.FOLDER: str(tmp_path / "run"),
        "QT_QPA_PLATFORM": "offscreen",
        "QT_QPA_PLATFORM_PLUGIN_PATH": str(tmp_path / "cv2" / "qt" / "plugins"),  # left by cv2
    }
    code = (
        "import os, signal, sys, threading\n"
        "from PySide6.QtCore import QTimer\n"
        "from ui import app\n"
        "build = app.build\n"
        "def built(*told):\n"
        "    QTimer.singleShot(0, lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "    return build(*told)\n"
        "app.build = built\n"
        "from ui.__main__ import main\n"
        "sys.exit(main([]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
