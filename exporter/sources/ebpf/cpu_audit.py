"""Finds out how many ended processes were never charged their CPU.

The kernel frees a process some time after its end: after its parent has reaped it and a grace period has passed. A kernel may not run the
program then (measured: up to 0.4 % of a storm of vforks, on a kernel that runs no program while PID 1 is current, which is whose context
the grace period's end may fall into). What is missing then is ended, not charged, and no longer there:

    ended a second ago - charged by now - still listed as exiting

Each term errs to the low side, so the sum is never too high, and it is right once a quiet second has passed. Its greatest value so far is
what is lost.
"""

from __future__ import annotations

from exporter.kernel.procfs import Procfs
from exporter.model import Lost

_LISTING_EVERY = 10


class CpuAudit:
    """Called about once a second. Looks into `/proc` only when something seems missing, and then at most each tenth time."""

    def __init__(self, procfs: Procfs) -> None:
        self._procfs = procfs
        self._exiting_at_start: set[tuple[int, int]] = set()
        self._last_exits = 0
        self._listing: tuple[int, int] | None = None
        self._calls = 0
        self.lost = 0

    def begin(self) -> None:
        """Note who was exiting before the programs were attached: their frees are nobody's."""
        self._exiting_at_start = self._exiting()

    def check(self, exits: int, cpu_recorded: int) -> None:
        """Take the counts of ended and of charged processes since the start."""
        self._calls += 1
        if self._listing is not None:
            exits_then, exiting_then = self._listing
            self.lost = max(self.lost, exits_then - cpu_recorded - exiting_then)
            self._listing = None
        elif self._last_exits - cpu_recorded > self.lost and self._calls >= _LISTING_EVERY and self._procfs.in_initial_pid_namespace():
            self._calls = 0
            exiting = self._exiting()
            self._exiting_at_start &= exiting
            # they are compared a second later: by then the frees of those who had just been reaped have come
            self._listing = self._last_exits, len(exiting - self._exiting_at_start)
        self._last_exits = exits

    def _exiting(self) -> set[tuple[int, int]]:
        """Processes that are exiting or wait to be reaped, by PID and start."""
        stats = (self._procfs.stat(pid) for pid in self._procfs.pids())
        return {(stat.pid, stat.start_ticks) for stat in stats if not isinstance(stat, Lost) and stat.exiting}
