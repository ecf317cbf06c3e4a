"""Which ended processes were never charged their CPU, found out without a false alarm."""

from __future__ import annotations

from typing import cast

import pytest

from exporter.kernel.procfs import Procfs, Stat
from exporter.model import Lost
from exporter.sources.ebpf.cpu_audit import CpuAudit


class Processes:
    """As much of `Procfs` as the audit uses: who is ending, by PID and start."""

    def __init__(self) -> None:
        self.ending: set[tuple[int, int]] = set()
        self.unreadable: set[int] = set()
        self.sees_host = True
        self.listings = 0

    def pids(self) -> list[int]:
        self.listings += 1
        return [1, *(pid for pid, _ in sorted(self.ending)), *self.unreadable]

    def stat(self, pid: int) -> Stat | Lost:
        if pid in self.unreadable:
            return Lost.VANISHED
        starts = dict(self.ending)
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


def rest(audit: CpuAudit, ended: int, charged: int) -> int:
    """Half a minute in which nothing changes; returns what is known to be lost after it."""
    for _ in range(30):
        audit.check(ended, charged)
    return audit.lost


def test_what_was_charged_is_not_lost(audit: CpuAudit, processes: Processes) -> None:
    """The usual case, and it costs no look into /proc."""
    listings = processes.listings
    assert rest(audit, 100, 100) == 0
    assert processes.listings == listings


def test_what_never_came_is_lost(audit: CpuAudit) -> None:
    """Ended, not charged, and not listed any more."""
    assert rest(audit, 100, 97) == 3


def test_zombies_are_not_lost(audit: CpuAudit, processes: Processes) -> None:
    """Their CPU comes when they are reaped."""
    processes.ending = {(10, 5), (11, 5)}
    assert rest(audit, 100, 98) == 0
    processes.ending = {(10, 5)}
    assert rest(audit, 100, 98) == 1
    processes.ending = set()
    assert rest(audit, 100, 99) == 1


def test_zombies_from_before_the_start_do_not_hide_a_loss(processes: Processes) -> None:
    """Their end was not counted, so they are no explanation."""
    processes.ending = {(10, 5)}
    audit = CpuAudit(cast(Procfs, processes))
    audit.begin()
    assert rest(audit, 100, 99) == 1


def test_a_pid_that_is_used_again_is_another_process(processes: Processes) -> None:
    """A process is known by its PID and its start."""
    processes.ending = {(10, 5)}
    audit = CpuAudit(cast(Procfs, processes))
    audit.begin()
    processes.ending = {(10, 6)}
    assert rest(audit, 100, 99) == 0


def test_charges_that_come_late_are_no_loss(audit: CpuAudit) -> None:
    """In a storm there are always some under way; they are compared with who ended a second earlier."""
    for ended in range(0, 100_000, 1000):
        audit.check(ended, max(0, ended - 300))
    assert audit.lost == 0


def test_a_loss_is_not_taken_back(audit: CpuAudit) -> None:
    """It is a counter."""
    assert rest(audit, 100, 97) == 3
    assert rest(audit, 200, 200) == 3
    assert rest(audit, 300, 296) == 4


def test_looks_are_rare(audit: CpuAudit, processes: Processes) -> None:
    """At most each tenth time, for a listing of a large /proc is not free."""
    listings = processes.listings
    for ended in range(100):
        audit.check(1000 + ended, 500)
    assert processes.listings - listings <= 10


def test_a_listing_of_other_processes_says_nothing(audit: CpuAudit, processes: Processes) -> None:
    """In a pid namespace zombies elsewhere are not listed, and would all look lost."""
    processes.sees_host = False
    assert rest(audit, 100, 50) == 0


def test_what_vanishes_while_it_is_listed(audit: CpuAudit, processes: Processes) -> None:
    """It is not ending any more."""
    processes.unreadable = {77}
    assert rest(audit, 100, 99) == 1
