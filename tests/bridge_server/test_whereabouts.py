from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from bridge_server import config, whereabouts
from host_plugins import program
from host_plugins.link.errors import BridgeError, Code


def test_plugins_find_the_program_where_it_last_ran(tmp_path: Path) -> None:
    whereabouts.remember()
    assert program.command() == [sys.executable, "-m", "bridge_server"]


def test_any_command_tells_where_the_program_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(config.HOME, str(tmp_path / "other"))
    words = [sys.executable, "-m", "bridge_server", "jobs"]
    subprocess.run(words, check=True, capture_output=True)
    assert json.loads((tmp_path / "other" / program.NAME).read_text())["command"] == words[:3]


def test_what_was_damaged_is_written_anew() -> None:
    file = program.folder() / program.NAME
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xff\xfe of another kind")
    whereabouts.remember()
    assert program.command() == [sys.executable, "-m", "bridge_server"]


def test_where_it_cannot_be_written_the_command_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(config.HOME, str(tmp_path / "file"))
    whereabouts.remember()
    assert (tmp_path / "file").read_bytes() == b""


def test_the_data_folder_is_the_programs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert program.folder() == config.load().lock_file.parent
    monkeypatch.delenv(config.HOME)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    usual = platformdirs.user_data_path("fresco-bridge", appauthor=False)
    assert program.folder() == usual == config.load().lock_file.parent


@pytest.mark.parametrize("told", ["", "{", "[]", '{"command": []}', '{"command": ["gone"]}'])
def test_what_leads_nowhere_is_not_taken(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program.folder().mkdir(parents=True)
    (program.folder() / program.NAME).write_text(told)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BridgeError, match="was not found") as found:
        program.command()
    assert found.value.code is Code.HOST
    assert "doctor" in found.value.hint


def test_the_users_choice_comes_first(tmp_path: Path) -> None:
    whereabouts.remember()
    own = tmp_path / "fresco-bridge"
    with pytest.raises(BridgeError, match="is not there"):
        program.command(str(own))
    own.touch()
    assert program.command(str(own)) == [str(own)]


def test_a_program_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="cannot be started"):
        program.start([str(tmp_path / "none")], tmp_path / "log" / "printed.log")
    script = tmp_path / "says.py"
    script.write_text("print('hello')")
    program.start([sys.executable, str(script)], tmp_path / "printed.log").wait(60)
    assert (tmp_path / "printed.log").read_text() == "hello\n"
