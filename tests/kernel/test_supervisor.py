"""Modes that start, and modes that break while they run: no total is lost or falls."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from programs import Program, until
from prometheus_client.parser import text_string_to_metric_families

from exporter.app import Pages
from exporter.config import Config, Detection
from exporter.ladder import Rung
from exporter.metrics import Exposition
from exporter.model import Mode, SwitchReason
from exporter.reload import LastReload
from exporter.sources import ebpf
from exporter.sources.ebpf import EbpfSource
from exporter.supervisor import RungState, Supervisor


@pytest.fixture
def supervisor(requires_bpf: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(ebpf, "_DRAIN_EVERY_NS", 0)
    supervisor = Supervisor(Config())
    supervisor.start()
    yield supervisor
    supervisor.stop()


def ticked(supervisor: Supervisor) -> Mode | None:
    """The mode after one more round."""
    supervisor.tick()
    return supervisor.mode


def broken(source: EbpfSource, name: str) -> None:
    """Let every call to the kernel about this map fail, as where `bpf()` is forbidden after the start."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, source._kernel.maps[name].fd)
    os.close(nothing)


@pytest.mark.parametrize("name", ["cpus", "shared", "barrier", "comms_a"])
def test_a_broken_mode_gives_way(supervisor: Supervisor, workload: Program, name: str) -> None:
    """Whatever call to the kernel fails first, the exporter goes on, says why, and keeps what was drained."""
    source = supervisor._source
    assert isinstance(source, EbpfSource)
    workload.storm("end", 50, 0)
    supervisor.tick()
    before, kernel = counters(supervisor), source._kernel
    assert before["shortproc_ended_processes_total", (("outcome", "ok"),)] >= 51
    broken(source, name)
    until(lambda: ticked(supervisor), lambda mode: mode is not Mode.EBPF_CORE)
    snapshot = supervisor.snapshot()
    assert snapshot.mode is Mode.FAST_SCAN
    assert snapshot.degraded
    assert snapshot.switches[Mode.FAST_SCAN, SwitchReason.FAILED] == 1
    assert "it failed: the kernel's maps can't be" in snapshot.rungs[Mode.EBPF_CORE].reason
    assert (kernel.links, kernel.programs, kernel.maps) == ({}, {}, {}), "no program runs on, no map stays"
    after = counters(supervisor)
    assert not {key: (value, after[key]) for key, value in before.items() if key in after and after[key] < value}


def test_ready_is_when_a_scrape_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus must see a counter at 0 first, so the first scrape that is answered may lack none."""
    config = Config(detection=Detection(mode=Mode.SCAN))
    supervisor = Supervisor(config)
    pages = Pages(config, supervisor, LastReload())
    lacking: list[str] = []

    def looked_at(rung: Rung) -> RungState:
        if pages.ready() is None and supervisor.snapshot().sample is None:
            lacking.append(f"ready before {rung.mode} was looked at")
        return RungState(usable=True, reason="")

    monkeypatch.setattr("exporter.supervisor.looked_at", looked_at)
    try:
        supervisor.start()
        assert pages.ready() is None
    finally:
        supervisor.stop()
    assert lacking == []


def counters(supervisor: Supervisor) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All that may only grow, as a scrape has it."""
    families = text_string_to_metric_families(Exposition(Config(), supervisor.snapshot, LastReload()).render("")[0].decode())
    samples = [sample for family in families if family.type in ("counter", "histogram") for sample in family.samples]
    return {(each.name, tuple(each.labels.items())): each.value for each in samples if each.name.startswith("shortproc_")}
