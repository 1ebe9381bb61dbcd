"""Who may come in, and what they see: a real server with keys, roots and a loopback endpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from tests.bridge_server.plain import Ended, Plain
from tests.bridge_server.reels import reel
from tests.bridge_server.serving import SMALL, Serving, until
from tests.bridge_server.strangers import Away, Refused, Stranger, endpoint_of
from tests.bridge_server.test_strangers import rest


@dataclass
class Guarded:
    """A server that others may come to, and their keys."""

    serving: Serving
    films: Path
    abroad: str
    key: str
    ours: tuple[bytes, bytes]
    theirs: tuple[bytes, bytes]


class Foreign(Stranger):
    """A client on another machine: it was told where the server is."""

    def __init__(
        self, guarded: Guarded, keys: tuple[bytes, bytes], wait: float = 2.0, routing: bytes = b""
    ) -> None:
        super().__init__(guarded.serving.runtime, keys[1], wait)
        made = zmq.Context.instance().socket(zmq.DEALER)
        made.linger = 0
        if routing:
            made.routing_id = routing
        made.curve_serverkey = guarded.key.encode()
        made.curve_publickey, made.curve_secretkey = keys
        made.connect(guarded.abroad)
        self._socket = made

    def _connected(self) -> zmq.Socket[bytes]:
        assert self._socket is not None
        return self._socket


def said_by(serving: Serving) -> list[str]:
    """The address for other machines, and the public key, that a server printed."""
    log = serving.folder / "server.log"
    until(lambda: "for other machines" in log.read_text())
    line = next(each for each in log.read_text().splitlines() if "for other machines" in each)
    return line.split("machines: ")[1].split(", public key ")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    films = folder / "films"
    films.mkdir()
    reel(films / "one.mp4", (9,))
    reel(folder / "secret.mp4", (9,))
    ours, theirs = zmq.curve_keypair(), zmq.curve_keypair()
    options = ["--listen", "tcp://127.0.0.1:*", "--root", str(films), "--loopback"]
    for public, _ in (ours, theirs):
        options += ["--allow", public.decode()]
    serving = Serving(folder, options).start()
    abroad, key = said_by(serving)
    yield Guarded(serving, films, abroad, key, ours, theirs)
    assert serving.stop() == 0


@pytest.fixture
def local(guarded: Guarded) -> Iterator[Stranger]:
    client = Stranger(guarded.serving.runtime)
    yield client
    client.close()


@pytest.fixture
def ours(guarded: Guarded) -> Iterator[Foreign]:
    client = Foreign(guarded, guarded.ours)
    yield client
    client.close()


@pytest.fixture
def theirs(guarded: Guarded) -> Iterator[Foreign]:
    client = Foreign(guarded, guarded.theirs)
    yield client
    client.close()


def test_an_unknown_key_gets_no_answer(guarded: Guarded) -> None:
    nobody = Foreign(guarded, zmq.curve_keypair(), 0.2)
    with pytest.raises(Away):
        nobody.ask("ping")
    nobody.close()


def test_without_a_key_there_is_no_answer(guarded: Guarded) -> None:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(guarded.abroad)
    socket.send(b"\x80")
    assert not socket.poll(1000)
    socket.close()
    plain = Plain(guarded.abroad, "")
    with pytest.raises((AssertionError, OSError, Ended)):
        plain.shake()
    plain.close()


def test_a_wrong_server_key_gets_no_answer(guarded: Guarded) -> None:
    wrong = Guarded(guarded.serving, guarded.films, guarded.abroad,
                    zmq.curve_keypair()[0].decode(), guarded.ours, guarded.theirs)  # fmt: skip
    client = Foreign(wrong, guarded.ours, 0.2)
    with pytest.raises(Away):
        client.ask("ping")
    client.close()


def test_everybody_is_told_who_they_are(
    guarded: Guarded, local: Stranger, ours: Foreign, theirs: Foreign
) -> None:
    assert local.ask("hello", client="x")["owner"] == "local"
    for client, keys in ((ours, guarded.ours), (theirs, guarded.theirs)):
        welcome = client.ask("hello", client="x")
        assert welcome["owner"] == keys[0].decode()
        assert welcome["roots"] == [str(guarded.films)]


def test_a_routing_id_says_nothing_of_whose_a_message_is(guarded: Guarded) -> None:
    for keys in (guarded.ours, guarded.theirs, guarded.ours):
        client = Foreign(guarded, keys, routing=b"the same")
        # The server gives the id to the next one when it has seen the last one leave.
        until(lambda client=client: answers(client), 30)
        assert client.ask("hello", client="x")["owner"] == keys[0].decode()
        assert not client.ask("ping").header.get("subscribed")
        client.subscribe()
        assert client.ask("ping")["subscribed"]
        client.close()
        time.sleep(0.3)


def answers(client: Foreign) -> bool:
    """Whether a client's connection is heard."""
    client.send(client.envelope("ping", "first"))
    return client.reply_to("first", 0.5) is not None


def wanted(guarded: Guarded, name: str) -> dict[str, object]:
    return {"clip": str(guarded.films / "one.mp4"), **SMALL,
            "output": str(guarded.films / name)}  # fmt: skip


def test_owners_see_their_own_jobs(
    guarded: Guarded, local: Stranger, ours: Foreign, theirs: Foreign
) -> None:
    for client in (local, ours, theirs):
        client.subscribe()
    assert ours.ask("submit", job="ours", request=wanted(guarded, "a.mp4"))["state"] == "queued"
    for op, more in (("job", {}), ("cancel", {}), ("pause", {}), ("resume", {}), ("retry", {}),
                     ("approve", {"gate": "keyframes"}), ("result", {}), ("events.replay", {}),
                     ("edit", {"base": 1, "frame": 0, "what": "seed", "value": "1"})):  # fmt: skip
        with pytest.raises(Refused) as told:
            theirs.ask(op, job="ours", **more)
        assert told.value.code == "not_found", op
    with pytest.raises(Refused) as told:
        theirs.ask("submit", job="ours", request=wanted(guarded, "a.mp4"))
    assert told.value.code == "conflict"
    with pytest.raises(Refused) as told:
        theirs.ask("jobs", before="ours")
    assert told.value.code == "not_found"
    assert rest(ours, "ours") == "done"
    for client, count in ((local, 1), (ours, 1), (theirs, 0)):
        client.listen(0.3)
        assert len(client.ask("jobs").header.get("jobs", [])) == count
        assert ("ours" in client.story.told) == (count == 1)
    assert theirs.subscribe("ours").get("newest", {}) == {}
    assert local.story.told["ours"] == ours.story.told["ours"]
    assert ours.ask("result", job="ours")["files"]


def test_local_controls_every_job(guarded: Guarded, local: Stranger, theirs: Foreign) -> None:
    request = wanted(guarded, "b.mp4") | {"steps": 400, "size": 128}
    for number in range(8):  # each at another moment of its way to the worker
        job = f"theirs-{number}"
        theirs.ask("submit", job=job, request=request)
        time.sleep(number / 200)
        local.ask("cancel", job=job)
        assert rest(theirs, job) == "cancelled"


def test_a_kept_reply_is_not_for_others(
    guarded: Guarded, local: Stranger, ours: Foreign, theirs: Foreign
) -> None:
    request = wanted(guarded, "k.mp4") | {"until": "keyframes"}
    ours.ask("submit", job="kept", request=request)
    ours.ask("cancel", id_="one", job="kept")
    theirs.session = ours.session
    with pytest.raises(Refused) as told:
        theirs.ask("cancel", id_="one", job="kept")
    assert told.value.code == "not_found"
    local.ask("cancel", job="kept")


def test_only_files_in_the_roots(
    guarded: Guarded, local: Stranger, ours: Foreign, tmp_path: Path
) -> None:
    secret = str(guarded.serving.folder / "secret.mp4")
    told = endpoint_of(guarded.serving.runtime)
    plain = Plain(told["loopback"], told["token"]).shake()
    link = guarded.films / "link.mp4"
    link.symlink_to(secret)
    for client in (local, ours, plain):
        for request in (
            {"clip": secret},
            {"clip": str(link)},
            {"clip": f"{guarded.films}/../secret.mp4"},
            {**wanted(guarded, "c.mp4"), "output": str(tmp_path / "c.mp4")},
            {**wanted(guarded, "c.mp4"), "loras": [{"name": "/etc/passwd"}]},
            {**wanted(guarded, "c.mp4"), "model": "/etc"},
        ):
            with pytest.raises(Refused) as refused:
                client.ask("submit", job="outside", request=request)
            assert refused.value.code == "forbidden", request
        values = {"Source": secret, "prompt": "x"}
        with pytest.raises(Refused) as refused:
            client.ask("submit", job="outside", effect="io.fresco.Stylise", values=values)
        assert refused.value.code == "forbidden"
    link.unlink()
    plain.close()


def test_a_painted_picture_too(guarded: Guarded, ours: Foreign) -> None:
    ours.ask("submit", job="paint", request=wanted(guarded, "p.mp4") | {"until": "keyframes"})
    rest(ours, "paint")
    for value, code in ((str(guarded.serving.folder / "secret.mp4"), "forbidden"),
                        (str(guarded.films / "none.png"), "not_found"),
                        ("one.png", "invalid")):  # fmt: skip
        with pytest.raises(Refused) as told:
            ours.ask("edit", job="paint", base=1, frame=0, what="painted", value=value)
        assert told.value.code == code
    ours.ask("cancel", job="paint")


def test_a_file_that_is_moved_behind_the_look(guarded: Guarded, ours: Foreign) -> None:
    """What was inside when it was asked for, and is a link to elsewhere when it is to run."""
    clip = guarded.films / "swap.mp4"
    clip.write_bytes((guarded.films / "one.mp4").read_bytes())
    request = wanted(guarded, "long.mp4") | {"steps": 400, "size": 128}
    ours.ask("submit", job="before", request=request, priority=10)
    ours.ask("submit", job="swap", request=wanted(guarded, "s.mp4") | {"clip": str(clip)})
    clip.unlink()
    clip.symlink_to(guarded.serving.folder / "secret.mp4")
    ours.ask("cancel", job="before")
    assert rest(ours, "swap") == "failed"
    assert ours.ask("job", job="swap")["failure"]["code"] == "forbidden"
    ours.ask("submit", job="after", request=wanted(guarded, "after.mp4"))
    assert rest(ours, "after") == "done"  # the worker goes on


def test_others_cannot_end_the_server(guarded: Guarded, ours: Foreign) -> None:
    for fields in ({}, {"when_idle": True}):
        with pytest.raises(Refused) as told:
            ours.ask("shutdown", **fields)
        assert told.value.code == "forbidden"
    assert not guarded.serving.process_ended()


def test_loopback_is_open_on_this_machine_only(guarded: Guarded) -> None:
    told = endpoint_of(guarded.serving.runtime)
    port = int(told["loopback"].rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp")
    if listening.exists():
        rows = [row.split() for row in listening.read_text().splitlines()[1:]]
        places = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]
        assert places == [f"0100007F:{port:04X}"]
    with pytest.raises(OSError, match=r".*"):
        Plain(f"tcp://127.0.0.2:{port}", told["token"], 1.0)


def test_options_beat_the_settings(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    films = tmp_path / "films"
    films.mkdir()
    (home / "config.toml").write_text(
        f'[server]\nloopback = true\nroots = ["{films}"]\n', encoding="utf-8"
    )
    for options, loopback, roots in (
        ([], True, [str(films)]),
        (["--no-loopback", "--root", str(tmp_path)], False, [str(tmp_path)]),
    ):
        serving = Serving(tmp_path, options).start()
        client = Stranger(serving.runtime)
        assert client.ask("hello", client="x")["roots"] == roots
        assert bool(endpoint_of(serving.runtime)["loopback"]) is loopback
        client.close()
        assert serving.stop() == 0


def test_keys_without_roots_have_a_folder_of_their_own(tmp_path: Path) -> None:
    key = zmq.curve_keypair()
    options = ["--listen", "tcp://127.0.0.1:*", "--allow", key[0].decode()]
    serving = Serving(tmp_path, options).start()
    abroad, server_key = said_by(serving)
    client = Foreign(Guarded(serving, tmp_path, abroad, server_key, key, key), key)
    assert client.ask("hello", client="x")["roots"] == [str(serving.state / "shared")]
    with pytest.raises(Refused) as told:
        client.ask("submit", job="x", request={"clip": str(tmp_path / "server.log")})
    assert told.value.code == "forbidden"
    client.close()
    serving.stop()
