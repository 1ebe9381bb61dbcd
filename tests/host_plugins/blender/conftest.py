"""A Blender to run scripts in: the release that the environment names, else the usual one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host_plugins.blender import build
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import Serving
from tests.host_plugins.blender.sitting import Sitting
from tests.hosts import environments
from tests.hosts.environments import REPOSITORY

INSIDE = Path(__file__).parent / "inside"
CACHE = REPOSITORY / "build" / "wheels"


@dataclass(frozen=True)
class Inside:
    """Runs scripts of `inside` in Blender's Python, each in a process of its own."""

    python: Path
    release: str
    resources: Path

    def run(self, script: str, *words: str | Path, seconds: float = 600, **environ: str) -> str:
        """Run `inside/script`, which must end well; returns what it prints.

        words, environ: its arguments, and what its environment has beside ours
        """
        command = [str(self.python), "-X", "faulthandler", str(INSIDE / script), *map(str, words)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            cwd=self.resources,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "BLENDER_USER_RESOURCES": str(self.resources),
                **environ,
            },
        )
        said = f"{script} in Blender {self.release}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, f"exit code {done.returncode}: {said}"
        return done.stdout


@pytest.fixture(scope="module")
def blender(tmp_path_factory: pytest.TempPathFactory) -> Inside:
    """The Blender of this run, with settings that nobody else has."""
    chosen = environments.chosen()
    try:
        python = chosen.python
    except environments.NotHere as reason:
        pytest.skip(str(reason))
    return Inside(python, chosen.release, tmp_path_factory.mktemp("blender"))


@pytest.fixture(scope="session")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension's zip, as `make blender` builds it."""
    return build.build(tmp_path_factory.mktemp("dist"), CACHE)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serving]:
    server = Serving(tmp_path_factory.mktemp("server")).start()
    yield server
    server.kill()


@pytest.fixture
def sitting(serving: Serving) -> Generator[Sitting]:
    found = Sitting(serving)
    yield found
    found.connection.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("clips") / "shot.mp4", (9,))
