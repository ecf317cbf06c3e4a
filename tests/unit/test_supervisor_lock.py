"""A scrape never waits for a source that is slow, whatever the supervisor does with it, and shows all that was counted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from exporter.config.options import Config
from exporter.loaders.direct import Direct
from exporter.model import NS, Mode, ModeUnavailable, SourceFailed, SwitchReason
from exporter.model.dimensions import BY_ORIGIN, OWNER
from exporter.model.exits import ProcessExit
from exporter.records.hub import Hub
from exporter.supervision import switchover
from exporter.supervision.modes import loader_settings
from exporter.supervision.supervisor import Supervisor
from exporter.supervision.switchover import Running
from exporter.web.stream import StreamFeed
from tests.unit.fake_source import FakeSource

SCALE = Config().runtime_scale
SECONDS = 20
"""A source is slow for so long, unless it is let go."""


class Slow(FakeSource):
    """Takes long at one step."""

    def __init__(self, slow_to: str, mode: Mode) -> None:
        super().__init__(mode, SCALE)
        self.slow_to = slow_to
        self.began = threading.Event()
        self.let_go = threading.Event()
        self.done = threading.Event()
        self.refuses = False
        self.told: list[bool] = []

    def start(self, *, standby: bool = False) -> None:
        super().start(standby=standby)
        self._step("start")

    def count_from(self, from_ns: int) -> None:
        if self.refuses:
            raise SourceFailed("it broke")
        super().count_from(from_ns)

    def stop(self) -> None:
        self._step("stop")
        super().stop()

    def publish(self, _to: object, *, live: bool, follows: object = None) -> None:
        self.told.append(live)

    def _step(self, step: str) -> None:
        if step == self.slow_to:
            self.began.set()
            self.let_go.wait(SECONDS)
            self.done.set()


class Host:
    """A supervisor whose modes are these sources."""

    def __init__(self, old: Slow, new: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
        self.old, self.new = old, new
        self.supervisor = Supervisor(Config(), Hub(0), Direct(loader_settings(Config())))
        self.supervisor._active = Running(old)
        monkeypatch.setattr(self.supervisor._selector, "start_best", self._take)
        for at in range(3):
            old.tally.exited(at, ProcessExit(0, NS // 2, b"a", b"b", cpu_ns=5))

    def switch(self) -> None:
        self.supervisor.switch([self.new.mode], SwitchReason.CONFIG)

    def _take(self, _modes: object, start: Callable[[FakeSource], None], **_: object) -> tuple[FakeSource, str]:
        start(self.new)
        return self.new, ""

    def exits(self) -> int:
        return sum(self.supervisor.snapshot().view.counts.total.exits)


@contextmanager
def meanwhile(act: Callable[[], object], slow: Slow) -> Iterator[None]:
    """Do it, and look on while that source takes its time over it."""

    def run() -> None:
        with contextlib.suppress(ModeUnavailable):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert slow.began.wait(SECONDS)
        yield
        assert not slow.done.is_set(), "a scrape waited for it"
    finally:
        slow.let_go.set()
        thread.join()


@pytest.fixture
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(switchover, "_AHEAD_NS", NS // 1000)
    old, new = request.param
    return Host(Slow(old, Mode.NETLINK), Slow(new, Mode.EBPF_CORE), monkeypatch)


@pytest.mark.parametrize("host", [("", "start")], indirect=True)
def test_a_mode_that_is_slow_to_start(host: Host) -> None:
    """Compiling takes a while; the mode before counts, and is shown."""
    with meanwhile(host.switch, host.new):
        for at in range(20):
            host.old.tally.forked(1)
            snapshot = host.supervisor.snapshot()
            assert (snapshot.mode, snapshot.view.counts.forks, sum(snapshot.view.counts.total.exits)) == (Mode.NETLINK, at + 1, 3)
    assert (host.supervisor.mode, host.exits()) == (Mode.EBPF_CORE, 3)


@pytest.mark.parametrize("host", [("stop", "")], indirect=True)
def test_a_mode_that_is_slow_to_stop_after_a_switch(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are shown together, until it has been stopped; and its last counts stay."""
    host.switch()
    assert (host.supervisor.mode, host.exits()) == (Mode.EBPF_CORE, 3)
    host.new.tally.exited(7, ProcessExit(host.new.tally.from_ns, 5, b"c", b"d"))
    host.old.pending = 1
    host.supervisor.tick()
    assert not host.old.began.is_set(), "the CPU of a process is to come"
    host.old.pending = 0
    monkeypatch.setattr(switchover, "_LATE_NS", 0)
    with meanwhile(host.supervisor.tick, host.old):
        for _ in range(20):
            assert (host.supervisor.mode, host.exits()) == (Mode.EBPF_CORE, 4)
        host.old.tally.exited(8, ProcessExit(0, 5, b"c", b"d"))
        assert host.exits() == 5, "it reads what is waiting"
    assert host.exits() == 5
    assert host.old.stopped


@pytest.mark.parametrize("host", [("stop", "")], indirect=True)
def test_a_mode_that_broke_and_is_slow_to_stop(host: Host) -> None:
    """What it showed last is shown until then, and stays."""
    assert host.exits() == 3
    host.old.broken = True
    with meanwhile(host.supervisor.tick, host.old):
        for _ in range(20):
            snapshot = host.supervisor.snapshot()
            assert (snapshot.mode, sum(snapshot.view.counts.total.exits)) == (None, 3)
    assert (host.supervisor.mode, host.exits()) == (Mode.EBPF_CORE, 3)


@pytest.mark.parametrize("host", [("", "")], indirect=True)
def test_a_mode_that_broke_leaves_no_breakdown_short(host: Host) -> None:
    """Nobody can say any more for whom its last processes ran; so they are in `other`."""
    host.supervisor._drain(Running(host.old))
    host.old.tally.exited(9, ProcessExit(0, NS // 2, b"c", b"d", cpu_ns=5))
    assert host.exits() == 4
    host.old.broken = True
    host.supervisor.tick()
    view = host.supervisor.snapshot().view
    assert view.counts.total.short_exits == 4
    others = {dimension: view.rows[dimension][-1][1] for dimension in BY_ORIGIN}
    assert {dimension: other.short_exits for dimension, other in others.items()} == dict.fromkeys(BY_ORIGIN, 1)
    assert others[OWNER].short_cpu_ns == 5


@pytest.mark.parametrize("host", [("stop", "")], indirect=True)
def test_a_second_switch_while_one_is_not_over(host: Host) -> None:
    """There are never more than two: it ends the first one, and waits for that alone."""
    host.switch()
    second, host.new = host.new, Slow("", Mode.EBPF_BCC)
    with meanwhile(host.switch, host.old):
        for _ in range(20):
            assert (host.supervisor.mode, host.exits()) == (Mode.EBPF_CORE, 3)
    assert (host.supervisor.mode, host.exits()) == (Mode.EBPF_BCC, 3)
    assert host.old.stopped
    assert not second.stopped
    assert second.tally.until_ns == host.new.tally.from_ns


@pytest.mark.parametrize("host", [("", "stop")], indirect=True)
def test_a_mode_that_can_not_take_over_and_is_slow_to_stop(host: Host) -> None:
    """The mode before goes on."""
    host.new.refuses = True
    with meanwhile(host.switch, host.new):
        for at in range(20):
            host.old.tally.forked(1)
            snapshot = host.supervisor.snapshot()
            assert (snapshot.mode, snapshot.view.counts.forks) == (Mode.NETLINK, at + 1)


@pytest.mark.parametrize("host", [("stop", "")], indirect=True)
def test_a_stream_that_is_opened_meanwhile(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the active mode is asked for records: what another one has closed by then may be somebody else's descriptor."""
    monkeypatch.setattr(switchover, "_LATE_NS", 0)
    host.switch()
    with meanwhile(host.supervisor.tick, host.old):
        host.supervisor._hub.attach(StreamFeed())
        assert (host.old.told, host.new.told) == ([], [True])


@pytest.mark.parametrize("host", [("", "")], indirect=True)
def test_a_scrape_of_a_mode_that_broke_shows_what_it_showed_last(host: Host) -> None:
    """It is answered all the same, though nobody has stepped down yet."""
    host.exits()
    host.old.broken = True
    snapshot = host.supervisor.snapshot()
    assert (snapshot.mode, sum(snapshot.view.counts.total.exits)) == (Mode.NETLINK, 3)
