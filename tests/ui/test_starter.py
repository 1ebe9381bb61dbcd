"""Starting servers, and programs that are none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from host_plugins.link.errors import BridgeError, Code
from tests.bridge_server.serving import until
from ui.starter import Starter, tail


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_a_server_says_when_it_ends_at_once_is_told(tmp_path: Path) -> None:
    code = "import sys; sys.exit('fresco-bridge: the card is gone')"
    starter = Starter(python(code), tmp_path / "new" / "server.log")
    assert starter.ended() is None
    starter.start()
    until(lambda: not starter.under_way)
    error = starter.ended()
    assert error is not None
    assert (error.code, error.retryable) == (Code.UNAVAILABLE, False)
    assert error.message == "the server has ended: the card is gone"
    assert str(starter.printed) in error.hint


def test_it_is_started_once_and_told_to_serve(tmp_path: Path) -> None:
    code = "import sys; print(sys.argv[1:], flush=True); sys.stdin.read(); sys.exit(0)"
    starter = Starter(python(code), tmp_path / "server.log")
    starter.start()
    until(lambda: not starter.under_way)
    assert starter.ended() is None  # in order
    assert tail(starter.printed) == "['serve', '--idle-end', '600']\n"


def test_one_that_lives_is_not_started_again(tmp_path: Path) -> None:
    flag = tmp_path / "go on"
    code = (
        "import os, time; print('here', flush=True)\n"
        f"while not os.path.exists({str(flag)!r}): time.sleep(0.02)"
    )
    starter = Starter(python(code), tmp_path / "server.log")
    starter.start()
    until(lambda: "here" in tail(starter.printed))
    starter.start()
    flag.touch()
    until(lambda: not starter.under_way)
    assert tail(starter.printed) == "here\n"


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    starter = Starter([str(tmp_path / "nothing")], tmp_path / "server.log")
    with pytest.raises(BridgeError, match="nothing"):
        starter.start()
    assert starter.ended() is None


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x" * 200_000 + "end")
    assert len(tail(log)) == 1 << 16
    assert tail(log).endswith("end")
    assert tail(tmp_path / "none") == ""
