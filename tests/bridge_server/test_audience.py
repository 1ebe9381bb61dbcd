"""Who hears of what; a real server's events are in `test_events`, `test_crowd` and others."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from bridge_server.access import LOCAL, Owner
from bridge_server.audience import Audience, Peer
from host_plugins.link.messages import Event, Subscribe


class Heard:
    """Where a client would hear: what it was told, in order."""

    def __init__(self) -> None:
        self.gone, self.empty = False, True
        self.told: list[dict[str, Any]] = []
        self.payloads: list[bytes] = []

    def send(self, frames: list[Any]) -> None:
        self.told.append(msgpack.unpackb(frames[0]))
        self.payloads += map(bytes, frames[1:])

    def send_newest(self, _kind: str, _job: str, frames: list[Any]) -> None:
        self.send(frames)


@pytest.fixture
def previews() -> list[bool]:
    return []


@pytest.fixture
def audience(previews: list[bool]) -> Audience:
    return Audience("5f0c", previews.append)


def client(audience: Audience, id_: bytes, owner: str = LOCAL, **wanted: Any) -> Peer:
    peer = audience.peer((0, id_), owner, lambda: Peer(Owner(owner), Heard()))  # pyright: ignore
    peer.wanted = Subscribe(**wanted)
    audience.subscribed()
    return peer


def heard(peer: Peer) -> list[str]:
    return [each["event"] for each in peer.outbox.told]  # pyright: ignore


def note(job: str) -> Event:
    return Event(event="note", job=job, seq=1, data={"text": "look"})


def test_events_go_to_those_whose_jobs_they_are_about(audience: Audience) -> None:
    user, other = client(audience, b"1"), client(audience, b"2", "another")
    picky = client(audience, b"3", jobs=("b",), transient=())
    silent = audience.peer((0, b"4"), LOCAL, lambda: Peer(Owner(), Heard()))  # pyright: ignore
    audience.tell(note("a"), LOCAL)
    audience.tell(note("b"), "another")
    audience.tell_passing("progress", "b", "another", 1, {"stage": "encode"})
    audience.tell(Event(event="server", transient=True, data={"state": "stopping"}))
    assert heard(user) == ["note", "note", "progress", "server"]
    assert heard(other) == ["note", "progress", "server"]
    assert heard(picky) == ["note", "server"]
    assert heard(silent) == []


def test_a_routing_id_that_is_anothers_now_hears_nothing_of_the_first(audience: Audience) -> None:
    first = client(audience, b"1")
    second = client(audience, b"1", "another")
    assert second is not first
    audience.tell(note("a"), LOCAL)
    assert (heard(first), heard(second)) == ([], [])
    assert first.outbox.gone


def test_a_keyframe_brings_its_picture_once(audience: Audience) -> None:
    peer = client(audience, b"1")
    audience.show("a", 4, b"a picture")
    for seq in (1, 2):
        audience.tell(Event(event="keyframe", job="a", seq=seq, data={"frame": 4}), LOCAL)
    assert peer.outbox.payloads == [b"a picture"]  # pyright: ignore


def test_previews_are_made_while_somebody_wants_them(
    audience: Audience, previews: list[bool]
) -> None:
    client(audience, b"1", transient=("progress",))
    client(audience, b"2", transient=("preview",))
    client(audience, b"2", transient=())
    assert previews == [False, True, False]


def test_who_asks_too_often_is_refused_until_some_time_has_passed() -> None:
    peer = Peer(Owner(), Heard())  # pyright: ignore
    asked = 0
    while peer.allowed(10.0):
        asked += 1
    assert asked == 1200
    assert not peer.allowed(10.0)
    assert peer.allowed(10.1)
    assert not Peer(Owner(), Heard(), allowance=0.5).allowed(0.0)  # pyright: ignore
