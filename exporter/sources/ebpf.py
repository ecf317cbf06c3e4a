"""Reads what the BPF programs counted. It does nothing for an event: the work is in the kernel, at a scrape, and at a drain.

The kernel counts by comm into one of two maps. At a drain the programs are turned to the other one, the kernel is waited for until no
program can hold the old one, and the old one is read and emptied. A reader always sums both, so it sees each count once: no event is
entered into both, and the caller's lock keeps it from looking while one is being emptied.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from exporter.bpfmap import BpfMap, Rows, map_memory, program_info
from exporter.layout import (
    BUCKETS,
    COMM_LEN,
    ENDS_COUNT,
    ENDS_COUNT_AND_LIST,
    KERNEL_LOST,
    MAX_COMMS,
    SIGNALS,
    Control,
    Cpu,
    Listed,
)
from exporter.layout import Counts as Row
from exporter.loaders.handover import Handover
from exporter.model import NS, Counts, End, Ends, Gauges, Lost, Measures, Mode, ProcessCounts, ProgramStats, SourceFailed, Unusable
from exporter.sources.base import Source
from exporter.sources.charges import ChargeAudit

_DRAIN_EVERY_NS = 5 * NS
_FULL_ENOUGH = MAX_COMMS // 4
_PEAK_SECONDS = 60

_ZERO = b"\0" * 4
_WORD = 8
_ROW = ctypes.sizeof(Row) // _WORD
_CPU = ctypes.sizeof(Cpu) // _WORD


def _words(of: type[ctypes.Structure], *names: str) -> Iterator[int]:
    return (getattr(of, name).offset // _WORD for name in names)


# Places in a row, and in what there is of a CPU, in words.
_LONG, _EXECS, _RUNTIME, _CHILDREN = _words(Row, "long_exits", "execs", "runtime_ns", "short_children")
_BUCKETS, _SHORT_CPU, _LONG_CPU, _CHARGED = _words(Row, "buckets", "short_cpu_ns", "long_cpu_ns", "charged")
_OUTCOMES = slice(0, _LONG)
_FORKS, _THREADS, _CORE_DUMPS, _ENTERED, _UNLISTED = _words(Cpu, "forks", "threads", "core_dumps", "comms_entered", "unlisted")
_LOST, _SIGNALS, _RING = _words(Cpu, "lost", "signals", "ring")


class EbpfSource(Source):
    """The same for every loader, since the maps' layouts are."""

    def __init__(self, mode: Mode, measures: Measures, load: Callable[[bool], Handover], audit: ChargeAudit) -> None:
        """`load` hands over the attached programs' descriptors (of quiet ones, see `Source.start`), or raises `Unusable`."""
        self.mode = mode
        self._load = load
        self._audit = audit
        self._bounds = len(measures.bounds_ns)
        self._per_comm_buckets = measures.per_comm_buckets
        self._kernel = Handover({}, {}, {})
        self._kinds: dict[int, str] = {}
        self._control = Control()
        self._entered = 0
        self._unlisted = 0
        self._clones = 0
        self._shown: Counts | None = None
        self._switched_ns = 0
        self._still = True
        self._stopped = False
        self._drained = [0] * (_ROW + _RING + 2)
        self._drained_ended = 0
        self._drained_charged = 0

    def start(self, *, quiet: bool = False) -> None:
        """Load and attach; see `Source`."""
        self._kernel = self._load(quiet)
        try:
            self._control = Control.from_buffer_copy(self._map("control").lookup(_ZERO) or b"")
            self._kinds = {fd: _kind(fd) for fd in self._kernel.links.values()}
            self._audit.begin()
        except OSError as error:
            self._kernel.close()
            raise Unusable(f"the programs load, but can't be used: {error}") from error
        self._switched_ns = time.monotonic_ns()

    @property
    def charges_late(self) -> bool:
        """Where the programs can know CPU at all."""
        return "on_free" in self._kernel.programs

    def uncharged(self) -> int:
        """By the kernel's counts."""
        if not self.charges_late:
            return 0
        try:
            ended, charged = self._ended_and_charged()
        except OSError as error:
            raise SourceFailed(f"the kernel's maps can't be read: {error}") from error
        return max(0, ended - charged - self._audit.lost)

    def list_ends(self, *, on: bool) -> None:
        self._tell(ends=ENDS_COUNT_AND_LIST if on else ENDS_COUNT)
        if not on:
            self._unlisted += self._forget_listed().missing

    def cut(self, from_ns: int, until_ns: int) -> None:
        self._tell(is_cut=1, from_ns=from_ns, until_ns=until_ns)

    def listed(self) -> Ends:
        """Read them from the kernel."""
        try:
            rows = self._map("listed").read()
            unlisted = sum(self._cpus()[_UNLISTED::_CPU])
        except OSError as error:
            raise SourceFailed(f"the kernel's list of ends can't be read: {error}") from error
        ends = (Listed.from_buffer_copy(rows.values, at) for at in range(0, len(rows.values), ctypes.sizeof(Listed)))
        return Ends(
            {int.from_bytes(key, "little"): _end(each) for key, each in zip(rows.keys, ends, strict=True)}, unlisted - self._unlisted
        )

    def join(self, counted: Ends) -> Ends:
        """Nothing that is in `counted` can come any more: programs list at the event itself."""
        del counted
        self._tell(ends=ENDS_COUNT)
        listed = self._forget_listed()
        self._tell(is_cut=0)
        self._drained_ended += sum(end.cpu_ns is None for end in listed.by_pid.values())  # whose CPU will be charged all the same
        return listed

    def peek(self) -> Counts:
        """Both maps of comms, and what has no name."""
        self._shown = self._since_drain([self._map("comms_a").read(), self._map("comms_b").read()], self._nameless())
        return self._shown

    def drain(self) -> Counts:
        """Empty the map of comms that no program writes any more; after `stop`, both.

        If the kernel gives nothing then, it is what was shown last: no total falls.
        """
        shown, self._shown = self._shown, None
        try:
            ready = ["comms_a", "comms_b"] if self._stopped else [self._retired] if self._still else []
            nameless = self._nameless()
            rows = [self._map(each).take() for each in ready]
        except OSError as error:
            if self._stopped and shown is not None:
                return shown
            self._shown = shown
            raise SourceFailed(f"the kernel's maps can't be read: {error}") from error
        finally:
            if self._stopped:
                self._kernel.close()
        counts = self._since_drain(rows, nameless)
        self._drained = nameless
        self._drained_ended += sum(map(_ended, rows))
        self._drained_charged += sum(map(_charged, rows))
        return counts

    def rotate(self, names: Collection[bytes]) -> None:
        """Turn the programs to the other map of comms, when this one has been in use for a while or fills up.

        The other one is given `names` first, so that a flood of new comms can't leave them without room.
        """
        try:
            entered = sum(self._cpus()[_ENTERED::_CPU])
            fresh = entered - self._entered
            due = time.monotonic_ns() - self._switched_ns >= _DRAIN_EVERY_NS
            if not self._still:
                self._wait()
            elif due or fresh >= _FULL_ENOUGH:
                self._entered = entered
                for name in names:
                    self._map(self._retired).enter(name.ljust(COMM_LEN, b"\0"), bytes(_ROW * _WORD))
                self._switch()
            self._check_charges()
        except OSError as error:
            raise SourceFailed(f"the kernel's maps can't be drained: {error}") from error
        self._check_links()

    def clones(self) -> int:
        """Forks and threads of all CPUs; as many as before where they can't be read, for the next drain fails then."""
        with contextlib.suppress(OSError):
            cpus = self._cpus()
            self._clones = sum(cpus[_FORKS::_CPU]) + sum(cpus[_THREADS::_CPU])
        return self._clones

    def stop(self) -> None:
        """Detach, and wait until no program runs."""
        if not self._stopped and self._kernel.maps:
            self._kernel.detach()
            with contextlib.suppress(OSError):  # it may be stopped because this fails
                self._wait()
        self._stopped = True

    def gauges(self) -> Gauges:
        """The peak, and what the programs cost."""
        infos = [program_info(fd) for fd in self._kernel.programs.values()]
        return Gauges(self._peak(), None, tuple(ProgramStats(info.name, info.run_ns, info.runs) for info in infos if info.runs))

    def about(self) -> str:
        """What its maps cost."""
        memory = sum(map_memory(each.fd) for each in self._kernel.maps.values())
        return f"the programs load and attach; their maps take {memory / 2**20:.1f} MiB of kernel memory"

    @property
    def _retired(self) -> str:
        return "comms_a" if self._control.active else "comms_b"

    def _map(self, name: str) -> BpfMap:
        try:
            return self._kernel.maps[name]
        except KeyError:
            raise SourceFailed("it is not running") from None

    def _tell(self, **fields: int) -> None:
        """Change what the programs read."""
        for name, value in fields.items():
            setattr(self._control, name, value)
        try:
            self._map("control").update(_ZERO, bytes(self._control))
        except OSError as error:
            raise SourceFailed(f"the programs can't be told what to do: {error}") from error

    def _switch(self) -> None:
        self._switched_ns = time.monotonic_ns()
        self._tell(active=1 - self._control.active)
        self._wait()

    def _wait(self) -> None:
        """Until every program has ended that began before now. If it fails, the retired map waits for the next time."""
        self._still = False
        self._map("barrier").update(_ZERO, self._map("barrier_inner").fd.to_bytes(4, "little"))
        self._still = True

    def _forget_listed(self) -> Ends:
        try:
            self._wait()
            listed = self.listed()
            self._map("listed").take()
        except OSError as error:
            raise SourceFailed(f"the kernel's list of ends can't be emptied: {error}") from error
        return listed

    def _check_charges(self) -> None:
        if self.charges_late:
            self._audit.check(*self._ended_and_charged())

    def _ended_and_charged(self) -> tuple[int, int]:
        rows = [self._map("comms_a").read(), self._map("comms_b").read()]
        other = self._other()
        ended = self._drained_ended + sum(map(_ended, rows)) + sum(other[_OUTCOMES])
        return ended, self._drained_charged + sum(map(_charged, rows)) + other[_CHARGED]

    def _check_links(self) -> None:
        """An attachment ends with its descriptor, and then nothing else would tell."""
        gone = [name for name, fd in self._kernel.links.items() if _kind(fd) != self._kinds[fd]]
        if gone:
            raise SourceFailed(f"the attachment of {', '.join(sorted(gone))} is gone")

    def _cpus(self) -> memoryview:
        return memoryview(self._map("cpus").lookup(_ZERO) or b"").cast("Q")

    def _other(self) -> list[int]:
        shared = self._map("shared").lookup(_ZERO) or b""
        return memoryview(shared)[: _ROW * _WORD].cast("Q").tolist()

    def _nameless(self) -> list[int]:
        """Since `start`: `other`'s row, then the sums over all CPUs, then the losses that are not in the maps."""
        cpus = self._cpus()
        missed = sum(program_info(fd).misses for fd in self._kernel.programs.values())
        return [*self._other(), *(sum(cpus[at::_CPU]) for at in range(_RING)), missed, self._audit.lost]

    def _since_drain(self, rows: list[Rows], nameless: list[int]) -> Counts:
        fresh = [now - then for now, then in zip(nameless, self._drained, strict=True)]
        other, cpu = fresh[:_ROW], fresh[_ROW:]
        counts = Counts(
            other=self._process_counts(other, per_comm=True),
            short_exits_by_other_parents=other[_CHILDREN],
            forks=cpu[_FORKS],
            threads=cpu[_THREADS],
            core_dumps=cpu[_CORE_DUMPS],
            signals={number: cpu[_SIGNALS + number] for number in range(1, SIGNALS) if cpu[_SIGNALS + number]},
            lost=dict(zip((*KERNEL_LOST, Lost.PROGRAM_MISSED, Lost.CPU_NEVER_CAME), (*cpu[_LOST:_SIGNALS], *cpu[_RING:]), strict=True)),
        )
        whole = other
        for part in rows:
            values = part.values.cast("Q")
            whole = [mine + sum(values[at::_ROW]) for at, mine in enumerate(whole)]
            for number, key in enumerate(part.keys):
                self._enter(counts, key.rstrip(b"\0"), values[number * _ROW : (number + 1) * _ROW].tolist())
        counts.total = self._process_counts(whole, per_comm=False)
        return counts

    def _enter(self, counts: Counts, comm: bytes, row: list[int]) -> None:
        if row[_CHILDREN]:
            counts.short_exits_by_parent[comm] = counts.short_exits_by_parent.get(comm, 0) + row[_CHILDREN]
        if any(row[_OUTCOMES]) or row[_EXECS] or row[_CHARGED]:
            counts.of(comm).add(self._process_counts(row, per_comm=True))

    def _process_counts(self, row: Sequence[int], *, per_comm: bool) -> ProcessCounts:
        buckets = list(row[_BUCKETS : _BUCKETS + self._bounds]) if self._per_comm_buckets or not per_comm else []
        if buckets:
            buckets.append(sum(row[_BUCKETS + self._bounds : _BUCKETS + BUCKETS]))
        return ProcessCounts(
            exits=list(row[_OUTCOMES]),
            short_exits=sum(row[_OUTCOMES]) - row[_LONG],
            execs=row[_EXECS],
            runtime_ns=row[_RUNTIME],
            cpu_ns=row[_SHORT_CPU] + row[_LONG_CPU],
            short_cpu_ns=row[_SHORT_CPU],
            buckets=buckets,
        )

    def _peak(self) -> int:
        now = time.monotonic_ns() // NS
        seconds: dict[int, int] = {}
        cpus = self._cpus()
        for at in range(0, len(cpus), _CPU):
            for slot in cpus[at + _RING : at + _CPU].tolist():
                second, short_exits = slot & 0xFFFFFFFF, slot >> 32
                seconds[second] = seconds.get(second, 0) + short_exits
        return max((seconds.get(second, 0) for second in range(now - _PEAK_SECONDS, now)), default=0)


def _ended(rows: Rows) -> int:
    values = rows.values.cast("Q")
    return sum(sum(values[at::_ROW]) for at in range(*_OUTCOMES.indices(_ROW)))


def _charged(rows: Rows) -> int:
    return sum(rows.values.cast("Q")[_CHARGED::_ROW])


def _end(listed: Listed) -> End:
    cpu_ns = listed.cpu_ns if listed.is_charged else None
    ended = listed.outcome, cpu_ns, bool(listed.core_dump), bool(listed.sigkill)
    return End(listed.start_ns, listed.runtime_ns, listed.comm, listed.parent_comm, *ended)


def _kind(fd: int) -> str:
    """What a descriptor is of, such as `anon_inode:bpf_link`; nothing where it is closed."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - each second
    except OSError:
        return ""
