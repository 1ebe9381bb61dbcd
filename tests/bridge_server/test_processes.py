"""How modest the server's processes are: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SESSION = Path("/proc/self/autogroup")
SCRIPT = f"""
import os
from pathlib import Path
from bridge_server.processes import be_modest
be_modest()
print(os.nice(0))
session = Path("{SESSION}")
print((session.exists() and session.read_text().split() or ["none"])[-1])
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="niceness of POSIX")


def modest(nice: int = 0, own_session: bool = True) -> list[str]:
    words = ["nice", "-n", str(nice), sys.executable, "-c", SCRIPT]
    done = subprocess.run(words, capture_output=True, check=True, start_new_session=own_session)
    return done.stdout.decode().split()


def test_it_is_modest_and_never_less_than_it_was() -> None:
    here = os.nice(0)
    assert modest()[0] == str(max(10, here))
    assert modest(nice=15)[0] == str(min(19, here + 15))


def shared_out() -> bool:
    """Whether Linux shares the processor out among sessions: else the file is empty, or not."""
    return SESSION.exists() and bool(SESSION.read_text())


@pytest.mark.skipif(not shared_out(), reason="no sessions share the processor here")
def test_its_session_is_modest_if_it_is_its_own() -> None:
    before = SESSION.read_text().split()[-1]
    assert modest()[1] == "10"
    assert modest(own_session=False)[1] == before
