"""What reading and writing clips can refuse; on the method's tree of errors."""

from __future__ import annotations

from fresco.errors import FrescoError


class UnreadableMedia(FrescoError):
    """The file is no clip, or is damaged; the message says where."""


class UnsupportedMedia(FrescoError):
    """The clip is sound, but something about it cannot be kept; the message says what to do."""


class MissingEncoder(UnsupportedMedia):
    """The installed PyAV was built without this encoder."""


class NotWritten(FrescoError):
    """The target could not be written; nothing was put in its place."""


class NotAsSource(FrescoError):
    """The written file disagrees with its source; it was not put in the target's place."""
