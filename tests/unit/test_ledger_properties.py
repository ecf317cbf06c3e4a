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

CAP = 4
BOUNDS = 2
UNIX_NS = 1_700_000_000 * NS
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
    """A series from its admission until it goes, as ADR 4 has the rules."""

    admitted_ns: int
    last_ns: int
    born_ns: int
    """The drain before its admission: what it counted happened after it."""
    true: Vector = ZERO
    shown: Vector = ZERO
    retired_ns: int | None = None


class LedgerMachine(RuleBasedStateMachine):
    """Holds the ledger against a model of its own: lives of series, what went with those that ended, and all that ever happened."""

    dimension: Dimension[Any] = COMM
    keys: ClassVar[list[Any]] = [b"a", b"b", b"c", b"d", b"e", b"f", b"other", b"\xff\n"]

    @initialize(hold_seconds=st.sampled_from([0, 60, 280, 1200]))
    def begin(self, hold_seconds: int) -> None:
        self.now = 0
        self.hold_ns = hold_seconds * NS
        self.ledger = Ledger({self.dimension: CAP}, self.hold_ns, lambda: self.now, lambda: self.now + UNIX_NS)
        self.drained_ns = 0
        self.pending = Counts()
        self.happened = ZERO
        self.lives: dict[Labels, Life] = {}
        self.gone = ZERO
        self.other = ZERO
        self.late: list[Vector] = []

    def rows(self, pending: Counts) -> dict[Labels, Vector]:
        """What a scrape shows."""
        return {row.labels: vector(row.counts) for row in self.ledger.view(pending).rows[self.dimension]}

    def labelled(self, pending: Counts) -> dict[Labels, ProcessCounts]:
        return {self.dimension.labels_of(key): each for key, each in pending.of(self.dimension).rows.items()}

    @rule(data=st.data())
    def happens(self, data: st.DataObject) -> None:
        events = data.draw(st.dictionaries(st.sampled_from(self.keys), process_counts(), min_size=1, max_size=4))
        for key, counts in events.items():
            self._happens(key, counts)

    def _happens(self, key: Any, counts: ProcessCounts) -> None:
        self.pending.of(self.dimension).row(key).add(counts)
        self.pending.total.add(counts)
        self.happened = plus(self.happened, vector(counts))

    @rule(data=st.data(), failures=st.sampled_from([0, 3, 30, 300, 3000]))
    def bursts(self, data: st.DataObject, failures: int) -> None:
        """Some key is much busier than others."""
        self._happens(data.draw(st.sampled_from(self.keys)), ProcessCounts([10, failures, 0, 0]))
        self.drain()

    @rule(counts=process_counts())
    def happens_without_a_key(self, counts: ProcessCounts) -> None:
        self.pending.of(self.dimension).other.add(counts)
        self.pending.total.add(counts)
        self.happened = plus(self.happened, vector(counts))

    @rule(seconds=st.sampled_from([1, 59, 120, 580, 600, 2400]))
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
        after, standing = self.rows(self.pending), self.ledger.standings()[self.dimension]
        series = {self.dimension.labels_of(key) for key in standing.tracked}
        growing = {self.dimension.labels_of(key) for key in standing.growing}
        assert growing <= series
        drained = self.labelled(pending)

        for labels in self.lives.keys() - series:
            self._goes(labels, drained)
        for labels in series - self.lives.keys():
            assert labels in drained
            self.lives[labels] = Life(self.now, self.now, self.drained_ns)
            assert before[labels] == ZERO, "a newcomer is born at 0"
        for labels, life in self.lives.items():
            self._lives(life, drained.pop(labels, None), is_growing=labels in growing, was_shown=before.get(labels))
        self.other = plus(self.other, vector(pending.of(self.dimension).other), *map(vector, drained.values()), *self.late)
        self.late.clear()
        self.drained_ns = self.now
        assert after[self.dimension.other] == self.other
        assert at_most(before[self.dimension.other], self.other)
        assert list(before) == list(after) or not self.hold_ns, "looking shows which series there are after the drain"

    def _goes(self, labels: Labels, drained: dict[Labels, ProcessCounts]) -> None:
        life = self.lives.pop(labels)
        self.gone = plus(self.gone, life.true)
        assert self.now - life.admitted_ns >= 2 * self.hold_ns, "it was shown at its true value"
        if life.retired_ns is None:
            event("idle")
            assert self.now - life.last_ns >= IDLE_NS
            assert labels not in drained
        else:
            event("retired")
            assert self.now - life.retired_ns >= self.hold_ns, "its last value was shown"

    def _lives(self, life: Life, fresh: ProcessCounts | None, *, is_growing: bool, was_shown: Vector | None) -> None:
        if life.retired_ns is None or is_growing:
            if life.retired_ns is not None:
                event("reinstated")
                assert was_shown in {None, life.true, ZERO}, "held back until the drain"
            life.true = plus(life.true, vector(fresh or ProcessCounts()))
            life.last_ns = self.now if fresh is not None else life.last_ns
            life.retired_ns = None if is_growing else self.now
        elif fresh is not None:
            self.late.append(vector(fresh))

    @invariant()
    def sums_are_whole(self) -> None:
        """Other, live series, those that went and what is not drained yet make up all that happened."""
        other = self.rows(Counts())[self.dimension.other]
        true = (life.true for life in self.lives.values())
        assert plus(other, *true, self.gone, vector(self.pending.total)) == self.happened

    @invariant()
    def rows_are_right(self) -> None:
        """Each shows 0 while it is new or held and then the truth, and none ever falls."""
        tracked, view = self.ledger.tracked(), self.ledger.view(self.pending)
        assert self.ledger.view(self.pending) == view, "looking changes nothing"
        assert vector(view.counts.total) == self.happened
        assert self.ledger.tracked() == tracked
        shown = [row.labels for row in view.rows[self.dimension]]
        assert shown[-1] == self.dimension.other
        assert len(set(shown)) == len(shown) <= CAP + 1
        born = {labels: life.born_ns for labels, life in self.lives.items()} | {self.dimension.other: 0}
        for row in view.rows[self.dimension]:
            assert row.created_ns == UNIX_NS + born.get(row.labels, self.drained_ns), "when it was 0: at the drain before its first event"
        rows = {row.labels: vector(row.counts) for row in view.rows[self.dimension]}
        assert rows.pop(self.dimension.other) == plus(self.other, vector(self.pending.of(self.dimension).other))
        undrained = self.labelled(self.pending)
        assert all(rows[labels] == ZERO and labels in undrained for labels in set(rows) - set(self.lives))
        for labels in set(rows) & set(self.lives):
            life = self.lives[labels]
            held = self.now - life.admitted_ns < self.hold_ns
            fresh = vector(undrained.get(labels, ProcessCounts())) if life.retired_ns is None else ZERO
            assert rows[labels] == (ZERO if held else plus(life.true, fresh))
            assert at_most(life.shown, rows[labels])
            life.shown = rows[labels]


class TupleMachine(LedgerMachine):
    """The same with keys of another kind, and two labels for each. Fewer examples: only the keys differ."""

    dimension = Dimension(
        name="unit",
        about="unit",
        noun="unit",
        labels=("kind", "unit"),
        headings=("Kind", "Unit"),
        labels_of=lambda key: (key[0] or "none", str(key[1])),
        cap="",
        fact=Fact.RECORD_CGROUP,
        measures=(SHORT_EXITS,),
    )
    keys: ClassVar[list[Any]] = [("", 1), ("", 2), ("service", 1), ("service", 2), ("scope", 1), ("other", 1), ("other", "other")]


SETTINGS = settings(max_examples=100, stateful_step_count=30, deadline=None, phases=set(Phase) - {Phase.explain})
LedgerMachine.TestCase.settings = SETTINGS
TupleMachine.TestCase.settings = settings(SETTINGS, max_examples=40)
TestLedger = LedgerMachine.TestCase
TestLedgerOfTuples = TupleMachine.TestCase
