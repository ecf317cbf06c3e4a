"""Finds out how many ended processes were never charged their CPU.

The kernel frees a process some time after its end: after its parent has reaped it and a grace period has passed. A kernel may not run the
program then (measured: up to 0.4 % of a storm of vforks, on a kernel that runs no program while PID 1 is current, which is whose context
the grace period's end may fall into). What is missing then is ended, not charged, and no longer there:

    ended a second ago - charged by now - still listed as ending

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
        self._before: set[tuple[int, int]] = set()
        self._earlier = 0
        self._listed: tuple[int, int] | None = None
        self._calls = 0
        self.lost = 0

    def begin(self) -> None:
        """Note who was ending before the programs were attached: their frees are nobody's."""
        self._before = self._ending()

    def check(self, ended: int, charged: int) -> None:
        """Take the counts of ended and of charged processes since the start."""
        self._calls += 1
        if self._listed is not None:
            ended_then, ending_then = self._listed
            self.lost = max(self.lost, ended_then - charged - ending_then)
            self._listed = None
        elif self._earlier - charged > self.lost and self._calls >= _LISTING_EVERY and self._procfs.in_initial_pid_namespace():
            self._calls = 0
            ending = self._ending()
            self._before &= ending
            # they are compared a second later: by then the frees of those who had just been reaped have come
            self._listed = self._earlier, len(ending - self._before)
        self._earlier = ended

    def _ending(self) -> set[tuple[int, int]]:
        """Processes that are ending or wait to be reaped, by PID and start."""
        stats = (self._procfs.stat(pid) for pid in self._procfs.pids())
        return {(stat.pid, stat.start_ticks) for stat in stats if not isinstance(stat, Lost) and stat.exiting}
