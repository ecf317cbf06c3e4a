"""Any order of events, looks, drains, switches of source and passing time keeps what the ledger promises (hypothesis, stateful)."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from exporter.model import NS, comm_text
from exporter.model.counts import Counts, ProcessCounts
from exporter.model.ledger import IDLE_NS, Ledger

CAP = 3
BOUNDS = 2
NAMES = [b"a", b"b", b"c", b"d", b"e", b"f", b"other", b"\xff\n"]
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

    @initialize(hold_seconds=st.sampled_from([0, 60, 1200]))
    def begin(self, hold_seconds: int) -> None:
        self.now = 0
        self.hold_ns = hold_seconds * NS
        self.ledger = Ledger(CAP, self.hold_ns, lambda: self.now)
        self.pending = Counts()
        self.happened = ZERO
        self.lives: dict[str, Life] = {}
        self.gone = ZERO
        self.other = ZERO

    @rule(events=st.dictionaries(st.sampled_from(NAMES), process_counts(), min_size=1, max_size=4))
    def happens(self, events: dict[bytes, ProcessCounts]) -> None:
        for name, counts in events.items():
            self.pending.of(name).add(counts)
            self.pending.total.add(counts)
            self.happened = plus(self.happened, vector(counts))

    @rule(counts=process_counts())
    def happens_without_a_name(self, counts: ProcessCounts) -> None:
        self.pending.other.add(counts)
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
        before = {label: vector(each) for label, each in self.ledger.view(self.pending).comms}
        pending, self.pending = self.pending, Counts()
        self.ledger.absorb(pending)
        after = {label: vector(each) for label, each in self.ledger.view(self.pending).comms}
        true = {label: vector(each) for label, each in self.ledger.comms.busiest(CAP)}
        overflowed = before["other"] != plus(self.other, vector(pending.other), vector(pending.by_comm.get(b"other", ProcessCounts())))

        evicted = set(self.lives) - set(true)
        arrived = {
            comm_text(name): each for name, each in pending.by_comm.items() if name != b"other" and comm_text(name) not in self.lives
        }
        admitted = set(true) - set(self.lives)
        assert admitted <= set(arrived)
        assert not (overflowed and admitted), "what was shown as other stays there"
        if evicted:
            event("evicted")
            self._check_eviction(evicted, set(pending.by_comm), len(admitted))
        if admitted and len(admitted) < len(arrived):
            assert min(arrived[label].events() for label in admitted) >= max(arrived[label].events() for label in set(arrived) - admitted)
        if len(admitted) < len(arrived) and not overflowed:
            assert len(true) == CAP or not any(vector(arrived[label]) for label in set(arrived) - admitted)

        for label in evicted:
            self.gone = plus(self.gone, self.lives.pop(label).true)
        for name, each in pending.by_comm.items():
            if life := self.lives.get(comm_text(name)):
                life.true, life.last_ns = plus(life.true, vector(each)), self.now
        for label in admitted:
            self.lives[label] = Life(self.now, self.now, vector(arrived[label]))
        rest = plus(*(vector(each) for label, each in arrived.items() if label not in admitted))
        self.other = plus(self.other, vector(pending.other), vector(pending.by_comm.get(b"other", ProcessCounts())), rest)
        for label in set(before) & set(after) - {"other"}:
            assert before[label] == after[label], "looking shows what draining makes of it"
        assert after["other"] == self.other
        assert at_most(before["other"], after["other"])

    def _check_eviction(self, evicted: set[str], active: set[bytes], admitted: int) -> None:
        leaving = [self.lives[label] for label in evicted]
        staying = [life for label, life in self.lives.items() if label not in evicted and label not in map(comm_text, active)]
        assert all(self.now - life.last_ns >= IDLE_NS for life in leaving)
        assert all(self.now - life.admitted_ns > self.hold_ns for life in leaving), "it was shown at its true value"
        assert all(life.last_ns <= other.last_ns for life in leaving for other in staying), "the longest idle go first"
        assert len(self.lives) - len(evicted) + admitted == CAP, "no more than had to"

    @invariant()
    def sums_are_whole(self) -> None:
        """Other, live series, evicted ones and what is not drained yet make up all that happened."""
        true = [vector(each) for _, each in self.ledger.comms.busiest(CAP)]
        other = vector(dict(self.ledger.view(Counts()).comms)["other"])
        undrained = vector(self.pending.total)
        assert plus(other, *true, self.gone, undrained) == self.happened
        assert vector(self.ledger.view(self.pending).counts.total) == self.happened

    @invariant()
    def rows_are_right(self) -> None:
        """Each shows 0 while it is held and then the truth, and none ever falls."""
        view = self.ledger.view(self.pending)
        assert self.ledger.view(self.pending) == view, "looking changes nothing"
        labels = [label for label, _ in view.comms]
        assert labels[-1] == "other"
        assert len(set(labels)) == len(labels) == len(self.ledger.comms) + 1 <= CAP + 1
        rows = {label: vector(each) for label, each in view.comms}
        assert at_most(self.other, rows.pop("other"))
        assert set(rows) == set(self.lives)
        undrained = {comm_text(name): vector(each) for name, each in self.pending.by_comm.items()}
        for label, life in self.lives.items():
            held = self.now - life.admitted_ns < self.hold_ns
            assert rows[label] == (ZERO if held else plus(life.true, undrained.get(label, ZERO)))
            assert at_most(life.shown, rows[label])
            life.shown = rows[label]


LedgerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, phases=set(Phase) - {Phase.explain})
TestLedger = LedgerMachine.TestCase
