"""How the server's processes behave towards it and towards the editor on the same machine."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

import psutil

_SET_PARENT_DEATH_SIGNAL = 1
_NICE = 10


def die_with_parent(platform: str = sys.platform) -> None:
    """End with the server, also where it was killed; elsewhere the end of the input says so."""
    if platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() == 1:  # it was gone before that
        os._exit(0)


def be_modest() -> None:
    """Leave the processor to the editor, which has a user in front of it."""
    lower = psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else _NICE
    with suppress(psutil.Error, OSError):
        psutil.Process().nice(lower)
