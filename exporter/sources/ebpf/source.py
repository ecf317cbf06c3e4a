"""The source of the eBPF modes: reads the counts of the BPF programs. It does no work per event, only at a scrape and at a drain.

The programs count by comm in one of two maps. `swap_maps` switches them to the other map and waits until no program uses the old one;
`drain` then reads and empties the old map. Readers always sum both maps, so they see each count once: each event is in one map, and the
lock of the caller prevents reads during a drain.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from exporter.kernel.attached import EVENT_PROGRAMS, EVENTS_MISSING, LATER_COPIES, Handover
from exporter.kernel.bpf import BpfMap, Rows, map_memory, possible_cpus, program_info
from exporter.kernel.cgroups import Cgroups
from exporter.kernel.layout import COMM_LEN, MAX_COMMS, RECORDS_LIVE, RECORDS_ON, perf_bytes, row_lifetimes, standby_control
from exporter.model import FOREVER_NS, NS, Gauges, Mode, ModeUnavailable, RuntimeScale, SourceFailed
from exporter.model.counts import Counts
from exporter.model.dimensions import COMM, Tracked
from exporter.model.events import NOT_IN_THIS_MODE
from exporter.model.origins import Origins
from exporter.sources.base import CpuFollows, Publish, PublishEvents, Source
from exporter.sources.ebpf import event_counts
from exporter.sources.ebpf.cpu_audit import CpuAudit
from exporter.sources.ebpf.cpu_join import CpuJoin
from exporter.sources.ebpf.decode import (
    GLOBALS,
    MISSED,
    CpuTotals,
    OtherRow,
    counts_of,
    cpu_recorded_in,
    exits_in,
    global_counts,
)
from exporter.sources.ebpf.event_counts import EventCounts
from exporter.sources.ebpf.event_reader import EventReader
from exporter.sources.ebpf.exec_slots import ExecSlots
from exporter.sources.ebpf.failures import FailureCounts
from exporter.sources.ebpf.lineages import Lineages
from exporter.sources.ebpf.origins import OriginReader
from exporter.sources.ebpf.perfbuf import PerfBuffers
from exporter.sources.ebpf.record_reader import RecordBuffer, RecordReader
from exporter.sources.ebpf.ringbuf import Ring

logger = logging.getLogger(__name__)

_DRAIN_EVERY_NS = 5 * NS
_SWAP_AT_COMMS = MAX_COMMS // 4

_ZERO = b"\0" * 4
_NOT_COUNTED = (*LATER_COPIES, *EVENT_PROGRAMS)
"""Programs whose skipped runs are counted elsewhere."""
_HALVES = "ab"
"""Suffixes of the maps that are drained, by `ProgramControl.active`."""


class EbpfSource(Source):
    """The source for all loaders: they share the layouts of the maps."""

    def __init__(self, mode: Mode, scale: RuntimeScale, load: Callable[[], Handover], audit: CpuAudit) -> None:
        """`load` returns the descriptors of attached programs in standby. Raises `ModeUnavailable`."""
        self.mode = mode
        self._load = load
        self._audit = audit
        self._scale = scale
        self._kernel = Handover({}, {}, {})
        self._failures = FailureCounts(self._kernel)
        self._event_counts = EventCounts(self._kernel)
        self._link_targets: dict[int, str] = {}
        self._control = standby_control()
        self._control_lock = threading.Lock()
        self._entered = 0
        self._origins = OriginReader({}, bytes)
        self._records: RecordReader | None = None
        self._events: EventReader | None = None
        self._clones = 0
        self._swapped_ns = 0
        self._retired_is_idle = True
        self._stopped = False
        self._programs: tuple[str, ...] = ()
        self._drained: list[int] = []
        self._drained_exits = 0
        self._drained_recorded = 0

    def start(self, *, standby: bool = False) -> None:
        """Load and attach; see `Source`."""
        self._kernel = self._load()
        self._failures = FailureCounts(self._kernel)
        self._event_counts = EventCounts(self._kernel)
        self._programs = tuple(self._kernel.programs)
        self._drained = [0] * (self._without_lifetimes + row_lifetimes(self._scale))
        try:
            self._origins = OriginReader(self._kernel.maps, self._cgroups().path)
            self._link_targets = {fd: _link_target(fd) for fd in self._kernel.links.values()}
            self._audit.begin()
            if not standby:
                now = time.monotonic_ns()
                self._update_control(since=now, from_ns=now, is_cut=0)
        except (OSError, SourceFailed) as error:
            self._kernel.close()
            raise ModeUnavailable(f"cannot use the loaded programs: {error}") from error
        self._swapped_ns = time.monotonic_ns()

    def count_from(self, from_ns: int) -> None:
        """See `Source`. Processes that started earlier leave a note at their exit, so that their free counts CPU correctly."""
        self._update_control(since=from_ns, from_ns=from_ns)

    def count_until(self, until_ns: int) -> None:
        self._update_control(until_ns=until_ns, is_cut=1)

    def publish(self, to: Publish, *, live: bool, follows: CpuFollows | None = None) -> None:
        """Start to read records, or change `live`; see `Source`."""
        if self._records is not None:
            self._records.set_live(live)
        else:
            try:
                self._records = RecordReader(self._record_buffer(), self._cgroups(), self.mode, to, live=live, follows=follows)
            except OSError as error:
                logger.warning("cannot read per-process records; counters are unaffected: %s", error)
                return
        self._update_control(records=RECORDS_LIVE if live else RECORDS_ON)

    def publish_events(self, to: PublishEvents) -> str | None:
        """Start to read events; see `Source`."""
        if "events" not in self._kernel.maps:
            reason: str = self._kernel.facts.get(EVENTS_MISSING, NOT_IN_THIS_MODE)
            return reason
        if self._events is None:
            try:
                self._events = EventReader(self._kernel, self.mode, to)
            except OSError as error:
                return f"cannot read the ring of events: {error}"
        return None

    def cpu_pending(self) -> int:
        """Return the exits without recorded CPU, except those whose CPU is known to be lost; see `Source`."""
        if not self._knows_cpu:
            return 0
        try:
            exits, recorded = self._exits_and_cpu_recorded()
        except OSError as error:
            raise SourceFailed(f"cannot read the BPF maps: {error}") from error
        return max(0, exits - recorded - self._audit.lost)

    def peek(self) -> Counts:
        """Sum both maps of comms and the counts without a comm; see `Source`."""
        try:
            counts = self._since_drain([self._map("comms_a").read(), self._map("comms_b").read()], self._global_counts())
            counts.failures = self._failures.peek()
            event_counts.fill(counts, self._event_counts.peek())
        except OSError as error:
            raise SourceFailed(f"cannot read the BPF maps: {error}") from error
        return counts

    def drain(self) -> Counts:
        """Empty the retired map of comms; see `Source`. After `stop`, empty both maps and close them."""
        try:
            ready = _HALVES if self._stopped else self._retired_half if self._retired_is_idle else ""
            globals_now = self._global_counts()
            rows = [self._map(f"comms_{half}").pop_all() for half in ready]
            failures, events = self._failures.drain(), self._event_counts.drain()
        except OSError as error:
            raise SourceFailed(f"cannot read the BPF maps: {error}") from error
        finally:
            if self._stopped:
                self._kernel.close()
        counts = self._since_drain(rows, globals_now)
        counts.failures = failures
        event_counts.fill(counts, events)
        self._drained = globals_now
        self._drained_exits += sum(map(exits_in, rows))
        self._drained_recorded += sum(map(cpu_recorded_in, rows))
        return counts

    def swap_maps(self, tracked: Tracked) -> None:
        """Switch the programs to the other maps after 5 s, or earlier if many rows were inserted.

        The tracked comms are inserted into the other map first, so that many new comms cannot displace them.
        """
        try:
            entered = self._cpu_totals().entered
            fresh = entered - self._entered
            due = time.monotonic_ns() - self._swapped_ns >= _DRAIN_EVERY_NS
            if not self._retired_is_idle:
                self._wait_for_programs()
                self._origins.read(self._retired_half)
            elif due or fresh >= _SWAP_AT_COMMS:
                self._entered = entered
                retired = self._map(f"comms_{self._retired_half}")
                for name in tracked.get(COMM, ()):
                    retired.insert(name.ljust(COMM_LEN, b"\0"), bytes(retired.value_size))
                self._swap()
                self._origins.read(self._retired_half)
            self._end_cut_checks()
            self._check_cpu()
        except OSError as error:
            raise SourceFailed(f"cannot drain the BPF maps: {error}") from error
        self._check_links()

    def origins(self) -> Origins:
        """See `Source`. After `stop`, empty both maps of origins."""
        try:
            if self._stopped:
                for half in _HALVES:
                    self._origins.read(half)
            return self._origins.pop(self._map("shared").lookup(_ZERO) or b"")
        except OSError as error:
            raise SourceFailed(f"cannot read the BPF maps: {error}") from error

    def clones(self) -> int:
        """Return the forks and threads of all CPUs; the last value if the map cannot be read, since then the next drain fails."""
        with contextlib.suppress(OSError):
            self._clones = self._cpu_totals().clones
        return self._clones

    def stop(self) -> None:
        """Detach, and wait until no program runs; see `Source`."""
        if not self._stopped and self._kernel.maps:
            self._kernel.detach()
            with contextlib.suppress(OSError):  # the source may be stopped because this fails
                self._wait_for_programs()
            for reader in (self._records, self._events):
                if reader is not None:
                    reader.stop()
        self._stopped = True

    def gauges(self) -> Gauges:
        try:
            return Gauges(self._cpu_totals().short_exits(time.monotonic_ns() // NS))
        except OSError as error:
            raise SourceFailed(f"cannot read the BPF maps: {error}") from error

    def about(self) -> str:
        """Return the memory use of the maps; see `Source`."""
        memory = sum(map_memory(each.fd) for each in self._kernel.maps.values())
        return f"the programs load and attach; their maps use {memory / 2**20:.1f} MiB of kernel memory{self._failures.missing()}"

    def _record_buffer(self) -> RecordBuffer:
        if self._kernel.buffers:
            size = perf_bytes(possible_cpus())
            return PerfBuffers(self._kernel.buffers, size, count_lost=self._kernel.facts["buffers_count_lost"])
        arguments = self._map("arguments").fd if self._kernel.facts.get("arguments") else None
        exes = ExecSlots(self._map("exes").fd, time.monotonic_ns(), arguments) if self.mode is Mode.EBPF_CORE else None
        join = CpuJoin(self._map("record_cpus").fd) if "record_cpus" in self._kernel.maps else None
        lineages = Lineages(*(self._map(name).fd for name in ("between_slots", "above_slots") if self.mode is Mode.EBPF_CORE))
        return Ring(self._map("records").fd, lineages, exes, join)

    @property
    def _retired_half(self) -> str:
        return _HALVES[1 - self._control.active]

    def _cgroups(self) -> Cgroups:
        """One for each thread."""
        return Cgroups(self._kernel.facts["cgroups"], self._kernel.maps.get("cgroup_paths"))

    def _map(self, name: str) -> BpfMap:
        try:
            return self._kernel.maps[name]
        except KeyError:
            raise SourceFailed("the source is not running") from None

    def _update_control(self, **fields: int) -> None:
        """Change fields of the control that the programs read. Raises `SourceFailed`."""
        try:
            with self._control_lock:
                for name, value in fields.items():
                    setattr(self._control, name, value)
                self._map("control").update(_ZERO, bytes(self._control))
        except OSError as error:
            raise SourceFailed(f"cannot update the control of the programs: {error}") from error

    def _swap(self) -> None:
        self._swapped_ns = time.monotonic_ns()
        self._update_control(active=1 - self._control.active)
        self._wait_for_programs()

    def _wait_for_programs(self) -> None:
        """Wait until all programs that are running now have ended. If it fails, the retired map is drained later. Raises `OSError`."""
        self._retired_is_idle = False
        self._map("barrier").update(_ZERO, self._map("barrier_inner").fd.to_bytes(4, "little"))
        self._retired_is_idle = True

    def _end_cut_checks(self) -> None:
        """Clear `is_cut` when all running programs started after `from_ns`: they need not compare times any more."""
        control = self._control
        if control.is_cut and control.from_ns < self._swapped_ns and control.until_ns == FOREVER_NS and self._retired_is_idle:
            self._update_control(is_cut=0)

    @property
    def _knows_cpu(self) -> bool:
        """Return whether the programs can measure CPU."""
        return "on_free" in self._kernel.programs

    def _check_cpu(self) -> None:
        if self._knows_cpu:
            self._audit.check(*self._exits_and_cpu_recorded())

    def _exits_and_cpu_recorded(self) -> tuple[int, int]:
        rows = [self._map("comms_a").read(), self._map("comms_b").read()]
        other = self._other_row()
        exits = self._drained_exits + sum(map(exits_in, rows)) + other.exits
        return exits, self._drained_recorded + sum(map(cpu_recorded_in, rows)) + other.cpu_recorded

    def _check_links(self) -> None:
        """Raise `SourceFailed` if the descriptor of an attachment was closed, which ends it. Nothing else would show it."""
        gone = [name for name, fd in self._kernel.links.items() if _link_target(fd) != self._link_targets[fd]]
        if gone:
            raise SourceFailed(f"programs no longer attached: {', '.join(sorted(gone))}")

    def _cpu_totals(self) -> CpuTotals:
        """Return the rows of all CPUs; each copy of `on_exit` has one of its own."""
        copies = 1 + len(self._kernel.programs.keys() & set(LATER_COPIES))
        return CpuTotals(b"".join(self._map("cpus").lookup(copy.to_bytes(4, "little")) or b"" for copy in range(copies)))

    def _other_row(self) -> OtherRow:
        return OtherRow(self._map("shared").lookup(_ZERO) or b"", self._scale)

    @property
    def _without_lifetimes(self) -> int:
        """Return how many of the values of `_global_counts` precede the native histogram."""
        return GLOBALS + 2 * len(self._programs)

    def _global_counts(self) -> list[int]:
        """Return the counts without a comm since the start, runs and nanoseconds of each program, and the native histogram of `other`."""
        infos = {name: program_info(fd) for name, fd in self._kernel.programs.items()}
        cpu = self._cpu_totals()  # after the infos: a run can be skipped first, and made up for later
        skipped = sum(each.misses for name, each in infos.items() if name not in _NOT_COUNTED) - cpu.stand_ins
        records_lost, exes_lost = (self._records.lost, self._records.exes_lost) if self._records else (0, 0)
        missed = max(skipped, self._drained[MISSED])
        other = self._other_row()
        whole = global_counts(other, cpu.sums(exes_lost), missed, self._audit.lost, records_lost)
        return [*whole, *(number for each in infos.values() for number in (each.runs, each.run_ns)), *other.lifetimes]

    def _since_drain(self, rows: list[Rows], now: list[int]) -> Counts:
        fresh = [after - before for after, before in zip(now, self._drained, strict=True)]
        plain = self._without_lifetimes
        counts = counts_of(rows, fresh[:GLOBALS], fresh[plain:], self._scale)
        for name, runs, ns in zip(self._programs, fresh[GLOBALS:plain:2], fresh[GLOBALS + 1 : plain : 2], strict=True):
            if runs:
                counts.program_runs[name], counts.program_ns[name] = runs, ns
        return counts


def _link_target(fd: int) -> str:
    """Return what a descriptor refers to, e.g. `anon_inode:bpf_link`; empty if it is closed."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - each second
    except OSError:
        return ""
