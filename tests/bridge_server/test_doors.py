"""The doors by themselves: keys, owners, what is opened where."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

from bridge_server import doors
from bridge_server.access import LOCAL
from bridge_server.doors import Doors, Wishes, check_keys, check_roots, kept_keys
from host_plugins.link import wire
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError, Code


def opened(
    tmp_path: Path,
    wishes: Wishes,
    look: Callable[[Doors, Endpoint], None],
    platform: str = "linux",
) -> None:
    """Open doors in an event loop of their own, look, and close them."""

    async def within() -> None:
        context = zmq.asyncio.Context()
        own = Doors(wishes, kept_keys(tmp_path / "keys.json"), tmp_path / "shared")
        try:
            look(own, own.start(context, tmp_path / "run", "1.2", platform))
        finally:
            own.stop()
            context.destroy(linger=0)

    work: Coroutine[Any, Any, None] = within()
    asyncio.run(work)


def test_keys_are_made_once_and_are_nobody_elses(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = kept_keys(file)
    assert kept_keys(file) == keys
    assert file.stat().st_mode & 0o777 == 0o600
    assert zmq.curve_public(keys[1]) == keys[0]
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"public": 1, "secret": 2}', "\xff",
                                  '{"public": "a", "secret": "b"}'])  # fmt: skip
def test_keys_that_cannot_be_are_made_anew(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text, encoding="latin-1")
    keys = kept_keys(file)
    assert zmq.curve_public(keys[1]) == keys[0]
    assert json.loads(file.read_text())["public"] == keys[0].decode()


def test_keys_that_others_could_read_are_closed(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = kept_keys(file)
    file.chmod(0o644)
    assert kept_keys(file) == keys
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_half_written_file_of_a_dead_process_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f"keys.{os.getpid()}").write_text("half")
    keys = kept_keys(tmp_path / "keys.json")
    assert kept_keys(tmp_path / "keys.json") == keys


@pytest.mark.parametrize("key", ["", "a" * 39, "a" * 41, "é" * 40, "a" * 39 + '"'])
def test_no_key(key: str) -> None:
    with pytest.raises(BridgeError) as told:
        check_keys([key])
    assert told.value.code is Code.INVALID


def test_keys_are_keys() -> None:
    check_keys([zmq.curve_keypair()[0].decode()])


def test_ipc_alone_needs_no_keys(tmp_path: Path) -> None:
    def look(own: Doors, at: Endpoint) -> None:
        assert at.address == f"ipc://{tmp_path}/run/bridge.sock"
        assert (at.server_key, at.public_key, at.secret_key) == ("", "", "")
        assert (at.loopback, at.token, at.version) == ("", "", "1.2")
        assert own.sender(own.open[0], None) == LOCAL
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
        assert own.abroad == ""

    opened(tmp_path, Wishes(), look)


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    with pytest.raises(BridgeError) as told:
        opened(tmp_path, Wishes(), lambda _own, _at: None)
    assert told.value.code is Code.UNAUTHORISED


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to("real")
    with pytest.raises(BridgeError) as told:
        opened(tmp_path, Wishes(), lambda _own, _at: None)
    assert told.value.code is Code.UNAUTHORISED


def test_windows_has_tcp_with_keys_instead(tmp_path: Path) -> None:
    def look(own: Doors, at: Endpoint) -> None:
        assert [door.kind for door in own.open] == ["curve"]
        assert at.address.startswith("tcp://127.0.0.1:")
        assert at.server_key == own.keys[0].decode()
        assert zmq.curve_public(at.secret_key.encode()).decode() == at.public_key
        assert own.open[0].socket.getsockopt(zmq.MECHANISM) == zmq.CURVE

    opened(tmp_path, Wishes(), look, "win32")


def test_both_doors_and_the_one_without_keys(tmp_path: Path) -> None:
    def look(own: Doors, at: Endpoint) -> None:
        assert [door.kind for door in own.open] == ["ipc", "curve"]
        assert at.address.startswith("ipc://")
        assert own.abroad.startswith("tcp://127.0.0.1:")
        assert own.plain is not None
        assert own.plain.getsockname()[0] == "127.0.0.1"
        assert at.loopback == f"tcp://127.0.0.1:{own.plain.getsockname()[1]}"
        assert at.token == own.token
        assert len(own.token) >= 40

    opened(tmp_path, Wishes("tcp://127.0.0.1:*", loopback=True), look)


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BridgeError) as told:
            opened(tmp_path, Wishes(f"tcp://127.0.0.1:{port}"), lambda _own, _at: None)
        assert told.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("address", ["7420", "udp://1.2.3.4:5", "tcp://nowhere.invalid:1",
                                     "ipc:///tmp/x", "tcp://127.0.0.1:99999"])  # fmt: skip
def test_an_address_that_cannot_be(tmp_path: Path, address: str) -> None:
    with pytest.raises(BridgeError):
        opened(tmp_path, Wishes(address), lambda _own, _at: None)


def test_owners(tmp_path: Path) -> None:
    key = zmq.curve_keypair()[0]
    own = Doors(Wishes(clients=(key.decode(),)), zmq.curve_keypair(), tmp_path)
    assert own.callback("", key)
    assert own.callback("", own.own[0])
    assert not own.callback("", zmq.curve_keypair()[0])
    assert own.named(LOCAL).roots == ()
    assert not own.named(LOCAL).bound
    assert own.named(key.decode()).roots == (tmp_path.resolve(),)
    rooted = Doors(Wishes(roots=(Path("/films"),)), zmq.curve_keypair(), tmp_path)
    assert rooted.named(LOCAL).roots == rooted.named("x").roots == (Path("/films"),)
    assert own.sender(None, None) == LOCAL


def test_who_shows_the_token(tmp_path: Path) -> None:
    own = Doors(Wishes(), zmq.curve_keypair(), tmp_path)
    for token, trusted in ((own.token, True), ("", False), (own.token[:-1], False), ("é", False)):
        (header,) = wire.write_call("1", "ping", "s", {"token": token})
        assert own.trusts(bytes(header)) is trusted
    assert not own.trusts(b"")
    assert not own.trusts(b"\xc1")
    assert doors.Wishes().loopback is False


def test_roots_that_one_message_could_not_tell_of() -> None:
    check_roots([Path("/films") / str(number) for number in range(1000)])
    for roots in ([Path("/f")] * 1001, [Path("/" + "f" * 250) / str(n) for n in range(300)]):
        with pytest.raises(BridgeError, match="are too many") as told:
            check_roots(roots)
        assert told.value.code is Code.INVALID
