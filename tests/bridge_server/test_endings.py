from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bridge_server.cli import app
from bridge_server.endings import Commands
from fresco.errors import Cancelled


def failing(error: BaseException) -> typer.Typer:
    """An app whose one command ends with `error`; a group, as ours is."""
    made = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
    made.callback()(lambda: None)

    @made.command()
    def work(as_json: bool = typer.Option(False, "--json")) -> None:
        raise error

    del work
    return made


def run(program: typer.Typer, *words: str) -> Any:
    return CliRunner().invoke(program, list(words))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["render"], "missing argument 'clip'; see `root render --help`."),
        (["render", "a.mp4", "--styl"], "no such option: --styl"),
        (["render", "a.mp4", "--steps", "many"], "invalid value for '--steps'"),
        (["propagate", "a.mp4"], "missing option '--key'"),
        (["frobnicate"], "no such command 'frobnicate'"),
        (["--frobnicate"], "no such option: --frobnicate"),
        (["models", "list", "--role", "x"], "invalid value for '--role'"),
        (["models", "add"], "see `root models add --help`."),
    ],
)
def test_a_wrong_use_is_one_line_that_names_the_help(words: list[str], told: str) -> None:
    result = run(app, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("fresco-bridge: ")
    assert told in line
    assert line.endswith("--help`.")


@pytest.mark.parametrize("words", [[], ["models"]])
def test_a_group_alone_shows_its_help(words: list[str]) -> None:
    result = run(app, *words)
    assert "Usage" in result.stdout + result.stderr
    assert "fresco-bridge: " not in result.stderr


def test_programs_get_the_error_as_an_event(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.mp4")
    result = run(app, "keyframes", gone, "--json")
    event = json.loads(result.stdout)
    assert (result.exit_code, event["event"], event["code"]) == (1, "error", "media")
    assert event["error"] in result.stderr
    event = json.loads(run(app, "keyframes", gone, "--json", "--styl").stdout)
    assert (event["event"], event["code"]) == ("error", "bad_request")


def test_what_the_disk_refuses_is_no_mistake_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(app, "demo", "-o", str(tmp_path / "file"))
    assert result.stderr == (
        f"fresco-bridge: {tmp_path / 'file'} is a file; choose another folder with -o.\n"
    )
    result = run(failing(OSError(5, "Input/output error", "a.mov")), "work")
    assert result.stderr == "fresco-bridge: [Errno 5] Input/output error: 'a.mov'\n"


def test_a_stop_is_an_event_too() -> None:
    result = run(failing(Cancelled()), "work", "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["code"] == "cancelled"
    assert result.stderr.startswith("fresco-bridge: stopped;")


def test_a_mistake_of_the_program_is_one_line_that_says_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = run(failing(KeyError("lost")), "work")
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1
    assert "KeyError: 'lost'" in line
    assert "test_endings.py, line " in line
    monkeypatch.setenv("FRESCO_BRIDGE_TRACE", "1")
    assert "Traceback" in run(failing(KeyError("lost")), "work").stderr


def test_the_version_is_said() -> None:
    assert run(app, "--version").stdout.startswith("fresco-bridge ")
