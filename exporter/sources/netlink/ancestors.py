"""Finds the spawner of a process, and its other ancestors, among the processes that are alive."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from exporter.kernel.procfs import Procfs, Stat
from exporter.model import NS
from exporter.model.origins import DEEP, MAX_ABOVE, MAX_HOPS, UNKNOWN, Lineage
from exporter.sources.netlink.allowance import ReadAllowance
from exporter.sources.netlink.group import SAME_START_NS, Group

_ABOVE_NS = NS
_MOST_KNOWN = 1024
_NOTHING: tuple[Group | None, int, Lineage] = None, 0, ()


class Ancestors:
    """Each process has its parent at the fork. When that has exited, the kernel has given the process another parent."""

    def __init__(self, alive: Mapping[int, Group], procfs: Procfs, allowance: ReadAllowance, threshold_ns: int) -> None:
        self._alive = alive
        self._procfs = procfs
        self._allowance = allowance
        self._threshold_ns = threshold_ns
        self._known: dict[int, tuple[Group | None, int, Lineage]] = {}

    def parent(self, pid: int, born_ns: int) -> Group | None:
        """Return the process with this PID, unless it started after its child: then the PID was reused."""
        parent = self._alive.get(pid)
        return None if parent is None or parent.start_ns - born_ns > SAME_START_NS else parent

    def of(self, parent: int, born_ns: int, at_ns: int, comm_of: Callable[[int], bytes]) -> tuple[bytes, Lineage]:
        """Return the spawner and the lineage at `at_ns` of a child of `parent` that was born at `born_ns`.

        The spawner is the nearest ancestor that was older than the threshold; `UNKNOWN` if an ancestor before it is not known, for example
        because its fork was lost.
        """
        names: list[bytes] = []
        pid, each = parent, self.parent(parent, born_ns)
        while each is not None and len(names) < MAX_HOPS:
            names.append(comm_of(pid))
            if at_ns - each.start_ns >= self._threshold_ns:
                return names[-1], (*self._above(pid, each, at_ns, comm_of), *reversed(names))
            pid, each = self._next(pid, each)
        end = DEEP if len(names) == MAX_HOPS else UNKNOWN
        return end, (end, *reversed(names))

    def _above(self, spawner: int, group: Group, at_ns: int, comm_of: Callable[[int], bytes]) -> Lineage:
        """Return the ancestors of a spawner, at most `_ABOVE_NS` old: it has many descendants."""
        of, read_ns, known = self._known.get(spawner, _NOTHING)
        if of is group and at_ns - read_ns < _ABOVE_NS:
            return known
        names: list[bytes] = []
        pid, each = spawner, group
        while each.parent and len(names) < MAX_ABOVE:
            pid, above = self._next(pid, each)
            if above is None:
                break
            names.append(comm_of(pid))
            each = above
        if each.parent:
            names.append(DEEP if len(names) == MAX_ABOVE else UNKNOWN)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        found = tuple(reversed(names))
        self._known[spawner] = group, at_ns, found
        return found

    def _next(self, pid: int, group: Group) -> tuple[int, Group | None]:
        """Return the parent of a process, and its PID."""
        parent = self.parent(group.parent, group.start_ns)
        if parent is None and self._adopted(pid, group):
            parent = self.parent(group.parent, group.start_ns)
        return group.parent, parent

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
