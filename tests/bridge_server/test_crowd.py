"""Many clients at once, some that never read, and some that only knock."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.bridge_server.reels import reel
from tests.bridge_server.serving import SMALL, Serving
from tests.bridge_server.strangers import Refused, Stranger
from tests.bridge_server.test_strangers import rest

MANY = 64


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("a server")).start()
    yield serving
    if not serving.process_ended():
        assert serving.stop() == 0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reel(tmp_path_factory.mktemp("clips") / "one shot.mp4", (9,))


def wanted(clip: Path, folder: Path, **more: object) -> dict[str, object]:
    name = f"{uuid.uuid4().hex}.mp4"
    return {"clip": str(clip), **SMALL, "output": str(folder / name), **more}


def process_of(serving: Serving) -> psutil.Process:
    assert serving.process is not None
    return psutil.Process(serving.process.pid)


def test_many_clients_hear_everything(serving: Serving, clip: Path, tmp_path: Path) -> None:
    crowd = [Stranger(serving.runtime) for _ in range(MANY)]
    begun = time.monotonic()
    headers = [client.envelope("ping") for client in crowd]
    for client, header in zip(crowd, headers, strict=True):
        client.send(header)
    for client, header in zip(crowd, headers, strict=True):
        assert client.reply_to(header["id"], 10) is not None
    took = time.monotonic() - begun
    print(f"{MANY} clients connected and answered in {1000 * took:.0f} ms")
    assert took < 5
    for client in crowd:
        client.subscribe()
    job = uuid.uuid4().hex
    request = wanted(clip, tmp_path)
    for client in crowd:  # all of them say the same
        assert client.ask("submit", job=job, request=request)["job"] == job
    assert rest(crowd[0], job) == "done"
    newest = crowd[0].ask("job", job=job)["seq"]
    for client in crowd:
        client.listen(0.05)
        numbers = [each["seq"] for each in client.story.told[job]]
        assert numbers == list(range(1, newest + 1))
        client.close()


def test_who_never_reads_holds_nobody_up(serving: Serving, clip: Path, tmp_path: Path) -> None:
    deaf = [Stranger(serving.runtime) for _ in range(4)]
    heard = Stranger(serving.runtime)
    for client in (*deaf, heard):
        client.subscribe()
    before = process_of(serving).memory_info().rss
    jobs = [uuid.uuid4().hex for _ in range(2)]
    for number, job in enumerate(jobs):
        asked = wanted(clip, tmp_path, prompt=f"deaf {number}", steps=60)
        heard.ask("submit", job=job, request=asked)
    waits: list[float] = []
    end = time.monotonic() + 120
    while heard.ask("job", job=jobs[-1])["state"] not in ("done", "failed"):
        begun = time.monotonic()
        heard.ask("ping")
        waits.append(time.monotonic() - begun)
        heard.listen(0.1)
        assert time.monotonic() < end
    heard.listen(0.3)
    assert sorted(waits)[len(waits) // 2] < 0.1
    assert process_of(serving).memory_info().rss - before < 64 << 20
    for client in deaf:
        client.listen(0.5)
        for job in jobs:
            newest = heard.ask("job", job=job)["seq"]
            client.replay(job)
            assert [each["seq"] for each in client.story.told[job]] == list(range(1, newest + 1))
        client.close()
    heard.close()


def test_a_thousand_that_vanish(serving: Serving) -> None:
    stays = Stranger(serving.runtime)
    stays.ask("ping")
    process = process_of(serving)
    files, size = process.num_fds(), process.memory_info().rss
    for number in range(1000):
        client = Stranger(serving.runtime)
        client.send(client.envelope("events.subscribe" if number % 3 else "ping"))
        if number % 2:
            client.receive(2)
        client.close()
    time.sleep(1.0)
    stays.ask("ping")
    assert process.num_fds() <= files + 8
    assert process.memory_info().rss - size < 32 << 20
    stays.close()


ONCE = [
    ("pause", {}),
    ("resume", {}),
    ("cancel", {}),
    ("retry", {}),
    ("approve", {"gate": "keyframes"}),
    ("edit", {"base": 1, "frame": 0, "what": "seed", "value": "4"}),
]


def test_each_change_twice_and_over_a_restart(serving: Serving, clip: Path, tmp_path: Path) -> None:
    """The same id is answered with what was answered, also by the next server."""
    client = Stranger(serving.runtime)
    busy, job = uuid.uuid4().hex, uuid.uuid4().hex
    request = wanted(clip, tmp_path, steps=400, size=128, prompt="busy")
    client.ask("submit", job=busy, request=request, priority=50)
    client.ask("submit", job=job, request=wanted(clip, tmp_path, prompt="once"))
    first: dict[str, object] = {}

    def told(op: str, fields: dict[str, object]) -> object:
        try:
            return {**client.ask(op, id_=f"id-{op}", job=job, **fields).header, "session": ""}
        except Refused as error:
            return error.code

    for op, fields in ONCE:
        first[op] = told(op, fields)
        assert told(op, fields) == first[op], op
    assert first["approve"] == "conflict"
    now = client.ask("job", job=job)
    assert (now["state"], now["revision"]) == ("queued", 2)
    assert serving.stop() == 0
    serving.start()
    for op, fields in ONCE:
        assert told(op, fields) == first[op], op
    assert client.ask("job", job=job)["revision"] == 2
    # With another id it is another request, and the rules of section 5 hold.
    assert client.ask("pause", job=job)["state"] == "paused"
    assert client.ask("pause", job=job)["state"] == "paused"
    assert told("resume", {}) == first["resume"]
    assert client.ask("job", job=job)["state"] == "paused"
    edit = {"base": 1, "frame": 0, "what": "seed", "value": "4"}
    assert client.ask("edit", job=job, **edit)["revision"] == 2
    with pytest.raises(Refused) as refused:
        client.ask("edit", job=job, **(edit | {"value": "5"}))
    assert refused.value.code == "conflict"
    for name in (job, busy):
        assert client.ask("cancel", job=name)["state"] in ("cancelled", "running")
    assert rest(client, busy) == "cancelled"
    client.close()


def test_a_late_copy_of_cancel_stops_nothing(serving: Serving, clip: Path, tmp_path: Path) -> None:
    client, job = Stranger(serving.runtime), uuid.uuid4().hex
    request = wanted(clip, tmp_path, steps=60, prompt="late")
    client.ask("submit", job=job, request=request)
    client.ask("cancel", id_="late", job=job)
    assert rest(client, job) == "cancelled"
    client.ask("retry", job=job)
    while client.ask("job", job=job)["state"] == "queued":
        time.sleep(0.02)
    client.ask("cancel", id_="late", job=job)
    assert rest(client, job) == "done"
    client.close()
