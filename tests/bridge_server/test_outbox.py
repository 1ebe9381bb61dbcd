"""Sending to clients that do not read: real sockets, nothing waits, the newest wins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import zmq
import zmq.asyncio

from bridge_server.outbox import Outbox

SIZE = 100_000


def _run(check: Callable[[Outbox, zmq.asyncio.Socket], Awaitable[None]]) -> None:
    async def main() -> None:
        context = zmq.asyncio.Context()
        router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        router.router_mandatory, router.sndhwm, dealer.rcvhwm = 1, 4, 4
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealer.connect(f"tcp://127.0.0.1:{port}")
        await dealer.send(b"hello")
        identity, _ = await router.recv_multipart()
        try:
            await check(Outbox(router, identity), dealer)
        finally:
            context.destroy(linger=0)

    asyncio.run(main())


async def _received(outbox: Outbox, dealer: zmq.asyncio.Socket) -> list[bytes]:
    """Read a message, while the server looks now and then at what waits."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        outbox.flush()
        if await dealer.poll(10):
            return await dealer.recv_multipart()
    raise AssertionError("nothing came")


def _fill(outbox: Outbox) -> None:
    """Send until the socket takes no more."""
    for number in range(400):
        outbox.send([b"%06d" % number, bytes(SIZE)])
        if not outbox.empty:
            return
    raise AssertionError("it took everything")


def test_replies_to_a_slow_client_come_in_order() -> None:
    async def check(outbox: Outbox, dealer: zmq.asyncio.Socket) -> None:
        _fill(outbox)
        for number in range(20):
            outbox.send([b"late %d" % number])
        found: list[bytes] = []
        while not found or found[-1] != b"late 19":
            frames = await _received(outbox, dealer)
            found.append(frames[0])
        assert found == [*sorted(found[:-20]), *(b"late %d" % number for number in range(20))]
        assert outbox.empty

    _run(check)


def test_of_transient_events_the_newest_wins() -> None:
    async def check(outbox: Outbox, dealer: zmq.asyncio.Socket) -> None:
        _fill(outbox)
        begun = time.monotonic()
        for number in range(5000):
            outbox.send_newest("preview", f"job {number % 2}", [b"%d" % number, bytes(SIZE)])
        assert time.monotonic() - begun < 2  # nobody waits for the reader
        found: list[bytes] = []
        while not {b"4998", b"4999"} <= set(found):
            frames = await _received(outbox, dealer)
            if len(frames[0]) < 6:
                found.append(frames[0])
        # What the system's own buffers had taken came first; all else was replaced.
        assert len(found) < 200
        assert outbox.empty

    _run(check)


def test_what_waits_is_bounded() -> None:
    async def check(outbox: Outbox, _dealer: zmq.asyncio.Socket) -> None:
        _fill(outbox)
        for _ in range(3000):
            outbox.send([bytes(SIZE)])
        assert len(outbox._waiting) <= 256
        assert outbox._bytes <= 1 << 27

    _run(check)


def test_a_client_that_is_gone_costs_nothing() -> None:
    async def check(outbox: Outbox, dealer: zmq.asyncio.Socket) -> None:
        _fill(outbox)
        dealer.close(linger=0)
        await asyncio.sleep(0.3)
        outbox.send([b"anybody?"])
        assert outbox.gone
        assert outbox.empty

    _run(check)
