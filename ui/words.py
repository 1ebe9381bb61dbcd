"""States, stages and figures in words, for people; no Qt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from host_plugins.link import words
from host_plugins.link.errors import BridgeError
from host_plugins.link.messages import JobInfo

STATES: Mapping[str, str] = {
    "queued": "queued",
    "running": "running",
    "paused": "paused",
    "waiting": "waiting for you",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}
STAGES: Mapping[str, str] = {
    "analyse": "measuring the clip",
    "translate": "styling keyframes",
    "propagate": "styling the frames between",
    "encode": "writing the clip",
}
_GATES: Mapping[str, str] = {
    "first_frame": "look at the first keyframe",
    "keyframes": "look at the keyframes",
}
#: What the server says that it is at, beside stages; see `Pong.doing`.
_DOING: Mapping[str, str] = {
    "": "ready",
    "starting": "starting",
    "beginning": "loading the model",
    **STAGES,
}
#: Which of a job's operations have a sense in its states.
_ALLOWED: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"cancel", "pause", "edit"}),
    "running": frozenset({"cancel", "pause", "edit"}),
    "paused": frozenset({"cancel", "resume", "edit"}),
    "waiting": frozenset({"cancel", "approve", "edit"}),
    "failed": frozenset({"retry", "edit"}),
    "cancelled": frozenset({"retry", "edit"}),
}


def styled_by(job: JobInfo) -> str:
    """Which model styles a job, in a sentence; empty where that is not known."""
    said = words.styled_by(job, "draft: for trying things out")
    return f"{said}." if said else ""


def allowed(state: str) -> frozenset[str]:
    """What may be done to a job in a state, by the names of operations."""
    return _ALLOWED.get(state, frozenset())


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "2 min", "1 h 20 min"."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def share(job: JobInfo) -> float | None:
    """How much of the stage is done, 0 to 1; None where nothing is under way."""
    if job.state != "running" or job.total <= 0:
        return None
    return min(1.0, max(0.0, job.done / job.total))


def how_far(job: JobInfo) -> str:
    """Say how far a job is: "styling keyframes, 40 %, 2 min left"."""
    if job.state == "waiting":
        return _GATES.get(job.gate, STATES["waiting"])
    if job.state != "running":
        return STATES.get(job.state, job.state)
    done = share(job)
    if done is None:
        return STAGES.get(job.stage, "beginning")
    said = f"{STAGES.get(job.stage, job.stage)}, {100 * done:.0f} %"
    return said if job.eta_s is None else f"{said}, {duration(job.eta_s)} left"


def cost(forecast: Mapping[str, Any]) -> str:
    """Say what something takes, as far as it is known: "about 2 min, 1.2 GB of memory"."""
    said = [f"{forecast[key] / 1e9:.1f} GB of {key}" for key in ("memory", "disk")
            if forecast.get(key, 0) >= 5e7]  # fmt: skip
    if forecast.get("seconds", 0) >= 1:
        said.insert(0, f"about {duration(forecast['seconds'])}")
    return ", ".join(said)


def doing(word: str) -> str:
    """Say what the server is at; what is no known word is said as it is."""
    return _DOING.get(word) or ", ".join(STAGES.get(each, each) for each in word.split(", "))


def sentence(error: BridgeError) -> str:
    """An error and what to do about it, as sentences."""
    return " ".join(_closed(text) for text in (error.message, error.hint) if text)


def _closed(text: str) -> str:
    first = text.split(maxsplit=1)[0].rstrip(":,")
    if first.isalpha():  # else it is a name, as of a file
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."
