"""The Blender extension's tests in every Blender: python -m tests.hosts.every [RELEASE ...]."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.hosts.environments import BLENDERS, CHOSEN, REPOSITORY, Blender, NotHere

TESTS = "tests/host_plugins/blender"


def run(blender: Blender) -> tuple[bool, str]:
    """Test in one Blender; returns whether all is well, and pytest's last line."""
    try:
        blender.set_up()
    except NotHere as reason:
        return False, f"not tested: {reason}"
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", TESTS]
    environ = {**os.environ, CHOSEN: blender.release}
    last = ""
    with subprocess.Popen(
        words, cwd=REPOSITORY, env=environ, text=True, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip(" =\n") or last
    return process.returncode == 0, last


def main(releases: Sequence[str]) -> int:
    """Test in all of them, and print one line for each at the end."""
    results = {release: run(BLENDERS[release]) for release in releases or BLENDERS}
    for release, (_, said) in results.items():
        print(f"Blender {release} ({BLENDERS[release].package}): {said}")
    return 0 if all(well for well, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
