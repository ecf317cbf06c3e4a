"""Which mode is selected, and when modes that could not run are tried again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from functools import partial

import pytest

from exporter.config.options import Config, Detection
from exporter.loaders.direct import Direct
from exporter.metrics.exposition import Exposition
from exporter.model import FOREVER_NS, NS, Lost, Mode, ModeUnavailable, SwitchReason
from exporter.model.facts import Fact
from exporter.records.hub import Hub
from exporter.supervision.modes import MODES, ModeSpec, loader_settings
from exporter.supervision.modes import Host as Given
from exporter.supervision.reload import LastReload
from exporter.supervision.supervisor import Supervisor
from exporter.web.stream import StreamFeed
from tests.unit.fake_source import FakeSource


class Host:
    """Where some modes can't run, and a supervisor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lacking = {Mode.EBPF_CORE, Mode.EBPF_BCC}
        self.kernel_clones = 100
        self.sources: list[FakeSource] = []
        monkeypatch.setattr("exporter.supervision.switchover._AHEAD_NS", NS // 1000)
        monkeypatch.setattr("exporter.supervision.completeness._STILL_SECONDS", 0)
        monkeypatch.setattr("exporter.kernel.procfs.Procfs.kernel_clones", lambda _: self.kernel_clones)
        specs = [self.spec(spec) for spec in MODES]
        self.supervisor = Supervisor(Config(), Hub(0), Direct(loader_settings(Config())), specs)
        self.supervisor.start()

    def break_down(self) -> None:
        """Let the mode that runs break."""
        self.sources[-1].broken = True
        self.supervisor.tick()

    def retry(self) -> None:
        """Let `retry_seconds` have passed."""
        self.supervisor._tried = float("-inf")
        self.supervisor.tick()

    def mode(self) -> Mode | None:
        return self.supervisor.mode

    def usable(self) -> set[Mode]:
        return {mode for mode, state in self.supervisor.snapshot().modes.items() if state.usable}

    def switches(self) -> dict[tuple[Mode, SwitchReason], int]:
        return {switch: n for switch, n in self.supervisor.snapshot().switches.items() if n}

    def spec(self, real: ModeSpec) -> ModeSpec:
        """A mode that works here as this host lets it."""
        make, probe = partial(self._made, real.mode), partial(self._probe, real.mode)
        return replace(real, make=make, probe=probe, clones_at_once=False)

    def _made(self, mode: Mode, _: Given) -> FakeSource:
        self.sources.append(FakeSource(mode, Config().runtime_scale))
        return self.sources[-1]

    def _probe(self, mode: Mode, _: Given) -> None:
        if mode in self.lacking:
            raise ModeUnavailable("it is not installed")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host(monkeypatch)
    yield host
    host.supervisor.stop()


def test_the_best_mode_that_works_is_taken(host: Host) -> None:
    """With the reasons of those above it, for people; and those below are known, too."""
    snapshot = host.supervisor.snapshot()
    assert snapshot.mode is Mode.NETLINK
    assert snapshot.why == "ebpf_core can't run: it is not installed; ebpf_bcc can't run: it is not installed."
    assert snapshot.degraded
    assert host.usable() == set(Mode) - host.lacking
    assert host.switches() == {(Mode.NETLINK, SwitchReason.UNAVAILABLE): 1}


def test_a_reload_tries_what_is_better_than_what_runs(host: Host) -> None:
    """Who has installed what was missing says so with SIGHUP, and does not wait for the next retry."""
    host.lacking = {Mode.EBPF_CORE}
    host.supervisor.reconfigure(Config())
    assert host.mode() is Mode.EBPF_BCC
    assert host.switches()[Mode.EBPF_BCC, SwitchReason.CONFIG] == 1


def test_a_reload_tries_again_where_nothing_runs(host: Host) -> None:
    """Then it is needed most."""
    host.lacking = set(Mode)
    host.break_down()
    assert host.mode() is None
    with pytest.raises(ModeUnavailable, match="scan can't run: it is not installed"):
        host.supervisor.reconfigure(Config())
    host.lacking = {Mode.EBPF_CORE}
    host.supervisor.reconfigure(Config())
    assert host.mode() is Mode.EBPF_BCC


def test_a_reload_looks_at_the_modes_below_too(host: Host) -> None:
    """The metric of what is available, and the page, tell of what was installed or has gone."""
    host.lacking = {Mode.EBPF_CORE, Mode.SCAN}
    host.supervisor.reconfigure(Config())
    assert host.usable() == set(Mode) - host.lacking


def test_a_refused_reload_changes_nothing(host: Host) -> None:
    """The mode that runs goes on, and what was wanted is wanted still."""
    with pytest.raises(ModeUnavailable, match="ebpf_bcc can't run"):
        host.supervisor.reconfigure(Config(detection=Detection(mode=Mode.EBPF_BCC)))
    assert host.mode() is Mode.NETLINK
    host.lacking = set()
    host.retry()
    assert host.mode() is Mode.EBPF_CORE


def test_a_mode_that_broke_waits_for_its_retry(host: Host) -> None:
    """It would break again; the next one takes over at once, and nothing above is tried meanwhile."""
    host.lacking = set()
    host.break_down()
    assert host.mode() is Mode.FAST_SCAN
    assert host.supervisor.snapshot().modes[Mode.NETLINK].reason == "it failed: it broke"
    host.supervisor.tick()
    assert host.mode() is Mode.FAST_SCAN
    host.retry()
    assert host.mode() is Mode.EBPF_CORE
    assert host.switches()[Mode.EBPF_CORE, SwitchReason.RECOVERED] == 1


def test_the_time_without_any_mode_is_lost(host: Host) -> None:
    """Clones that nobody could see are published as a gap, when there is a mode again."""
    host.lacking = set(Mode)
    host.break_down()
    host.kernel_clones += 30
    host.supervisor.tick()
    host.lacking = set()
    host.kernel_clones += 10
    host.retry()
    assert host.mode() is Mode.EBPF_CORE
    assert host.supervisor.snapshot().view.counts.lost[Lost.SWITCH_GAP] == 40


@pytest.mark.parametrize("where", ["probe", "start"])
def test_a_climb_that_nobody_planned_for_ends_nothing(host: Host, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """At the limit of threads, say: it is one more reason why that mode can't run, and the one that runs goes on."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    running = host.sources[-1]
    host.lacking = {Mode.EBPF_CORE}
    if where == "probe":
        specs = host.supervisor._selector.specs
        specs.update({mode: replace(spec, probe=refuse) for mode, spec in specs.items()})
    else:
        monkeypatch.setattr(FakeSource, "start", refuse)
    host.retry()
    assert host.mode() is Mode.NETLINK
    assert running.tally.until_ns == FOREVER_NS
    assert "can't start new thread" in host.supervisor.snapshot().modes[Mode.EBPF_BCC].reason


def test_a_refused_reload_leaves_the_reason_why_nothing_runs(host: Host) -> None:
    """It names the modes that are wanted, not those of a configuration that was refused."""
    host.lacking = set(Mode)
    host.break_down()
    why = host.supervisor.snapshot().why
    assert why.startswith("ebpf_core can't run")
    with pytest.raises(ModeUnavailable):
        host.supervisor.reconfigure(Config(detection=Detection(mode=Mode.SCAN)))
    assert host.supervisor.snapshot().why == why


def test_records_are_at_once_only_while_somebody_waits(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none are kept, too: else the kernel would go on to wake us for each, long after a browser was closed."""
    told: list[bool] = []
    monkeypatch.setattr(FakeSource, "publish", lambda _, to, *, live, follows: told.append(live))
    stream = StreamFeed()
    host.supervisor._hub.attach(stream)
    host.supervisor._hub.detach(stream)
    assert told == [True, False]


def test_what_was_shown_of_clones_does_not_fall(host: Host) -> None:
    """A scrape between two ticks has shown more than the last tick knew, and then there is no mode to ask."""
    host.kernel_clones += 50
    host.sources[-1].tally.clones += 40
    before = host.supervisor.snapshot().sample
    host.lacking = set(Mode)
    host.break_down()
    after = host.supervisor.snapshot().sample
    assert before is not None
    assert after is not None
    assert after.kernel >= before.kernel
    assert after.observed >= before.observed


class Toys(StrEnum):
    TOY = "toy"


def test_a_mode_is_one_declaration(host: Host) -> None:
    """A mode that nothing else knows is selected, falls back and is shown on /metrics, for its declaration alone."""
    toy = replace(MODES[0], mode=Toys.TOY, fills={Fact.PROCESSES: "exact"}, losses=frozenset(), loader="")  # type: ignore[arg-type]
    host.lacking = {Mode.EBPF_CORE}
    supervisor = Supervisor(Config(), Hub(0), Direct(loader_settings(Config())), [host.spec(toy), *map(host.spec, MODES)])
    supervisor.start()
    try:
        assert supervisor.mode == "toy"
        page = Exposition(Config(), supervisor.snapshot, LastReload()).render().decode()
        assert 'shortproc_detection_mode{mode="toy"} 1.0' in page
        assert 'shortproc_detection_mode_available{mode="toy"} 1.0' in page
        assert 'shortproc_detection_mode_switches_total{reason="start",to_mode="toy"} 1.0' in page
        host.sources[-1].broken = True
        supervisor.tick()
        assert supervisor.mode is Mode.EBPF_BCC
        assert supervisor.snapshot().degraded
    finally:
        supervisor.stop()


def test_each_mode_is_declared_once() -> None:
    """In the order of their names, which `--help` lists."""
    assert [spec.mode for spec in MODES] == list(Mode)
