"""What the programs of `ebpf_bcc` do in their own way without kernel headers. What they share with `ebpf_core` is in test_storms.py."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from exporter.model.dimensions import COMM
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.bcc_watching import needs_bcc, watching_bcc
from tests.kernel.programs import Program, watching
from tests.origins import short_children

pytestmark = needs_bcc

THREADS = 8


@pytest.fixture(scope="module", params=[False, True], ids=["group_dead", "counted"])
def attached(request: pytest.FixtureRequest) -> Iterator[EbpfSource]:
    """The programs, as this kernel is used and as those whose tracepoint doesn't tell which thread is the last one."""
    with watching_bcc(force_guard=request.param) as source:
        yield source


def test_an_orphan_has_no_known_parent(source: EbpfSource, workload: Program) -> None:
    """Which process adopts it is not to be seen; its late parent's name would be wrong."""
    short_children(source)
    reading, writing = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.1)
        os._exit(0)
    os.close(writing)
    os.wait()
    os.read(reading, 1)  # until the orphan has gone
    os.close(reading)
    assert short_children(source)[b"unknown"] >= 1


def test_signals_are_counted_by_number(source: EbpfSource, workload: Program) -> None:
    """SIGXFSZ, since nobody else sends it; and no SIGKILL, of which an exit_group makes one for each thread."""
    workload.storm("kill", 50, int(signal.SIGXFSZ))
    workload.storm("together", 50, THREADS)
    signals = source.peek().signals
    assert signals[signal.SIGXFSZ] == 50
    assert signal.SIGKILL not in signals


@pytest.mark.alone
def test_the_same_as_ebpf_core(requires_bpf: None, workload: Program, nothing: Program) -> None:
    """Both at once: the same processes, and lives that differ by what lies between the clock of the fork and the tracepoint."""
    with watching() as core, watching_bcc() as bcc:
        workload.storm("forkexec", 500, nothing.path)
        workload.storm("vfork", 2000)
        workload.storm("together", 100, THREADS)
        counted, kernel = bcc.peek(), core.peek()
        children, kernel_children = short_children(bcc), short_children(core)
    for comm in (workload.comm, nothing.comm):
        theirs, ours = kernel.of(COMM).row(comm), counted.of(COMM).row(comm)
        assert (sum(ours.exits), ours.execs, ours.short_exits) == (sum(theirs.exits), theirs.execs, theirs.short_exits)
        assert ours.runtime_ns == pytest.approx(theirs.runtime_ns, rel=0.01)
    assert counted.forks <= kernel.forks
    assert children[workload.comm] == kernel_children[workload.comm]
