from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from bridge_server import config, library
from bridge_server.catalogue import Entry, Role
from bridge_server.cli import _Bar, app
from bridge_server.downloads import Progress
from bridge_server.endings import _STOPPED
from fresco.errors import MissingWeights
from tests.bridge_server.conftest import REPOSITORY, WEIGHTS
from tests.bridge_server.hub_server import HubServer, sha256


def run(*words: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, ["models", *words], input=stdin)


@pytest.fixture(autouse=True)
def _mirror(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.MIRROR, hub.endpoint)


@pytest.fixture
def named(entry: Entry) -> str:
    """A model of the user's catalogue under terms."""
    path = config.load().catalogue_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'[styles]\nrole = "lora"\nrepository = "{REPOSITORY}"\n'
        'licence = "openrail"\nlicence_url = "https://example.org/terms"\naccept_licence = true\n'
    )
    return "styles"


def test_from_the_list_to_the_verified_file(
    hub: HubServer, named: str, weights: bytes, settings: Any
) -> None:
    assert {row["name"]: row["state"] for row in json.loads(run("list", "--json").stdout)}[
        "styles"
    ] == ""

    refused = run("download", "styles")
    assert refused.exit_code == 1
    assert "https://example.org/terms" in refused.stderr
    assert "--accept-licence" in refused.stderr
    assert hub.requests == []

    done = run("download", "styles", "--accept-licence")
    assert (done.exit_code, "verified, pinned at" in done.stdout) == (0, True), done.stderr
    assert "https://example.org/terms" in done.stderr

    shown = json.loads(run("show", "styles", "--json").stdout)
    assert shown["state"] == "pinned"
    assert (Path(shown["at"]) / WEIGHTS).read_bytes() == weights

    assert run("verify").exit_code == 0
    (Path(shown["at"]) / WEIGHTS).resolve().write_bytes(b"x")
    bad = run("verify", "styles", "--json")
    assert bad.exit_code == 3
    assert {row["file"]: row["state"] for row in json.loads(bad.stdout)} == {
        WEIGHTS: "changed",
        "config.json": "good",
    }
    assert "models download NAME --repair" in bad.stderr
    assert "changed" in run("list").stdout
    assert run("download", "styles").exit_code == 1
    assert run("download", "styles", "--repair").exit_code == 0
    assert run("verify").exit_code == 0


def test_list_has_a_line_per_model_and_can_be_narrowed() -> None:
    lines = run("list").stdout.splitlines()
    row = next(line for line in lines if line.startswith("sd15 "))
    assert row.split()[:3] == ["sd15", "base", "-"]
    assert "creativeml-openrail-m" in row
    assert "2.1 GB" in row
    narrowed = json.loads(run("list", "--role", "controlnet", "--json").stdout)
    assert {entry["role"] for entry in narrowed} == {"controlnet"}
    assert len(narrowed) == 8


def test_show_in_words() -> None:
    shown = run("show", "sd15").stdout
    assert "steps 20, guidance 7.5" in shown
    assert "https://huggingface.co/spaces/CompVis/stable-diffusion-license" in shown


def test_download_of_an_id_and_its_json(hub: HubServer, entry: Entry, weights: bytes) -> None:
    result = run("download", REPOSITORY, "--role", "lora", "--json")
    pinned = json.loads(result.stdout)[REPOSITORY]
    assert pinned["files"][WEIGHTS] == {"size": len(weights), "sha256": sha256(weights)}
    assert [row["state"] for row in json.loads(run("verify", "--json").stdout)] == ["good"] * 2


def test_the_command_that_is_named_is_one_that_works(hub: HubServer) -> None:
    hub.publish(REPOSITORY, {"net.pth": b"a pickle"})
    name = f"{REPOSITORY}:net.pth"
    with pytest.raises(MissingWeights) as missing:
        library.locate(name, Role.ANNOTATOR)
    words = str(missing.value).split("`")[1].split()
    assert words[:3] == ["fresco-bridge", "models", "download"]
    assert run(*words[2:]).exit_code == 0
    assert library.locate(name, Role.ANNOTATOR).read_bytes() == b"a pickle"
    assert [row["name"] for row in json.loads(run("verify", "--json").stdout)] == [name]
    assert run("verify", name).exit_code == 0


def test_what_was_taken_out_of_the_catalogue_can_still_be_verified(
    hub: HubServer, named: str
) -> None:
    run("download", "styles", "--accept-licence")
    run("remove", "styles")
    assert "styles: model.safetensors" in run("verify").stdout


def test_mirror_and_revision_for_once(hub: HubServer, entry: Entry, monkeypatch: Any) -> None:
    first = hub.publish("painter/old", {WEIGHTS: b"old"})
    hub.publish("painter/old", {WEIGHTS: b"new"})
    monkeypatch.setenv(config.MIRROR, "http://127.0.0.1:9")
    words = ("download", "painter/old", "--revision", first, "--mirror", hub.endpoint, "--json")
    assert json.loads(run(*words).stdout)["painter/old"]["revision"] == first


def test_adding_and_removing(tmp_path: Path) -> None:
    file = tmp_path / "my look.safetensors"
    file.write_bytes(b"w")
    added = run("add", "my-look", str(file), "--role", "lora", "--title", "Mine")
    assert added.exit_code == 0, added.stderr
    assert json.loads(run("show", "my-look", "--json").stdout)["at"] == str(file)
    assert run("remove", "my-look").exit_code == 0
    assert file.exists()
    assert run("show", "my-look").exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("show", "nothing"),
        ("download", "nothing"),
        ("remove", "sd15"),
        ("verify", "sd15"),
        ("add", "x", "./nowhere", "--role", "lora"),
        ("download", "painter/nothing"),
        ("download", "painter/styles", "--mirror", "nonsense"),
        ("download", "fresco-draft"),
    ],
)
def test_errors_are_one_line_on_stderr(words: tuple[str, ...]) -> None:
    result: Result = run(*words)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    said = [line for line in result.stderr.splitlines() if line.startswith("fresco-bridge: ")]
    assert len(said) == 1
    assert "Traceback" not in result.stderr


def test_the_progress_bar_shows_the_file_and_bytes(
    entry: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    for shown in (True, False):
        with _Bar(entry, shown=shown) as bar:
            bar.move(Progress(2_000_000, 4_000_000, "unet.safetensors"))
        printed = capsys.readouterr()
        assert printed.out == "", "it must not get between what programs read"
        assert ("unet.safetensors" in printed.err) is shown
        assert ("2.0/4.0 MB" in printed.err) is shown


# --------------------------------------------------------------------------- real processes


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "bridge_server", "models", *words]


def test_a_real_process_starts_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from bridge_server.cli import app; "
        "app(['models', 'list', '--json'], standalone_mode=False); "
        "print([m for m in ('torch', 'diffusers', 'numpy', 'huggingface_hub', 'rich.table') "
        "if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip() == "[]"
    assert len(json.loads(done.stdout)) >= 20


@pytest.mark.parametrize("name", ["fresco", "host_plugins"])
@pytest.mark.parametrize("form", ["{}/__init__.py", "{}.py"])
def test_a_strangers_package_of_our_name_is_named_in_one_line(
    tmp_path: Path, name: str, form: str
) -> None:
    strange = tmp_path / form.format(name)
    strange.parent.mkdir(exist_ok=True)
    strange.write_text('raise RuntimeError("the stranger ran")\n')
    # Before the path that leads to ours, wherever that comes from.
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "bridge_server", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
    )

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fresco-bridge: Python finds another package called {name}, ")
    assert str(strange) in line
    assert "PYTHONPATH" in line


def test_what_starts_first_imports_nothing_but_pythons_own() -> None:
    code = (
        "import sys; before = set(sys.modules); import bridge_server.__main__; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "['bridge_server']"


def test_a_real_process_downloads(hub: HubServer, named: str) -> None:
    words = command("download", "styles", "--accept-licence")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "pinned" in done.stdout
    missing = subprocess.run(command("show", "x"), capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert missing.stderr.startswith("fresco-bridge: no model is called 'x'")


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a POSIX signal")
def test_control_c_keeps_what_arrived(hub: HubServer, named: str, weights: bytes) -> None:
    # A shell's background job ignores Ctrl-C, and would hand that down.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hub.faults.on_piece = lambda sent: time.sleep(0.02 if sent < 200_000 else 0.5)
    words = command("download", "styles", "--accept-licence")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    try:
        deadline = time.monotonic() + 30
        while hub.bytes_sent() < 200_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == f"fresco-bridge: {_STOPPED}"
    part = next(config.load().folder.rglob("*.part"))
    assert 150_000 < part.stat().st_size < len(weights)

    hub.faults.on_piece = None
    kept = part.stat().st_size
    assert run("download", "styles").exit_code == 0
    assert [r.range for r in hub.requests if r.host == "store"] == ["", f"bytes={kept}-"]
