"""Inside another kernel: do the programs load and attach, and do they count exactly? A line for each check; exit status 1 if one failed.

Everything is 10 to 30 times slower there, so the storms are small and nothing is said about speed. `python -m tests.vm.checks --help` lists
the arguments.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from operator import le
from pathlib import Path

from exporter.kernel import bpf
from exporter.model import Lost
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM
from exporter.model.failures import FailedStarts, Failure, Kind
from exporter.records.record import Record
from exporter.sources.ebpf import source as ebpf
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel import failing
from tests.kernel.bcc_watching import watching_bcc
from tests.kernel.programs import Program, named, until, watching
from tests.origins import short_by
from tests.vm import whole
from tests.vm.report import Report
from tests.vm.whole import SLOW

NO_SUCH_COMMAND = 9999
_LATE_NS = 500_000
"""What an exiting process may do after getrusage's answer; emulated, it takes that long."""

report = Report()
say, skip = report.check, report.skip


def storms(nothing: Path, workload: Path, folder: Path, *, force_guard: bool = False) -> None:
    """Each storm under a name of its own, with a drain after each and during some."""
    exact = {
        ("forkexec", 200, nothing): [1, 0, 0, 0],
        ("vfork", 1000): [1001, 0, 0, 0],
        ("together", 300, 8): [301, 0, 0, 0],
        ("scatter", 300, 8): [301, 0, 0, 0],
        ("leader", 20, 5, 5): [1, 20, 0, 0],
        ("kill", 20, 11): [1, 0, 20, 0],
        ("kill", 20, 9): [1, 0, 20, 0],
        ("uring", 10): [11, 0, 0, 0],
    }
    with watching(SLOW, force_guard=force_guard) as source:
        sums = Whole(source)
        for words, exits in exact.items():
            one = Program.copied(workload, folder)
            other = Program.copied(nothing, folder) if words[0] == "forkexec" else None
            status = one.run(*(other.path if word is nothing and other else word for word in words)).status
            sums.take()
            if status:
                skip(str(words[0]), f"ended with status {os.waitstatus_to_exitcode(status)}")
                continue
            mine = sums.of(one.comm)
            say(f"{words[0]} exits", mine.exits, exits)
            say(f"{words[0]} buckets, short", [sum(mine.buckets), mine.short_exits], [sum(exits)] * 2)
            if other:
                say("forkexec of another: exits, execs", [sums.of(other.comm).exits[0], sums.of(other.comm).execs], [200, 200])
        burns(sums, Program.copied(workload, folder), 1)
        burns(sums, Program.copied(workload, folder), 4)
        one = Program.copied(workload, folder)
        sums.take_during(lambda: one.storm("comms", 3000))
        flood = [sum(each) for each in zip(*(counts.exits for comm, counts in sums.names.items() if comm[1:].isdigit()), strict=True)]
        say("flood of names, exits by outcome", flood, [1000, 1000, 1000, 0])
        say("flood of names, parents", sums.parents.get(one.comm), 3000)
        say("names and other against total, exits", sums.named.exits, sums.total.exits)
        say("names and other against total, runtime", sums.named.runtime_ns, sums.total.runtime_ns)
        one = Program.copied(workload, folder)
        flooded = source.peek().of(COMM).other.exits
        one.storm("comms", 3000)
        peek = source.peek()
        say("flood with no drain: names and other against total", named(peek).exits, peek.total.exits)
        print(f"       of which other: {sum(peek.of(COMM).other.exits) - sum(flooded)}")
        source.stop()  # from here on the maps stand still
        rows = _rows(source)
        known, bpf._MAP_LOOKUP_BATCH = bpf._MAP_LOOKUP_BATCH, NO_SUCH_COMMAND
        say(f"{len(rows)} names, the same with batches and without", _rows(source) == rows, True)
        bpf._MAP_LOOKUP_BATCH = known
        sums.take_last()
        print(f"       lost: {', '.join(f'{reason} {number}' for reason, number in sums.lost.items())}")
        none = (Lost.NAME_BUSY, Lost.EXIT_NOTES_FULL, Lost.PROGRAM_MISSED)
        say("lost by our own fault, or since the kernel skipped a program", [sums.lost[reason] for reason in none], [0, 0, 0])


def storms_of_bcc(nothing: Path, workload: Path, folder: Path, *, use_ring: bool = True) -> None:
    """How each ended is not known, and whether each short one was told of is."""
    every = {("forkexec", 200, nothing): 200, ("vfork", 1000): 1001, ("together", 300, 8): 301, ("kill", 20, 11): 21}
    with watching_bcc(SLOW, use_ring=use_ring, force_guard=not use_ring) as source:
        records: list[Record] = []
        source.publish(records.extend, live=True)

        def told_of(comm: bytes) -> int:
            return sum(each.comm == comm for each in records)

        for words, ends in every.items():
            one = Program.copied(workload, folder)
            other = Program.copied(nothing, folder) if words[0] == "forkexec" else one
            one.storm(*(other.path if word is nothing else word for word in words))
            told = until(partial(told_of, other.comm), partial(le, ends), 20)
            counts = source.peek()
            say(f"{words[0]} exits, records", [counts.of(COMM).row(other.comm).exits, told], [[0, 0, 0, ends], ends])
        source.stop()
        say("records dropped", source.drain().records_dropped, 0)


def storms_with_headers(_nothing: Path, workload: Path, folder: Path) -> None:
    """With the kernel's headers, outcomes and CPU are known. A bcc that is older than the kernel cannot compile them."""
    exact = {
        ("vfork", 500): [501, 0, 0, 0],
        ("together", 100, 8): [101, 0, 0, 0],
        ("leader", 20, 5, 5): [1, 20, 0, 0],
        ("kill", 20, 11): [1, 0, 20, 0],
        ("kill", 20, 9): [1, 0, 20, 0],
    }
    log: list[str] = []
    with watching_bcc(SLOW, use_headers=True, on_log=log.append) as source:
        if "live_processes" in source._kernel.maps:
            skip("headers", next((line for line in log if "headers" in line), "they are not installed"))
            return
        sums = Whole(source)
        for words, exits in exact.items():
            one = Program.copied(workload, folder)
            one.storm(*words)
            sums.take()
            say(f"{words[0]} exits", sums.of(one.comm).exits, exits)
        burns(sums, Program.copied(workload, folder), 4)
        say("names and other against total, exits", sums.named.exits, sums.total.exits)


def failing_starts(_nothing: Path, workload: Path, folder: Path, *, wanted: FailedStarts = FailedStarts.AUTO) -> None:
    """Each on its own, and exactly: nothing else runs here. Those that this kernel does not count are 0."""
    storms: dict[str, Callable[[], failing.Failed]] = {
        "execs": lambda: failing.execs(folder, 20),
        "execs of 32-bit programs": lambda: failing.compat_execs(Program(workload), 20),
        "forks beyond RLIMIT_NPROC": lambda: failing.forks_beyond_the_limit(50),
        "forks beyond pids.max": lambda: failing.forks_in_a_full_cgroup(50),
        "forks without init": lambda: failing.forks_without_init(50),
        "contradictory clones": lambda: failing.contradictory_clones(50),
        "OOM kills": lambda: failing.oom_kills(5),
    }
    with watching(SLOW, failed_starts=wanted) as source:
        print(f"       {source.about()}")
        kinds = {failure.kind for failure in source.peek().failures}
        say("parts", sorted(kinds), sorted(Kind) if wanted is FailedStarts.ALWAYS else sorted(kinds | {Kind.OOM_KILL}))
        for what, storm in storms.items():
            source.drain()
            try:
                failed = storm()
            except failing.Unavailable as reason:
                skip(what, reason)
                continue
            counts = source.peek().failures
            say(f"{what}, and no other failure", _shown(counts), _shown({each: n for each, n in failed.items() if each.kind in kinds}))
        source.count_until(1)
        failing.execs(folder, 1)
        source.stop()
        say("the last drain, after the time was up", source.drain().failures == counts, True)


def _shown(failures: Mapping[Failure, int]) -> str:
    return ", ".join(f"{kind} {error} {n}" for (kind, error), n in failures.items() if n)


class Whole:
    """All drains of a source, added up."""

    def __init__(self, source: EbpfSource) -> None:
        self._source = source
        self.names: dict[bytes, ProcessCounts] = {}
        self.total, self.named = ProcessCounts(), ProcessCounts()
        self.parents: dict[bytes, int] = {}
        self.lost: dict[Lost, int] = {}

    def of(self, comm: bytes) -> ProcessCounts:
        return self.names.setdefault(comm, ProcessCounts())

    def take(self) -> None:
        """Turn the programs to the other map, and drain the first."""
        for _ in range(2):
            self._source.swap_maps({})
            self._add()

    def take_last(self) -> None:
        self._add()

    def take_during(self, storm: Callable[[], object]) -> None:
        """Drain as often as it goes."""
        thread = threading.Thread(target=storm)
        thread.start()
        while thread.is_alive():
            self.take()
        thread.join()
        self.take()

    def _add(self) -> None:
        for comm, short_exits in short_by(self._source.origins(), lambda origin: origin.parent).items():
            self.parents[comm] = self.parents.get(comm, 0) + short_exits
        counts = self._source.drain()
        self.total.add(counts.total)
        self.named.add(named(counts))
        for comm, each in counts.of(COMM).rows.items():
            self.of(comm).add(each)
        for reason, number in counts.lost.items():
            self.lost[reason] = self.lost.get(reason, 0) + number


def burns(sums: Whole, one: Program, threads: int) -> None:
    """Their CPU against getrusage's, once all of it has come."""
    used = one.storm("burn", 5, 5, threads).cpu_ns

    def look() -> int:
        sums.take()
        return sums.of(one.comm).cpu_ns

    seen = until(look, lambda cpu_ns: cpu_ns >= used * 0.99, 20)
    late = 5 * _LATE_NS  # of 5 processes
    near = 0.99 * used < seen < 1.01 * used + late
    say(f"CPU of 5 x 5 ms x {threads} threads within 1 % ({seen / used:.4f} of getrusage)", near, True)


def _rows(source: EbpfSource) -> dict[bytes, bytes]:
    both = [source._map(name).read() for name in ("comms_a", "comms_b")]
    return {key: bytes(rows.values[at * rows.value_size : (at + 1) * rows.value_size]) for rows in both for at, key in enumerate(rows.keys)}


SECTIONS: dict[str, Callable[[Path, Path, Path], None]] = {
    "modes": lambda *_: whole.modes(report),
    "storms": storms,
    "storms, counted by the guard": partial(storms, force_guard=True),
    "failures": failing_starts,
    "records and owners": lambda nothing, workload, folder: whole.records_and_owners(report, nothing, folder),
    "ebpf_bcc, ring buffer": storms_of_bcc,
    "ebpf_bcc, perf buffers": partial(storms_of_bcc, use_ring=False),
    "ebpf_bcc, headers": storms_with_headers,
    "serving": lambda *_: whole.serving(report),
    "package": lambda *_: whole.package(report),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vm.checks")
    parser.add_argument("--failed-starts", type=FailedStarts, default=FailedStarts.AUTO, help="detection.failed_starts")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"what to check (default: all): {', '.join(SECTIONS)}")
    arguments = parser.parse_args()
    ebpf._DRAIN_EVERY_NS = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        SECTIONS["failures"] = partial(failing_starts, wanted=arguments.failed_starts)
        for section in arguments.sections or SECTIONS:
            with report.section(section):
                SECTIONS[section](whole.NOTHING, whole.WORKLOAD, folder)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
