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
class CgroupCounts:
    """What is counted by cgroup alone."""

    short_cpu_ns: int = 0
    oom_kills: int = 0
    """Of processes of any runtime."""

    def add(self, short_cpu_ns: int, oom_kills: int) -> None:
        """Add to both."""
        self.short_cpu_ns += short_cpu_ns
        self.oom_kills += oom_kills


@dataclass(slots=True)
class Origins:
    """Exits of short processes and failed exits since the last time. Only short or failed ones are counted."""

    rows: dict[Origin, OriginCounts] = field(default_factory=dict)
    other: OriginCounts = field(default_factory=OriginCounts)
    """Those that the source could not keep apart."""
    cgroups: dict[bytes, CgroupCounts] = field(default_factory=dict)
    """By path, as in `Origin`."""
    other_cgroup: CgroupCounts = field(default_factory=CgroupCounts)

    def count(self, origin: Origin, short_exits: int, failed_exits: int) -> None:
        """Count exits."""
        row = self.rows.get(origin)
        if row is None:
            row = self.other if len(self.rows) >= MAX_ORIGINS else self.rows.setdefault(origin, OriginCounts())
        row.add(short_exits, failed_exits)

    def count_cgroup(self, cgroup: bytes, short_cpu_ns: int, oom_kills: int) -> None:
        """Count CPU of short processes, and OOM kills."""
        row = self.cgroups.get(cgroup)
        if row is None:
            row = self.other_cgroup if len(self.cgroups) >= MAX_ORIGINS else self.cgroups.setdefault(cgroup, CgroupCounts())
        row.add(short_cpu_ns, oom_kills)

    def add(self, other: Origins) -> None:
        """Add everything of `other`."""
        for origin, row in other.rows.items():
            self.count(origin, row.short_exits, row.failed_exits)
        self.other.add(other.other.short_exits, other.other.failed_exits)
        for cgroup, counts in other.cgroups.items():
            self.count_cgroup(cgroup, counts.short_cpu_ns, counts.oom_kills)
        self.other_cgroup.add(other.other_cgroup.short_cpu_ns, other.other_cgroup.oom_kills)
