"""Figures in a few words, for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "2 min", "1 h 20 min"."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
