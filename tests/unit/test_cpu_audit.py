"""The CPU audit: it finds lost CPU times, and reports none that come late."""

from __future__ import annotations

from typing import cast

import pytest

from exporter.kernel.procfs import Procfs, Stat
from exporter.model import Lost
from exporter.sources.ebpf.cpu_audit import CpuAudit


class Processes:
    """The part of `Procfs` that the audit uses: exiting processes, by PID and start."""

    def __init__(self) -> None:
        self.exiting: set[tuple[int, int]] = set()
        self.unreadable: set[int] = set()
        self.sees_host = True
        self.listings = 0

    def pids(self) -> list[int]:
        self.listings += 1
        return [1, *(pid for pid, _ in sorted(self.exiting)), *self.unreadable]

    def stat(self, pid: int) -> Stat | Lost:
        if pid in self.unreadable:
            return Lost.VANISHED
        starts = dict(self.exiting)
        return Stat(pid, b"t", b"Z" if pid in starts else b"S", 1, 1, starts.get(pid, 0), 0, exiting=pid in starts)

    def in_initial_pid_namespace(self) -> bool:
        return self.sees_host


@pytest.fixture
def processes() -> Processes:
    return Processes()


@pytest.fixture
def audit(processes: Processes) -> CpuAudit:
    audit = CpuAudit(cast(Procfs, processes))
    audit.begin()
    return audit


def rest(audit: CpuAudit, exits: int, cpu_recorded: int) -> int:
    """Check for half a minute in which nothing changes, and return the loss."""
    for _ in range(30):
        audit.check(exits, cpu_recorded)
    return audit.lost


def test_recorded_cpu_is_not_lost(audit: CpuAudit, processes: Processes) -> None:
    """The usual case does not list `/proc`, which would be expensive."""
    listings = processes.listings
    assert rest(audit, 100, 100) == 0
    assert processes.listings == listings


def test_cpu_that_never_comes_is_lost(audit: CpuAudit) -> None:
    """An exited process without recorded CPU that is not listed any more is a loss."""
    assert rest(audit, 100, 97) == 3


def test_zombies_are_not_lost(audit: CpuAudit, processes: Processes) -> None:
    """The CPU of a zombie is recorded when it is reaped."""
    processes.exiting = {(10, 5), (11, 5)}
    assert rest(audit, 100, 98) == 0
    processes.exiting = {(10, 5)}
    assert rest(audit, 100, 98) == 1
    processes.exiting = set()
    assert rest(audit, 100, 99) == 1


def test_zombies_from_before_the_start_do_not_hide_a_loss(processes: Processes) -> None:
    """Their exits were not counted, so they must not be subtracted."""
    processes.exiting = {(10, 5)}
    audit = CpuAudit(cast(Procfs, processes))
    audit.begin()
    assert rest(audit, 100, 99) == 1


def test_a_pid_that_is_used_again_is_another_process(processes: Processes) -> None:
    """A process is known by its PID and its start."""
    processes.exiting = {(10, 5)}
    audit = CpuAudit(cast(Procfs, processes))
    audit.begin()
    processes.exiting = {(10, 6)}
    assert rest(audit, 100, 99) == 0


def test_cpu_that_comes_late_is_not_lost(audit: CpuAudit) -> None:
    """In a storm some frees are always late, so recorded CPU is compared with the exits of a second ago."""
    for exits in range(0, 100_000, 1000):
        audit.check(exits, max(0, exits - 300))
    assert audit.lost == 0


def test_a_loss_is_not_taken_back(audit: CpuAudit) -> None:
    """The loss is a counter, so it never decreases."""
    assert rest(audit, 100, 97) == 3
    assert rest(audit, 200, 200) == 3
    assert rest(audit, 300, 296) == 4


def test_listings_are_rare(audit: CpuAudit, processes: Processes) -> None:
    """A large `/proc` is expensive to list, so it is listed at most at every tenth check."""
    listings = processes.listings
    for exits in range(100):
        audit.check(1000 + exits, 500)
    assert processes.listings - listings <= 10


def test_a_listing_of_other_processes_says_nothing(audit: CpuAudit, processes: Processes) -> None:
    """In a PID namespace, zombies of the host are not listed, and would all count as lost."""
    processes.sees_host = False
    assert rest(audit, 100, 50) == 0


def test_what_vanishes_while_it_is_listed(audit: CpuAudit, processes: Processes) -> None:
    """A process that vanishes during the listing is not exiting any more."""
    processes.unreadable = {77}
    assert rest(audit, 100, 99) == 1
