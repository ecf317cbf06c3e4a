"""Any order of events, looks, drains, switches of source and passing time keeps what the ledger promises (hypothesis, stateful)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from exporter.model import NS
from exporter.model.counts import Counts, ProcessCounts
from exporter.model.dimensions import COMM, SHORT_EXITS, Dimension, Labels
from exporter.model.facts import Fact
from exporter.model.ledger import Ledger
from exporter.model.series import IDLE_NS

CAP = 3
BOUNDS = 2
FIELDS = ("short_exits", "execs", "runtime_ns", "cpu_ns", "short_cpu_ns")

Vector = tuple[int, ...]

small = st.integers(0, 3)


@st.composite
def process_counts(draw: st.DrawFn) -> ProcessCounts:
    """Some events, with buckets or without: sources differ in that."""
    counts = ProcessCounts(draw(st.lists(small, min_size=4, max_size=4)))
    for name in FIELDS:
        setattr(counts, name, draw(small))
    counts.buckets = draw(st.just([]) | st.lists(small, min_size=BOUNDS, max_size=BOUNDS))
    return counts


def vector(counts: ProcessCounts) -> Vector:
    """All numbers of it."""
    return (*counts.exits, *(getattr(counts, name) for name in FIELDS), *(counts.buckets or [0] * BOUNDS))


def plus(*vectors: Vector) -> Vector:
    return tuple(map(sum, zip(ZERO, *vectors, strict=True)))


def at_most(a: Vector, b: Vector) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))


ZERO: Vector = vector(ProcessCounts())


@dataclass
class Life:
    """A series from its admission to its eviction, as ADR 4 has the rules."""

    admitted_ns: int
    last_ns: int
    true: Vector
    shown: Vector = ZERO


class LedgerMachine(RuleBasedStateMachine):
    """Holds the ledger against a model of its own: lives of series, what went with those that ended, and all that ever happened."""

    dimension: Dimension[Any] = COMM
    keys: ClassVar[list[Any]] = [b"a", b"b", b"c", b"d", b"e", b"f", b"other", b"\xff\n"]

    @initialize(hold_seconds=st.sampled_from([0, 60, 1200]))
    def begin(self, hold_seconds: int) -> None:
        self.now = 0
        self.hold_ns = hold_seconds * NS
        self.ledger = Ledger({self.dimension: CAP}, self.hold_ns, lambda: self.now)
        self.pending = Counts()
        self.happened = ZERO
        self.lives: dict[Labels, Life] = {}
        self.gone = ZERO
        self.other = ZERO

    def rows(self, pending: Counts) -> dict[Labels, Vector]:
        """What a scrape shows."""
        return {labels: vector(each) for labels, each in self.ledger.view(pending).rows[self.dimension]}

    def true(self) -> dict[Labels, Vector]:
        """What those with series really counted."""
        return {labels: vector(each) for labels, each in self.ledger.standings()[self.dimension].named}

    def labelled(self, pending: Counts) -> dict[Labels, ProcessCounts]:
        return {self.dimension.labels_of(key): each for key, each in pending.of(self.dimension).rows.items()}

    @rule(data=st.data())
    def happens(self, data: st.DataObject) -> None:
        events = data.draw(st.dictionaries(st.sampled_from(self.keys), process_counts(), min_size=1, max_size=4))
        for key, counts in events.items():
            self.pending.of(self.dimension).row(key).add(counts)
            self.pending.total.add(counts)
            self.happened = plus(self.happened, vector(counts))

    @rule(counts=process_counts())
    def happens_without_a_key(self, counts: ProcessCounts) -> None:
        self.pending.of(self.dimension).other.add(counts)
        self.pending.total.add(counts)
        self.happened = plus(self.happened, vector(counts))

    @rule(seconds=st.sampled_from([1, 59, 60, 599, 600, 1200, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * NS

    @rule(seconds=st.sampled_from([600, 1200, 3600]))
    def all_is_quiet(self, seconds: int) -> None:
        """Drains go on where nothing happens."""
        self.drain()
        self.time_passes(seconds)
        self.drain()

    @rule()
    def drain(self) -> None:
        """Also what a switch of source does: the old one's last drain, and an empty new one."""
        before = self.rows(self.pending)
        pending, self.pending = self.pending, Counts()
        self.ledger.absorb(pending)
        after, true = self.rows(self.pending), self.true()
        drained, nameless = self.labelled(pending), vector(pending.of(self.dimension).other)
        called_other = vector(drained.pop(self.dimension.other, ProcessCounts()))
        overflowed = before[self.dimension.other] != plus(self.other, nameless, called_other)

        evicted = set(self.lives) - set(true)
        arrived = {labels: each for labels, each in drained.items() if labels not in self.lives}
        admitted = set(true) - set(self.lives)
        assert admitted <= set(arrived)
        assert not (overflowed and admitted), "what was shown as other stays there"
        if evicted:
            event("evicted")
            self._check_eviction(evicted, set(drained), len(admitted))
        if admitted and len(admitted) < len(arrived):
            assert min(arrived[labels].events() for labels in admitted) >= max(arrived[each].events() for each in set(arrived) - admitted)
        if len(admitted) < len(arrived) and not overflowed:
            assert len(true) == CAP or not any(vector(arrived[labels]) for labels in set(arrived) - admitted)

        for labels in evicted:
            self.gone = plus(self.gone, self.lives.pop(labels).true)
        for labels, each in drained.items():
            if life := self.lives.get(labels):
                life.true, life.last_ns = plus(life.true, vector(each)), self.now
        for labels in admitted:
            self.lives[labels] = Life(self.now, self.now, vector(arrived[labels]))
        rest = plus(*(vector(each) for labels, each in arrived.items() if labels not in admitted))
        self.other = plus(self.other, nameless, called_other, rest)
        assert list(before) == list(after), "looking shows who has a series after the drain"
        for labels in set(before) - admitted - {self.dimension.other}:
            assert before[labels] == after[labels], "looking shows what draining makes of it"
        assert all(before[labels] == ZERO for labels in admitted), "a newcomer is born at 0"
        assert after[self.dimension.other] == self.other
        assert at_most(before[self.dimension.other], after[self.dimension.other])

    def _check_eviction(self, evicted: set[Labels], active: set[Labels], admitted: int) -> None:
        leaving = [self.lives[labels] for labels in evicted]
        staying = [life for labels, life in self.lives.items() if labels not in evicted | active]
        assert all(self.now - life.last_ns >= IDLE_NS for life in leaving)
        assert all(self.now - life.admitted_ns > self.hold_ns for life in leaving), "it was shown at its true value"
        assert all(life.last_ns <= other.last_ns for life in leaving for other in staying), "the longest idle go first"
        assert len(self.lives) - len(evicted) + admitted == CAP, "no more than had to"

    @invariant()
    def sums_are_whole(self) -> None:
        """Other, live series, evicted ones and what is not drained yet make up all that happened."""
        other = self.rows(Counts())[self.dimension.other]
        assert plus(other, *self.true().values(), self.gone, vector(self.pending.total)) == self.happened
        assert vector(self.ledger.view(self.pending).counts.total) == self.happened

    @invariant()
    def rows_are_right(self) -> None:
        """Each shows 0 while it is new or held and then the truth, and none ever falls."""
        tracked, view = self.ledger.tracked(), self.ledger.view(self.pending)
        assert self.ledger.view(self.pending) == view, "looking changes nothing"
        assert self.ledger.tracked() == tracked
        shown = [labels for labels, _ in view.rows[self.dimension]]
        assert shown[-1] == self.dimension.other
        assert len(set(shown)) == len(shown) <= CAP + 1
        rows = self.rows(self.pending)
        assert at_most(self.other, rows.pop(self.dimension.other))
        undrained = self.labelled(self.pending)
        assert {labels for labels, value in rows.items() if value != ZERO} <= set(self.lives)
        assert set(rows) - set(self.lives) <= set(undrained)
        for labels in set(rows) & set(self.lives):
            life = self.lives[labels]
            held = self.now - life.admitted_ns < self.hold_ns
            fresh = vector(undrained.get(labels, ProcessCounts()))
            assert rows[labels] == (ZERO if held else plus(life.true, fresh))
            assert at_most(life.shown, rows[labels])
            life.shown = rows[labels]


class TupleMachine(LedgerMachine):
    """The same with keys of another kind, and two labels for each."""

    dimension = Dimension(
        name="unit",
        about="unit",
        plural="units",
        labels=("kind", "unit"),
        headings=("Kind", "Unit"),
        labels_of=lambda key: (key[0] or "none", str(key[1])),
        cap=CAP,
        fact=Fact.RECORD_CGROUP,
        measures=(SHORT_EXITS,),
    )
    keys: ClassVar[list[Any]] = [("", 1), ("", 2), ("service", 1), ("service", 2), ("scope", 1), ("other", 1), ("other", "other")]


SETTINGS = settings(max_examples=100, stateful_step_count=30, deadline=None, phases=set(Phase) - {Phase.explain})
LedgerMachine.TestCase.settings = TupleMachine.TestCase.settings = SETTINGS
TestLedger = LedgerMachine.TestCase
TestLedgerOfTuples = TupleMachine.TestCase
