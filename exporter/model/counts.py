"""What is counted: of one key or of all processes (`ProcessCounts`), of each key of a dimension (`Breakdown`), by a source (`Counts`)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from exporter.model import Lost, Outcome
from exporter.model.events import EventKind
from exporter.model.failures import Failure

if TYPE_CHECKING:
    from exporter.model.dimensions import Dimension

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class ProcessCounts:
    """The same events, of one key or of all processes. Buckets are not cumulative; the last is +Inf."""

    exits: list[int] = field(default_factory=lambda: [0] * len(Outcome))
    """By `Outcome.position`."""
    short_exits: int = 0
    execs: int = 0
    runtime_ns: int = 0
    cpu_ns: int = 0
    short_cpu_ns: int = 0
    buckets: list[int] = field(default_factory=list)
    """Empty where no histogram is kept."""
    oom_kills: int = 0
    """Counted by owner only."""
    lifetimes: dict[int, int] = field(default_factory=dict)
    """The native histogram of runtimes: by index of a bucket (exporter/model/lifetimes.py). Buckets with 0 may be missing."""

    def add(self, other: ProcessCounts) -> None:
        """Add `other`, field by field."""
        self.add_numbers(other)
        if other.buckets:
            mine = self.buckets or [0] * len(other.buckets)
            self.buckets = [a + b for a, b in zip(mine, other.buckets, strict=True)]
        for index, n in other.lifetimes.items():
            self.lifetimes[index] = self.lifetimes.get(index, 0) + n

    def add_numbers(self, other: ProcessCounts) -> None:
        """Add everything of `other` but its histograms."""
        self.exits = [a + b for a, b in zip(self.exits, other.exits, strict=True)]
        self.short_exits += other.short_exits
        self.execs += other.execs
        self.runtime_ns += other.runtime_ns
        self.cpu_ns += other.cpu_ns
        self.short_cpu_ns += other.short_cpu_ns
        self.oom_kills += other.oom_kills

    def plus(self, other: ProcessCounts) -> ProcessCounts:
        """Return the sum."""
        both = self.copy()
        both.add(other)
        return both

    def events(self) -> int:
        """How busy it was."""
        return sum(self.exits) + self.execs + self.short_exits

    def failures(self) -> int:
        """Exits with an error or by a signal."""
        return self.exits[Outcome.ERROR.position] + self.exits[Outcome.SIGNAL.position]

    def copy(self) -> ProcessCounts:
        """An independent copy."""
        times = self.runtime_ns, self.cpu_ns, self.short_cpu_ns
        return ProcessCounts(self.exits[:], self.short_exits, self.execs, *times, self.buckets[:], self.oom_kills, self.lifetimes.copy())


@dataclass(slots=True)
class Breakdown(Generic[Key]):
    """Processes by the keys of one dimension. Rows have buckets where `other` has."""

    rows: dict[Key, ProcessCounts] = field(default_factory=dict)
    other: ProcessCounts = field(default_factory=ProcessCounts)
    """Processes whose key the source could not keep apart."""
    holders: dict[Key, Hashable | None] = field(default_factory=dict)
    """To whom keys belong, such as a user, as far as it is known: it limits how many series they share (exporter/model/admission.py)."""

    def row(self, key: Key, most: int | None = None) -> ProcessCounts:
        """The counts of `key`, made if they are not there; `other` where there are `most` keys already."""
        row = self.rows.get(key)
        if row is None:
            if most is not None and len(self.rows) >= most:
                return self.other
            row = self.rows[key] = ProcessCounts(buckets=[0] * len(self.other.buckets))
        return row

    def add(self, other: Breakdown[Key]) -> None:
        """Add `other`, key by key."""
        self.other.add(other.other)
        for key, row in other.rows.items():
            self.row(key).add(row)
        self.holders |= other.holders

    def copy(self) -> Breakdown[Key]:
        """An independent copy."""
        return Breakdown({key: row.copy() for key, row in self.rows.items()}, self.other.copy(), dict(self.holders))


@dataclass(slots=True)
class Counts:
    """What a source saw since it was last drained. Everything in it only grows between two drains."""

    total: ProcessCounts = field(default_factory=ProcessCounts)
    """All processes. Equal to the sum of each breakdown, in what its dimension measures, once what is under way has settled."""
    by: dict[Dimension[Any], Breakdown[Any]] = field(default_factory=dict)
    forks: int = 0
    threads: int = 0
    core_dumps: int = 0
    signals: dict[int, int] = field(default_factory=dict)
    """Deliveries by signal number."""
    failures: dict[Failure, int] = field(default_factory=dict)
    """Also those that are 0. Without those that no source could see."""
    lost: dict[Lost, int] = field(default_factory=dict)
    records_dropped: int = 0
    """Short processes that were counted, but of which no record came."""
    events: dict[EventKind, int] = field(default_factory=dict)
    """Those that came."""
    events_dropped: dict[tuple[EventKind, str], int] = field(default_factory=dict)
    """By kind and reason: those that should have come, but did not."""
    program_runs: dict[str, int] = field(default_factory=dict)
    """Runs of each BPF program while `kernel.bpf_stats_enabled` was 1; none of those that had no run then."""
    program_ns: dict[str, int] = field(default_factory=dict)
    """Time of those."""

    def add_totals(self, other: Counts) -> None:
        """Add everything of `other` but its breakdowns. It goes through the fields, as `copy` does."""
        for each in fields(self):
            if each.name != "by":
                setattr(self, each.name, _sum(getattr(self, each.name), getattr(other, each.name)))

    def add(self, other: Counts) -> None:
        """Add everything of `other`."""
        self.add_totals(other)
        self.add_breakdowns(other.by)

    def add_breakdowns(self, by: Mapping[Dimension[Any], Breakdown[Any]]) -> None:
        """Add breakdowns by dimensions."""
        for dimension, breakdown in by.items():
            self.of(dimension).add(breakdown)

    def copy(self) -> Counts:
        """Return an independent copy. It goes through the fields, so it has those that are added later too."""
        return Counts(**{each.name: _copied(getattr(self, each.name)) for each in fields(self)})

    def of(self, dimension: Dimension[Key]) -> Breakdown[Key]:
        """The counts by `dimension`, made if they are not there."""
        return self.by.setdefault(dimension, Breakdown())

    def lose(self, reason: Lost, n: int = 1) -> None:
        """Count `n` losses by their cause."""
        self.lost[reason] = self.lost.get(reason, 0) + n


def _copied(value: Any) -> Any:
    match value:
        case int():
            return value
        case dict():
            return {key: _copied(each) for key, each in value.items()}
        case _:
            return value.copy()


def _sum(mine: Any, more: Any) -> Any:
    """The sum of two values of a field; what can be changed in place is."""
    match mine:
        case int():
            return mine + more
        case dict():
            for key, n in more.items():
                mine[key] = mine.get(key, 0) + n
        case _:
            mine.add(more)
    return mine
