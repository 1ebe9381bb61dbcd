"""Other Pythons of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

MINORS = range(10, 20)


@cache
def interpreters() -> dict[str, str]:
    """CPythons from 3.10 on, by version: this one, pyenv's, and those on PATH."""
    found: dict[str, str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    onpath = [shutil.which(f"python3.{minor}") for minor in MINORS]
    pyenvs = sorted(map(str, pyenv.glob("3.*/bin/python")))
    for place in [sys.executable, *pyenvs, *filter(None, onpath)]:
        asked = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
        told = subprocess.run([place, "-c", asked], capture_output=True, text=True, check=False)
        name, *version = told.stdout.split() or [""]
        if name == "cpython" and tuple(map(int, version)) >= (3, 10):
            found.setdefault(".".join(version), place)
    return found
