"""What a mode is declared to tell, it tells, and nothing else: metrics' tables, docs/modes.md and reviewers rest on the declaration."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.config.options import Config, Detection, FastScan, Filter, Records, Scan
from exporter.kernel.procfs import Procfs
from exporter.loaders.direct import Direct
from exporter.model import Gauges, Lost, ModeUnavailable, Outcome
from exporter.model.counts import Counts
from exporter.model.dimensions import COMM
from exporter.model.events import EventKind
from exporter.model.facts import Fact
from exporter.model.failures import Kind
from exporter.model.origins import DEEP, UNKNOWN, Origins
from exporter.records.record import Record
from exporter.records.subscriptions import Subscription
from exporter.supervision.modes import MODES, SWITCH_LOSSES, Host, ModeSpec, loader_settings
from tests.kernel import failing
from tests.kernel.programs import Program, until

CONFIG = Config(
    detection=Detection(short_threshold_seconds=60, fast_scan=FastScan(0.05), scan=Scan(0.1)), records=Records(arguments="full")
)
"""Every process counts as short, however slow the machine."""
UNTOLD = {Fact.EXIT_TIMES}
"""How exact a time is can't be told from one: the histogram of latencies shows it."""
_FAILED = {Kind.FORK: Fact.FORK_FAILURES, Kind.EXEC: Fact.EXEC_FAILURES, Kind.OOM_KILL: Fact.OOM_KILLS}
STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
EVERYTHING = Subscription(tuple(EventKind), Filter())


@pytest.fixture
def everything_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernel keeps statistics of programs, and writes core dumps."""
    monkeypatch.chdir(tmp_path)  # core dumps are written there
    if os.geteuid() != 0:
        pytest.skip("only root can try all modes")
    before, limits = STATISTICS.read_text(), resource.getrlimit(resource.RLIMIT_CORE)
    STATISTICS.write_text("1")
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, limits)
    STATISTICS.write_text(before)


def told(counts: Counts, gauges: Gauges, records: list[Record], origins: Origins, name: bytes) -> set[Fact]:
    """Return the facts that something was told of."""
    total = counts.total
    outcomes = dict(zip(Outcome, total.exits, strict=True))
    mine = [record for record in records if record.comm == name]
    from_here = [origin for origin in origins.rows if origin.comm == name]
    found = {
        Fact.PROCESSES: counts.forks and total.runtime_ns and sum(total.exits),
        Fact.NAMES: mine,
        Fact.PARENTS: any(record.parent_comm == name for record in mine),
        Fact.SPAWNERS: any(origin.spawner not in {UNKNOWN, DEEP} for origin in from_here),
        Fact.USERS: any(origin.uid == os.geteuid() for origin in from_here),
        Fact.OWNERS: any(origin.cgroup for origin in from_here),
        Fact.OWNER_CPU: any(
            origins.cgroups[origin.cgroup].short_cpu_ns for origin in from_here if origin.cgroup in origins.cgroups if origin.cgroup
        ),
        Fact.OUTCOMES: outcomes[Outcome.ERROR] and outcomes[Outcome.SIGNAL],
        Fact.CORE_DUMPS: counts.core_dumps,
        Fact.EXECS: total.execs,
        Fact.KILLS: counts.signals.get(signal.SIGKILL),
        Fact.SIGNALS: counts.signals.get(signal.SIGXFSZ),
        **{_FAILED[failure.kind]: True for failure, n in counts.failures.items() if n},
        Fact.CPU: total.cpu_ns,
        Fact.SCAN_DURATION: gauges.scan_duration_seconds,
        Fact.PROGRAM_STATISTICS: counts.program_runs,
        Fact.EVENTS: sum(counts.events.values()),
        Fact.RECORD_USER: any(record.uid is not None for record in mine),
        Fact.RECORD_EXE: any(record.exe for record in records),
        Fact.RECORD_CGROUP: any(record.cgroup for record in mine),
        Fact.RECORD_CPU: any(record.cpu_ns for record in mine),
        Fact.OWNER_OOM_KILLS: any(counts.oom_kills for counts in origins.cgroups.values()),
        Fact.RECORD_ARGUMENTS: any(record.arguments for record in mine),
        Fact.RECORD_LINEAGE: any(record.lineage for record in mine),
        Fact.RECORD_OOM: any(record.oom_killed for record in records),
    }
    return {fact for fact, value in found.items() if value}


@pytest.mark.parametrize("spec", MODES, ids=lambda spec: spec.mode)
def test_a_mode_tells_what_it_declares(everything_on: None, spec: ModeSpec, workload: Program, nothing: Program, tmp_path: Path) -> None:
    """Facts that it has only with the kernel's headers, or if some programs attach, may be missing; no other may, and none undeclared."""
    procfs = Procfs()
    host = Host(CONFIG.runtime_scale, CONFIG.detection, procfs, Direct(loader_settings(CONFIG, [EVERYTHING])), arguments=True)
    try:
        spec.probe(host)
    except ModeUnavailable as reason:
        pytest.skip(str(reason))
    source, records = spec.make(host), list[Record]()
    unsure = {fact for fact, how in spec.fills.items() if "headers" in how or " if " in how}
    source.start()
    try:
        source.publish(records.extend, live=True)
        workload.storm("burn", 4, 150, 1)  # long enough for a scan to see
        workload.storm("forkexec", 3, nothing.path)
        workload.storm("end", 3, 3)
        failing.execs(tmp_path, 1)
        failing.forks_beyond_the_limit(1)
        try:
            failing.oom_kills(1)
        except failing.Unavailable:
            unsure |= {Fact.OOM_KILLS, Fact.OWNER_OOM_KILLS, Fact.RECORD_OOM}
        workload.storm("kill", 3, int(signal.SIGXFSZ))
        workload.storm("kill", 3, int(signal.SIGKILL))
        workload.storm("kill", 3, int(signal.SIGABRT))
        until(lambda: sum(source.peek().of(COMM).row(workload.comm).exits), lambda n: n >= 2)
        time.sleep(0.3)  # CPU comes after the exit
        gauges = source.gauges()
    finally:
        source.stop()
        origins = source.origins()
        counts: Counts = source.drain()
        procfs.close()
    found = told(counts, gauges, records, origins, workload.comm)
    declared = set(spec.fills) - UNTOLD
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() == "":
        unsure.add(Fact.CORE_DUMPS)
    assert found - declared == set()
    assert declared - found - unsure == set()
    assert sum(row.short_exits for row in origins.rows.values()) + origins.other.short_exits == counts.total.short_exits
    assert {reason for reason, n in counts.lost.items() if n} <= spec.losses | SWITCH_LOSSES


def test_every_loss_is_declared_by_a_mode() -> None:
    """Else docs/metrics.md would say that it can't occur."""
    assert SWITCH_LOSSES.union(*(spec.losses for spec in MODES)) == set(Lost)
