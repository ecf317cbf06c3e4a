"""Breaks processes down by parent, spawner, user and owner."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Any

from exporter.model import Outcome
from exporter.model.counts import Breakdown, ProcessCounts
from exporter.model.dimensions import BY_ORIGIN, COMM, OWNER, OWNER_COMM, PARENT, SPAWNER, USER, Dimension
from exporter.model.origins import CgroupCounts, Origin, OriginCounts, Origins
from exporter.model.owner import Owner

MAX_KEYS = 2048
"""Most keys of a dimension that are kept apart between two drains; others count as `other`."""
By = dict[Dimension[Any], Breakdown[Any]]
_OF_THE_HOST = {"system", "unknown"}


class Attributor:
    """Not safe for threads. Looking up owners may be slow, so it is used without the lock of the supervisor."""

    def __init__(
        self, owner_of: Callable[[bytes], Owner | None], name_of: Callable[[int | None], str], wanted: Collection[Dimension[Any]]
    ) -> None:
        """`owner_of` returns the owner of a cgroup, None to be asked again later; `name_of` returns the name of a user."""
        self._owner_of = owner_of
        self._name_of = name_of
        self._wanted = tuple(each for each in BY_ORIGIN if each in wanted)
        self._waiting = Origins()

    def attribute(self, origins: Origins) -> By:
        """Return the breakdowns of these origins; by owner, also those of earlier ones whose owner was not known until now.

        The breakdown by comm has no rows, only holders.
        """
        waited, self._waiting = self._waiting, Origins()
        by: By = {each: Breakdown() for each in (COMM, *self._wanted)}
        for dimension in self._wanted:
            by[dimension].other = _counts(origins.other)
        for origin, row in _largest_first(origins):
            self._count(by, origin, row)
        if OWNER in by or OWNER_COMM in by:
            for each in (waited, origins):
                self._count_owners(by, each)
            for dimension in (OWNER, OWNER_COMM):
                if dimension in by:
                    by[dimension].other.add(_counts(waited.other))
        return by

    def without_origins(self, total: ProcessCounts) -> By:
        """Return the breakdowns of processes of which only the counts are left."""
        by: By = {each: Breakdown(other=_counts(OriginCounts(total.short_exits, total.failures()))) for each in self._wanted}
        if OWNER in by:
            by[OWNER].other.short_cpu_ns = total.short_cpu_ns
        return by

    def _count(self, by: By, origin: Origin, row: OriginCounts) -> None:
        holder = _holder(origin, self._owner_of(origin.cgroup))
        by[COMM].holders[origin.comm] = holder
        if row.short_exits:
            for dimension, key in ((PARENT, origin.parent), (SPAWNER, origin.spawner), (USER, self._name_of(origin.uid))):
                if dimension in by:
                    by[dimension].row(key, MAX_KEYS).short_exits += row.short_exits
                    by[dimension].holders[key] = holder

    def _count_owners(self, by: By, origins: Origins) -> None:
        for origin, row in _largest_first(origins):
            owner = self._owner_of(origin.cgroup)
            if owner is None:
                self._waiting.count(origin, row.short_exits, row.failed_exits)
                continue
            if OWNER in by:
                by[OWNER].row(owner, MAX_KEYS).add(_counts(row))
            if OWNER_COMM in by and row.short_exits:
                by[OWNER_COMM].row((owner, origin.comm), MAX_KEYS).short_exits += row.short_exits
                by[OWNER_COMM].holders[owner, origin.comm] = _holder(origin, owner)
        for cgroup, counts in origins.cgroups.items():
            owner = self._owner_of(cgroup)
            if owner is None:
                self._waiting.count_cgroup(cgroup, counts.short_cpu_ns, counts.oom_kills)
            elif OWNER in by:
                by[OWNER].row(owner, MAX_KEYS).add(_of_cgroup(counts))
        if OWNER in by:
            by[OWNER].other.add(_of_cgroup(origins.other_cgroup))


def _holder(origin: Origin, owner: Owner | None) -> Hashable | None:
    """Return who could flood the metrics with names: an owner, or a user outside of services and containers. Root is trusted."""
    if owner is None or owner.kind in _OF_THE_HOST or owner.kind == "session":
        return origin.uid or None
    return owner


def _largest_first(origins: Origins) -> Iterable[tuple[Origin, OriginCounts]]:
    """Return the rows so that a flood of small ones takes no place from a large one."""
    if len(origins.rows) <= MAX_KEYS:
        return origins.rows.items()
    return sorted(origins.rows.items(), key=lambda item: -item[1].short_exits - item[1].failed_exits)


def _counts(row: OriginCounts) -> ProcessCounts:
    counts = ProcessCounts(short_exits=row.short_exits)
    counts.exits[Outcome.ERROR.position] = row.failed_exits
    return counts


def _of_cgroup(counts: CgroupCounts) -> ProcessCounts:
    return ProcessCounts(short_cpu_ns=counts.short_cpu_ns, oom_kills=counts.oom_kills)
