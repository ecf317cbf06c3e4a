"""What only the programs of `ebpf_core` see, or see better than others, against workloads whose truth is known."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from exporter.model import NS, RuntimeScale
from exporter.model.dimensions import COMM
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.programs import SCALE, Program, ended, until, watching

THREADS = 8


@pytest.mark.parametrize(
    ("words", "exits"),
    [
        (("end", 50, 0), [51, 0, 0, 0]),
        (("end", 50, 1), [1, 50, 0, 0]),
        (("end", 50, 77), [1, 50, 0, 0]),
        (("kill", 50, int(signal.SIGSEGV)), [1, 0, 50, 0]),
        (("kill", 50, int(signal.SIGTERM)), [1, 0, 50, 0]),
        (("stop", 50), [1, 0, 50, 0]),
    ],
    ids=["0", "1", "77", "SIGSEGV", "SIGTERM", "SIGKILL"],
)
def test_outcomes(source: EbpfSource, workload: Program, words: tuple[object, ...], exits: list[int]) -> None:
    """Exit codes and fatal signals, told apart as wait(2) does."""
    workload.storm(*words)
    assert source.peek().of(COMM).row(workload.comm).exits == exits


def test_signals_are_counted_by_number(source: EbpfSource, workload: Program) -> None:
    """SIGXFSZ, since nobody else sends it."""
    workload.storm("kill", 50, int(signal.SIGXFSZ))
    assert source.peek().signals[signal.SIGXFSZ] == 50


def test_sigkill_is_counted_once_a_process(source: EbpfSource, workload: Program) -> None:
    """The kernel delivers one to each thread of every exit_group; those are no kills."""
    workload.storm("together", 300, THREADS)
    assert source.peek().signals.get(signal.SIGKILL, 0) < 300
    before = source.peek().signals.get(signal.SIGKILL, 0)
    workload.storm("stop", 50)
    assert 50 <= source.peek().signals[signal.SIGKILL] - before < 100


def test_core_dumps(source: EbpfSource, workload: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted where the kernel says that it wrote one."""
    monkeypatch.chdir(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    before = source.peek().core_dumps
    pid = workload.start("end", 1, 0)
    os.waitpid(pid, 0)
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGQUIT)
        os._exit(0)
    if not os.WCOREDUMP(ended(pid).status):
        pytest.skip("this machine writes no core dumps")
    assert source.peek().core_dumps - before >= 1


def test_without_histograms_by_name(requires_bpf: None, workload: Program) -> None:
    """They are off by default: no buckets by name, all of them as a whole."""
    with watching(RuntimeScale(NS, SCALE.bounds_ns)) as source:
        workload.storm("end", 20, 0)
        counts = source.peek()
        assert counts.of(COMM).row(workload.comm).buckets == []
        assert counts.of(COMM).other.buckets == []
        assert len(counts.total.buckets) == len(SCALE.bounds_ns) + 1
        assert sum(counts.total.buckets) == sum(counts.total.exits) >= 21


def test_histograms_by_name(source: EbpfSource, workload: Program) -> None:
    """Each runtime falls into the first bucket whose bound it does not exceed."""
    workload.storm("leader", 10, 21, 0)
    mine = source.peek().of(COMM).row(workload.comm)
    assert mine.buckets[:2] == [0, 0]
    assert sum(mine.buckets[2:]) == 11
    assert mine.buckets[3] + mine.buckets[4] >= 1, "the parent lived ten times as long"


@pytest.mark.alone
def test_peak_per_second(own_source: EbpfSource, workload: Program) -> None:
    """The busiest whole second is told even when a scrape comes long after it."""
    assert own_source.gauges().peak_per_second is not None
    first = time.monotonic_ns() // NS
    workload.storm("vfork", 2000)
    spanned = time.monotonic_ns() // NS - first + 1
    peak = until(lambda: own_source.gauges().peak_per_second or 0, lambda peak: peak >= 2000 / spanned)
    assert 2000 / spanned <= peak <= own_source.peek().total.short_exits


def test_peak_is_of_whole_seconds_of_the_last_minute(requires_bpf: None, workload: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current second is left out, for it is not over; so is what is longer ago than 60 s."""
    with watching() as source:
        time.sleep(1 - time.monotonic() % 1)
        second = time.monotonic_ns() // NS
        workload.storm("vfork", 500)
        if time.monotonic_ns() // NS != second:
            pytest.skip("500 processes took this machine more than a second")
        peaks = []
        for now in (second, second + 1, second + 60, second + 61):
            with monkeypatch.context() as patch:
                patch.setattr(time, "monotonic_ns", lambda now=now: now * NS)
                peaks.append(source.gauges().peak_per_second or 0)
    assert [peak >= 500 for peak in peaks] == [False, True, True, False]
