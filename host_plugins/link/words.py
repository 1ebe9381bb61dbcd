"""Words that every program says alike: which model has styled a clip."""

from __future__ import annotations

from .messages import JobInfo

#: The model of a request that names none: the package's own.
DRAFT = "fresco-draft"


def title(model: str, draft: bool, kind: str = "draft") -> str:
    """Return a model's name for people: nobody is to take the draft for a real one.

    draft: whether it is the package's own
    kind: what is said of that
    """
    return f"{model} ({kind})" if draft else model


def styled_by(job: JobInfo, kind: str = "draft") -> str:
    """Say which model styles a job; empty where its request is not known. kind: see `title`."""
    if not job.request:
        return ""
    model = str(job.request.get("model", DRAFT))
    return f"Styled by {title(model, model == DRAFT, kind)}"
