"""Decodes the values of the BPF maps (exporter/kernel/layout.py) into counts."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from itertools import compress

from exporter.kernel.bpf import Rows
from exporter.kernel.layout import BUCKETS, KERNEL_LOST, SIGNALS, CommRow, CpuRow, row_bytes, row_lifetimes
from exporter.model import RECENT_SECONDS, Lost, Outcome, RuntimeScale, lifetimes
from exporter.model.counts import Breakdown, Counts, ProcessCounts
from exporter.model.dimensions import COMM

_WORD = 8
_HEAD = CommRow.lifetimes.offset // _WORD
"""Words of a row before its native histogram, whose counts have half a word each."""
_HALF_MASK = 2**32 - 1
_CPU_ROW = ctypes.sizeof(CpuRow) // _WORD


def _words(of: type[ctypes.Structure], *names: str) -> Iterator[int]:
    return (getattr(of, name).offset // _WORD for name in names)


# Offsets in a `CommRow` and a `CpuRow`, in words of 8 bytes.
_LONG, _EXECS, _RUNTIME = _words(CommRow, "long_exits", "execs", "runtime_ns")
_BUCKETS, _SHORT_CPU, _LONG_CPU, _CPU_RECORDED = _words(CommRow, "buckets", "short_cpu_ns", "long_cpu_ns", "cpu_recorded")
_OUTCOMES = slice(0, _LONG)
_BY_POSITION = tuple(Outcome)
_EXES_LOST = CpuRow.lost.offset // _WORD + KERNEL_LOST.index(Lost.EXES_FULL)
_FORKS, _THREADS, _CORE_DUMPS, _ENTERED = _words(CpuRow, "forks", "threads", "core_dumps", "entered")
_DROPPED, _STAND_INS, _LOST, _SIGNALS, _RING = _words(CpuRow, "records_dropped", "stand_ins", "lost", "signals", "ring")

MISSED = _HEAD + _RING
"""Position of the skipped runs in `global_counts`."""
GLOBALS = MISSED + 3
"""Number of values that `global_counts` returns."""


class CpuTotals:
    """The rows of all CPUs, from the value of the per-CPU map."""

    def __init__(self, value: bytes | bytearray) -> None:
        self._words = memoryview(value).cast("Q")

    @property
    def clones(self) -> int:
        """Return the number of processes and threads started."""
        return self._sum(_FORKS) + self._sum(_THREADS)

    @property
    def entered(self) -> int:
        """Return the number of rows inserted into the maps that are drained."""
        return self._sum(_ENTERED)

    @property
    def stand_ins(self) -> int:
        """Return the runs of later copies of `on_exit` that counted, since the kernel had skipped the ones before."""
        return self._sum(_STAND_INS)

    def sums(self, exes_lost: int = 0) -> list[int]:
        """Return the sum over all CPUs of each word of a `CpuRow`, without the ring of seconds. `exes_lost` is added to its count."""
        sums = [self._sum(at) for at in range(_RING)]
        sums[_EXES_LOST] += exes_lost
        return sums

    def short_exits(self, second: int) -> dict[int, int]:
        """Return the short exits of the 60 seconds before `second`, without the seconds that had none."""
        seconds: dict[int, int] = {}
        for at in range(0, len(self._words), _CPU_ROW):
            for slot in self._words[at + _RING : at + _CPU_ROW].tolist():
                which = slot & 0xFFFFFFFF
                if second - RECENT_SECONDS <= which < second:
                    seconds[which] = seconds.get(which, 0) + (slot >> 32)
        return seconds

    def _sum(self, at: int) -> int:
        return sum(self._words[at::_CPU_ROW])


class OtherRow:
    """The row of processes whose comm did not fit into the maps."""

    def __init__(self, value: bytes | bytearray, scale: RuntimeScale) -> None:
        row = memoryview(value)[: row_bytes(row_lifetimes(scale))]
        self.words: list[int] = row.cast("Q")[:_HEAD].tolist()
        self.lifetimes: list[int] = row.cast("I")[2 * _HEAD :].tolist()

    @property
    def exits(self) -> int:
        """Return the number of exits in the row."""
        return sum(self.words[_OUTCOMES])

    @property
    def cpu_recorded(self) -> int:
        """Return the number of processes in the row whose CPU is recorded."""
        return self.words[_CPU_RECORDED]


def global_counts(other: OtherRow, sums: list[int], missed: int, cpu_never_came: int, records_lost: int) -> list[int]:
    """Return the counts without a comm since the start: those of `other` but its native histogram, the sums over all CPUs, other losses."""
    return [*other.words, *sums, missed, cpu_never_came, records_lost]


def counts_of(rows: list[Rows], grown: Sequence[int], other_lifetimes: Sequence[int], scale: RuntimeScale) -> Counts:
    """Return counts: the rows by comm, and the growth since the last drain of `global_counts` and of the native histogram of `other`."""
    other, cpu = grown[:_HEAD], grown[_HEAD:]
    indexes = range(0) if scale.lifetimes is None else lifetimes.buckets(scale.lifetimes).indexes
    comms = Breakdown[bytes](other=_process_counts(other, scale, per_comm=True))
    comms.other.lifetimes = _histogram(indexes, [n & _HALF_MASK for n in other_lifetimes])  # these start from 0 again after 2^32
    counts = Counts(
        by={COMM: comms},
        forks=cpu[_FORKS],
        threads=cpu[_THREADS],
        core_dumps=cpu[_CORE_DUMPS],
        records_dropped=cpu[_DROPPED] + cpu[-1],
        signals={number: cpu[_SIGNALS + number] for number in range(1, SIGNALS) if cpu[_SIGNALS + number]},
        lost=dict(zip((*KERNEL_LOST, Lost.PROGRAM_MISSED, Lost.CPU_NEVER_CAME), (*cpu[_LOST:_SIGNALS], *cpu[_RING:-1]), strict=True)),
    )
    whole = list(other)
    for part in rows:
        values, halves, size = part.values.cast("Q"), part.values.cast("I"), _row_words(part)
        whole = [mine + sum(values[at::size]) for at, mine in enumerate(whole)]
        for start, key in zip(range(0, len(values), size), part.keys, strict=True):
            comm, row = key.rstrip(b"\0"), values[start : start + _HEAD].tolist()
            if any(row[_OUTCOMES]) or row[_EXECS] or row[_CPU_RECORDED]:
                fresh = _process_counts(row, scale, per_comm=True)
                if indexes:
                    fresh.lifetimes = _histogram(indexes, halves[2 * (start + _HEAD) : 2 * (start + size)].tolist())
                comms.row(comm).add(fresh)
    counts.total = _process_counts(whole, scale, per_comm=False)
    counts.total.lifetimes = lifetimes.added(each.lifetimes for each in (comms.other, *comms.rows.values()))
    return counts


def exits_in(rows: Rows) -> int:
    """Return the number of exits in these rows."""
    values, size = rows.values.cast("Q"), _row_words(rows)
    return sum(sum(values[at::size]) for at in range(*_OUTCOMES.indices(size)))


def cpu_recorded_in(rows: Rows) -> int:
    """Return the number of processes in these rows whose CPU is recorded."""
    return sum(rows.values.cast("Q")[_CPU_RECORDED :: _row_words(rows)])


def _row_words(rows: Rows) -> int:
    return rows.value_size // _WORD


def _histogram(indexes: Sequence[int], row: list[int]) -> dict[int, int]:
    return dict(zip(compress(indexes, row), filter(None, row), strict=True))


def _process_counts(row: Sequence[int], scale: RuntimeScale, *, per_comm: bool) -> ProcessCounts:
    bounds = len(scale.bounds_ns)
    buckets = list(row[_BUCKETS : _BUCKETS + bounds]) if scale.per_comm_buckets or not per_comm else []
    if buckets:
        buckets.append(sum(row[_BUCKETS + bounds : _BUCKETS + BUCKETS]))
    return ProcessCounts(
        exits=list(row[_OUTCOMES]),
        short_exits=sum(row[_OUTCOMES]) - row[_LONG],
        execs=row[_EXECS],
        runtime_ns=row[_RUNTIME],
        cpu_ns=row[_SHORT_CPU] + row[_LONG_CPU],
        short_cpu_ns=row[_SHORT_CPU],
        buckets=buckets,
    )
