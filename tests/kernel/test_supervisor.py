"""Modes that start, and modes that break while they run: no total is lost or falls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.config.options import Config, Detection
from exporter.loaders.direct import Direct
from exporter.metrics.exposition import Exposition
from exporter.model import Lost, Mode, ModeUnavailable, SwitchReason
from exporter.records.hub import Hub
from exporter.sources.ebpf import source as ebpf
from exporter.sources.ebpf.source import EbpfSource
from exporter.supervision.modes import Host, ModeSpec, loader_settings
from exporter.supervision.reload import LastReload
from exporter.supervision.selector import ModeStatus
from exporter.supervision.supervisor import Supervisor
from exporter.web.pages import Pages
from tests.kernel.programs import Program, until

Series = tuple[str, tuple[tuple[str, str], ...]]


def supervising(config: Config) -> Supervisor:
    """One that has the privileges of this process."""
    return Supervisor(config, Hub(0), Direct(loader_settings(config)))


@pytest.fixture
def supervisor(requires_bpf: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(ebpf, "_DRAIN_EVERY_NS", 0)
    supervisor = supervising(Config())
    supervisor.start()
    yield supervisor
    supervisor.stop()


def ticked(supervisor: Supervisor) -> Mode | None:
    """The mode after one more round."""
    supervisor.tick()
    return supervisor.mode


def broken(fd: int) -> None:
    """Let every call to the kernel about this descriptor fail, as where `bpf()` is forbidden after the start. A link's attachment ends."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, fd)
    os.close(nothing)


@pytest.mark.parametrize("name", ["cpus", "shared", "barrier", "control", "comms_a", "link"])
def test_a_broken_mode_gives_way_and_comes_back(
    supervisor: Supervisor, workload: Program, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever call to the kernel fails first, the exporter goes on, says why, keeps what was drained, and climbs again.

    To `ebpf_bcc` once; it takes a second to compile.
    """
    if name != "link":
        monkeypatch.setattr("exporter.loaders.bcc.refusal", lambda _: "not today")
    source = supervisor._source
    assert isinstance(source, EbpfSource)
    workload.storm("end", 50, 0)
    supervisor.tick()
    before, kernel = counters(supervisor), source._kernel
    assert before["shortproc_ended_processes_total", (("outcome", "ok"),)] >= 51
    broken(kernel.links["on_exit"] if name == "link" else kernel.maps[name].fd)
    until(lambda: ticked(supervisor), lambda mode: mode is not Mode.EBPF_CORE)
    workload.storm("end", 50, 0)
    snapshot = supervisor.snapshot()
    assert snapshot.mode in (Mode.EBPF_BCC, Mode.NETLINK), "an exact one"
    assert snapshot.degraded
    assert snapshot.switches[snapshot.mode, SwitchReason.FAILED] == 1
    assert "failed: " in snapshot.modes[Mode.EBPF_CORE].reason
    assert (kernel.links, kernel.programs, kernel.maps) == ({}, {}, {}), "no program runs on, no map stays"
    after = counters(supervisor)
    assert fell(before, after) == {}
    supervisor._tried = 0  # as if `retry_seconds` had passed
    supervisor.tick()
    snapshot = supervisor.snapshot()
    assert snapshot.mode is Mode.EBPF_CORE
    assert not snapshot.degraded
    assert snapshot.switches[Mode.EBPF_CORE, SwitchReason.RECOVERED] == 1
    assert snapshot.modes[Mode.EBPF_CORE].reason == ""
    assert fell(after, counters(supervisor)) == {}
    gap = counters(supervisor)["shortproc_detection_lost_total", (("reason", Lost.SWITCH_GAP.value),)]
    assert gap >= snapshot.view.counts.lost.get(Lost.SWITCH_GAP, 0)


def test_a_blind_mode_is_noticed(requires_bpf: None, workload: Program) -> None:
    """A source that tells of nothing, while the kernel counts clones, is as good as broken; nothing else would say so."""
    supervisor = supervising(Config())
    supervisor.start()
    try:
        source = supervisor._source
        assert source is not None
        source.count_until(1)  # nothing counts any more
        for _ in range(5):
            workload.storm("end", 50, 0)
            supervisor.tick()
        assert supervisor.mode is not Mode.EBPF_CORE
        assert "missed most" in supervisor.snapshot().modes[Mode.EBPF_CORE].reason
        assert supervisor.snapshot().view.counts.lost[Lost.SWITCH_GAP] >= 50
    finally:
        supervisor.stop()


@pytest.fixture
def measured_programs(requires_bpf: None) -> Iterator[None]:
    """`kernel.bpf_stats_enabled` is 1 for a while."""
    sysctl = Path("/proc/sys/kernel/bpf_stats_enabled")
    before = sysctl.read_text()
    sysctl.write_text("1")
    yield
    sysctl.write_text(before)


def test_a_changed_configuration_switches(
    measured_programs: None, supervisor: Supervisor, workload: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand, through every mode: no counter falls or goes. One that can't run is refused, and the one before goes on."""
    before = counters(supervisor)
    assert ("shortproc_bpf_program_runs_total", (("program", "on_exit"),)) in before
    for mode in (*Mode, Mode.EBPF_CORE):
        workload.storm("end", 20, 0)
        supervisor.reconfigure(Config(detection=Detection(mode=mode)))
        assert supervisor.mode is mode
        assert not supervisor.snapshot().degraded
        after = counters(supervisor)
        assert fell(before, after) == {}
        before = after
    monkeypatch.setattr("exporter.loaders.bcc.refusal", lambda _: "not today")
    with pytest.raises(ModeUnavailable, match="ebpf_bcc can't run: not today"):
        supervisor.reconfigure(Config(detection=Detection(mode=Mode.EBPF_BCC)))
    assert supervisor.mode is Mode.EBPF_CORE
    supervisor.reconfigure(Config())
    assert supervisor.snapshot().switches[Mode.EBPF_CORE, SwitchReason.CONFIG] == 1, "what runs already goes on"


def test_a_mode_of_lower_rank_is_kept_while_no_better_one_works(requires_bpf: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A climb that fails leaves things as they are, and the reason is shown anew."""
    supervisor = supervising(Config(no_ebpf=True, detection=Detection(retry_seconds=1)))
    monkeypatch.setattr("exporter.kernel.netlink_sockets.refusal", lambda _: "not today")
    supervisor.start()
    try:
        assert supervisor.snapshot().mode is Mode.FAST_SCAN
        supervisor._tried = 0
        supervisor.tick()
        assert supervisor.snapshot().mode is Mode.FAST_SCAN
        assert supervisor.snapshot().modes[Mode.NETLINK].reason == "not today"
        monkeypatch.undo()
        supervisor._tried = 0
        supervisor.tick()
        assert supervisor.snapshot().mode is Mode.NETLINK
    finally:
        supervisor.stop()


def test_ready_is_when_a_scrape_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus must see a counter at 0 first, so the first scrape that is answered may lack none."""
    config = Config(detection=Detection(mode=Mode.SCAN))
    supervisor = supervising(config)
    pages = Pages(config, supervisor, LastReload(), Hub(0))
    lacking: list[str] = []

    def probed(spec: ModeSpec, _: Host) -> ModeStatus:
        if pages.ready() is None and supervisor.snapshot().sample is None:
            lacking.append(f"ready before {spec.mode} was probed")
        return ModeStatus(usable=True, reason="")

    monkeypatch.setattr("exporter.supervision.selector.probed", probed)
    try:
        supervisor.start()
        assert pages.ready() is None
    finally:
        supervisor.stop()
    assert lacking == []


def fell(before: dict[Series, float], after: dict[Series, float]) -> dict[Series, tuple[float, float | None]]:
    """Counters that are less than they were, or gone."""
    return {key: (value, after.get(key)) for key, value in before.items() if after.get(key, -1) < value}


def counters(supervisor: Supervisor) -> dict[Series, float]:
    """All that may only grow, as a scrape has it."""
    families = text_string_to_metric_families(Exposition(Config(), supervisor.snapshot, LastReload()).render().decode())
    samples = [sample for family in families if family.type in ("counter", "histogram") for sample in family.samples]
    return {(each.name, tuple(each.labels.items())): each.value for each in samples if each.name.startswith("shortproc_")}
