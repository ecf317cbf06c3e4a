"""The thread that reads records, if it cannot start, or if publishing fails."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from exporter.kernel.cgroups import Cgroups
from exporter.kernel.netlink_sockets import Sockets
from exporter.kernel.proc_connector import Subscription
from exporter.kernel.procfs import Procfs
from exporter.model import NS, Mode, ModeUnavailable, RuntimeScale
from exporter.sources.ebpf.lineages import Lineages
from exporter.sources.ebpf.record_reader import RecordReader
from exporter.sources.netlink.source import NetlinkSource
from exporter.sources.scan.slow import ScanSource

SCALE = RuntimeScale(NS, (NS,))


class Nothing:
    """A buffer without records."""

    lost = 0
    join = None
    wakes_when_full = False
    exes_lost = 0
    lineages = Lineages()

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def pop(self) -> list[tuple[Any, ...]]:
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """No new thread can start, as at the limit of threads."""

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_without_a_thread_there_are_no_records(no_threads: None) -> None:
    """Without the thread there are no records; counters are unaffected, and no descriptor leaks."""
    before = descriptors()
    with pytest.raises(OSError, match="can't start new thread"):
        RecordReader(Nothing(), Cgroups(""), Mode.EBPF_CORE, lambda _: None, live=True)
    assert descriptors() == before


def test_without_a_thread_a_mode_can_not_run(no_threads: None) -> None:
    """A thread that cannot start makes a mode unavailable, and its sockets are closed."""
    before = descriptors()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        sockets = Sockets(Subscription(ours, 0, filtered=True), None, "")
        for source in (NetlinkSource(SCALE, Procfs(), lambda: sockets), ScanSource(SCALE, Procfs(), NS)):
            with pytest.raises(ModeUnavailable, match="cannot start another process or thread"):
                source.start()
            source.stop()
    assert descriptors() == before
