"""Putting a small file into its place, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from bridge_server.media import parts
from bridge_server.media.errors import NotWritten
from bridge_server.media.sinks import refusals


def check(file: Path, overwrite: bool) -> None:
    """Refuse a place that nothing can be written to, before there is something to write.

    Raises:
        NotWritten: the file exists and `overwrite` is not set, or its folder is not there.
    """
    if not file.parent.is_dir():
        raise NotWritten(f"the folder {file.parent} is not there; make it, or choose another.")
    if file.exists() and not overwrite:
        raise NotWritten(
            f"{file} exists; choose another name, or allow overwriting with --overwrite."
        )


def keyframe_name(number: int, key: str) -> str:
    """Return what a keyframe is called that is to be looked at: another version, another name."""
    return f"frame {number:06d} {key[:8]}.png"


def publish(content: bytes, file: Path, overwrite: bool) -> None:
    """Write `content` beside `file`, and move it there when it is on the disk.

    Raises:
        NotWritten: the file exists and `overwrite` is not set, or it cannot be written.
        NotEnoughSpace: the disk is full.
    """
    check(file, overwrite)
    fresh = parts.name(file.parent, file.suffix)
    with refusals(file, OSError):
        try:
            fresh.write_bytes(content)
            parts.to_disk(fresh)
            parts.move(fresh, file)
        finally:
            fresh.unlink(missing_ok=True)
