"""What systemd is told."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.process.sdnotify import Notifier


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket that it listens on, and how it names it: by a path, or in containers by a name without a file."""
    name = f"{tmp_path}/notify" if request.param == "file" else f"@shortproc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(0.2)
        yield listening, name


def test_each_message(systemd: tuple[socket.socket, str]) -> None:
    """In the words of sd_notify(3); a reload carries its time, which Type=notify-reload wants."""
    listening, name = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
    for tell in (notifier.ready, notifier.watchdog, notifier.reloading, notifier.ready, notifier.stopping):
        tell()
    heard = [listening.recv(4096).decode() for _ in range(5)]
    assert [each.split("\n")[0] for each in heard] == ["READY=1", "WATCHDOG=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert heard[2].split("\n")[1].removeprefix("MONOTONIC_USEC=").isdecimal()


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}])
def test_no_watchdog(systemd: tuple[socket.socket, str], watchdog: dict[str, str]) -> None:
    """Nobody waits for it, or for that of another process."""
    listening, name = systemd
    Notifier({"NOTIFY_SOCKET": name, **watchdog}).watchdog()
    with pytest.raises(TimeoutError):
        listening.recv(4096)


def test_children_do_not_speak_for_us() -> None:
    """A handler that finds the socket could say READY, or feed the watchdog of a loop that hangs."""
    environment = {"NOTIFY_SOCKET": "@elsewhere", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Notifier(environment)
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1", "/nowhere/notify", "@nobody-listens", "/" + "long" * 100])
def test_nobody_listens(name: str) -> None:
    """Started by hand, by another supervisor, or with systemd gone: it runs all the same."""
    notifier = Notifier({"NOTIFY_SOCKET": name} if name else {})
    notifier.ready()
    notifier.stopping()


def test_a_full_socket_does_not_hold_us_up(systemd: tuple[socket.socket, str]) -> None:
    """Systemd may be stopped in a debugger; the loop goes on after a second at most."""
    listening, name = systemd
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.sendto(b"x", name.replace("@", "\0"))
    Notifier({"NOTIFY_SOCKET": name}).ready()
    assert listening.recv(4096) == b"x"
