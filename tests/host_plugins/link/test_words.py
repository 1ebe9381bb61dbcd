"""Words that every program says alike."""

from __future__ import annotations

import json
from pathlib import Path

from host_plugins import link
from host_plugins.link import words
from host_plugins.link.messages import JobInfo


def job(**request: object) -> JobInfo:
    return JobInfo(job="a", state="done", seq=1, request=request)


def test_the_draft_is_called_one() -> None:
    assert words.styled_by(job(clip="a.mp4")) == "Styled by fresco-draft (draft)"
    assert words.styled_by(job(clip="a.mp4", model="sd15")) == "Styled by sd15"
    assert words.styled_by(job(clip="a.mp4"), "for a try").endswith("(for a try)")
    assert words.styled_by(job()) == ""


def test_it_is_the_model_of_who_names_none() -> None:
    effect = json.loads(Path(link.__file__).with_name("effect.json").read_text(encoding="utf-8"))
    (model,) = [each for each in effect["parameters"] if each["name"] == "model"]
    assert model["default"] == words.DRAFT
