"""The address to listen on: `HOST:PORT`, `:PORT` (all IPv6 and IPv4 addresses) or `[IPv6]:PORT`."""

from __future__ import annotations

import re
import socket

PATTERN = r"(\[[0-9A-Fa-f:.]+(%[0-9A-Za-z._-]+)?\]|[0-9A-Za-z._-]*):[0-9]{1,5}"
WANTED = "an address: HOST:PORT, :PORT or [IPv6]:PORT"


def split(address: str) -> tuple[str, int]:
    """Return host and port; the host of `:PORT` is empty. Raises `ValueError`."""
    if not re.fullmatch(PATTERN, address):
        raise ValueError(f"{address!r} is not {WANTED}")
    host, _, port = address.rpartition(":")
    if int(port) > 65535:
        raise ValueError("port above 65535")
    return host.strip("[]"), int(port)


def refusal(address: str) -> str | None:
    """Return why a text that matches the pattern is not an address, or None if it is one."""
    try:
        host, _ = split(address)
        if address.startswith("["):
            socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except ValueError:
        return "has a port above 65535"
    except OSError:
        return "has no IPv6 address between its brackets"
    return None
