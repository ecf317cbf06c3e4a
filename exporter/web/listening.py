"""The listening socket."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv6Address

from exporter.config.address import split

_BACKLOG = 512
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def listen(address: str) -> socket.socket:
    """Return a listening socket. Raises `OSError`; see `bind_error_message`."""
    host, port = split(address)
    if not host:
        try:
            return _bound(socket.AF_INET6, ("::", port))
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
        return _bound(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - `:PORT` means all addresses
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    if family == socket.AF_INET6 and (mapped := IPv6Address(where[0]).ipv4_mapped) is not None:  # needs an IPv4 socket
        return _bound(socket.AF_INET, (str(mapped), port))
    return _bound(family, where)


def bind_error_message(address: str, error: OSError) -> str:
    """Return a message of one line: what failed, the address, and what to do."""
    reason = (error.strerror or str(error)).lower()
    if error.errno == errno.EADDRINUSE:
        reason += f" (ss -ltnp 'sport = :{split(address)[1]}' shows by what)"
    elif error.errno == errno.EACCES:
        reason += " (ports below 1024 need CAP_NET_BIND_SERVICE)"
    return f"cannot listen on {address}: {reason}; choose another address with --web.listen-address"


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
