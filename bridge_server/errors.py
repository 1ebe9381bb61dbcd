"""What fetching and keeping models can refuse; on the method's tree of errors."""

from __future__ import annotations

from fresco.errors import FrescoError


class DownloadFailed(FrescoError):
    """The files could not be fetched; what arrived is kept, and the next try goes on from there."""


class CorruptDownload(DownloadFailed):
    """What arrived is not what the hub says it sent; it was thrown away."""


class LicenceNotAccepted(FrescoError):
    """The model's licence must be accepted before it is fetched."""


class NotEnoughSpace(FrescoError):
    """The disk does not hold what is to be written."""


class ResultsGone(FrescoError, FileNotFoundError):
    """Results were removed from the store while a job stood on them; it makes them anew."""


class SourceChanged(FrescoError):
    """A file that a job reads is not what it was when the job began; nothing of it was kept."""


class OutsideFolders(FrescoError):
    """A path leads, by now, out of the folders that its owner may use."""


class NotAsPinned(FrescoError):
    """A file is not the one whose hash was pinned, or has none pinned where it must."""
