"""For whom processes ran, as sources report it: `exporter/attribution` makes dimensions of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

UNKNOWN = b"unknown"
DEEP = b"deep"
"""Spawner of a process with more than `MAX_HOPS` short-lived ancestors."""
MAX_HOPS = 8
"""As in `bpf/lifecycle.h`."""
MAX_ABOVE = 8
"""Ancestors of a spawner that are named, as in `bpf/lifecycle.h`."""
MAX_ORIGINS = 8192
"""Most origins that are kept apart between two drains: all but `uid` is chosen by whoever runs the process."""


Lineage = tuple[bytes, ...]
"""Command names of all ancestors, the oldest first, the parent last. The first is `DEEP` if there are more. `UNKNOWN` stands for any number
of ancestors that are not known. Empty if nothing is known."""


class Origin(NamedTuple):
    cgroup: bytes
    """Path below the root of its hierarchy; empty if unknown."""
    uid: int | None
    comm: bytes
    parent: bytes
    spawner: bytes
    """Comm of the nearest ancestor that was older than the threshold of short processes, or `DEEP` or `UNKNOWN`."""


@dataclass(slots=True)
class OriginCounts:
    short_exits: int = 0
    failed_exits: int = 0
    """Exits with an error or by a signal, of processes of any runtime."""

    def add(self, short_exits: int, failed_exits: int) -> None:
        """Add to both."""
        self.short_exits += short_exits
        self.failed_exits += failed_exits


@dataclass(slots=True)
class Origins:
    """Exits of short processes and failed exits since the last time. Only short or failed ones are counted."""

    rows: dict[Origin, OriginCounts] = field(default_factory=dict)
    other: OriginCounts = field(default_factory=OriginCounts)
    """Those that the source could not keep apart."""
    short_cpu_ns: dict[bytes, int] = field(default_factory=dict)
    """CPU of short processes by cgroup."""
    other_short_cpu_ns: int = 0

    def count(self, origin: Origin, short_exits: int, failed_exits: int) -> None:
        """Count exits."""
        row = self.rows.get(origin)
        if row is None:
            row = self.other if len(self.rows) >= MAX_ORIGINS else self.rows.setdefault(origin, OriginCounts())
        row.add(short_exits, failed_exits)

    def count_cpu(self, cgroup: bytes, ns: int) -> None:
        """Count CPU of short processes."""
        if cgroup in self.short_cpu_ns or len(self.short_cpu_ns) < MAX_ORIGINS:
            self.short_cpu_ns[cgroup] = self.short_cpu_ns.get(cgroup, 0) + ns
        else:
            self.other_short_cpu_ns += ns

    def add(self, other: Origins) -> None:
        """Add everything of `other`."""
        for origin, row in other.rows.items():
            self.count(origin, row.short_exits, row.failed_exits)
        self.other.add(other.other.short_exits, other.other.failed_exits)
        for cgroup, ns in other.short_cpu_ns.items():
            self.count_cpu(cgroup, ns)
        self.other_short_cpu_ns += other.other_short_cpu_ns
