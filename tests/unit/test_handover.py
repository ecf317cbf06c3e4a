"""What a loader's child may do wrong, and what may be short here: one sentence comes of it, and no descriptor stays."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.loaders.handover import receive, run, send
from exporter.model import ModeUnavailable

ANSWERS = """
import array, os, socket, sys, time
ours = socket.socket(fileno=int(sys.argv[1]))
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [os.memfd_create("map")]))]
"""


def run_child(code: str, timeout: float = 5) -> None:
    run([sys.executable, "-I", "-c", ANSWERS + code], {}, timeout=timeout, on_log=lambda line: None)


def mine() -> set[str]:
    """What is open here."""
    paths = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            paths.add(str(each.readlink()))
    return paths


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    "code",
    [
        "ours.sendmsg([b'+'], rights)",
        "ours.sendmsg([b'+'], rights); time.sleep(9)",
        "ours.sendmsg([b'{}'], rights); time.sleep(9)",
    ],
    ids=["it dies in mid-answer", "it stops in mid-answer", "it answers and does not end"],
)
def test_nothing_stays_of_a_child_that_fails(code: str) -> None:
    """A link among it would be a program that runs for ever, and that nobody knows of."""
    with pytest.raises(ModeUnavailable, match="the loader"):
        run_child(code, timeout=0.5)
    assert not {each for each in mine() if "memfd:map" in each}


def test_no_child_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of processes a retry must not end the exporter, nor the process that keeps the privileges."""

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(ModeUnavailable, match="cannot start another process or thread"):
        run_child("")


def test_no_descriptor_is_left(pair: tuple[socket.socket, socket.socket]) -> None:
    """The kernel then leaves out what finds no room: less than all is nothing."""
    ours, theirs = pair
    some = [os.memfd_create("map") for _ in range(8)]
    send(theirs, b"{}", some)
    for fd in some:
        os.close(fd)
    lowest = min(some)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 3, hard))
    try:
        with pytest.raises(OSError, match="open files"):
            receive(ours, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not {each for each in mine() if "memfd:map" in each}
    send(theirs, b"next", [])
    assert receive(ours, 5) == (b"next", [])
