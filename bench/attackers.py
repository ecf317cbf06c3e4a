"""Clients that do everything a server on loopback has to bear, all at once: `python -m bench.attackers PORT SECONDS`.

Each kind has a fixed number of clients, and each client rests a little between its connections. So an attack has a bounded rate, and
does not measure who gets the processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

LARGEST = "/api/v1/short-processes?limit=100000"
_PATHS = ("/metrics", "/", LARGEST, "/api/v1/busiest?limit=100", "/-/healthy", "/nothing")
_BREAK_SECONDS = 0.05
_SLOW_SECONDS = 0.2
_CHUNK = 256 * 1024

_numbers = itertools.count()
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close(2) send RST."""


def _request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n".encode()


def _path() -> str:
    return _PATHS[next(_numbers) % len(_PATHS)]


def _of_its_own() -> str:
    """Return a query whose answer no other client can share."""
    return f"{LARGEST}&since={next(_numbers)}"


class _Client:
    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock = sock
        self.until = until
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def receive(self) -> bytes:
        return await self._loop.sock_recv(self.sock, _CHUNK)

    async def rest(self, seconds: float = _BREAK_SECONDS) -> None:
        await asyncio.sleep(min(seconds, max(0.0, self.until - time.monotonic())))


async def _silent(client: _Client) -> None:
    await client.receive()


async def _slow(client: _Client) -> None:
    for byte in _request(_path()):
        await client.send(bytes([byte]))
        await client.rest(_SLOW_SECONDS)
    await client.receive()


async def _half_closed(client: _Client) -> None:
    whole = _request(_path())
    await client.send(whole[: next(_numbers) % 2 * 20 or len(whole)])
    client.sock.shutdown(socket.SHUT_WR)
    while await client.receive():
        pass


async def _resetting(client: _Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    await client.send(_request(_path()))
    if next(_numbers) % 2:
        await client.receive()


async def _never_reading(client: _Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await client.send(_request(_of_its_own() if next(_numbers) % 2 else "/metrics"))
    await client.rest(5)


async def _pipelining(client: _Client) -> None:
    await client.send(b"".join(_request(_path()) for _ in range(100)))
    while await client.receive():
        pass


async def _largest(client: _Client) -> None:
    await client.send(_request(_of_its_own() if next(_numbers) % 2 else LARGEST).replace(b"HTTP/1.1", b"HTTP/1.0"))
    while await client.receive():
        pass


KINDS: dict[Callable[[_Client], Awaitable[None]], int] = {
    _silent: 100,
    _slow: 40,
    _half_closed: 20,
    _resetting: 10,
    _never_reading: 40,
    _pipelining: 10,
    _largest: 16,
}
"""How many clients there are of each kind."""


async def _one(kind: Callable[[_Client], Awaitable[None]], port: int, until: float, done: Counter[str]) -> None:
    loop = asyncio.get_running_loop()
    while (left := until - time.monotonic()) > 0:
        with contextlib.closing(socket.socket()) as sock, contextlib.suppress(OSError, TimeoutError):
            sock.setblocking(False)
            async with asyncio.timeout(left):
                await loop.sock_connect(sock, ("127.0.0.1", port))
                await kind(_Client(sock, until))
        done[kind.__name__.strip("_")] += 1
        await asyncio.sleep(_BREAK_SECONDS)


async def attack(port: int, seconds: float) -> Counter[str]:
    """Attack until the time is up. Returns how many connections there were of each kind."""
    until = time.monotonic() + seconds
    done: Counter[str] = Counter()
    await asyncio.gather(*(_one(kind, port, until, done) for kind, number in KINDS.items() for _ in range(number)))
    return done


if __name__ == "__main__":
    print(json.dumps(asyncio.run(attack(int(sys.argv[1]), float(sys.argv[2])))))
