"""The address that the server listens on: `HOST:PORT`, `:PORT` (every address, IPv6 and IPv4) or `[IPv6]:PORT`."""

from __future__ import annotations

import errno
import re
import socket

PATTERN = r"(\[[0-9A-Fa-f:.]+(%[0-9A-Za-z._-]+)?\]|[0-9A-Za-z._-]*):[0-9]{1,5}"
WANTED = "an address as HOST:PORT, :PORT or [IPv6]:PORT"

_BACKLOG = 512
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def split(address: str) -> tuple[str, int]:
    """Split into host and port; the host of `:PORT` is empty."""
    if not re.fullmatch(PATTERN, address):
        raise ValueError(f"{address!r} is not {WANTED}")
    host, _, port = address.rpartition(":")
    if int(port) > 65535:
        raise ValueError("port above 65535")
    return host.strip("[]"), int(port)


def refusal(address: str) -> str | None:
    """Say why text that fits the pattern is no address all the same, or nothing."""
    try:
        host, _ = split(address)
        if address.startswith("["):
            socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except ValueError:
        return "has a port above 65535"
    except OSError:
        return "has no IPv6 address between its brackets"
    return None


def listen(address: str) -> socket.socket:
    """Open the listening socket; raises `OSError`, which `wording` puts in words."""
    host, port = split(address)
    if not host:
        try:
            return _bound(socket.AF_INET6, ("::", port))
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
        return _bound(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - what `:PORT` means
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return _bound(family, where)


def wording(address: str, error: OSError) -> str:
    """One line for a person who can't be listened to."""
    reason = error.strerror or str(error)
    return f"cannot listen on {address}: {reason[:1].lower()}{reason[1:]}"


def _bound(family: int, where: tuple[str | int, ...] | tuple[int, bytes]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
        sock.bind(where)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
