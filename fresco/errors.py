"""The errors of the method: what could not be done, and how to mend it."""

from __future__ import annotations

import mmap


class FrescoError(Exception):
    """Anything the method refuses; the message says what, where and how to mend it."""


class InvalidInput(FrescoError, ValueError):
    """A value handed in by the caller cannot be worked on."""


class UnsupportedModel(FrescoError):
    """The model lacks a part that the method guides."""


class MissingExtra(FrescoError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class MissingWeights(FrescoError, FileNotFoundError):
    """Weights are not on this machine; the message names the command that brings them."""


class Cancelled(FrescoError):
    """The caller's cancel token was set; nothing was produced."""


class OutOfMemory(FrescoError, MemoryError):
    """The work does not fit, with everything made as small as it goes."""


#: How the devices' libraries say it.
_OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "insufficient memory",
    "status_alloc_failed",
    "bad_alloc",
    "can't start new thread",
    # oneDNN, of a convolution or product for which it has no room; of one that it does not know it
    # says "primitive descriptor".
    "could not create a primitive\n",
)


#: Bytes without which libraries fail in words of their own, or in none.
_LEAST = 64 << 20


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` was raised for want of memory, on whichever device.

    Of one that says nothing of the kind, by whether memory is to be had now: ask while what was
    being worked on is still held.
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, FrescoError) or not isinstance(error, Exception):
        return False
    text = f"{str(error).lower()}\n"
    return any(words in text for words in _OUT_OF_MEMORY) or _none_left()


def _none_left() -> bool:
    try:
        mmap.mmap(-1, _LEAST).close()  # reserved, not written to: it costs nothing
    except OSError:
        return True
    return False
