"""That the folder can be copied into any program: small, quick, alone, and on every Python."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

import host_plugins.link
from tests.interpreters import MINORS, interpreters

LINK = Path(host_plugins.link.__file__).parent
PURE = Path(__file__).with_name("pure.py")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as in a plugin, with msgpack beside it: its Python source runs everywhere."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copytree(LINK, folder / "link", ignore=shutil.ignore_patterns("__pycache__"))
    source = Path(msgpack.__file__).parent
    shutil.copytree(source, folder / "msgpack", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    return folder


@pytest.mark.parametrize("minor", [f"3.{minor}" for minor in MINORS if minor < 15])
def test_every_python(bundle: Path, minor: str) -> None:
    place = interpreters().get(minor)
    if place is None:
        pytest.skip(f"no CPython {minor} is on PATH or in pyenv")
    command = [place, "-I", "-W", "error", str(PURE), str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_import_is_quick() -> None:
    """Of all modules, in processor time, so that a busy machine matters little; best of several."""
    code = (
        "import time; before = time.process_time()\n"
        "from host_plugins.link import client, timing\n"
        "import sys; assert not {'zmq', 'msgpack', 'asyncio'} & set(sys.modules)\n"
        "print(time.process_time() - before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(LINK.parent.parent)}
    best = 1.0
    for _ in range(30):  # a core that is shared with another process is slower, too
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        best = min(best, float(done.stdout))
        if best < 0.05:
            break
    assert best < 0.05, f"{best * 1000:.0f} ms"


def test_imports_are_relative_or_allowed() -> None:
    """The standard library at the top; zmq and msgpack inside what needs them."""
    allowed = {*sys.stdlib_module_names}
    for file in LINK.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            inside = {"zmq", "msgpack", "typing_extensions"} if node not in tree.body else set()
            for name in names:
                assert name.split(".")[0] in allowed | inside, f"{file.name}: {name}"
                assert name != "pickle"
