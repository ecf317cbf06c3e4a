"""Ends of processes, one by one, as sources keep them while one takes over from another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from exporter.model import NS, Outcome

_SAME_START_NS = NS // 10
"""Two modes may date a start this far apart (`/proc` counts it in ticks of 10 ms); the kernel does not give out an id again so soon."""


class End(NamedTuple):
    """The end of one process."""

    start_ns: int
    """Of the monotonic clock; two modes may differ by some milliseconds."""
    runtime_ns: int
    comm: bytes
    parent_comm: bytes
    outcome: Outcome = Outcome.UNKNOWN
    cpu_ns: int | None = None
    """None where it is not known yet, or never will be."""
    core_dump: bool = False
    sigkill: bool = False
    ppid: int = 0
    uid: int | None = None
    code: int | None = None
    """As `Record.code`. It, `ppid` and `uid` are for records only."""


class Ends:
    """Ends with the ids of their processes, for telling apart what two modes saw of a switch between them."""

    def __init__(self, ends: Iterable[tuple[int, End]] = (), missing: int = 0) -> None:
        self.missing = missing
        """How many found no room here."""
        self._by_pid: dict[int, list[End]] = {}
        self._n = 0
        for pid, end in ends:
            self.add(pid, end)

    def __len__(self) -> int:
        """How many there are."""
        return self._n

    def __iter__(self) -> Iterator[tuple[int, End]]:
        """In no order."""
        return ((pid, end) for pid, ends in self._by_pid.items() for end in ends)

    def add(self, pid: int, end: End) -> None:
        """Add one."""
        self._by_pid.setdefault(pid, []).append(end)
        self._n += 1

    def find(self, pid: int, end: End) -> End | None:
        """Find the one of the same process, which another mode may have dated a little differently."""
        return next((each for each in self._by_pid.get(pid, ()) if abs(each.start_ns - end.start_ns) <= _SAME_START_NS), None)
