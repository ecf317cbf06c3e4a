"""Tells systemd how it goes: the protocol of sd_notify(3), without its library. Where nobody asked (no NOTIFY_SOCKET), nothing is sent."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_TIMEOUT_SECONDS = 1.0
"""Longest that a message may hold up the supervising loop."""


class Notifier:
    """One message a call; none ever raises. It takes its variables out of the environment: what this process starts has nothing to tell."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        is_our_pid = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watched = environment.pop("WATCHDOG_USEC", "") not in ("", "0") and is_our_pid
        if address.startswith("@"):  # an abstract socket
            address = f"\0{address[1:]}"
        self._address = address if address.startswith(("/", "\0")) else ""

    def ready(self) -> None:
        """It serves, and a source runs; also after a reload."""
        self._send("READY=1")

    def watchdog(self) -> None:
        """The supervising loop went round."""
        if self._watched:
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is read again; `ready` has to follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It begins to end."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(_TIMEOUT_SECONDS)
            sock.sendto(message.encode(), self._address)
