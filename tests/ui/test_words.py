from __future__ import annotations

import pytest

from bridge_server.states import TRANSITIONS
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import JobInfo
from ui import words


def job(state: str = "running", **more: object) -> JobInfo:
    return JobInfo.from_table({"job": "a", "state": state, "seq": 1, **more})


@pytest.mark.parametrize("state", TRANSITIONS)
def test_what_is_offered_is_what_the_protocol_allows(state: str) -> None:
    allowed = words.allowed(state)
    after = TRANSITIONS[state]
    assert ("cancel" in allowed) == ("cancelled" in after)
    assert ("pause" in allowed) == (state in ("queued", "running"))
    assert ("resume" in allowed) == (state == "paused")
    assert ("retry" in allowed) == (state in ("failed", "cancelled"))
    assert ("approve" in allowed) == (state == "waiting")
    assert ("edit" in allowed) == (state != "done")
    assert words.STATES[state]


@pytest.mark.parametrize(
    ("info", "said", "share"),
    [
        (job("queued"), "queued", None),
        (job(), "beginning", None),
        (job(stage="translate", done=1, total=4), "styling keyframes, 25 %", 0.25),
        (
            job(stage="propagate", done=9, total=4, eta_s=4000),
            "styling the frames between, 100 %, 1 h 7 min left",
            1.0,
        ),
        (job("waiting", gate="keyframes", stage="translate", done=4, total=4),
         "look at the keyframes", None),
        (job("waiting", gate="a new gate"), "waiting for you", None),
        (job("done", stage="encode", done=1, total=1), "done", None),
    ],
)  # fmt: skip
def test_how_far_a_job_is(info: JobInfo, said: str, share: float | None) -> None:
    assert (words.how_far(info), words.share(info)) == (said, share)


def test_figures() -> None:
    told = [words.duration(seconds) for seconds in (0, 59, 60, 3570, 7260)]
    assert told == ["1 s", "59 s", "1 min", "1 h 0 min", "2 h 1 min"]
    assert words.cost({}) == ""
    assert (
        words.cost({"memory": 1e6, "disk": 2e9, "seconds": 90.0}) == "about 2 min, 2.0 GB of disk"
    )


def test_what_the_server_is_at() -> None:
    assert words.doing("") == "ready"
    assert words.doing("beginning") == "loading the model"
    assert words.doing("translate, encode") == "styling keyframes, writing the clip"
    assert words.doing("no card cuda:3") == "no card cuda:3"


def test_an_error_is_said_in_sentences() -> None:
    error = BridgeError(Code.INVALID, "steps: 0 cannot be", "write 1 or more.")
    assert words.sentence(error) == "Steps: 0 cannot be. Write 1 or more."
    assert words.sentence(BridgeError(Code.MEDIA, "no film")) == "No film."
    assert words.sentence(BridgeError(Code.MEDIA, "a.mov is no film")) == "a.mov is no film."


def test_the_draft_is_called_one() -> None:
    assert "(draft" in words.styled_by(job(request={"clip": "a.mp4"}))
    other = {"clip": "a.mp4", "model": "sd15"}
    assert words.styled_by(job(request=other)) == "Styled by sd15."
    assert words.styled_by(job()) == ""
