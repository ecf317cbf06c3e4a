"""What is read of processes soon after an exec: their cgroups, and perhaps their arguments.

The cgroup of a process is that of the parent at the fork, corrected by reads of `/proc`.

A process starts in the cgroup of its parent. Service managers and container runtimes move it before its last exec, so after an exec its
cgroup is read, if it still runs. Few short processes move. So those that can't be read in time mostly have the right cgroup, too, if that
of their parent is right: it is read again when it starts processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from exporter.kernel.process_cgroups import ProcessCgroups
from exporter.model import NS
from exporter.model.arguments import Arguments
from exporter.sources.netlink.allowance import ReadAllowance
from exporter.sources.netlink.group import Group

FRESH_NS = NS // 10
"""How long the cgroup of a process that starts others is not read again."""


class GroupCgroups:
    """Reads within an allowance, the youngest processes first."""

    def __init__(
        self,
        alive: Mapping[int, Group],
        cgroups: ProcessCgroups,
        allowance: ReadAllowance,
        arguments_of: Callable[[int], Arguments | None] | None = None,
    ) -> None:
        """`arguments_of` reads the arguments of a process, if they are asked for."""
        self._alive = alive
        self._cgroups = cgroups
        self._allowance = allowance
        self._arguments_of = arguments_of
        self._unread: dict[int, None] = {}
        """PIDs, in the order in which they are to be read from the end."""

    def forked(self, pid: int, group: Group, parent_pid: int, parent: Group | None) -> None:
        """Give a new process the cgroup of its parent."""
        if parent is None:
            self.read_soon(pid)
            return
        if group.start_ns - parent.cgroup_at_ns > FRESH_NS:
            self._read(parent_pid, parent)
        group.cgroup = parent.cgroup

    def read_soon(self, pid: int) -> None:
        """Read the cgroup of a process when the present events are counted."""
        self._unread.pop(pid, None)
        self._unread[pid] = None

    def forget(self, pid: int) -> None:
        """Don't read it any more."""
        self._unread.pop(pid, None)

    def read(self) -> None:
        """Read those that wait, as far as the allowance reaches. The others continue to wait."""
        while self._unread and not self._allowance.is_spent:
            pid, _ = self._unread.popitem()
            if (group := self._alive.get(pid)) is not None:
                if self._arguments_of is not None and group.execed:  # first: they can only be read of a process that has not exited
                    group.arguments = self._allowance.read(self._arguments_of, pid)
                self._read(pid, group)

    def _read(self, pid: int, group: Group) -> None:
        if path := self._allowance.read(self._cgroups.path, pid):
            group.cgroup, group.cgroup_at_ns = path, time.monotonic_ns()
