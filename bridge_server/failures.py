"""What went wrong, in the words of the protocol (PROTOCOL.md, section 6)."""

from __future__ import annotations

import errno

from bridge_server.errors import (
    LicenceNotAccepted,
    NotEnoughSpace,
    OutsideFolders,
    ResultsGone,
    SourceChanged,
)
from bridge_server.media import errors as media
from bridge_server.words import cut
from fresco import errors as method
from fresco.errors import is_out_of_memory
from host_plugins.link.errors import BridgeError, Code

#: The first class that fits decides.
_CODES: tuple[tuple[type[BaseException], Code], ...] = (
    (method.Cancelled, Code.CANCELLED),
    (method.OutOfMemory, Code.OUT_OF_MEMORY),
    (method.MissingWeights, Code.MISSING_MODEL),
    (method.MissingExtra, Code.MISSING_EXTRA),
    (LicenceNotAccepted, Code.LICENCE),
    (NotEnoughSpace, Code.NO_SPACE),
    (ResultsGone, Code.NOT_FOUND),
    (OutsideFolders, Code.FORBIDDEN),
    (SourceChanged, Code.MEDIA),
    (media.UnreadableMedia, Code.MEDIA),
    (media.UnsupportedMedia, Code.MEDIA),
    (media.NotWritten, Code.MEDIA),
    (media.NotAsSource, Code.MEDIA),
    (method.FrescoError, Code.INVALID),
    (FileNotFoundError, Code.NOT_FOUND),
    (PermissionError, Code.FORBIDDEN),
)
#: Bytes of what is said, and of its hint (PROTOCOL.md, section 6).
LONGEST = 2000
#: What to do, where the error's own words do not say it.
_HINTS: tuple[tuple[type[BaseException], str], ...] = (
    (method.OutOfMemory, "then try again: what is done is kept"),
    (SourceChanged, "the next try begins anew with what is changed"),
    (ResultsGone, "try again: what is missing is made anew"),
    (NotEnoughSpace, "make room, then try again"),
)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_SEE_LOG = "this is a mistake of the program; `fresco-bridge logs JOB` says where it happened"


def told(error: BaseException) -> BridgeError:
    """Return `error` as clients are told of it: in words, without a trace, and not endlessly."""
    found = error if isinstance(error, BridgeError) else _coded(error)
    message, hint = cut(found.message, LONGEST), cut(found.hint, LONGEST)
    return BridgeError(found.code, message, hint, found.retryable)


def _coded(error: BaseException) -> BridgeError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BridgeError(Code.NO_SPACE, f"the disk is full ({error.filename or 'while writing'})",
                           "make room, then try again")  # fmt: skip
    if isinstance(error, OSError) and error.errno in _READ_ONLY:
        what = f"{error.filename or 'a file'} may not be used ({error.strerror})"
        return BridgeError(Code.FORBIDDEN, what, "choose another folder, or change who may use it")
    if isinstance(error, FileNotFoundError) and error.filename:
        return BridgeError(
            Code.NOT_FOUND, f"{error.filename} is not there", "bring it back, or name another"
        )
    if not isinstance(error, method.OutOfMemory) and is_out_of_memory(_root(error)):
        return BridgeError(Code.OUT_OF_MEMORY, f"memory ran out ({error})",
                           "choose a smaller size, or close other programs")  # fmt: skip
    for kind, code in _CODES:
        if isinstance(error, kind):
            return BridgeError(code, str(error), _hint(error))
    return BridgeError(Code.INTERNAL, f"{type(error).__name__}: {error}", _SEE_LOG)


def _root(error: BaseException) -> BaseException:
    """Return what an error was first raised from."""
    return error if error.__cause__ is None else _root(error.__cause__)


def _hint(error: BaseException) -> str:
    return next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")
