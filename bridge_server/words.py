"""Words and figures for people, short."""

from __future__ import annotations


def cut(text: str, most: int) -> str:
    """Return `text`, or of one that has more than `most` bytes the beginning, and "..."."""
    data = text.encode(errors="replace")
    return text if len(data) <= most else data[: most - 3].decode(errors="ignore") + "..."


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "2 min", "1 h 20 min"."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
