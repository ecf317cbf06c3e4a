"""Programs under names of their own, so that nothing else on the machine can be mistaken for them, and a source that watches them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from exporter.kernel.attached import Handover
from exporter.kernel.event_layout import EVENTS_BYTES
from exporter.kernel.layout import RECORDS_OFF
from exporter.kernel.procfs import Procfs
from exporter.loaders.core import load_core
from exporter.model import NS, Mode, RuntimeScale, SourceFailed
from exporter.model.counts import Counts, ProcessCounts
from exporter.model.dimensions import COMM
from exporter.model.events import NO_EVENTS, WantedEvents
from exporter.model.failures import FailedStarts
from exporter.model.lifetimes import COARSE
from exporter.sources.ebpf import source as ebpf
from exporter.sources.ebpf.cpu_audit import CpuAudit
from exporter.sources.ebpf.source import EbpfSource

T = TypeVar("T")

MS = NS // 1000
SCALE = RuntimeScale(threshold_ns=NS, bounds_ns=(MS, 20 * MS, 100 * MS, NS), per_comm_buckets=True, lifetimes=COARSE)
SLOW = replace(SCALE, threshold_ns=600 * NS)
"""Every process counts as short, however slow the machine."""
WAIT_SECONDS = 10
LOAD_SECONDS = float(os.environ.get("LOAD_SECONDS", "60"))
"""Emulated machines need more."""

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and the CPU that the kernel charged for it and for the children it waited for."""

    status: int
    cpu_ns: int


@dataclass(frozen=True, slots=True)
class Program:
    """An executable whose name is unique on the machine."""

    path: Path

    @classmethod
    def copied(cls, original: Path, folder: Path) -> Program:
        path = folder / f"t{next(_numbers)}-{os.getpid()}"
        shutil.copy(original, path)
        return cls(path)

    @property
    def comm(self) -> bytes:
        return self.path.name.encode()

    def start(self, *arguments: object) -> int:
        """Start it with its output thrown away; returns the PID."""
        silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        return os.posix_spawn(self.path, [str(self.path), *map(str, arguments)], os.environ, file_actions=silent)

    def run(self, *arguments: object) -> Ended:
        """Run it to its end."""
        return ended(self.start(*arguments))

    def storm(self, *arguments: object) -> Ended:
        """Run it, and expect success."""
        result = self.run(*arguments)
        assert result.status == 0, result
        return result


def ended(pid: int) -> Ended:
    """Wait for a child."""
    _, status, usage = os.wait4(pid, 0)
    return Ended(status, round((usage.ru_utime + usage.ru_stime) * NS))


@contextmanager
def watching(
    scale: RuntimeScale = SCALE,
    *,
    by_origin: bool = True,
    arguments: bool = False,
    comms: int = 0,
    failed_starts: FailedStarts = FailedStarts.NEVER,
    wanted_events: WantedEvents = NO_EVENTS,
    event_bytes: int = EVENTS_BYTES,
    force_guard: bool = False,
    several_copies: bool | None = None,
    standby: bool = False,
) -> Iterator[EbpfSource]:
    """Attach the programs for a while. Those for failed starts are left out: where they are forbidden, trying takes time in each test."""
    log: list[str] = []

    def load() -> Handover:
        return load_core(
            scale,
            log.append,
            by_origin=by_origin,
            arguments=arguments,
            comms=comms,
            failed_starts=failed_starts,
            wanted_events=wanted_events,
            event_bytes=event_bytes,
            force_guard=force_guard,
            several_copies=several_copies,
            timeout=LOAD_SECONDS,
        )

    with attached(Mode.EBPF_CORE, scale, load, standby=standby) as source:
        yield source


@contextmanager
def attached(mode: Mode, scale: RuntimeScale, load: Callable[[], Handover], *, standby: bool) -> Iterator[EbpfSource]:
    """Watch through loaded programs for a while."""
    procfs = Procfs()
    source = EbpfSource(mode, scale, load, CpuAudit(procfs))
    try:
        with started(source, standby=standby):
            yield source
    finally:
        procfs.close()


@contextmanager
def started(source: EbpfSource, *, standby: bool = False) -> Iterator[None]:
    """Have it run for a while, and leave nothing of it."""
    source.start(standby=standby)
    try:
        yield
    finally:
        source.stop()
        with contextlib.suppress(SourceFailed):  # the test has done it
            source.drain()


def renewed(source: EbpfSource) -> EbpfSource:
    """One that runs, with its maps empty and nobody who reads its records: to attach anew takes longer than most tests."""
    source._update_control(records=RECORDS_OFF)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ebpf, "_DRAIN_EVERY_NS", 0)
        for _ in range(2):
            source.swap_maps({})
            source.drain()
    if source._records is not None:
        source._records.stop()
        source._records = None
    source.origins()
    return source


def until(look: Callable[[], T], holds: Callable[[T], bool], seconds: float = WAIT_SECONDS) -> T:
    """Look again until it is so, or for long enough."""
    end = time.monotonic() + seconds
    while not holds(seen := look()) and time.monotonic() < end:
        time.sleep(0.02)
    return seen


def descriptors() -> list[str]:
    """The open ones of this process; the listing's own is always the same."""
    return sorted(each.name for each in Path("/proc/self/fd").iterdir())


def named(counts: Counts) -> ProcessCounts:
    """What is counted by comm and under `other`, added up."""
    whole = counts.of(COMM).other.copy()
    for each in counts.of(COMM).rows.values():
        whole.add(each)
    return whole
