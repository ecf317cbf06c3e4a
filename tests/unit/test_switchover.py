"""How one source takes over from another: each event counts in one of them, and a switch that fails changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model import FOREVER_NS, NS, Lost, Mode, ModeUnavailable, SourceFailed
from exporter.model.counts import Counts
from exporter.model.dimensions import COMM
from exporter.model.exits import ProcessExit
from exporter.sources.base import Source
from exporter.sources.tallied import TallySource
from exporter.sources.tally import Tally
from exporter.supervision import switchover
from exporter.supervision.switchover import Retiring, Running, take_over
from tests.unit.fake_source import SCALE, FakeSource

CUT_NS = 100 * NS
MS = NS // 1000
AROUND = st.integers(-5, 5)


def end(at_ns: int, cpu_ns: int | None = 100) -> ProcessExit:
    """The exit of a process that ran for half a millisecond."""
    return ProcessExit(at_ns - MS // 2, MS // 2, b"comm", b"parent", cpu_ns=cpu_ns)


def nothing(_: Source) -> None:
    """Prepare nothing."""


@given(st.lists(st.tuples(st.sampled_from(["fork", "threads", "exec", "exit"]), AROUND), max_size=60), st.booleans())
def test_each_event_counts_once(events: list[tuple[str, int]], told_first: bool) -> None:
    """Both learn of each, some before they are told of the cut and some long after it."""
    old, new = FakeSource(), FakeSource()
    new.start(standby=True)

    def told() -> None:
        new.count_from(CUT_NS)
        old.count_until(CUT_NS)

    if told_first:
        told()
    for what, after_ns in sorted(events, key=lambda event: event[1]):
        if after_ns >= 0 and new.tally.from_ns == FOREVER_NS:
            told()
        for source in (old, new):
            happen(source.tally, what, CUT_NS + after_ns)
    total = Counts()
    for source in (old, new):
        total.add(source.drain())
    expected = {what: sum(each == what for each, _ in events) for what in ("fork", "threads", "exec", "exit")}
    assert (total.forks, total.threads, total.total.execs) == (expected["fork"], 2 * expected["threads"], expected["exec"])
    assert sum(total.total.exits) == sum(total.of(COMM).row(b"comm").exits) == expected["exit"]
    assert (total.total.cpu_ns, total.total.runtime_ns) == (100 * expected["exit"], MS // 2 * expected["exit"])
    assert old.clones() + new.clones() == expected["fork"] + 2 * expected["threads"]
    assert total.lost == {}


def happen(tally: Tally, what: str, at_ns: int) -> None:
    """Let a tally learn of an event."""
    match what:
        case "fork":
            tally.forked(at_ns)
        case "threads":
            tally.threads(2, at_ns)
        case "exec":
            tally.execed(b"comm", at_ns)
        case "exit":
            tally.exited(1, end(at_ns))


@pytest.mark.parametrize("what", ["fork", "threads", "exec", "exit"])
@pytest.mark.parametrize("side", ["from", "until"])
def test_what_another_mode_may_date_otherwise_is_published(what: str, side: str) -> None:
    """Whether it is counted here or not: the other one may do the same."""
    tally = Tally(SCALE, unsure_ns=10)
    (tally.count_from if side == "from" else tally.count_until)(CUT_NS)
    for after_ns in (-10, -9, 0, 9, 10):
        happen(tally, what, CUT_NS + after_ns)
    assert tally.drain().lost == {Lost.SWITCH_UNSURE: 3 * (2 if what == "threads" else 1)}


def test_what_is_dated_by_guess_is_published() -> None:
    """A scan knows only when it looked: the exit may have been on the other side."""
    tally = Tally(SCALE)
    tally.count_until(CUT_NS)
    assert tally.exited(1, end(CUT_NS - 20), unsure_ns=20)
    assert not tally.exited(2, end(CUT_NS + 20), unsure_ns=21)
    assert tally.drain().lost == {Lost.SWITCH_UNSURE: 1}


def test_standby_counts_nothing() -> None:
    """Nor does it lose anything: the other source counts."""
    tally = Tally(SCALE, unsure_ns=10)
    tally.standby()
    for what in ("fork", "threads", "exec", "exit"):
        happen(tally, what, 5)
    tally.lose(Lost.OVERRUN, 3)
    tally.missed(Lost.VANISHED)
    assert tally.peek() == Tally(SCALE).peek()
    assert (tally.clones, tally.noticed) == (0, 0)


def test_both_are_told_the_same_moment_which_is_over_then() -> None:
    """So the mode that is shown from then on is the one that counts; it can give records before it does."""
    old, new = Running(FakeSource()), FakeSource()
    prepared: list[int] = []
    retiring = take_over(old, new, lambda source: prepared.append(source.tally.from_ns))  # type: ignore[attr-defined]
    assert prepared == [FOREVER_NS]
    assert isinstance(old.source, FakeSource)
    assert old.source.tally.until_ns == new.tally.from_ns == retiring.until_ns <= time.monotonic_ns()
    assert (old.source.tally.from_ns, new.tally.until_ns) == (0, FOREVER_NS)
    assert retiring.running is old
    assert not old.source.stopped
    assert retiring.rest().lost == {Lost.CPU_NEVER_CAME: 0}


def test_a_process_that_stood_still_meanwhile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the old source counted after the moment of which it was told too late, the new one may have counted as well."""
    monkeypatch.setattr(switchover, "_AHEAD_NS", 0)
    old, new = FakeSource(), FakeSource()
    told = old.count_until

    def told_late(until_ns: int) -> None:
        for what in ("fork", "threads", "exec", "exit"):
            for source in (old, new):
                happen(source.tally, what, until_ns + 1)
        told(until_ns)

    monkeypatch.setattr(old, "count_until", told_late)
    assert take_over(Running(old), new, nothing).rest().lost[Lost.SWITCH_UNSURE] == 5


class Refusing(FakeSource):
    """Can't run, as is found out at one step."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    def start(self, *, standby: bool = False) -> None:
        super().start(standby=standby)
        if self.step == "start":
            raise ModeUnavailable("it does not start")

    def count_from(self, from_ns: int) -> None:
        raise SourceFailed("it broke")


@pytest.mark.parametrize("step", ["start", "count_from"])
def test_a_switch_that_fails_leaves_the_old_source_as_it_was(step: str) -> None:
    """It goes on counting as if nothing had been, and nothing of the other stays."""
    old, new = FakeSource(), Refusing(step)
    with pytest.raises(ModeUnavailable):
        take_over(Running(old), new, nothing)
    assert new.stopped is (step == "count_from")
    assert (old.tally.from_ns, old.tally.until_ns) == (0, FOREVER_NS)
    assert not old.stopped


def test_what_nobody_planned_for_stops_the_new_source() -> None:
    """It would run on unseen, programs and all."""
    new = FakeSource()

    def prepare(_: Source) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError):
        take_over(Running(FakeSource()), new, prepare)
    assert new.stopped


class Broken(TallySource):
    """Its thread ended, and nobody has looked yet."""

    mode = Mode.SCAN

    def __init__(self) -> None:
        super().__init__(Tally(SCALE))
        self._failure = "it broke"

    def start(self, *, standby: bool = False) -> None:
        """It does not matter for what."""

    def stop(self) -> None:
        self._stopping.set()


def test_a_source_that_breaks_during_the_switch_is_found_out() -> None:
    """Compiling may take a minute: what nobody saw meanwhile is a gap, and no clean switch."""
    new = FakeSource()
    with pytest.raises(SourceFailed, match="it broke"):
        take_over(Running(Broken()), new, nothing)
    assert new.stopped


def test_a_source_that_breaks_at_its_start_takes_nothing_over() -> None:
    """The old one goes on."""
    old = FakeSource()
    with pytest.raises(ModeUnavailable, match="it broke"):
        take_over(Running(old), Broken(), nothing)
    assert old.tally.until_ns == FOREVER_NS


@pytest.fixture
def ago() -> Callable[[int], Retiring]:
    """A source that ceased to be the active one so long ago, with a process whose CPU is to come."""
    source = FakeSource()
    source.pending = 1
    return lambda ns: Retiring(Running(source), time.monotonic_ns() - ns)


def test_it_waits_for_what_comes_late(ago: Callable[[int], Retiring], monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that are told late, and CPU; but not for ever, for nobody may reap that process."""
    monkeypatch.setattr(switchover, "_TOO_LATE_NS", 1000 * NS)
    early, later = ago(-1000 * NS), ago(NS)
    assert not later.is_done()
    assert ago(1000 * NS).is_done()
    assert isinstance(later.running.source, FakeSource)
    later.running.source.pending = 0
    assert later.is_done()
    assert not early.is_done()


def test_it_does_not_wait_for_what_broke(ago: Callable[[int], Retiring]) -> None:
    """Nothing more will come."""
    retiring = ago(NS)
    assert isinstance(retiring.running.source, FakeSource)
    retiring.running.source.broken = True
    assert retiring.is_done()


def test_cpu_that_never_came_is_said(ago: Callable[[int], Retiring]) -> None:
    """It belongs to exits that are counted."""
    retiring = ago(NS)
    retiring.lost.lose(Lost.SWITCH_UNSURE, 7)
    assert retiring.rest().lost == {Lost.CPU_NEVER_CAME: 1, Lost.SWITCH_UNSURE: 7}


def test_what_was_shown_stays_where_nothing_can_be_read_any_more() -> None:
    """A scrape has shown it, so it is counted: totals don't fall."""
    source = FakeSource()
    running = Running(source)
    source.tally.exited(1, end(CUT_NS))
    assert sum(running.peek().total.exits) == 1
    source.broken = True
    assert sum(running.peek().total.exits) == 1
    assert sum(Retiring(running, 0).rest().total.exits) == 1


def test_what_was_drained_is_not_shown_again() -> None:
    """The ledger has it."""
    source = FakeSource()
    running = Running(source)
    source.tally.exited(1, end(CUT_NS))
    running.peek()
    assert sum(running.drain().total.exits) == 1
    source.broken = True
    assert sum(running.peek().total.exits) == 0
