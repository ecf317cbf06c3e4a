"""The words and values that every part of the exporter shares, and the ledger of totals.

Imports nothing of ours.

Units: times are nanoseconds in `int`, so that sums stay exact; they become seconds only in `metrics.py`.
A comm is `bytes` as the kernel keeps it (at most 15); it becomes text only through `comm_text`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

NS = 1_000_000_000
FOREVER_NS = 2**64 - 1
MAX_BOUNDS = 31
"""Most bucket bounds that a histogram may have (`bpf/lifecycle.h` holds as many)."""

SIGNALS = {number: signal.Signals(number).name for number in range(1, 32)}
"""Names of the signals that have one; the others are the real-time ones."""

KERNEL_THREADS = b"[kernel]"
UNKNOWN_COMM = b"unknown"
OTHER = "other"


class Mode(StrEnum):
    """How processes are seen. The order is the ladder's, best first."""

    EBPF_CORE = "ebpf_core"
    EBPF_BCC = "ebpf_bcc"
    NETLINK = "netlink"
    FAST_SCAN = "fast_scan"
    SCAN = "scan"


class Outcome(StrEnum):
    """How a process ended. The order is that of `ProcessCounts.exits`. What stands below each is printed in docs/metrics.md."""

    OK = "ok"
    """Exit code 0."""
    ERROR = "error"
    """Another exit code."""
    SIGNAL = "signal"
    """Ended by a signal."""
    UNKNOWN = "unknown"
    """The mode could not tell."""


UNKNOWN_OUTCOME = list(Outcome).index(Outcome.UNKNOWN)


class Lost(StrEnum):
    """Why something could not be seen, timed, charged or named. What stands below each is printed in docs/metrics.md."""

    PROGRAM_MISSED = "program_missed"
    """The kernel skipped a run of a BPF program, so one event was not counted. Kernels before 5.12 don't say."""
    NAME_BUSY = "name_busy"
    """Only the name: the comm could not be entered into the kernel's map at that moment. Counted as `other`."""
    EXIT_NOTES_FULL = "cpu_marks_full"
    """The right place of a CPU time: more than 4,096 long-lived, multi-threaded or older processes had ended and were not freed yet. Its
    CPU may be missing, incomplete, or counted as a short one's."""
    CPU_NEVER_CAME = "cpu_never_came"
    """The CPU of one process: it ended, but the kernel never reported its release, or not before the mode changed. Its end is counted."""
    LIVE_PROCESSES_FULL = "births_full"
    """A process that started when 65,536 others lived already: its end is not counted."""
    EXES_FULL = "exes_full"
    """Only the path of an executable in records: 16,384 processes that had called exec lived already."""
    OVERRUN = "overrun"
    """Clones whose events the kernel dropped, since they came faster than they were read, and ends so lost of processes that were known."""
    NAME_RACE = "name_race"
    """Only the name: the process had gone before it could be read. Counted as `unknown`."""
    SWITCH_GAP = "switch_gap"
    """Clones from the last moment that a mode was known to work, until the one after it ran. Some of them may have been counted."""
    SWITCH_UNSURE = "switch_unsure"
    """Events during a switch of modes of which it is not known whether they were counted once: ends that may have been counted before, and
    are not again; and to or from `netlink`, forks, threads and execs within 10 ms of the switch, of which hardly any is really wrong.
    Ends are exact even then."""
    UNSEEN = "unseen"
    """A clone that the kernel counted and the scan never noticed."""
    VANISHED = "vanished"
    """A process that was found and had gone before it could be read."""
    UNREADABLE = "unreadable"
    """A process whose `/proc` entry may not be read (`hidepid`, for one)."""
    MALFORMED = "malformed"
    """A `/proc` entry or a netlink message that does not hold what the kernel writes."""


class SwitchReason(StrEnum):
    """Why a mode became the active one. What stands below each is printed in docs/metrics.md."""

    START = "start"
    """The best mode wanted, at start."""
    UNAVAILABLE = "unavailable"
    """At start; no better wanted mode could run."""
    FAILED = "failed"
    """The mode before it broke."""
    RECOVERED = "recovered"
    """It is better than the mode before it, and works again (tried each `detection.retry_seconds`)."""
    CONFIG = "config"
    """A changed configuration asked for it (SIGHUP)."""


class ModeUnavailable(Exception):
    """A mode can't run here. The message is one sentence that a person can act on."""


class SourceFailed(Exception):
    """A running source broke and can see nothing more. The message says how, in one sentence."""


@dataclass(slots=True)
class ProcessCounts:
    """The same events, of one comm or of all processes. Buckets are not cumulative; the last is +Inf."""

    exits: list[int] = field(default_factory=lambda: [0] * len(Outcome))
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


class Record(NamedTuple):
    """One short process, as a person or a program may want to look at it. Never its arguments, never its environment."""

    ended_ns: int
    """Unix time."""
    runtime_ns: int
    pid: int
    ppid: int
    """The parent's at the end; 0 where it is not known."""
    uid: int | None
    """The real user's; None where it is not known."""
    comm: bytes
    parent_comm: bytes
    exe: bytes
    """Path that the last exec named, at most 256 bytes; empty where there was none, or where it is not known."""
    outcome: int
    """Its place in `Outcome`."""
    code: int | None
    """The exit code, or the number of the signal, as the outcome tells; None where it is not known."""
    cpu_ns: int | None
    """None where it is not known yet."""
    cgroup: bytes
    """Path in the cgroup 2 hierarchy; empty where it is not known."""
    mode: Mode
    """Which one saw it."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a source can say of now; `None` or empty is what its mode can't fill."""

    peak_per_second: int | None = None
    """Short exits in the busiest whole second of the last 60, the current one left out."""
    scan_duration_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RuntimeScale:
    """Below which runtime a process is short, and the buckets of runtimes. The same for every source, fixed at start."""

    threshold_ns: int
    bounds_ns: tuple[int, ...]
    """Rising; a runtime falls into the first bucket whose bound it does not exceed."""
    per_comm_buckets: bool = False


def comm_text(comm: bytes) -> str:
    r"""A comm as text that is safe to show, and different for different comms.

    A backslash is doubled; a byte that is not UTF-8 or a character that does not print becomes `\xNN` or `\uNNNN`.
    """
    text = comm.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape's form of a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
