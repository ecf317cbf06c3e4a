"""Finds the spawner of a process among the processes that are alive."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from exporter.kernel.procfs import Procfs, Stat
from exporter.model.origins import DEEP, MAX_HOPS, UNKNOWN
from exporter.sources.netlink.allowance import ReadAllowance
from exporter.sources.netlink.group import SAME_START_NS, Group


class Ancestors:
    """Each process has its parent at the fork. When that has exited, the kernel has given the process another parent."""

    def __init__(self, alive: Mapping[int, Group], procfs: Procfs, allowance: ReadAllowance, threshold_ns: int) -> None:
        self._alive = alive
        self._procfs = procfs
        self._allowance = allowance
        self._threshold_ns = threshold_ns

    def parent(self, pid: int, born_ns: int) -> Group | None:
        """Return the process with this PID, unless it started after its child: then the PID was reused."""
        parent = self._alive.get(pid)
        return None if parent is None or parent.start_ns - born_ns > SAME_START_NS else parent

    def spawner(self, parent: int, born_ns: int, at_ns: int, comm_of: Callable[[int], bytes]) -> bytes:
        """Return the comm of the nearest ancestor that was older than the threshold at `at_ns`, for a child of `parent` born at `born_ns`.

        It is `UNKNOWN` if an ancestor is not known, for example because its fork was lost.
        """
        pid, each = parent, self.parent(parent, born_ns)
        for _ in range(MAX_HOPS):
            if each is None:
                return UNKNOWN
            if at_ns - each.start_ns >= self._threshold_ns:
                return comm_of(pid)
            child_pid, child = pid, each
            pid, each = child.parent, self.parent(child.parent, child.start_ns)
            if each is None and self._adopted(child_pid, child):
                pid, each = child.parent, self.parent(child.parent, child.start_ns)
        return DEEP

    def _adopted(self, pid: int, group: Group) -> bool:
        """Read the present parent of a process whose parent has exited. Returns whether that succeeds."""
        stat = self._allowance.read(self._procfs.stat, pid)
        if not isinstance(stat, Stat):
            return False
        ahead_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        if abs(stat.start_ticks * self._procfs.tick_ns - ahead_ns - group.start_ns) > SAME_START_NS:
            return False
        group.parent = stat.ppid
        return True
