"""The endings of names: which containers and images they stand for. Imports no library."""

from __future__ import annotations

#: Of images, and what the sequence is called.
KINDS = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".exr": "exr"}
#: Of all that is written, and the container.
SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"} | KINDS
