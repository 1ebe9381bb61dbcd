"""The errors of the method: what could not be done, and how to mend it."""

from __future__ import annotations


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
    "status_alloc_failed",
    "bad_alloc",
    "can't start new thread",
    # oneDNN, of a convolution or product for which it has no room; of one that it does not know it
    # says "primitive descriptor".
    "could not create a primitive\n",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` was raised for want of memory, on whichever device."""
    if isinstance(error, MemoryError):
        return True
    text = f"{str(error).lower()}\n"
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)
