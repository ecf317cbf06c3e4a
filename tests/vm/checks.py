"""Inside another kernel: do the programs load and attach, and do they count exactly? A line for each check; exit status 1 if one failed.

Everything is 10 to 30 times slower there, so the storms are small and nothing is said about speed. The argument `always` or `never` is
for `detection.failed_starts`, which else is `auto`.
"""

# ruff: noqa: T201
from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import le
from pathlib import Path

from exporter.kernel import bpf
from exporter.kernel.layout import CommRow
from exporter.loaders.check import main as check_programs
from exporter.model import NS, Lost, RuntimeScale
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM
from exporter.model.failures import FailedStarts, Failure, Kind
from exporter.records.record import Record
from exporter.sources.ebpf import source as ebpf
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel import failing
from tests.kernel.bcc_watching import watching_bcc
from tests.kernel.programs import SCALE, Program, named, until, watching
from tests.origins import short_by

TESTS = Path(__file__).parents[1]
SLOW = RuntimeScale(60 * NS, SCALE.bounds_ns, per_comm_buckets=True)
"""Every process counts as short, however slow the machine."""
NO_SUCH_COMMAND = 9999
WORKS = 'shortproc_detection_mode{mode="ebpf_core"} 1.0'
WAIT_SECONDS = 100

failed = 0


def say(what: str, seen: object, wanted: object) -> None:
    """A line for one check."""
    global failed  # noqa: PLW0603
    failed += seen != wanted
    print(f"  {'ok  ' if seen == wanted else 'FAIL'} {what}: {seen}" + ("" if seen == wanted else f", not {wanted}"), flush=True)


def storms(nothing: Path, workload: Path, folder: Path, *, force_guard: bool) -> None:
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
        whole = Whole(source)
        for words, exits in exact.items():
            one = Program.copied(workload, folder)
            other = Program.copied(nothing, folder) if words[0] == "forkexec" else None
            status = one.run(*(other.path if word is nothing and other else word for word in words)).status
            whole.take()
            if status:
                print(f"  skip {words[0]}: ended with status {os.waitstatus_to_exitcode(status)}")
                continue
            mine = whole.of(one.comm)
            say(f"{words[0]} exits", mine.exits, exits)
            say(f"{words[0]} buckets, short", [sum(mine.buckets), mine.short_exits], [sum(exits)] * 2)
            if other:
                say("forkexec of another: exits, execs", [whole.of(other.comm).exits[0], whole.of(other.comm).execs], [200, 200])
        burns(whole, Program.copied(workload, folder), 1)
        burns(whole, Program.copied(workload, folder), 4)
        one = Program.copied(workload, folder)
        whole.take_during(lambda: one.storm("comms", 3000))
        flood = [sum(each) for each in zip(*(counts.exits for comm, counts in whole.names.items() if comm[1:].isdigit()), strict=True)]
        say("flood of names, exits by outcome", flood, [1000, 1000, 1000, 0])
        say("flood of names, parents", whole.parents.get(one.comm), 3000)
        say("names and other against total, exits", whole.named.exits, whole.total.exits)
        say("names and other against total, runtime", whole.named.runtime_ns, whole.total.runtime_ns)
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
        whole.take_last()
        print(f"       lost: {', '.join(f'{reason} {number}' for reason, number in whole.lost.items())}")
        none = (Lost.NAME_BUSY, Lost.EXIT_NOTES_FULL, Lost.PROGRAM_MISSED)
        say("lost by our own fault, or since the kernel skipped a program", [whole.lost[reason] for reason in none], [0, 0, 0])


def storms_of_bcc(nothing: Path, workload: Path, folder: Path, *, use_ring: bool) -> None:
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


def failing_starts(workload: Path, folder: Path, wanted: FailedStarts) -> None:
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
                print(f"  skip {what}: {reason}")
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


def burns(whole: Whole, one: Program, threads: int) -> None:
    """Their CPU against getrusage's, once all of it has come."""
    used = one.storm("burn", 5, 5, threads).cpu_ns

    def look() -> int:
        whole.take()
        return whole.of(one.comm).cpu_ns

    seen = until(look, lambda cpu_ns: cpu_ns >= used * 0.99, 20)
    say(f"CPU of 5 x 5 ms x {threads} threads within 1 % ({seen / used:.4f} of getrusage)", abs(seen / used - 1) < 0.01, True)


def serving() -> None:
    """The whole program, and one scrape of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "exporter", f"--web.listen-address={address}"]
    with subprocess.Popen(command, cwd=TESTS.parent) as child:
        try:
            text = until(lambda: _scrape(address), lambda text: WORKS in text, WAIT_SECONDS)
            until(lambda: _scrape(address), lambda text: "capture_ratio 1.0" in text, 10)
            text = _scrape(address)
        finally:
            child.terminate()
            status = child.wait(WAIT_SECONDS)
    for line in text.splitlines():
        if line.startswith(("shortproc_detection_capture_ratio", "shortproc_detection_lost_total")) and not line.endswith(" 0.0"):
            print(f"       {line}")
    say("serving: mode, samples, exit status", [WORKS in text, text.count("\n") > 100, status], [True, True, 0])


def _scrape(address: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT_SECONDS) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def _rows(source: EbpfSource) -> dict[bytes, bytes]:
    size = ctypes.sizeof(CommRow)
    both = [source._map(name).read() for name in ("comms_a", "comms_b")]
    return {key: bytes(rows.values[at * size : (at + 1) * size]) for rows in both for at, key in enumerate(rows.keys)}


def main() -> int:
    print(os.uname().release)
    if check_programs():
        return 1
    ebpf._DRAIN_EVERY_NS = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nothing, workload = _compiled(folder)
        for force_guard in (False, True):
            print("Counted by the guard:" if force_guard else "Counted as this kernel is used:")
            storms(nothing, workload, folder, force_guard=force_guard)
        print("Failures:")
        failing_starts(workload, folder, FailedStarts(*sys.argv[1:] or [FailedStarts.AUTO]))
        for use_ring in (True, False):
            print("Counted by ebpf_bcc, records through " + ("the ring:" if use_ring else "perf buffers:"))
            storms_of_bcc(nothing, workload, folder, use_ring=use_ring)
    serving()
    print(f"{failed} checks failed")
    return int(failed > 0)


def _compiled(folder: Path) -> Iterator[Path]:
    nothing = folder / "nothing.c"
    nothing.write_text("int main(void) { return 0; }\n")
    for source in (nothing, TESTS / "kernel/workloads/workload.c"):
        output = folder / source.stem
        subprocess.run(["cc", "-O2", "-static", "-pthread", "-o", str(output), str(source)], check=True)
        yield output


if __name__ == "__main__":
    sys.exit(main())
