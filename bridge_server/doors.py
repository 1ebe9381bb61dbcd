"""The server's sockets, who may come in by them, and the file that leads there.

Three doors (PROTOCOL.md, section 2): ipc in a private folder, where there is such a thing; TCP,
always with CURVE; and a loopback address without it, only if the user asked for it, where a token
is shown with every request (`loopback`).
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.utils import z85

from bridge_server import envelope, signpost
from bridge_server.access import LOCAL, Owner
from host_plugins.link import wire
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError, Code

#: Messages that wait for one slow client inside the socket; more wait in its `Outbox`.
_HIGH_WATER = 16
#: Milliseconds between signs of life of a connection, and until it is given up.
_HEARTBEAT = (5000, 20000)
_DOMAIN = b"fresco-bridge"
_IPC = "ipc://"
#: Roots, and bytes of their paths: all are told of in one message.
_MOST_ROOTS, _ROOTS = 1000, 1 << 16
#: Connections that wait to be taken.
_MOST_CLIENTS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Door:
    """A socket, and the mechanism by which its clients are known.

    kind: "ipc" or "curve"
    """

    kind: str
    socket: zmq.asyncio.Socket
    address: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a server is to be reached.

    listen: a TCP address for other machines, as tcp://0.0.0.0:7420; empty: none
    loopback: open the door for clients without CURVE
    clients: CURVE public keys (Z85) that may come in beside the user's own
    roots: folders that files may be in
    """

    listen: str = ""
    loopback: bool = False
    clients: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()


@dataclass(slots=True)
class Doors:
    """All sockets of one server, and the keys.

    shared: the folder of owners other than the user, where no roots were named
    plain: listens for clients without CURVE, if that is wanted
    """

    wishes: Wishes
    keys: tuple[bytes, bytes]
    shared: Path
    own: tuple[bytes, bytes] = field(default_factory=zmq.curve_keypair)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    open: list[Door] = field(default_factory=list[Door])
    plain: socket.socket | None = None
    _authenticator: AsyncioAuthenticator | None = None

    def start(
        self,
        context: zmq.asyncio.Context,
        folder: Path,
        version: str,
        platform: str = sys.platform,
    ) -> Endpoint:
        """Open the sockets; returns what to write into the endpoint file in `folder`.

        Raises:
            BridgeError: an address is taken, or cannot be (unavailable, invalid).
        """
        listen = self.wishes.listen
        if platform == "win32":
            listen = listen or "tcp://127.0.0.1:*"
        else:
            self.open.append(_ipc(context, folder))
        if listen:
            _check_address(listen)
            self._authenticator = AsyncioAuthenticator(context)
            self._authenticator.start()
            self._authenticator.configure_curve_callback(_DOMAIN.decode(), self)
            self.open.append(_bound(context, "curve", listen, self.keys))
        if self.wishes.loopback:
            self.plain = socket.create_server(("127.0.0.1", 0))
        return self._endpoint(version)

    @property
    def abroad(self) -> str:
        """The address for other machines; empty if there is none."""
        return next((door.address for door in self.open if door.kind == "curve"), "")

    def stop(self) -> None:
        """Close the sockets. What waits in them has half a second to leave."""
        for door in self.open:
            door.socket.close(linger=500)
            if door.kind == "ipc":
                Path(door.address.removeprefix(_IPC)).unlink(missing_ok=True)
        if self.plain is not None:
            self.plain.close()
        if self._authenticator is not None:
            self._authenticator.stop()

    def callback(self, _domain: str, key: bytes) -> bool:
        """Say whether a CURVE key may come in; asked by the authenticator."""
        return key == self.own[0] or key.decode("ascii") in self.wishes.clients

    def sender(self, door: Door | None, last: zmq.Frame | None) -> str:
        """Return the name of who sent a message.

        door: where it came in; None: at the loopback endpoint; last: one of its frames
        """
        if door is None or last is None or door.kind != "curve":
            return LOCAL
        key = str(last.get("User-Id"))
        return LOCAL if key == self.own[0].decode() else key

    def named(self, owner: str) -> Owner:
        """Return an owner by the name that its jobs have."""
        if owner == LOCAL:
            return Owner(LOCAL, self.wishes.roots)
        return Owner(owner, self.wishes.roots or (self.shared.resolve(),))

    def trusts(self, header: bytes) -> bool:
        """Whether a request at the loopback endpoint shows the token."""
        shown = envelope.request_token([header])
        return hmac.compare_digest(shown.encode(), self.token.encode())

    def _endpoint(self, version: str) -> Endpoint:
        by_kind = {door.kind: door.address for door in self.open}
        loopback = f"tcp://127.0.0.1:{self.plain.getsockname()[1]}" if self.plain else ""
        plain = Endpoint(
            address=by_kind.get("ipc", ""),
            pid=os.getpid(),
            loopback=loopback,
            token=self.token if loopback else "",
            version=version,
            major=wire.MAJOR,
            minor=wire.MINOR,
        )
        if plain.address:
            return plain
        return replace(
            plain,
            address=by_kind["curve"],
            server_key=self.keys[0].decode(),
            public_key=self.own[0].decode(),
            secret_key=self.own[1].decode(),
        )


def kept_keys(file: Path) -> tuple[bytes, bytes]:
    """Read the server's CURVE keys, public and secret; make them at the first time.

    They stay, because other machines know the public one. A file that holds none is written anew.
    """
    with suppress(BridgeError, OSError, ValueError, KeyError, TypeError, AttributeError):
        told = json.loads(file.read_text(encoding="ascii"))
        public, secret = told["public"].encode(), told["secret"].encode()
        check_keys([told["public"], told["secret"]])
        if zmq.curve_public(secret) == public:
            file.chmod(0o600)
            return public, secret
    public, secret = zmq.curve_keypair()
    part = file.with_suffix(f".{os.getpid()}")
    part.unlink(missing_ok=True)  # of a killed server that had the same number
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as out:
        json.dump({"public": public.decode(), "secret": secret.decode()}, out)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, file)
    return public, secret


def check_keys(keys: Sequence[str]) -> None:
    """Check keys of clients.

    Raises:
        BridgeError: one is no CURVE key (invalid).
    """
    for key in keys:
        try:
            good = len(z85.decode(key)) == 32
        except (ValueError, KeyError):
            good = False
        if not good:
            raise BridgeError(Code.INVALID, f"{key!r} is no CURVE key", "it has 40 characters")


def check_roots(roots: Sequence[Path]) -> None:
    """Check folders that files may be in.

    Raises:
        BridgeError: there are more than a client can be told of (invalid).
    """
    size = sum(len(os.fsencode(root)) for root in roots)
    if size > _ROOTS or len(roots) > _MOST_ROOTS:
        raise BridgeError(
            Code.INVALID, f"{len(roots)} roots with names of {size} bytes are too many",
            f"name a folder that they are in; {_MOST_ROOTS} roots and {_ROOTS} bytes are allowed",
        )  # fmt: skip


def _ipc(context: zmq.asyncio.Context, folder: Path) -> Door:
    address = signpost.socket_address(signpost.private_folder(folder))
    # What a killed server left: this one holds the lock, so nobody else listens there.
    Path(address.removeprefix(_IPC)).unlink(missing_ok=True)
    return _bound(context, "ipc", address)


def _check_address(address: str) -> None:
    """Refuse what is no address. Raises BridgeError (invalid)."""
    match = re.fullmatch(r"tcp://[^/]+:(\*|\d{1,5})", address)
    # libzmq takes port 65537 for 1.
    if match is None or (match[1] != "*" and int(match[1]) > 65535):
        raise BridgeError(
            Code.INVALID, f"{address!r} is no address", "write it as tcp://0.0.0.0:7420"
        )


def _bound(
    context: zmq.asyncio.Context, kind: str, address: str, keys: tuple[bytes, bytes] | None = None
) -> Door:
    made = context.socket(zmq.ROUTER)
    made.router_mandatory = 1
    made.linger = 0
    made.sndhwm, made.rcvhwm = _HIGH_WATER, 64
    made.maxmsgsize = wire.LIMITS.payload
    made.heartbeat_ivl, made.heartbeat_timeout = _HEARTBEAT
    made.setsockopt(zmq.BACKLOG, _MOST_CLIENTS)
    if keys is not None:
        made.curve_server = 1
        made.curve_publickey, made.curve_secretkey = keys
        made.zap_domain = _DOMAIN
    try:
        made.bind(address)
    except (zmq.ZMQError, OverflowError) as error:
        made.close()
        raise BridgeError(
            Code.UNAVAILABLE, f"{address} cannot be listened at: {error}", "choose another address"
        ) from error
    bound = made.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return Door(kind, made, bound.rstrip(b"\0").decode())
