"""How the server's processes behave towards it and towards the editor on the same machine."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil

_SET_PARENT_DEATH_SIGNAL = 1
_NICE = 10
#: Where Linux keeps how modest all processes of this one's session are together.
_SESSION = Path("/proc/self/autogroup")


def die_with_parent(platform: str = sys.platform) -> None:
    """End with the server, also where it was killed; elsewhere the end of the input says so."""
    if platform != "linux":
        return
    # Where it was gone before that, the input has ended too. (A parent with the number 1 says
    # nothing: in a container that may be the server itself.)
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def be_modest() -> None:
    """Leave the processor to the editor, which has a user in front of it."""
    this = psutil.Process()
    with suppress(psutil.Error, OSError):
        if os.name == "nt":
            this.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            this.nice(max(_NICE, this.nice()))
    # Linux may share the processor out among sessions, and only within each by priority.
    if _leads_a_session():
        with suppress(OSError):
            _SESSION.write_text(str(_NICE), encoding="ascii")


def _leads_a_session() -> bool:
    """Whether this process' session was begun for it: nobody else's is to be made modest."""
    return hasattr(os, "getsid") and os.getsid(0) == os.getpid()
