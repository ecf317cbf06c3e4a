"""What is counted: of one name or of all processes (`ProcessCounts`), and all that a source counts (`Counts`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from exporter.model import Lost, Outcome


@dataclass(slots=True)
class ProcessCounts:
    """The same events, of one comm or of all processes. Buckets are not cumulative; the last is +Inf."""

    exits: list[int] = field(default_factory=lambda: [0] * len(Outcome))
    """By `Outcome.position`."""
    short_exits: int = 0
    execs: int = 0
    runtime_ns: int = 0
    cpu_ns: int = 0
    short_cpu_ns: int = 0
    buckets: list[int] = field(default_factory=list)
    """Empty where no histogram is kept."""

    def add(self, other: ProcessCounts) -> None:
        """Add `other`, field by field."""
        self.exits = [a + b for a, b in zip(self.exits, other.exits, strict=True)]
        self.short_exits += other.short_exits
        self.execs += other.execs
        self.runtime_ns += other.runtime_ns
        self.cpu_ns += other.cpu_ns
        self.short_cpu_ns += other.short_cpu_ns
        if other.buckets:
            mine = self.buckets or [0] * len(other.buckets)
            self.buckets = [a + b for a, b in zip(mine, other.buckets, strict=True)]

    def events(self) -> int:
        """How busy it was."""
        return sum(self.exits) + self.execs + self.short_exits

    def copy(self) -> ProcessCounts:
        """An independent copy."""
        fresh = ProcessCounts()
        fresh.add(self)
        return fresh


@dataclass(slots=True)
class Counts:
    """What a source saw since it was last drained. Everything in it only grows between two drains."""

    total: ProcessCounts = field(default_factory=ProcessCounts)
    """All processes. Equal to the sum of `by_comm` and `other`, once what is under way has settled."""
    by_comm: dict[bytes, ProcessCounts] = field(default_factory=dict)
    other: ProcessCounts = field(default_factory=ProcessCounts)
    """Processes whose comm the source could not keep apart."""
    short_exits_by_parent: dict[bytes, int] = field(default_factory=dict)
    short_exits_by_other_parents: int = 0
    forks: int = 0
    threads: int = 0
    core_dumps: int = 0
    signals: dict[int, int] = field(default_factory=dict)
    """Deliveries by signal number."""
    lost: dict[Lost, int] = field(default_factory=dict)
    records_dropped: int = 0
    """Short processes that were counted, but of which no record came."""
    program_runs: dict[str, int] = field(default_factory=dict)
    """Runs of each BPF program while `kernel.bpf_stats_enabled` was 1; none of those that had no run then."""
    program_ns: dict[str, int] = field(default_factory=dict)
    """Time of those."""

    def add_nameless(self, other: Counts) -> None:
        """Add everything of `other` that is not by name."""
        self.total.add(other.total)
        self.forks += other.forks
        self.threads += other.threads
        self.core_dumps += other.core_dumps
        self.records_dropped += other.records_dropped
        _add_each(self.signals, other.signals)
        _add_each(self.lost, other.lost)
        _add_each(self.program_runs, other.program_runs)
        _add_each(self.program_ns, other.program_ns)

    def add(self, other: Counts) -> None:
        """Add everything of `other`."""
        self.add_nameless(other)
        self.other.add(other.other)
        for comm, counts in other.by_comm.items():
            self.of(comm).add(counts)
        _add_each(self.short_exits_by_parent, other.short_exits_by_parent)
        self.short_exits_by_other_parents += other.short_exits_by_other_parents

    def copy(self) -> Counts:
        """Return an independent copy. It goes through the fields, so it has those that are added later too."""
        return Counts(**{each.name: _copied(getattr(self, each.name)) for each in fields(self)})

    def of(self, comm: bytes) -> ProcessCounts:
        """The counts of `comm`, made if they are not there."""
        counts = self.by_comm.get(comm)
        if counts is None:
            counts = self.by_comm[comm] = ProcessCounts()
        return counts

    def lose(self, reason: Lost, n: int = 1) -> None:
        """Count `n` losses by their cause."""
        self.lost[reason] = self.lost.get(reason, 0) + n


def _copied(value: Any) -> Any:
    match value:
        case int():
            return value
        case dict():
            return {key: _copied(each) for key, each in value.items()}
        case ProcessCounts():
            return value.copy()
        case _:
            raise TypeError(f"{value!r} can't be copied")


_Key = TypeVar("_Key")


def _add_each(to: dict[_Key, int], more: Mapping[_Key, int]) -> None:
    for key, n in more.items():
        to[key] = to.get(key, 0) + n
