"""Replies that no message could hold, from a real server: they come in pages, and none is refused.

What the server finds in its journal is written with what it writes itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge_server import config, operations
from bridge_server.access import Owner
from bridge_server.jobs import Jobs
from bridge_server.journal import Journal
from host_plugins.link import messages
from host_plugins.link.client import Client
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Edited, Keyframe, Listing, PagedOfJob, Replay, Submit
from host_plugins.link.wire import LIMITS
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import Serving
from tests.bridge_server.strangers import Refused, Stranger, packed

KEYFRAMES, CHANGES, IMAGES, EDITS = 5000, 3000, 5000, 40
#: So many that their numbers take several pages, with the longest ids that there are.
PAUSED = 9000
LONG_TITLES = 30
TRACKS = [f"strength@{frame}=0.{frame % 9 + 1}" for frame in range(6000)]
ENVELOPE = {"v", "id", "session", "ok"}


@dataclass
class Full:
    """A server with a full journal."""

    serving: Serving
    clip: Path
    changes: list[dict[str, Any]]


def filled(jobs: Jobs, clip: Path, folder: Path) -> list[dict[str, Any]]:
    """Fill a journal; returns the changes of the job `long`."""
    owner = Owner()
    changes = [{"frame": frame, "what": "prompt", "value": f"picture {frame}, " + "x" * 60}
               for frame in range(CHANGES)]  # fmt: skip

    def submit(job: str, **more: Any) -> None:
        request = {"clip": str(clip), **more}
        jobs.submit(owner, Submit(job=job, request=request), checked=True)

    submit("long", changes=changes[::-1], tracks=TRACKS)
    jobs.next()
    keyframes(jobs, "long", folder)
    output = folder / "out" / "a.####.png"
    output.parent.mkdir()
    for number in range(IMAGES):
        (output.parent / f"a.{number:04d}.png").touch()
    jobs.settled("long", str(output), [0, IMAGES], [])
    jobs.done("long", 1, [{"name": "frames", "source": "1", "result": "1", "state": "kept"}],
              list(range(KEYFRAMES)))  # fmt: skip
    submit("edited")
    jobs.pause(owner, "edited")
    row = jobs.find(owner, "edited")
    for number in range(EDITS):
        told = Edited(revision=number + 2, frame=0, what="prompt", value="p" * 65_000)
        jobs.journal.tell(row, "edited", told.table(), time.time())
    for number in range(PAUSED):
        job = f"{number:05d}".ljust(64, "j")
        submit(job)
        jobs.pause(owner, job)
    for number in range(LONG_TITLES):
        asked = Submit(job=f"title{number:02d}", request={"clip": str(clip)},
                       title="ü" * 30_000, client="c" * 60_000)  # fmt: skip
        jobs.submit(owner, asked, checked=True)
        jobs.pause(owner, asked.job)
        for note in range(40):
            jobs.note(asked.job, f"{note} " + "n" * 3000)
    return changes


def keyframes(jobs: Jobs, job: str, folder: Path) -> None:
    """Keep keyframes as `Jobs.keyframe` does; the most of them with one change of the row."""
    told = [Keyframe(frame=frame, name=f"keyframe-{frame:06d}.png",
                     path=str(folder / f"{frame}.png")) for frame in range(KEYFRAMES)]  # fmt: skip
    for each in told:
        Path(each.path).touch()
    row = jobs.journal.find(job)
    assert row is not None
    row.keyframes = {str(each.frame): each.table() for each in told[:-10]}
    jobs.journal.put(row, "keyframes")
    for each in told[:-10]:
        jobs.journal.tell(row, "keyframe", each.table(), time.time())
    for each in told[-10:]:
        jobs.keyframe(job, each)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Full]:
    folder = tmp_path_factory.mktemp("a full journal")
    clip = reel(folder / "one.mp4", (9,))
    serving = Serving(folder)
    serving.state.mkdir(parents=True)
    journal = Journal(serving.state / config.JOURNAL)
    with journal.change():
        changes = filled(Jobs(journal), clip, folder)
    journal.close()
    home = folder / "home"
    (home / "models.toml").write_text(many_models(), encoding="utf-8")
    (home / "presets.toml").write_text(many_looks(), encoding="utf-8")
    serving.start()
    yield Full(serving, clip, changes)
    assert serving.stop() == 0


def many_models() -> str:
    return "".join(
        f'[my-lora-{number}]\ntitle = "{"t" * 100}"\nrole = "lora"\nfamily = "sd15"\n'
        f'repository = "someone/lora-{number}"\nlicence = "apache-2.0"\n'
        f'files = ["a.safetensors"]\nsize_mb = 1\n'
        for number in range(1000)
    )


def many_looks() -> str:
    return "".join(
        f'[look-{number}]\nvalues = {{ prompt = "{"p" * 2000}" }}\n' for number in range(200)
    )


@pytest.fixture
def client(full: Full) -> Iterator[Client]:
    with full.serving.client() as client:
        yield client


@pytest.fixture
def stranger(full: Full) -> Iterator[Stranger]:
    stranger = Stranger(full.serving.runtime)
    yield stranger
    stranger.close()


def test_a_job_with_any_number_of_keyframes(full: Full, client: Client, stranger: Stranger) -> None:
    job = client.ask(messages.JOB, PagedOfJob(job="long"), 60)
    assert [each.frame for each in job.keyframes] == list(range(KEYFRAMES))
    assert job.keyframes[7].name == "keyframe-000007.png"
    assert job.request["changes"] == full.changes
    assert job.request["tracks"] == TRACKS
    assert (job.request["clip"], job.state, job.next) == (str(full.clip), "done", "")
    told = stranger.whole("job", job="long")
    assert {name: told[name] for name in told.keys() - ENVELOPE} == job.table()


def test_a_client_that_knows_no_pages_sees_the_beginning(stranger: Stranger) -> None:
    told = stranger.ask("job", job="long")
    assert told["state"] == "done"
    assert len(told["request"]["changes"]) > 1000
    assert len(packed(told.header)) > 0.9 * LIMITS.header
    files = stranger.ask("result", job="long")["files"]
    assert len(files) > 900


def test_files_of_any_number(client: Client, stranger: Stranger) -> None:
    made = client.ask(messages.RESULT, PagedOfJob(job="long"), 60)
    assert len(made.files) == KEYFRAMES + IMAGES
    assert len({file.name for file in made.files}) == KEYFRAMES + IMAGES
    assert [file.frame for file in made.files if file.role == "keyframe"] == list(range(KEYFRAMES))
    assert len(made.report) == 1
    told = stranger.whole("result", job="long")
    assert told["files"] == [file.table() for file in made.files]
    # One of them, by its name: what a chunk is read of needs no look at the others.
    reply = stranger.ask("download.chunk", job="long", name="a.4711.png")
    assert (reply["size"], reply.payloads) == (0, [b""])


def test_files_may_also_be_asked_for_without_waiting(client: Client) -> None:
    """As an editor does, from its timer."""
    answers: list[Any] = []
    client.post("result", {"job": "long"}, then=answers.append, timeout=60)
    end = time.monotonic() + 60
    while not answers:
        assert time.monotonic() < end
        client.poll(0.05)
    assert len(answers[0].fields["files"]) == KEYFRAMES + IMAGES


def test_events_of_any_length_are_replayed(client: Client, stranger: Stranger) -> None:
    asked = Replay(job="edited", after=2, limit=200)
    page = client.ask(messages.REPLAY, asked, 60)
    assert 1 <= len(page.events) < EDITS
    stranger.replay("edited")
    stranger.replay("long")
    assert len(stranger.story.told["edited"]) == EDITS + 2
    assert len(stranger.story.told["long"]) == KEYFRAMES + 3
    client.subscribe(["edited"], after={"edited": 0}, timeout=60)
    found: list[int] = []
    end = time.monotonic() + 60
    while len(found) < EDITS + 2:
        assert time.monotonic() < end
        found += [event.seq for event in client.poll(0.1) if event.event != "progress"]
    assert found == list(range(1, EDITS + 3))


def test_lists_of_jobs_with_long_texts(stranger: Stranger, client: Client) -> None:
    found: list[dict[str, Any]] = []
    more, before = True, ""
    while more:
        page = client.ask(messages.JOBS, Listing(limit=200, before=before), 60)
        found += [job.table() for job in page.jobs]
        more, before = page.more, found[-1]["job"]
        assert page.jobs
        if len(found) > 1000:
            break
    assert [job["job"] for job in found[:LONG_TITLES]] == [
        f"title{number:02d}" for number in reversed(range(LONG_TITLES))
    ]
    assert found[0]["title"].startswith("üüü")
    assert len(found[0]["title"].encode()) <= 1000
    assert found[0]["notes"][-1].startswith("39 nnn")
    assert len({job["job"] for job in found}) == len(found)
    assert len(stranger.ask("jobs", limit=200)["jobs"]) < 200


def test_subscriptions_to_thousands_of_jobs(client: Client, stranger: Stranger) -> None:
    count = PAUSED + LONG_TITLES + 2
    told = stranger.subscribe()
    assert len(told["newest"]) == count
    client.subscribe(timeout=60)
    assert client._seen == told["newest"]
    names = [f"{number:05d}".ljust(64, "j") for number in range(3000)]
    told = stranger.subscribe(*names)
    assert told["newest"] == dict.fromkeys(names, 2)


def test_models_and_looks_of_any_number(client: Client, stranger: Stranger) -> None:
    rows = client.ask(messages.MODELS, None, 60).rows
    names = [row["name"] for row in rows]
    assert [name for name in names if name.startswith("my-lora-")] == [
        f"my-lora-{number}" for number in range(1000)
    ]
    told = client.ask(messages.DESCRIBE, None, 60)
    assert len(told.effects) == 1
    looks = [look["name"] for look in told.looks if look["name"].startswith("look-")]
    assert looks == [f"look-{number}" for number in range(200)]
    assert stranger.whole("describe")["looks"] == list(told.looks)


def test_what_the_doctor_finds_comes_in_pages() -> None:
    found = [
        {"area": "models", "subject": str(number), "text": "t" * 5000} for number in range(300)
    ]
    short = [operations._short(row) for row in found]
    first = operations._rows(short, messages.Paged())
    second = operations._rows(short, messages.Paged(page=first["next"]))
    assert len(first["rows"]) + len(second["rows"]) > 200
    assert second["rows"][0]["subject"] == str(len(first["rows"]))
    assert len(first["rows"][0]["text"]) == 2000


def test_requests_that_no_reply_could_tell(full: Full, stranger: Stranger) -> None:
    clip = str(full.clip)
    for request, code in (
        ({"clip": clip, "prompt": "a" * 60_000, "negative": "b" * 60_000}, "too_large"),
        ({"clip": clip, "embeddings": ["e"] * 5000}, "too_large"),
        ({"clip": "/" + "d/" * 3000 + "a.mp4"}, "invalid"),
        ({"clip": clip, "output": "/" + "d" * 4096}, "invalid"),
    ):
        with pytest.raises(Refused) as told:
            stranger.ask("submit", job="large", request=request)
        assert told.value.code == code
    with pytest.raises(Refused) as told:
        stranger.ask("submit", job="large", request={"clip": clip}, parent="p" * 65)
    assert told.value.code == "invalid"


def test_what_is_said_of_a_wrong_keyframe_is_short(full: Full, client: Client) -> None:
    journal = Journal(full.serving.folder / "another")
    jobs = Jobs(journal)
    with journal.change():
        jobs.submit(Owner(), Submit(job="a", request={"clip": str(full.clip)}), checked=True)
        row = jobs.find(Owner(), "a")
        row.keyframes = {str(2 * frame): {"frame": 2 * frame} for frame in range(KEYFRAMES)}
        journal.put(row, "keyframes")
        with pytest.raises(
            BridgeError, match=r"501 is no keyframe; near it: 4\d\d, .*, 50\d$"
        ) as told:
            jobs.edit(Owner(), messages.Edit(job="a", base=1, frame=501, what="seed", value="1"))
    journal.close()
    assert told.value.code is Code.INVALID
