"""The rule by which two sources that ran at once are added up, on any order of what they saw."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model import FOREVER_NS, NS, Lost, Mode, ModeUnavailable, Outcome, SourceFailed
from exporter.model.counts import Counts
from exporter.model.ends import End, Ends
from exporter.sources.tallied import TallySource
from exporter.sources.tally import Tally
from exporter.supervision.switchover import run_both, settle
from tests.unit.fake_source import SCALE, FakeSource


@dataclass(frozen=True, slots=True)
class Seen:
    """One end, when each of the two learns of it, and whether each knows its CPU."""

    old: int
    new: int
    old_knows: bool
    new_knows: bool


OLD_LISTS, NEW_STARTS, OLD_STOPS, NEW_JOINS, LATEST = 1, 3, 7, 8, 12
SEEN = st.builds(Seen, st.integers(0, LATEST), st.integers(0, LATEST), st.booleans(), st.booleans()).filter(
    lambda seen: (
        (seen.old >= OLD_LISTS or seen.new < NEW_STARTS)  # none lags by more than the old one lists before the new one starts
        and (seen.old < OLD_STOPS or seen.new >= NEW_STARTS)  # at each moment at least one sees it
    )
)


def end(pid: int, *, knows: bool) -> End:
    return End(pid * 10 * NS, 500 + pid, b"c%d" % (pid % 3), b"parent", Outcome.OK, 100 if knows else None)


@given(st.lists(SEEN, max_size=60))
def test_each_end_counts_once(seen: list[Seen]) -> None:
    """Whoever saw it, in whatever order, early or late."""
    old, new = FakeSource(), FakeSource()
    total = Counts()
    for now in range(LATEST + 1):
        if now == OLD_LISTS:
            old.list_ends(on=True)
        if now == NEW_STARTS:
            new.start(quiet=True)
        if now == NEW_JOINS:
            total.add_nameless(settle(old, new, SCALE))
        for pid, each in enumerate(seen):
            if each.old == now < OLD_STOPS:
                old.tally.ended(pid, end(pid, knows=each.old_knows))
            if each.new == now >= NEW_STARTS:
                new.tally.ended(pid, end(pid, knows=each.new_knows))
    total.add_nameless(old.drain())
    total.add_nameless(new.drain())
    assert sum(total.total.exits) == len(seen)
    assert total.total.runtime_ns == sum(500 + pid for pid in range(len(seen)))
    assert total.lost.get(Lost.SWITCH_UNSURE, 0) == 0
    assert total.total.cpu_ns <= 100 * len(seen), "none is charged twice"


@pytest.mark.parametrize(
    ("old_cpu", "new_cpu", "charged"), [(None, None, 0), (7, None, 7), (None, 9, 9), (7, 9, 9)], ids=["nobody", "old", "new", "both"]
)
def test_cpu_is_charged_once(old_cpu: int | None, new_cpu: int | None, charged: int) -> None:
    """Of what both saw, by the one that knows."""
    old, new = FakeSource(), FakeSource()
    old.list_ends(on=True)
    new.start(quiet=True)
    old.tally.ended(1, End(0, 5, b"a", b"b", Outcome.OK, old_cpu))
    new.tally.ended(1, End(0, 5, b"a", b"b", Outcome.OK, new_cpu))
    total = settle(old, new, SCALE)
    total.add_nameless(old.drain())
    assert (sum(total.total.exits), total.total.cpu_ns, total.total.short_cpu_ns) == (1, charged, charged)


def test_a_process_id_given_out_again_is_another_process() -> None:
    """Told by its start."""
    old, new = FakeSource(), FakeSource()
    old.list_ends(on=True)
    new.start(quiet=True)
    old.tally.ended(1, End(0, 5, b"a", b"b"))
    new.tally.ended(1, End(100 * NS, 5, b"a", b"b"))
    assert sum(settle(old, new, SCALE).total.exits) == 1


def test_what_can_not_be_told_apart_is_said() -> None:
    """Better one too few, and said, than a burst that was none."""
    old, new = FakeSource(), FakeSource()
    new.start(quiet=True)
    old.broken = True
    for pid in range(5):
        new.tally.ended(pid, End(0, 5, b"a", b"b"))
    settled = settle(old, new, SCALE)
    assert sum(settled.total.exits) == 0
    assert settled.lost[Lost.SWITCH_UNSURE] == 5


def test_all_else_is_cut_by_the_clock() -> None:
    """Both read the same one, so an event belongs to one of them, whoever hears of it late."""
    old, new = FakeSource(), FakeSource()
    new.start(quiet=True)
    old.cut(0, 50)
    new.cut(50, FOREVER_NS)
    for at_ns in range(100):
        for source in (old, new):
            source.tally.forked(at_ns)
            source.tally.threads(2, at_ns)
            source.tally.execed(b"a", at_ns)
    new.join(Ends())
    ours = old.drain(), new.drain()
    assert [(each.forks, each.threads, each.total.execs) for each in ours] == [(50, 100, 50), (50, 100, 50)]
    assert (old.clones(), new.clones()) == (150, 150)


class Late(FakeSource):
    """Refuses at one step, and lets a process end in the old one before."""

    immediate = False

    def __init__(self, old: FakeSource, step: str) -> None:
        super().__init__()
        self.old = old
        self.step = step
        self.stopped = False

    def start(self, *, quiet: bool = False) -> None:
        super().start(quiet=quiet)
        self.old.tally.ended(1, end(1, knows=True))
        if self.step == "start":
            raise ModeUnavailable("it does not start")

    def cut(self, from_ns: int, until_ns: int) -> None:
        raise SourceFailed("it broke")

    def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize("step", ["start", "cut"])
def test_a_switch_that_fails_leaves_the_old_source_as_it_was(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """It charges again what it counts, and what ended meanwhile too: nobody else will."""
    monkeypatch.setattr("exporter.supervision.switchover._UNDER_WAY_SECONDS", 0)
    old = FakeSource()
    new = Late(old, step)
    with pytest.raises(ModeUnavailable):
        run_both(old, new)
    assert new.stopped is (step == "cut")
    assert not old.tally.lists
    old.tally.ended(2, end(2, knows=True))
    counts = old.drain()
    assert (sum(counts.total.exits), counts.total.cpu_ns) == (2, 200)


class Broken(TallySource):
    """Its thread ended, and nobody has looked yet."""

    mode = Mode.SCAN

    def start(self, *, quiet: bool = False) -> None:
        """It does not matter for what."""

    def stop(self) -> None:
        self._stopping.set()

    def join(self, counted: Ends) -> Ends:
        return self._tally.join(counted)

    def break_down(self, **_: object) -> None:
        self._failure = "it broke"


def test_a_source_that_breaks_during_the_switch_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling may take a minute: what nobody saw meanwhile is a gap, and no clean switch."""
    monkeypatch.setattr("exporter.supervision.switchover._UNDER_WAY_SECONDS", 0)
    old, new = Broken(Tally(SCALE)), FakeSource()
    monkeypatch.setattr(new, "start", old.break_down)
    with pytest.raises(SourceFailed, match="it broke"):
        run_both(old, new)


def test_a_source_that_breaks_at_its_start_takes_nothing_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one goes on."""
    monkeypatch.setattr("exporter.supervision.switchover._UNDER_WAY_SECONDS", 0)
    new = Broken(Tally(SCALE))
    new.break_down()
    with pytest.raises(ModeUnavailable, match="it broke"):
        run_both(FakeSource(), new)
