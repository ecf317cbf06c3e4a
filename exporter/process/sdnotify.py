"""Notifies systemd of the state of the service: the protocol of sd_notify(3), without its library."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_TIMEOUT_SECONDS = 1.0
"""How long a message may block the main thread."""


class Notifier:
    """Sends one message for each call. Does nothing without NOTIFY_SOCKET, and never raises.

    The variables are removed from the environment, so children cannot send messages.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        is_our_pid = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watched = environment.pop("WATCHDOG_USEC", "") not in ("", "0") and is_our_pid
        if address.startswith("@"):  # an abstract socket
            address = f"\0{address[1:]}"
        self._address = address if address.startswith(("/", "\0")) else ""

    def ready(self) -> None:
        """Notify that the exporter is ready, after its start or a reload."""
        self._send("READY=1")

    def watchdog(self) -> None:
        """Reset the watchdog, if it is enabled."""
        if self._watched:
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Notify that a reload begins. Call `ready` after it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Notify that the exporter stops."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(_TIMEOUT_SECONDS)
            sock.connect(self._address)  # else to wait for room would take all CPU: the kernel tells of it only to who is connected
            sock.send(message.encode())
