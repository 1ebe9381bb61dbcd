"""The Blenders that tests run in, as Python packages.

python -m tests.hosts.environments [RELEASE ...] sets them up, all unless some are named;
--libraries prints the packages of Debian that they need.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.interpreters import interpreters

REPOSITORY = Path(__file__).parent.parent.parent
#: Names the folder of the environments, which are RELEASE/bin/python in it.
FOLDER = "FRESCO_BRIDGE_BPY"
#: Names the release that tests/host_plugins/blender runs in.
CHOSEN = "FRESCO_BRIDGE_BLENDER"
#: What Blender is linked with, although nothing is shown: Debian's packages.
LIBRARIES = (
    "libx11-6 libxext6 libxfixes3 libxi6 libxrender1 libxt6 libxxf86vm1 libxkbcommon0"
    " libsm6 libice6 libgl1 libopengl0 libgomp1"
)


class NotHere(Exception):
    """Why a Blender cannot be had, and what helps."""


@dataclass(frozen=True)
class Blender:
    """A release of Blender, the package that is it, and the Python inside it."""

    release: str
    package: str
    inside: str

    @property
    def folder(self) -> Path:
        """Where its environment is, or will be."""
        return Path(os.environ.get(FOLDER) or REPOSITORY / ".venv" / "bpy") / self.release

    @property
    def python(self) -> Path:
        """The interpreter that has it.

        Raises:
            NotHere: the environment is not set up.
        """
        if not self.ready:
            command = f"python -m tests.hosts.environments {self.release}"
            raise NotHere(f"{self.folder} is not set up; run `{command}`, which says what it lacks")
        return self._python

    @property
    def ready(self) -> bool:
        """Whether this very package has been installed and imported."""
        stamp = self.folder / "ready"
        return stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == self.package

    def set_up(self) -> None:
        """Make the environment; nothing is done where it is ready.

        Raises:
            NotHere: there is no such Python, pip cannot install it, or it cannot be imported.
        """
        if self.ready:
            return
        if (base := interpreters().get(self.inside)) is None:
            raise NotHere(
                f"no Python {self.inside} on PATH, in pyenv or as this one; install it"
                f" (`pyenv install {self.inside}`) and run this again"
            )
        _told([base, "-m", "venv", str(self.folder)], "its environment could not be made")
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", self.package]
        _told([str(self._python), *install], f"{self.package} could not be installed")
        self._check()
        (self.folder / "ready").write_text(self.package, encoding="utf-8")

    def _check(self) -> None:
        """Import it; what it leaves at its end is not waited for."""
        code = "import os, bpy; os._exit(0)"
        with tempfile.TemporaryDirectory() as resources:
            environ = {**os.environ, "BLENDER_USER_RESOURCES": resources}
            why = f"{self.package} cannot be imported; where a library is missing, `apt-get install"
            why += f" --no-install-recommends {LIBRARIES}` brings it"
            _told([str(self._python), "-c", code], why, environ)

    @property
    def _python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _told(words: Sequence[str], why: str, environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        raise NotHere(f"{why}:\n{(done.stderr or done.stdout).strip()}")


BLENDERS = {
    one.release: one
    for one in (
        Blender("4.2", "bpy==4.2.23", "3.11"),
        Blender("4.5", "bpy==4.5.15", "3.11"),
        Blender("5.0", "bpy==5.0.1", "3.11"),
        Blender("5.2", "bpy==5.2.3", "3.13"),
    )
}
#: What `make test` runs.
USUAL = "4.5"


def chosen() -> Blender:
    """The Blender that this run is for."""
    return BLENDERS[os.environ.get(CHOSEN) or USUAL]


def set_up(blender: Blender) -> bool:
    """Set up one, and say how it went."""
    try:
        blender.set_up()
    except NotHere as reason:
        print(f"Blender {blender.release}: its tests are skipped: {reason}", flush=True)
        return False
    print(f"Blender {blender.release}: {blender.folder}", flush=True)
    return True


def main(words: Sequence[str]) -> int:
    """Do what the command line says."""
    if list(words) == ["--libraries"]:
        print(LIBRARIES)
        return 0
    ready = [set_up(BLENDERS[release]) for release in words or BLENDERS]
    return 0 if all(ready) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
