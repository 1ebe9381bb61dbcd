from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bridge_server import config, doctor, downloads
from bridge_server.catalogue import Entry
from bridge_server.cli import app
from bridge_server.config import Config
from bridge_server.doctor import Finding, State, examine, healthy
from bridge_server.media import profiles
from bridge_server.probes import codecs, devices, libraries, models, panel, places, versions
from bridge_server.probes.devices import Card, Cuda, Driver
from bridge_server.probes.finding import guarded
from fresco.errors import InvalidInput
from tests.bridge_server.conftest import REPOSITORY, WEIGHTS
from tests.bridge_server.hub_server import HubServer

AREAS = ["versions", "devices", "codecs", "models", "connections", "server", "panel", "disk"]
GIB = 2**30
POSIX = pytest.mark.skipif(os.name != "posix", reason="of POSIX only")


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def of(findings: Iterable[Finding], area: str, subject: str) -> Finding:
    return only(each for each in findings if (each.area, each.subject) == (area, subject))


def said(finding: Finding) -> tuple[State, str]:
    return finding.state, finding.hint


# ----------------------------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """This machine, with settings in an empty folder."""
    home = tmp_path_factory.mktemp("home")
    return examine(config.load({config.HOME: str(home)}))


def test_this_machine_is_examined_area_by_area(examined: list[Finding]) -> None:
    assert list(dict.fromkeys(each.area for each in examined)) == AREAS
    assert len({(each.area, each.subject) for each in examined}) == len(examined)
    assert all(each.text for each in examined)
    assert all(each.hint for each in examined if each.state is State.PROBLEM)
    assert not [each for each in examined if "could not be examined" in each.text]


def test_what_the_tests_themselves_run_with_is_found(examined: list[Finding]) -> None:
    assert of(examined, "versions", "torch").text == torch.__version__
    assert "libavcodec" in of(examined, "versions", "av").text
    assert {each.state for each in examined if each.area == "codecs"} == {State.OK}
    written = {name for name, profile in profiles.PROFILES.items() if not profile.images}
    assert {each.subject for each in examined if each.area == "codecs"} == {
        *(f"write {name}" for name in written),
        *(f"read {kind}" for kind in profiles.DECODERS),
    }
    assert of(examined, "models", "fresco-draft").state is State.OK
    assert of(examined, "models", "fetched").hint.endswith("models download sd15")
    assert of(examined, "connections", "tcp").state is State.OK


def test_looking_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "runtime_folder", lambda: tmp_path / "run" / "fresco-bridge")
    settings = config.load({config.HOME: str(tmp_path / "home")})
    found = examine(settings, tmp_path / "work" / "jobs")
    if os.name == "posix" and len(str(tmp_path)) < 70:
        assert of(found, "connections", "sockets").state is State.OK
    assert str(tmp_path / "work" / "jobs") in of(found, "disk", "work").text
    assert list(tmp_path.iterdir()) == []


def test_a_catalogue_that_cannot_be_read_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    settings = config.load({config.HOME: str(tmp_path)})
    settings.catalogue_file.write_text("[x\n")
    found = examine(settings)
    assert not healthy(found)
    problem = of(found, "models", "draft")
    assert problem.state is State.PROBLEM
    assert str(settings.catalogue_file) in problem.text
    assert of(found, "models", "folder").state is not State.PROBLEM


def test_a_failing_probe_keeps_what_it_found_and_says_what_failed() -> None:
    first = Finding("a", "b", State.OK, "fine")

    def half(error: Exception) -> Iterator[Finding]:
        yield first
        raise error

    found = guarded("a", "c", lambda: half(ZeroDivisionError("by nothing")))
    assert found[0] == first
    assert (found[1].subject, found[1].state) == ("c", State.PROBLEM)
    assert "ZeroDivisionError: by nothing" in found[1].text
    assert found[1].hint
    refused = guarded("a", "c", lambda: half(InvalidInput("x is wrong; write y.")))
    assert refused[1].text == "x is wrong; write y."
    assert refused[1].hint


def test_only_problems_are_unhealthy() -> None:
    assert healthy([])
    assert healthy([Finding("a", "b", State.OK, ""), Finding("a", "b", State.NOTE, "")])
    assert not healthy([Finding("a", "b", State.PROBLEM, "", "mend")])


# ------------------------------------------------------------------------------------ versions


def test_python() -> None:
    assert only(versions.python()).state is State.OK
    assert only(versions.python(32)).state is State.PROBLEM
    assert sys.version.split()[0].rstrip("+") in only(versions.python()).text


def no_such(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


def test_ours() -> None:
    assert only(versions.ours(lambda _: "1.2.3")).text.startswith("1.2.3, ")
    assert only(versions.ours(no_such)).state is State.NOTE


def test_requirements_that_are_old_or_missing_are_named_with_the_command() -> None:
    declared = ["torch>=2.6", "numpy>=1.26", "nothing>=3", 'torchvision; extra == "raft"', "av>=17"]
    here = {"torch": "2.13.0+cpu", "numpy": "1.24.1", "av": "17.0.0rc1"}

    def installed(name: str) -> str:
        return here.get(name) or no_such(name)

    found = {each.subject: each for each in versions.requirements(declared, installed)}
    assert set(found) == {"numpy", "nothing", "av"}
    assert found["numpy"].text == ">=1.26 is needed, 1.24.1 is installed"
    assert found["numpy"].hint == 'pip install "numpy>=1.26"'
    assert "none is installed" in found["nothing"].text
    good = only(versions.requirements(["torch>=2.6", "numpy"], installed))
    assert (good.state, good.text.split()[1]) == (State.OK, "2")


def test_a_library_that_does_not_load_has_a_command() -> None:
    def failing(message: str) -> Any:
        def load(name: str) -> Any:
            raise ImportError(message)

        return load

    lost = failing("libGL.so.1: cannot open shared object file: No such file or directory")
    assert said(only(versions.library("opencv-python", lost, "apt-get"))) == (
        State.PROBLEM,
        "sudo apt-get install libgl1",
    )
    assert said(only(versions.library("opencv-python", lost, "dnf")))[1].endswith("libglvnd-glx")
    assert "libGL.so.1" in said(only(versions.library("opencv-python", lost, "")))[1]
    broken = only(versions.library("diffusers", failing("No module named 'diffusers'"), ""))
    assert broken.hint == "pip install --force-reinstall --no-deps diffusers"


def test_two_opencvs_are_a_problem() -> None:
    def installed(names: set[str]) -> Any:
        return lambda name: "4.10" if name in names else no_such(name)

    assert list(versions.opencv(installed({"opencv-python"}))) == []
    assert list(versions.opencv(installed(set()))) == []
    two = only(versions.opencv(installed({"opencv-python", "opencv-contrib-python"})))
    assert two.state is State.PROBLEM
    assert "pip uninstall -y opencv-python opencv-contrib-python" in two.hint


def test_modules_of_others_under_our_names(tmp_path: Path) -> None:
    for name in ("ours/fresco", "ours/bridge_server", "ours/ui", "theirs/ui"):
        (tmp_path / name).mkdir(parents=True)
    ours = tmp_path / "ours"

    def here(name: str) -> Path:
        return ours / name

    def elsewhere(name: str) -> Path:
        return (tmp_path / "theirs" if name == "ui" else ours) / name

    assert list(versions.modules(ours, here, {"fresco": ["fresco_bridge"]})) == []
    # host_plugins is not part of this install, so that it is no matter who has the name.
    assert list(versions.modules(ours, here, {"host_plugins": ["other"]})) == []
    moved = only(versions.modules(ours, elsewhere, {}))
    assert (moved.subject, moved.state) == ("ui", State.PROBLEM)
    assert str(tmp_path / "theirs" / "ui") in moved.text
    assert only(versions.modules(ours, lambda name: here(name) if name != "ui" else None, {})).hint
    shared = only(versions.modules(ours, here, {"ui": ["Other.Thing", "fresco-bridge"]}))
    assert "other-thing" in shared.text


def test_a_module_is_found_where_python_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a_package", "folder_only"):
        (tmp_path / name).mkdir()
    (tmp_path / "a_package" / "__init__.py").write_text("")
    (tmp_path / "one_file_only.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert versions.found_at("a_package") == tmp_path / "a_package"
    assert versions.found_at("folder_only") == tmp_path / "folder_only"
    assert versions.found_at("one_file_only") == tmp_path / "one_file_only.py"
    assert versions.found_at("no_such_module") is None
    assert versions.found_at("bridge_server") == Path(doctor.__file__).parent


# ------------------------------------------------------------------------------------- devices


def test_memory_that_is_little() -> None:
    cpu, memory = devices.judge_processor(4, 8, 6 * GIB, GIB)
    assert cpu.text == "4 cores, 8 threads"
    assert (memory.state, "6.0 GiB, 1.0 GiB" in memory.text) == (State.NOTE, True)
    assert {each.state for each in devices.judge_processor(0, 8, 64 * GIB, GIB)} == {State.OK}


DRIVER = Driver("580.65")
CARD = Card("RTX 4090", 24 * GIB, 20 * GIB)


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (Cuda("2.13.0+cpu", "", Driver()), State.NOTE, "no graphics card"),
        (Cuda("2.13.0", "12.8", Driver()), State.NOTE, "no graphics card"),
        (Cuda("2.13.0+cpu", "", DRIVER), State.PROBLEM, "built without CUDA"),
        (Cuda("2.13.0", "12.8", DRIVER), State.PROBLEM, "sees no card"),
        (Cuda("2.13.0", "12.8", DRIVER, visible="-1"), State.NOTE, "CUDA_VISIBLE_DEVICES=-1"),
        (Cuda("2.13.0", "12.8", DRIVER, (CARD,), "0"), State.OK, "24.0 GiB, 20.0 GiB of it free"),
        (Cuda("2.13.0", "6.4", Driver(), (CARD,)), State.OK, "RTX 4090"),
        (Cuda("2", "1", DRIVER, (Card("GT", GIB, GIB),)), State.NOTE, "driver 580.65: little"),
        (Cuda("2", "1", DRIVER, (Card("X", GIB, 0, "no kernel"),)), State.PROBLEM, "no kernel"),
        (Cuda("2", "1", Driver(failure="version mismatch")), State.PROBLEM, "version mismatch"),
    ],
)  # fmt: skip
def test_graphics_cards(facts: Cuda, state: State, words: str) -> None:
    finding = only(devices.judge_cuda(facts))
    assert finding.state is state
    assert words in finding.text
    assert bool(finding.hint) or state is not State.PROBLEM


def test_torch_without_cuda_beside_a_driver_names_where_to_get_it() -> None:
    finding = only(devices.judge_cuda(Cuda("2.13.0+cpu", "", DRIVER)))
    assert "580.65" in finding.text
    assert "pytorch.org/get-started" in finding.hint


def test_every_card_has_a_line() -> None:
    facts = Cuda("2.13.0", "12.8", DRIVER, (CARD, CARD))
    assert [each.subject for each in devices.judge_cuda(facts)] == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (("Linux", "x86_64", False, False), None),
        (("Darwin", "arm64", True, True), State.OK),
        (("Darwin", "x86_64", False, False), State.NOTE),
        (("Darwin", "arm64", False, False), State.PROBLEM),
        (("Darwin", "arm64", True, False), State.PROBLEM),
    ],
)
def test_metal(facts: tuple[str, str, bool, bool], state: State | None) -> None:
    found = list(devices.judge_mps(*facts))
    assert [each.state for each in found] == ([state] if state else [])
    assert all(each.hint for each in found if each.state is not State.OK)


@POSIX
@pytest.mark.parametrize(
    ("script", "driver"),
    [
        ("echo 580.65; echo 580.65", Driver("580.65")),
        ("echo version mismatch; exit 18", Driver("", "version mismatch")),
        ("exit 9", Driver("", "nothing")),
    ],
)  # fmt: skip
def test_the_driver_is_asked_by_its_own_program(
    tmp_path: Path, script: str, driver: Driver
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    assert devices.nvidia_driver(str(program)) == driver
    assert devices.nvidia_driver(str(tmp_path / "gone")).failure


# -------------------------------------------------------------------------------------- codecs


def test_codecs_that_this_pyav_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = profiles.Profile("vvc", "libvvenc-of-nobody", ("mp4",))
    monkeypatch.setattr(profiles, "PROFILES", {"vvc": lacking, "png": profiles.PROFILES["png"]})
    monkeypatch.setattr(
        profiles, "DECODERS", {"VVC": ("nobody", "none"), "AV1": ("no", "libdav1d")}
    )
    wrote = only(codecs.encoders())
    assert (wrote.subject, wrote.state) == ("write vvc", State.PROBLEM)
    assert "libvvenc-of-nobody" in wrote.text
    assert "pip install" in wrote.hint
    read = {each.subject: each for each in codecs.decoders()}
    assert read["read VVC"].state is State.PROBLEM
    assert "nobody or none" in read["read VVC"].text
    assert read["read AV1"].text == "libdav1d"


# -------------------------------------------------------------------------------------- models


def own(settings: Config, table: str) -> None:
    settings.catalogue_file.parent.mkdir(parents=True, exist_ok=True)
    settings.catalogue_file.write_text(table)


def test_models_that_are_here_lost_and_changed(
    hub: HubServer, entry: Entry, settings: Config
) -> None:
    own(settings, f'[styles]\nrole = "base"\nrepository = "{REPOSITORY}"\n')
    assert only(models.fetched(settings)).text.startswith("none;")
    downloads.download(entry, settings)
    here = only(models.fetched(settings))
    assert (here.state, here.text) == (State.OK, "styles")

    weights = next(settings.folder.rglob(WEIGHTS))
    content = weights.resolve().read_bytes()
    weights.resolve().write_bytes(b"x")
    changed = of(models.fetched(settings), "models", "styles")
    assert said(changed) == (State.PROBLEM, "fresco-bridge models download styles --repair")
    weights.resolve().write_bytes(content)
    assert only(models.fetched(settings)).state is State.OK
    weights.unlink()
    lost = of(models.fetched(settings), "models", "styles")
    assert said(lost) == (State.PROBLEM, "fresco-bridge models download styles")


def test_a_file_of_the_users_that_is_gone(tmp_path: Path) -> None:
    settings = config.load()
    own(settings, f'[ink]\nrole = "lora"\npath = "{(tmp_path / "ink.safetensors").as_posix()}"\n')
    gone = of(models.fetched(settings), "models", "ink")
    assert gone.state is State.PROBLEM
    assert gone.hint.endswith("fresco-bridge models remove ink")
    (tmp_path / "ink.safetensors").write_bytes(b"")
    here = only(models.fetched(settings))
    assert here.text.startswith("ink; no base model")


def test_a_draft_model_that_was_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge_server.library.package_files", lambda _: tmp_path)
    found = list(models.drafts(config.load()))
    assert [each.subject for each in found] == list(models.DRAFTS)
    assert {said(each) for each in found} == {
        (State.PROBLEM, "pip install --force-reinstall --no-deps fresco-bridge")
    }


def test_room_for_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "free_space", lambda _: 3 * 10**9)
    little = only(models.room(config.load()))
    assert (little.state, "3.0 GB" in little.text) == (State.NOTE, True)


# -------------------------------------------------------------------------------------- places


def test_a_port_that_cannot_be_had() -> None:
    assert only(places.port()).state is State.OK
    # An address of nobody here (RFC 5737).
    refused = only(places.port("192.0.2.1"))
    assert refused.state is State.PROBLEM
    assert "192.0.2.1" in refused.text


@pytest.mark.parametrize(("system", "longest"), [("Linux", 107), ("Darwin", 103), ("Plan 9", 103)])
def test_the_path_of_a_socket_may_be_only_so_long(system: str, longest: int) -> None:
    room = longest - len(f"/{places._SOCKET}")
    long = Path("/" + "ü" * ((room + 1) // 2))
    found = only(places.sockets(long, system))
    assert found.state is State.PROBLEM
    assert f"{system} allows {longest}" in found.text
    assert "XDG_RUNTIME_DIR" in found.hint
    assert not long.exists()


def test_windows_needs_no_sockets(tmp_path: Path) -> None:
    assert only(places.sockets(Path("/" + "x" * 300), "Windows")).state is State.OK


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Path]:
    """A folder by a short path: the tests' own may be too long for a socket."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="d") as folder:
        yield Path(folder)


@POSIX
def test_a_socket_is_made_in_a_private_folder_and_removed(short: Path) -> None:
    made: list[int] = []
    before = socket.socket.bind

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            made.extend(stat.S_IMODE(path.stat().st_mode) for path in Path(address).parents[:3])
            before(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places.socket, "socket", Watched)
        assert only(places.sockets(short / "run" / "fresco", "Linux")).state is State.OK
    assert made == [0o700] * 3
    assert list(short.iterdir()) == []


@POSIX
def test_a_folder_for_sockets_that_is_in_use_is_left_as_it_is(short: Path) -> None:
    (short / "server.sock").write_bytes(b"")
    assert only(places.sockets(short, "Linux")).state is State.OK
    assert [path.name for path in short.iterdir()] == ["server.sock"]


@POSIX
def test_a_folder_for_sockets_that_cannot_be_made(short: Path) -> None:
    (short / "file").write_bytes(b"")
    refused = only(places.sockets(short / "file" / "run", "Linux"))
    assert refused.state is State.PROBLEM
    assert refused.hint
    assert [path.name for path in short.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("free", "state"),
    [(10**8, State.PROBLEM), (5 * 10**9, State.NOTE), (10**11, State.OK)],
)
def test_room_for_work(free: int, state: State) -> None:
    assert places.judge_room(Path("jobs"), free).state is state


def test_work_in_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert places.nearest(folder) == tmp_path
    assert only(places.work(folder)).text.startswith(str(folder))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    refused = only(places.work(tmp_path / "file" / "jobs"))
    assert refused.state is State.PROBLEM
    assert refused.hint


def test_what_an_extra_needs_is_looked_at_only_for_it() -> None:
    declared = ["torch>=2", 'qt>=6.8,<6.12; extra == "panel"', 'other>=1; extra == "dev"']

    def unfit(found: str) -> list[tuple[str, str]]:
        findings = versions.extra("panel", declared, lambda _: found)
        return [(finding.subject, finding.hint) for finding in findings]

    assert unfit("6.11.3") == []
    assert unfit("6.12.0") == [("qt", 'pip install "qt<6.12,>=6.8"')]
    assert unfit("") == [("qt", 'pip install "qt<6.12,>=6.8"')]


# --------------------------------------------------------------------------------------- panel


def test_qt_is_only_looked_at_where_it_is() -> None:
    def never(name: str) -> Any:
        raise AssertionError(name)

    found = only(panel.qt(lambda _: None, never))
    assert found.state is State.NOTE
    assert "pip install" in found.hint
    assert "PySide6-Essentials" in found.hint


def test_qt_that_does_not_load() -> None:
    def load(name: str) -> Any:
        raise ImportError("libEGL.so.1: cannot open shared object file: No such file or directory")

    found = only(panel.qt(lambda _: object(), load))
    assert found.state is State.PROBLEM
    assert "libEGL.so.1" in found.text
    assert "libegl1" in found.hint or "libglvnd-egl" in found.hint or "libEGL.so.1" in found.hint


@pytest.mark.parametrize(
    ("display", "tool", "state", "hint"),
    [
        (True, "apt-get", State.PROBLEM, "sudo apt-get install libxcb-cursor0 libxcb-icccm4"),
        (False, "apt-get", State.NOTE, "sudo apt-get install libxcb-cursor0 libxcb-icccm4"),
        (True, "dnf", State.PROBLEM, "sudo dnf install xcb-util-cursor xcb-util-wm"),
        (True, "", State.PROBLEM,
         "install the packages of your system that hold libxcb-cursor.so.0, libxcb-icccm.so.4"),
    ],
)  # fmt: skip
def test_libraries_that_windows_need(display: bool, tool: str, state: State, hint: str) -> None:
    lacking = ("libxcb-cursor.so.0", "libxcb-icccm.so.4")
    found = only(panel.windows("Linux", display, lambda name: name not in lacking, tool))
    assert said(found) == (state, hint)
    assert only(panel.windows("Linux", display, lambda _: True, tool)).state is State.OK
    assert list(panel.windows("Darwin", display, lambda _: False, tool)) == []


def test_system_libraries() -> None:
    assert not libraries.opens("libof-nobody.so.7")
    assert libraries.named_in("/lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found") == (
        "libstdc++.so.6"
    )
    assert libraries.named_in("DLL load failed while importing cv2") == ""
    assert libraries.tool(lambda name: "/usr/bin/dnf" if name == "dnf" else None) == "dnf"
    assert libraries.tool(lambda _: None) == ""
    assert "libof-nobody.so.7" in libraries.command(["libof-nobody.so.7"], "apt-get")


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is named so on Linux only")
def test_a_system_library_that_is_there() -> None:
    assert libraries.opens("libc.so.6")


# ------------------------------------------------------------------------------------- command

FOUND = [
    Finding("versions", "torch", State.OK, "2.13.0"),
    Finding("versions", "cv2", State.PROBLEM, "two of them [bold]", "pip uninstall -y one"),
    Finding("disk", "work", State.NOTE, "3 GB", "make room"),
]


def test_the_command_lists_everything_by_area(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "findings", lambda _: iter(FOUND))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line.split() for line in lines] == [
        ["versions"],
        ["ok", "torch", "2.13.0"],
        ["problem", "cv2", "two", "of", "them", "[bold]"],
        ["->", "pip", "uninstall", "-y", "one"],
        [],
        ["disk"],
        ["note", "work", "3", "GB"],
        ["->", "make", "room"],
    ]
    monkeypatch.setattr(doctor, "findings", lambda _: iter([FOUND[0], FOUND[2]]))
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


def test_each_finding_is_shown_as_soon_as_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []

    def findings(_settings: Config) -> Iterator[Finding]:
        for finding in FOUND:
            yield finding
            output: Any = sys.stdout.buffer
            shown.append(len(output.getvalue().splitlines()))

    monkeypatch.setattr(doctor, "findings", findings)
    CliRunner().invoke(app, ["doctor"])
    assert shown == [2, 4, 8]


def test_the_command_prints_json_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "findings", lambda _: iter(FOUND))
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)[1] == {
        "area": "versions",
        "subject": "cv2",
        "state": "problem",
        "text": "two of them [bold]",
        "hint": "pip uninstall -y one",
    }


def test_a_real_process_examines_this_machine(examined: list[Finding]) -> None:
    words = [sys.executable, "-m", "bridge_server", "doctor", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    rows = json.loads(done.stdout)
    assert [row["subject"] for row in rows] == [each.subject for each in examined]
    assert done.returncode == any(row["state"] == "problem" for row in rows)


def test_the_examination_is_imported_without_what_it_examines() -> None:
    code = (
        "import sys, bridge_server.doctor; print([m for m in ('torch', 'numpy', 'av', 'cv2', "
        "'diffusers', 'rich.table', 'packaging') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
