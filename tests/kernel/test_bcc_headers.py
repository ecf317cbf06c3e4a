"""The mode `ebpf_bcc` where the kernel's headers are installed: it knows outcomes and CPU, as `ebpf_core` does."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from exporter.loaders.bcc_child import _headers
from exporter.model.dimensions import COMM
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.bcc_watching import needs_bcc, watching_bcc
from tests.kernel.programs import Program, until
from tests.origins import short_children

pytestmark = [needs_bcc, pytest.mark.skipif(_headers() is None, reason="the kernel's headers are not installed")]


@pytest.fixture(scope="module")
def source() -> Iterator[EbpfSource]:
    """Attached once, for compiling takes its time. The guard is used as on kernels whose tracepoint doesn't tell the last thread."""
    with watching_bcc(use_headers=True, force_guard=True) as source:
        yield source


@pytest.mark.parametrize(
    ("words", "exits"),
    [
        (("end", 50, 0), [51, 0, 0, 0]),
        (("end", 50, 1), [1, 50, 0, 0]),
        (("kill", 50, int(signal.SIGSEGV)), [1, 0, 50, 0]),
        (("stop", 20), [1, 0, 20, 0]),
        (("together", 50, 8), [51, 0, 0, 0]),
        (("scatter", 50, 8), [51, 0, 0, 0]),
        (("leader", 10, 21, 5), [1, 10, 0, 0]),
    ],
    ids=["0", "1", "SIGSEGV", "SIGKILL", "together", "scatter", "leader"],
)
def test_outcomes(source: EbpfSource, workload: Program, words: tuple[object, ...], exits: list[int]) -> None:
    """Exit codes and fatal signals of processes, whichever thread is the last one."""
    workload.storm(*words)
    counts = source.peek()
    assert counts.of(COMM).row(workload.comm).exits == exits
    assert short_children(source)[workload.comm] == sum(exits) - 1


def test_nothing_is_kept_from_the_birth_on(source: EbpfSource) -> None:
    """All is in the task: processes from before are no matter, and no orphan's parent is unknown."""
    assert "live_processes" not in source._kernel.maps
    assert "on_free" in source._kernel.programs


@pytest.mark.parametrize("threads", [1, 4])
def test_cpu_is_what_the_kernel_charged(source: EbpfSource, workload: Program, threads: int) -> None:
    """Of processes with one thread and with several; it comes when the kernel frees them."""
    truth = workload.storm("burn", 20, 5, threads).cpu_ns
    mine = until(lambda: source.peek().of(COMM).row(workload.comm), lambda counts: counts.cpu_ns >= truth * 0.97)
    assert mine.cpu_ns == pytest.approx(truth, rel=0.03)
