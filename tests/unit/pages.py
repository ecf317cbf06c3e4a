"""The exporter's pages over snapshots and records made by hand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from exporter.config.options import Config
from exporter.model import Mode, Outcome
from exporter.model.activity import Standing
from exporter.model.dimensions import COMM, PARENT, SPAWNER, Dimension
from exporter.model.series import Row
from exporter.records.hub import Hub
from exporter.records.record import Record
from exporter.supervision.reload import LastReload
from exporter.supervision.snapshot import Pulse, Snapshot
from exporter.supervision.supervisor import Supervisor
from exporter.web.limits import Limits
from exporter.web.pages import Pages
from exporter.web.server import Server

SECOND = 1_700_000_000_000_000_000
HOSTILE = [
    b"<script>x",
    b"<img src=x>",
    b"\xff\xfe\x00\n\r",
    b"\x1b[31mred\x1b[0m",
    b"a\"b'c\\d&amp;",
    "\u202egnp.exe".encode(),
    b"data: x\n\nevent",
    b"</script>",
]
"""Names that somebody chose who means no good."""


def record(number: int = 0, comm: bytes = b"cc1", outcome: Outcome = Outcome.OK, code: int | None = 0, **other: Any) -> Record:
    """One that ended `number` milliseconds after a certain second."""
    plain = Record(
        ended_ns=SECOND + number * 1_000_000,
        runtime_ns=812_345,
        pid=1000 + number,
        ppid=1,
        uid=0,
        comm=comm,
        parent_comm=b"make",
        exe=b"/usr/bin/" + comm,
        outcome=outcome,
        code=code,
        cpu_ns=300_000,
        cgroup=b"/system.slice/build.service",
        mode=Mode.EBPF_CORE,
        spawner=b"runner",
        user="root",
        owner_kind="service",
        unit="build.service",
    )
    return plain._replace(**other)


def standing(named: list[Row], others: list[Row] | None = None) -> Standing[bytes]:
    """Everything was in the last minutes."""
    counts = {row.labels[0].encode(): row.counts for row in (*named, *(others or []))}
    names = [row.labels[0].encode() for row in named]
    return Standing(counts, names, names, latest=counts)


class FakeSupervisor(Supervisor):
    """Shows whatever snapshot it holds."""

    def __init__(self, shown: Snapshot, standings: dict[Dimension[Any], Standing[Any]] | None = None) -> None:
        self.shown = shown
        self.shown_standings = standings

    def snapshot(self) -> Snapshot:
        return self.shown

    def pulse(self) -> Pulse:
        return Pulse(self.shown.gauges.short_exits, 0)

    @property
    def ready(self) -> bool:
        return True

    def stuck(self) -> str | None:
        return None

    def standings(self) -> dict[Dimension[Any], Standing[Any]]:
        if self.shown_standings is not None:
            return self.shown_standings
        return {dimension: standing(rows[:-1]) for dimension, rows in self.shown.view.rows.items() if dimension in {COMM, PARENT, SPAWNER}}

    def change(self, **fields: Any) -> None:
        self.shown = replace(self.shown, **fields)


class Served(NamedTuple):
    url: str
    supervisor: FakeSupervisor
    server: Server
    pages: Pages


@contextlib.contextmanager
def served(shown: Snapshot, hub: Hub, public_records: bool = False, limits: Limits | None = None) -> Iterator[Served]:
    """A server that runs."""
    supervisor = FakeSupervisor(shown)
    pages = Pages(Config(), supervisor, LastReload(), hub)
    server = Server("127.0.0.1:0", "/metrics", pages, public_records, limits)
    server.start()
    try:
        yield Served(f"http://127.0.0.1:{server.port}", supervisor, server, pages)
    finally:
        server.close()


def soon(seconds: float = 20.0) -> Iterator[None]:
    """Until the time is up, again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.02)
    raise AssertionError("it never happened")
