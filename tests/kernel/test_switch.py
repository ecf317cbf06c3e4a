"""Switches between sources while a storm runs whose truth is known: what is exact stays exact, and what is missed is published."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.config.options import Config, Detection, FastScan, Metrics, Scan
from exporter.kernel.procfs import Procfs
from exporter.loaders.direct import Direct
from exporter.model import Lost, Mode, ModeUnavailable
from exporter.model.counts import Counts, ProcessCounts
from exporter.model.ledger import Ledger
from exporter.sources.base import Source
from exporter.sources.scan.slow import ScanSource
from exporter.supervision.completeness import Completeness
from exporter.supervision.modes import SPECS, Host, loader_settings
from exporter.supervision.switchover import run_both, settle
from tests.kernel.programs import SCALE, Program, until

EXACT = (Mode.EBPF_CORE, Mode.EBPF_BCC, Mode.NETLINK)
CONFIG = Config(detection=Detection(fast_scan=FastScan(0.05), scan=Scan(0.1)), metrics=Metrics(max_comms=1000, new_series_hold_seconds=0))


class Switching:
    """A ledger, and a source that is replaced again and again."""

    def __init__(self, procfs: Procfs) -> None:
        self._host = Host(CONFIG, procfs, Direct(loader_settings(CONFIG)))
        self._ledger = Ledger(1000, 0)
        self._clones = 0
        self.source: Source | None = None

    def to(self, mode: Mode) -> None:
        new = SPECS[mode].make(self._host)
        old, self.source = self.source, new
        if old is None:
            new.start()
        else:
            run_both(old, new)
            settled = settle(old, new, CONFIG.runtime_scale)
            self._absorb_last(old)
            self._ledger.absorb(settled)

    def running(self) -> Source:
        assert self.source is not None
        return self.source

    def stop(self) -> Counts:
        assert self.source is not None
        self.source.stop()
        self._absorb_last(self.source)
        self.source = None
        return self._ledger.view(Counts()).counts

    def clones(self) -> int:
        return self._clones + (self.source.clones() if self.source is not None else 0)

    def of(self, comm: bytes) -> ProcessCounts:
        mine = dict(self._ledger.view(Counts()).comms).get(comm.decode(), ProcessCounts()).copy()
        if self.source is not None:  # a name that is new there is in no view yet
            mine.add(self.source.peek().of(comm))
        return mine

    def _absorb_last(self, source: Source) -> None:
        self._clones += source.clones()
        self._ledger.absorb(source.drain())


@pytest.fixture
def procfs() -> Iterator[Procfs]:
    procfs = Procfs()
    yield procfs
    procfs.close()


@pytest.fixture
def switching(requires_bpf: None, procfs: Procfs) -> Iterator[Switching]:
    switching = Switching(procfs)
    yield switching
    if switching.source is not None:
        switching.stop()


@pytest.fixture
def without_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches don't wait for the CPU of what ended before them, which nobody looks at here."""
    monkeypatch.setattr("exporter.supervision.switchover._SECONDS", 0.05)


def during(storm: Callable[[], object], switches: Callable[[], object]) -> int:
    """Let storms blow until there was the last switch; returns how many there were."""
    over = threading.Event()
    storms: list[object] = []

    def blow() -> None:
        while not over.is_set():
            storms.append(storm())

    thread = threading.Thread(target=blow)
    thread.start()
    try:
        switches()
    finally:
        over.set()
        thread.join()
    return len(storms)


@pytest.mark.usefixtures("without_cpu")
@pytest.mark.parametrize("pair", list(itertools.permutations(EXACT, 2)), ids="-".join)
def test_exact_modes_stay_exact(switching: Switching, workload: Program, nothing: Program, procfs: Procfs, pair: tuple[Mode, Mode]) -> None:
    """Forks, execs and ends, through three switches in the middle of it: none twice, none lost."""
    switching.to(pair[0])
    completeness = Completeness(procfs.kernel_clones)
    completeness.begin(switching.clones)

    def switch() -> None:
        for mode in (pair[1], pair[0], pair[1]):
            time.sleep(0.1)
            switching.to(mode)

    storms = during(lambda: workload.storm("forkexec", 500, nothing.path), switch)
    until(lambda: sum(switching.of(nothing.comm).exits), lambda ended: ended >= 500 * storms)
    time.sleep(0.2)  # what would be counted twice would come late
    mine = switching.of(nothing.comm)
    assert sum(mine.exits) == sum(mine.buckets or [500 * storms]) == mine.short_exits == 500 * storms
    assert sum(switching.of(workload.comm).exits) == storms
    sample = completeness.sample(switching.clones, immediate=True)
    unsure = switching.stop().lost.get(Lost.SWITCH_UNSURE, 0)
    assert sample is not None
    assert abs(sample.observed - sample.kernel) <= unsure
    assert abs(mine.execs - 500 * storms) <= unsure
    assert Mode.NETLINK in pair or not unsure


def test_cpu_survives_a_switch(switching: Switching, workload: Program) -> None:
    """It comes after the end, and then another source may run; of each process it is charged once or said to be lost."""
    switching.to(Mode.EBPF_CORE)
    spent: list[int] = []

    def switch() -> None:
        for _ in range(4):
            time.sleep(0.05)
            switching.to(Mode.EBPF_CORE)

    storms = during(lambda: spent.append(workload.storm("burn", 30, 5, 1).cpu_ns), switch)
    until(lambda: switching.of(workload.comm).cpu_ns, lambda cpu_ns: cpu_ns >= 0.98 * sum(spent), seconds=2)
    mine = switching.of(workload.comm)
    lost = switching.stop().lost.get(Lost.CPU_NEVER_CAME, 0)
    assert sum(mine.exits) == 31 * storms
    assert mine.cpu_ns <= 1.02 * sum(spent)
    assert mine.cpu_ns >= 0.98 * sum(spent) - 6_000_000 * lost


@pytest.mark.usefixtures("without_cpu")
def test_twenty_switches_through_all_modes(switching: Switching, workload: Program, nothing: Program) -> None:
    """What a scan does not see of the storm is published as lost: the truth lies between what is counted, and that with the lost."""
    switching.to(Mode.EBPF_CORE)
    modes = itertools.islice(itertools.cycle([Mode.NETLINK, Mode.FAST_SCAN, Mode.EBPF_BCC, Mode.SCAN, Mode.EBPF_CORE]), 20)
    seen: list[int] = []

    def switch() -> None:
        for mode in modes:
            time.sleep(0.05)
            switching.to(mode)
            seen.append(sum(switching.of(nothing.comm).exits))

    storms = during(lambda: workload.storm("forkexec", 1000, nothing.path), switch)
    time.sleep(1)
    mine = sum(switching.of(nothing.comm).exits) + sum(switching.of(workload.comm).exits)
    counts = switching.stop()
    assert seen == sorted(seen), "no total falls"
    assert mine <= 1001 * storms
    assert mine + sum(counts.lost.get(reason, 0) for reason in (Lost.UNSEEN, Lost.VANISHED)) >= 1001 * storms


def test_a_source_that_can_not_run_leaves_the_other_alone(switching: Switching, workload: Program, tmp_path: Path) -> None:
    """A climb that fails, again and again, costs no count and leaves nothing listed."""
    switching.to(Mode.EBPF_CORE)

    def fail() -> None:
        for _ in range(5):
            with pytest.raises(ModeUnavailable):
                run_both(switching.running(), ScanSource(SCALE, Procfs(str(tmp_path))))

    ended = 2001 * during(lambda: workload.storm("vfork", 2000), fail)
    assert sum(until(lambda: switching.of(workload.comm), lambda mine: sum(mine.exits) >= ended).exits) == ended
    assert len(switching.running().listed()) == 0
