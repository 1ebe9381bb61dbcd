"""Every error in the protocol's words."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from bridge_server.errors import LicenceNotAccepted, NotEnoughSpace, ResultsGone
from bridge_server.failures import told
from bridge_server.media.errors import NotAsSource, UnreadableMedia
from fresco.errors import Cancelled, InvalidInput, MissingExtra, MissingWeights, OutOfMemory
from host_plugins.link.errors import BridgeError, Code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Cancelled("a"), Code.CANCELLED),
        (OutOfMemory("a"), Code.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate"), Code.OUT_OF_MEMORY),
        (RuntimeError("could not create a primitive"), Code.OUT_OF_MEMORY),
        (RuntimeError("could not create a primitive descriptor for a pooling"), Code.INTERNAL),
        (MemoryError(), Code.OUT_OF_MEMORY),
        (MissingWeights("a"), Code.MISSING_MODEL),
        (MissingExtra("a"), Code.MISSING_EXTRA),
        (LicenceNotAccepted("a"), Code.LICENCE),
        (ResultsGone("a"), Code.NOT_FOUND),
        (NotEnoughSpace("a"), Code.NO_SPACE),
        (OSError(errno.ENOSPC, "full", "/a"), Code.NO_SPACE),
        (UnreadableMedia("a"), Code.MEDIA),
        (NotAsSource("a"), Code.MEDIA),
        (InvalidInput("a"), Code.INVALID),
        (FileNotFoundError(errno.ENOENT, "none", "/a"), Code.NOT_FOUND),
        (PermissionError(errno.EACCES, "no", "/a"), Code.FORBIDDEN),
        (BridgeError(Code.CONFLICT, "a"), Code.CONFLICT),
        (ZeroDivisionError("a"), Code.INTERNAL),
        (KeyError("a"), Code.INTERNAL),
    ],
)
def test_each_kind_has_its_code(error: BaseException, code: Code) -> None:
    assert told(error).code is code


def test_the_words_are_kept_and_no_trace_is_told() -> None:
    assert told(UnreadableMedia("clip.mp4 is damaged")).message == "clip.mp4 is damaged"
    internal = told(ValueError("x"))
    assert internal.message == "ValueError: x"
    assert "logs" in internal.hint


@pytest.mark.skipif(sys.platform != "linux", reason="no limit can be set here")
def test_what_fails_while_there_is_no_memory_fails_for_want_of_it() -> None:
    """A library that could not begin something says so in words of its own."""
    script = """
import resource
from bridge_server.failures import told
from bridge_server.media.errors import UnsupportedMedia
from fresco.errors import Cancelled, InvalidInput

def raised():
    try:
        try:
            raise OSError("Generic error in an external library")
        except OSError as error:
            raise UnsupportedMedia("it cannot be begun") from error
    except UnsupportedMedia as error:
        return error

errors = raised(), KeyError("x"), RuntimeError("x"), InvalidInput("x"), Cancelled("x")
print(*(told(each).code.value for each in errors))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
print(*(told(each).code.value for each in errors))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    before, after = done.stdout.decode().splitlines()
    assert before == "media internal internal invalid cancelled"
    assert after == "out_of_memory out_of_memory out_of_memory invalid cancelled"
