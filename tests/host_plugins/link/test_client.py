from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from bridge_server import envelope
from bridge_server.envelope import Call
from host_plugins.link import client as clients
from host_plugins.link import messages
from host_plugins.link.client import Client
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Event, OfJob
from host_plugins.link.wire import Answer
from tests.host_plugins.link.conftest import Server, until


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client that loses its patience soon."""
    monkeypatch.setattr(clients, "_AGAIN", 0.2)
    monkeypatch.setattr(clients, "_PULSE", 0.3)
    with Client(server.endpoint) as client:
        yield client


def job(state: str = "queued", seq: int = 1) -> dict[str, Any]:
    return {"job": "a", "state": state, "seq": seq}


def test_ask_and_be_answered(server: Server, client: Client) -> None:
    server.answers["cancel"] = lambda _: job("cancelled")
    info = client.ask(messages.CANCEL, OfJob(job="a"))
    assert info == messages.JobInfo(job="a", state="cancelled", seq=1)
    assert server.calls[0].fields == {"job": "a"}
    assert server.calls[0].session == client.session
    assert client.ask(messages.PING).time == 1.0


def test_payloads_go_both_ways(server: Server, client: Client) -> None:
    server.answers["download.chunk"] = lambda _: ({"offset": 0, "size": 3}, (b"abc",))
    server.answers["upload.chunk"] = lambda call: {"upload": "u", "offset": len(call.payloads[0])}
    asked = messages.DownloadChunk(job="a", name="out.mp4")
    assert client.ask(messages.DOWNLOAD_CHUNK, asked).payloads == (b"abc",)
    chunk = messages.UploadChunk(upload="u", offset=0, payloads=(bytes(3_000_000),))
    assert client.ask(messages.UPLOAD_CHUNK, chunk).offset == 3_000_000


PAGES = {
    "": {"state": "running", "seq": 7, "request": {"clip": "a.mov", "changes": [{"frame": 0}]},
         "notes": ["n"], "keyframes": [{"frame": 0}], "next": "one"},
    "one": {"state": "done", "seq": 9, "request": {"changes": [{"frame": 5}]}, "next": "two"},
    "two": {"state": "done", "seq": 9, "keyframes": [{"frame": 5}, {"frame": 9}]},
}  # fmt: skip


def test_a_reply_in_pages_is_handed_over_as_one(server: Server, client: Client) -> None:
    server.answers["job"] = lambda call: {"job": "a", **PAGES[call.fields.get("page", "")]}
    info = client.ask(messages.JOB, OfJob(job="a"))
    assert [each.frame for each in info.keyframes] == [0, 5, 9]
    assert info.request == {"clip": "a.mov", "changes": [{"frame": 0}, {"frame": 5}]}
    assert (info.state, info.seq, info.notes, info.next) == ("running", 7, ("n",), "")
    assert [call.fields for call in server.calls] == [
        {"job": "a"}, {"job": "a", "page": "one"}, {"job": "a", "page": "two"}
    ]  # fmt: skip
    assert len({call.id for call in server.calls}) == 3


def test_an_error_on_a_later_page_is_raised(server: Server, client: Client) -> None:
    def answer(call: Call) -> dict[str, Any]:
        if call.fields.get("page") == "two":
            raise BridgeError(Code.NOT_FOUND, "it was forgotten")
        return {"job": "a", **PAGES[call.fields.get("page", "")]}

    server.answers["job"] = answer
    with pytest.raises(BridgeError, match="forgotten"):
        client.ask(messages.JOB, OfJob(job="a"))
    server.answers["job"] = lambda call: None if call.fields.get("page") else PAGES[""]
    with pytest.raises(BridgeError, match="did not answer 'job' in time"):
        client.ask(messages.JOB, OfJob(job="a"), timeout=0.3)


def test_an_error_of_the_server_is_raised(server: Server, client: Client) -> None:
    def refuse(call: Call) -> None:
        raise BridgeError(Code.NOT_FOUND, "no job is called a", "list them")

    server.answers["job"] = refuse
    with pytest.raises(BridgeError, match="no job is called a") as caught:
        client.request("job", {"job": "a"})
    assert (caught.value.code, caught.value.hint) == (Code.NOT_FOUND, "list them")


def test_without_a_server_it_is_said_at_once() -> None:
    def nowhere() -> Endpoint:
        raise BridgeError(Code.UNAVAILABLE, "the server is not running")

    with Client(nowhere) as client:
        before = time.monotonic()
        with pytest.raises(BridgeError, match="not running"):
            client.request("ping", timeout=5)
        assert time.monotonic() - before < 1
        assert client.poll(0.05) == []


def test_silence_ends_in_a_timeout(server: Server, client: Client) -> None:
    server.answers["ping"] = lambda _: None
    with pytest.raises(BridgeError, match="did not answer 'ping' in time") as caught:
        client.request("ping", timeout=0.1)
    assert caught.value.code is Code.TIMEOUT
    assert caught.value.retryable
    assert not client._pending


def test_a_lost_request_is_sent_again_with_its_id(server: Server, client: Client) -> None:
    server.answers["ping"] = lambda _: {"time": 2.0} if len(server.calls) > 2 else None
    assert client.ask(messages.PING, timeout=5).time == 2.0
    assert len({call.id for call in server.calls}) == 1


def test_a_second_answer_is_ignored(server: Server, client: Client) -> None:
    client.request("ping")
    again = envelope.write_answer(Answer(server.calls[0].id, server.session, {"time": 9.0}))
    server.say(*(bytes(frame) for frame in again))
    assert client.poll(0.1) == []
    assert client.ask(messages.PING).time == 1.0


def test_what_cannot_be_read_is_ignored(server: Server, client: Client) -> None:
    client.request("ping")
    for junk in (b"", b"\xc1", b"\x80", b"\x91" * 1000, b"\x81\xa1v\x02"):
        server.say(junk)
    assert client.poll(0.1) == []
    assert client.ask(messages.PING).time == 1.0


def test_a_request_survives_the_restart_of_the_server(server: Server, client: Client) -> None:
    client.request("ping")
    server.stop()
    answers: list[Answer] = []
    client.post("ping", then=answers.append, timeout=10)
    client.poll(0.1)
    server.start()
    until(lambda: client.poll(0.02) or answers)
    assert answers[0].error is None
    assert answers[0].session == "run2"


def test_a_server_that_moved_is_found(short_folder: Any, server: Server, client: Client) -> None:
    client.request("ping")
    server.stop()
    server.address = f"ipc://{short_folder}/elsewhere"
    server.start()
    assert client.request("ping", timeout=10).session == "run2"


def test_a_server_that_is_gone_is_named_so(server: Server, client: Client) -> None:
    client.request("ping")
    server.stop()

    def nowhere() -> Endpoint:
        raise BridgeError(Code.UNAVAILABLE, "the server is not running")

    client._find = nowhere
    with pytest.raises(BridgeError, match="not running"):
        client.request("ping", timeout=0.6)


def test_a_host_that_polls_never_waits(server: Server, client: Client) -> None:
    server.answers["job"] = lambda _: job()
    answers: list[Answer] = []
    longest, threads = 0.0, threading.active_count()
    client.post("job", {"job": "a"}, then=answers.append)
    for _ in range(400):
        before = time.monotonic()
        assert client.poll() == []
        longest = max(longest, time.monotonic() - before)
        if answers:
            break
        time.sleep(0.005)
    assert answers[0].fields == job()
    assert longest < 0.1
    assert threading.active_count() == threads, "it has none of its own"


def test_unsent_messages_do_not_hold_up_the_end(short_folder: Any) -> None:
    client = Client(lambda: Endpoint(f"ipc://{short_folder}/nobody", 1))
    client.post("ping", {}, (bytes(1_000_000),))
    before = time.monotonic()
    client.close()
    assert time.monotonic() - before < 1


# ------------------------------------------------------------------------------------------ events


class Journal:
    """The events of jobs, as a server keeps them."""

    def __init__(self, server: Server) -> None:
        self.server, self.kept = server, dict[str, list[Event]]()
        self.oldest, self.at_once, self.subscribed = 1, 3, False
        server.answers["events.subscribe"] = self.subscribe
        server.answers["events.replay"] = self.replay
        server.answers["ping"] = lambda _: {"time": 1.0, "subscribed": self.subscribed}

    def subscribe(self, _call: Call) -> dict[str, Any]:
        self.subscribed = True
        return {"newest": {job: len(events) for job, events in self.kept.items()}}

    def replay(self, call: Call) -> dict[str, Any]:
        events = self.kept[call.fields["job"]]
        asked = max(call.fields.get("after", 0), self.oldest - 1)
        told = events[asked : asked + self.at_once]
        return {"newest": len(events), "events": [event.table() for event in told]}

    def happen(self, text: str, job: str = "a", lost: bool = False) -> None:
        events = self.kept.setdefault(job, [])
        event = Event(event="note", job=job, seq=len(events) + 1, data={"text": text})
        events.append(event)
        if not lost:
            self.server.tell(**event.table())

    def progress(self, done: float, job: str = "a") -> None:
        data = {"stage": "translate", "done": done, "total": 9.0}
        seq = len(self.kept.get(job, ()))
        event = Event(event="progress", job=job, seq=seq, transient=True, data=data)
        self.server.tell(**event.table())


@pytest.fixture
def journal(server: Server) -> Journal:
    return Journal(server)


def texts(client: Client, count: int, seconds: float = 10.0) -> list[str]:
    """What the next `count` notes say, and a little later no others."""
    found: list[Event] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found += client.poll(0.05)
    found += client.poll(0.05)
    return [event.data["text"] for event in found if event.event == "note"]


def test_events_come_in_order(journal: Journal, client: Client) -> None:
    client.subscribe()
    for text in "abc":
        journal.happen(text)
    assert texts(client, 3) == ["a", "b", "c"]
    journal.progress(1.0)
    journal.happen("d")
    events = list(client.events(0.2))
    assert [event.event for event in events] == ["progress", "note"]
    assert events[0].transient


def test_events_wait_while_something_is_asked(journal: Journal, client: Client) -> None:
    client.subscribe()
    journal.happen("a")
    until(lambda: not journal.server._outbox)
    client.request("ping")
    assert texts(client, 1) == ["a"]


@pytest.mark.parametrize("lost", [[1], [0, 1], [1, 2, 3, 4, 5, 6, 7, 8], [0, 3, 6]])
def test_lost_events_are_told_again(journal: Journal, client: Client, lost: list[int]) -> None:
    client.subscribe()
    for place, text in enumerate("abcdefghij"):
        journal.happen(text, lost=place in lost)
    assert texts(client, 10) == list("abcdefghij")


def test_a_transient_event_shows_that_others_were_lost(journal: Journal, client: Client) -> None:
    client.subscribe()
    journal.happen("a", lost=True)
    journal.progress(1.0)
    assert texts(client, 1) == ["a"]


def test_doubled_events_are_told_once(journal: Journal, client: Client) -> None:
    client.subscribe()
    journal.happen("a")
    journal.server.tell(**journal.kept["a"][0].table())
    journal.happen("b")
    assert texts(client, 2) == ["a", "b"]


def test_what_was_before_is_told_only_if_asked_for(journal: Journal, client: Client) -> None:
    for text in "abcde":
        journal.happen(text, lost=True)
    client.subscribe()
    journal.happen("f")
    assert texts(client, 1) == ["f"]
    with Client(journal.server.endpoint) as other:
        other.subscribe(after={"a": 2})
        assert texts(other, 4) == ["c", "d", "e", "f"]


def test_jobs_are_counted_apart(journal: Journal, client: Client) -> None:
    client.subscribe()
    for name in ("a", "b"):
        for text in "xyz":
            journal.happen(f"{name}{text}", name, lost=text == "y")
    assert sorted(texts(client, 6)) == ["ax", "ay", "az", "bx", "by", "bz"]


def test_a_journal_that_forgot_its_beginning(journal: Journal, client: Client) -> None:
    client.subscribe()
    journal.oldest = 4
    for text in "abcdef":
        journal.happen(text, lost=text != "f")
    assert texts(client, 3) == ["d", "e", "f"]
    journal.happen("g")
    assert texts(client, 1) == ["g"]


def test_a_journal_that_contradicts_itself_is_not_asked_for_ever(
    journal: Journal, server: Server, client: Client
) -> None:
    client.subscribe()
    server.answers["events.replay"] = lambda _: {"newest": 50, "events": []}
    journal.happen("a", lost=True)
    journal.happen("b")
    client.poll(0.3)
    assert server.ops().count("events.replay") == 1


def test_a_new_server_is_subscribed_to_and_nothing_is_lost(
    journal: Journal, server: Server, client: Client
) -> None:
    client.subscribe()
    journal.happen("a")
    assert texts(client, 1) == ["a"]
    server.stop()
    journal.subscribed = False
    server.start()
    journal.happen("b", lost=True)
    assert texts(client, 1) == ["b"]
    assert journal.subscribed
    journal.happen("c")
    assert texts(client, 1) == ["c"]


def test_a_forgotten_subscription_is_made_again(journal: Journal, client: Client) -> None:
    client.subscribe()
    journal.subscribed = False  # as after a reconnection that nobody noticed
    journal.happen("a", lost=True)
    assert texts(client, 1) == ["a"]
    assert journal.subscribed


def test_no_pulse_without_a_subscription(server: Server, client: Client) -> None:
    client.subscribe()
    client.unsubscribe()
    asked = len(server.calls)
    client.poll(0.5)
    assert len(server.calls) == asked


def test_nonsense_about_events_does_no_harm(
    journal: Journal, server: Server, client: Client
) -> None:
    client.subscribe()
    server.tell("note", job="a", seq="one")
    server.tell("note", job=["a"], seq=1)
    server.answers["events.replay"] = lambda _: {"newest": "many", "events": 3}
    journal.happen("a", lost=True)
    journal.happen("b")
    assert client.poll(0.3) == []
    server.answers["events.replay"] = journal.replay
    journal.happen("c")
    assert texts(client, 3) == ["a", "b", "c"]


def test_events_of_the_server_itself(journal: Journal, server: Server, client: Client) -> None:
    client.subscribe()
    server.tell("server", transient=True, data={"state": "stopping"})
    assert [event.data for event in client.poll(2)] == [{"state": "stopping"}]


def test_previews_have_payloads(journal: Journal, server: Server, client: Client) -> None:
    client.subscribe()
    data = {"frames": [0, 9], "step": 3, "last": 19}
    server.tell("preview", (b"jpeg0", b"jpeg9"), job="a", transient=True, data=data)
    (event,) = client.poll(2)
    assert event.payloads == (b"jpeg0", b"jpeg9")
    assert messages.EVENTS["preview"].from_table(event.data).table() == data


# ---------------------------------------------------------------------------------------- security


def test_curve() -> None:
    server_keys, own, wrong = zmq.curve_keypair(), zmq.curve_keypair(), zmq.curve_keypair()
    server = Server("tcp://127.0.0.1:*", server_keys)
    server.start()
    try:
        keys = {"public_key": own[0].decode(), "secret_key": own[1].decode()}
        good = server.endpoint(server_key=server_keys[0].decode(), **keys)
        with Client(lambda: good) as client:
            assert client.ask(messages.PING).time == 1.0
        bad = server.endpoint(server_key=wrong[0].decode(), **keys)
        with Client(lambda: bad) as client, pytest.raises(BridgeError, match="did not answer"):
            client.ask(messages.PING, timeout=0.3)
        with Client(server.endpoint) as client, pytest.raises(BridgeError) as caught:
            client.ask(messages.PING)
        assert caught.value.code is Code.UNAUTHORISED
    finally:
        server.stop()


@pytest.mark.parametrize(
    "endpoint",
    [Endpoint("nonsense", 1), Endpoint("tcp://127.0.0.1:1", 1, "no key", "no key", "no key")],
)
def test_an_endpoint_that_is_none(endpoint: Endpoint) -> None:
    with Client(lambda: endpoint) as client, pytest.raises(BridgeError) as caught:
        client.request("ping")
    assert caught.value.code is Code.UNAVAILABLE


def test_every_socket_and_context_is_closed(server: Server) -> None:
    made: list[zmq.Context[Any]] = []
    for _ in range(5):
        with Client(server.endpoint) as client:
            client.request("ping")
            made.append(client._context)
    assert all(context.closed for context in made)
