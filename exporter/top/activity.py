"""What short processes did in the last seconds, by everything that they can be told apart by. Memory is bounded whatever names arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, NamedTuple

from exporter.library.processes import Totals
from exporter.model import NS, OTHER, Outcome
from exporter.model.lifetimes import COARSE, buckets
from exporter.records.record import Record
from exporter.records.shown import owner

WINDOW_SECONDS = 60
_MOST_IN_SECOND = 512
_MOST_SINCE_START = 8192
_OTHERS = OTHER.encode()
_RUNTIMES = buckets(COARSE)


class Group(NamedTuple):
    """Processes that are counted together."""

    comm: bytes
    parent: bytes
    spawner: bytes
    user: str
    owner: str
    lineage: tuple[bytes, ...]


_REST = Group(_OTHERS, _OTHERS, _OTHERS, OTHER, OTHER, (_OTHERS,))
"""Stands for groups that are not kept apart."""


@dataclass(slots=True)
class Sum:
    """Of the processes of some groups."""

    count: int = 0
    failed: int = 0
    """Exits with an error or by a signal."""
    cpu_ns: int = 0
    """Of those whose CPU is known."""
    cpu_unknown: int = 0
    runtimes: dict[int, int] = field(default_factory=dict)
    """A native histogram (exporter/model/lifetimes.py)."""

    def add(self, other: Sum, times: Literal[1, -1] = 1) -> None:
        """Add another sum, or take away one that was added before."""
        self.count += times * other.count
        self.failed += times * other.failed
        self.cpu_ns += times * other.cpu_ns
        self.cpu_unknown += times * other.cpu_unknown
        for index, n in other.runtimes.items():
            self.runtimes[index] = self.runtimes.get(index, 0) + times * n

    def quantile_ns(self, share: float) -> int | None:
        """Return the runtime that `share` of the processes do not exceed, up to 9 % too much; None without processes."""
        wanted = share * self.count
        for index, n in sorted(self.runtimes.items()):
            wanted -= n
            if wanted <= 0:
                return _RUNTIMES.upper_bound_ns(index)
        return None


Groups = dict[Group, Sum]


class _Window:
    """Sums of the last whole seconds. Each second is added once: to add all of them for each screen could take 100 ms."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._inside: deque[tuple[int, Groups]] = deque()
        self._sums: Groups = {}

    def moved(self, seconds: Iterable[tuple[int, Groups]], end: int) -> Groups:
        """Return the sums of the seconds before `end`, which never goes back."""
        begin, last = end - self._seconds, self._inside[-1][0] if self._inside else -1
        for second, groups in seconds:
            if max(begin, last + 1) <= second < end:
                self._inside.append((second, groups))
                for group, each in groups.items():
                    self._sums.setdefault(group, Sum()).add(each)
        while self._inside and self._inside[0][0] < begin:
            for group, each in self._inside.popleft()[1].items():
                mine = self._sums[group]
                mine.add(each, -1)
                if not mine.count:
                    del self._sums[group]
        return self._sums


class Activity:
    """Sums by group: one for each of the last seconds, and one since the start. Not thread-safe."""

    def __init__(self, now_ns: int) -> None:
        """`now_ns` is of a monotonic clock, as for all methods."""
        self._began_ns = now_ns
        self._seconds: deque[tuple[int, Groups]] = deque()
        self._whole: Groups = {}
        self._windows: dict[int, _Window] = {}

    def add(self, batch: Iterable[Record], now_ns: int) -> None:
        """Add records that have just come."""
        second = now_ns // NS
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, {}))
            while self._seconds[0][0] < second - WINDOW_SECONDS:
                self._seconds.popleft()
        latest = self._seconds[-1][1]
        for record in batch:
            group = _group(record)
            for groups, most in ((latest, _MOST_IN_SECOND), (self._whole, _MOST_SINCE_START)):
                each = groups.get(group) or _new(groups, group, most)
                each.count += 1
                each.failed += record.outcome is Outcome.ERROR or record.outcome is Outcome.SIGNAL
                if record.cpu_ns is None:
                    each.cpu_unknown += 1
                else:
                    each.cpu_ns += record.cpu_ns
                index = _RUNTIMES.index_of(record.runtime_ns)
                each.runtimes[index] = each.runtimes.get(index, 0) + 1

    def within(self, seconds: int | None, now_ns: int) -> tuple[Groups, float]:
        """Return the sums of the last whole seconds or, for None, since the start; and how many seconds these are.

        The sums change with the next call.
        """
        since_start = max(1.0, (now_ns - self._began_ns) / NS)
        if seconds is None:
            return self._whole, since_start
        window = self._windows.setdefault(seconds, _Window(seconds))
        return window.moved(self._seconds, now_ns // NS), min(float(seconds), since_start)

    def copy(self) -> Activity:
        """Return an independent copy. Seconds that are over never change, so it has them too."""
        copy = Activity(self._began_ns)
        copy._seconds.extend(self._seconds)
        if copy._seconds:
            second, groups = copy._seconds.pop()
            copy._seconds.append((second, _copied(groups)))
        copy._whole = _copied(self._whole)
        return copy


def by(groups: Groups, key: Callable[[Group], str], accepts: Callable[[Group], bool]) -> dict[str, Sum]:
    """Return the sums of the groups that are accepted, by key."""
    rows: dict[str, Sum] = {}
    for group, each in groups.items():
        if accepts(group):
            name = key(group)
            row = rows.get(name)
            if row is None:
                row = rows[name] = Sum()
            row.add(each)
    return rows


def by_stack(groups: Groups, accepts: Callable[[Group], bool]) -> Iterator[tuple[tuple[bytes, ...], Sum]]:
    """Yield the stack, the names of all ancestors and its own, and the sum of each group that is accepted."""
    for group, each in groups.items():
        if accepts(group):
            yield (*group.lineage, group.comm), each


def _group(record: Record) -> Group:
    owned = owner(record.owner_kind, record.unit, record.namespace, record.pod, record.container)
    return Group(record.comm, record.parent_comm, record.spawner, record.user, owned, record.lineage)


def _copied(groups: Groups) -> Groups:
    return {group: replace(each, runtimes=each.runtimes.copy()) for group, each in groups.items()}


def _new(groups: Groups, group: Group, most: int) -> Sum:
    if len(groups) >= most:
        group = _REST
    return groups.setdefault(group, Sum())


class Point(NamedTuple):
    """What was known at a moment."""

    at_ns: int
    totals: Totals | None
    """None if they could not be had."""
    dropped: int
    """Short processes so far whose records did not come."""


class Points:
    """The exact numbers of the last seconds: they do not depend on records."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=WINDOW_SECONDS + 2)

    def add(self, point: Point) -> None:
        """Add what is known now."""
        self._points.append(point)

    @property
    def last(self) -> Point | None:
        """The latest one."""
        return self._points[-1] if self._points else None

    def rates(self, of: Callable[[Totals], int]) -> list[float]:
        """Return a rate per second for each span between two points, the oldest first."""
        known = self._known()
        return [_rate(of, before, after) for before, after in pairwise(known)]

    def rate(self, of: Callable[[Totals], int], seconds: int | None) -> float | None:
        """Return the rate per second in the last seconds, of which at most `WINDOW_SECONDS` are known; None if it is not known."""
        known = self._known()
        if seconds is not None:
            known = [each for each in known if known[-1][0] - each[0] <= (seconds + 0.5) * NS]
        return _rate(of, known[0], known[-1]) if len(known) > 1 else None

    def dropped(self, seconds: int | None) -> int:
        """Return how many records were dropped in the last seconds or, for None, since the start."""
        if not self._points:
            return 0
        last = self._points[-1]
        if seconds is None:
            return last.dropped
        before = next(each for each in self._points if last.at_ns - each.at_ns <= (seconds + 0.5) * NS)
        return last.dropped - before.dropped

    def copy(self) -> Points:
        """Return an independent copy."""
        copy = Points()
        copy._points.extend(self._points)
        return copy

    def _known(self) -> list[tuple[int, Totals]]:
        return [(at_ns, totals) for at_ns, totals, _ in self._points if totals is not None]


def _rate(of: Callable[[Totals], int], before: tuple[int, Totals], after: tuple[int, Totals]) -> float:
    return max(0, of(after[1]) - of(before[1])) * NS / max(1, after[0] - before[0])
