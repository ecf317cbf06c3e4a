"""How series come, are held back, and go."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from exporter.model import NS, Lost
from exporter.model.counts import Breakdown, Counts, ProcessCounts
from exporter.model.dimensions import COMM, PARENT
from exporter.model.ledger import Ledger
from exporter.model.series import IDLE_NS, Row

HOLD_NS = 60 * NS


class Clock:
    def __init__(self) -> None:
        self.ns = 1000 * NS

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger({COMM: 2, PARENT: 20}, HOLD_NS, clock)


def seen(**exits: int) -> Counts:
    """Make a drain in which so many of each comm ended well."""
    counts = Counts()
    for comm, n in exits.items():
        each = ProcessCounts(exits=[n, 0, 0, 0])
        counts.of(COMM).rows[comm.encode()] = each
        counts.total.add(each)
    return counts


def shown(ledger: Ledger, counts: Counts | None = None) -> dict[str, int]:
    """The exits of each row."""
    return exits(ledger.view(counts or Counts()).rows[COMM])


def exits(rows: list[Row]) -> dict[str, int]:
    return {row.labels[0]: row.counts.exits[0] for row in rows}


def totals(ledger: Ledger) -> dict[str, int]:
    """What those with series did since they were noticed."""
    standing = ledger.standings()[COMM]
    return {key.decode(): standing.totals[key].exits[0] for key in standing.tracked}


def overflowed(ledger: Ledger) -> dict[str, int]:
    """Who has no series, the busiest first."""
    standing = ledger.standings()[COMM]
    rest = {key: each for key, each in standing.totals.items() if key not in standing.tracked}
    return {key.decode(): each.exits[0] for key, each in sorted(rest.items(), key=lambda item: -item[1].events())}


def test_a_new_series_is_held_at_zero(ledger: Ledger, clock: Clock) -> None:
    """Prometheus sees no increase in a series that is born with a value."""
    ledger.absorb(seen(a=5))
    assert shown(ledger, seen(a=1)) == {"a": 0, "other": 0}
    clock.ns += HOLD_NS - 1
    assert shown(ledger) == {"a": 0, "other": 0}
    clock.ns += 1
    assert shown(ledger, seen(a=1)) == {"a": 6, "other": 0}


def test_a_newcomer_is_shown_at_zero_at_once(ledger: Ledger) -> None:
    """From the first scrape on, so that Prometheus sees its series rise; in the totals it is at once."""
    view = ledger.view(seen(a=5))
    assert exits(view.rows[COMM]) == {"a": 0, "other": 0}
    assert view.counts.total.exits[0] == 5
    assert shown(ledger) == {"other": 0}, "looking gave it nothing"


def test_newcomers_are_shown_as_far_as_there_is_room(ledger: Ledger, clock: Clock) -> None:
    """Those that the drain would admit, the busiest, in their places; it may take that of one that is idle."""
    ledger.absorb(seen(a=1))
    clock.ns += HOLD_NS
    assert shown(ledger, seen(b=1, c=3, d=2)) == {"a": 1, "c": 0, "other": 0}
    ledger.absorb(seen(b=1))
    clock.ns += IDLE_NS
    ledger.absorb(seen(a=1))
    assert shown(ledger, seen(a=1, c=3, d=2)) == {"a": 3, "c": 0, "other": 0}
    assert shown(ledger, seen(a=1, b=1, c=3)) == {"a": 3, "b": 2, "other": 0}


def test_what_a_newcomer_does_is_held_back_until_its_drain(ledger: Ledger) -> None:
    """Only then is it known where it counts, and from there it must not move."""
    ledger.absorb(seen(a=1, b=1))
    assert shown(ledger, seen(c=7))["other"] == 0
    ledger.absorb(seen(c=7))
    assert shown(ledger, seen(c=1))["other"] == 7


def test_the_busiest_newcomers_come_first(ledger: Ledger) -> None:
    """A drain with more newcomers than there is room for: the rest is overflowed."""
    ledger.absorb(seen(a=1, b=2, c=3))
    assert set(totals(ledger)) == {"b", "c"}
    assert shown(ledger)["other"] == 1
    assert overflowed(ledger) == {"a": 1}


def test_the_longest_idle_gives_way(ledger: Ledger, clock: Clock) -> None:
    """Only where the cap presses, only after ten minutes without an event, and no more of them than are needed."""
    ledger.absorb(seen(a=1))
    clock.ns += NS
    ledger.absorb(seen(b=1))
    clock.ns += IDLE_NS - NS - 1
    ledger.absorb(seen(c=1))
    assert set(shown(ledger)) == {"a", "b", "other"}
    assert shown(ledger)["other"] == 1
    clock.ns += NS + 1
    ledger.absorb(Counts())
    assert set(shown(ledger)) == {"a", "b", "other"}, "nobody wants the place"
    ledger.absorb(seen(d=1))
    assert set(shown(ledger)) == {"b", "d", "other"}
    assert shown(ledger)["other"] == 1


def test_an_event_keeps_a_series(ledger: Ledger, clock: Clock) -> None:
    """Idle is counted from the last event, not from the first."""
    ledger.absorb(seen(a=1, b=1))
    clock.ns += IDLE_NS - 1
    ledger.absorb(seen(a=1))
    clock.ns += 1
    ledger.absorb(Counts())
    ledger.absorb(seen(c=1))
    assert set(shown(ledger)) == {"a", "c", "other"}


def test_a_series_that_comes_back_begins_anew(ledger: Ledger, clock: Clock) -> None:
    """To Prometheus it is a counter that was reset, held at 0 first like any other."""
    ledger.absorb(seen(a=5, b=5))
    clock.ns += IDLE_NS
    ledger.absorb(Counts())
    ledger.absorb(seen(c=1, d=1))
    clock.ns += IDLE_NS
    ledger.absorb(Counts())
    ledger.absorb(seen(a=2))
    assert shown(ledger)["a"] == 0
    clock.ns += HOLD_NS
    assert shown(ledger)["a"] == 2


@pytest.mark.parametrize("hold_ns", [IDLE_NS, 3600 * NS])
def test_no_series_goes_before_it_was_shown(clock: Clock, hold_ns: int) -> None:
    """However long a new series is held at 0, what it counted is shown before another takes its place."""
    ledger = Ledger({COMM: 1}, hold_ns, clock)
    ledger.absorb(seen(a=5))
    highest = 0
    for _ in range(3 * 3600 // 10):
        clock.ns += 10 * NS
        highest = max(highest, shown(ledger).get("a", 0))
        ledger.absorb(seen(b=1))
    assert highest == 5
    assert "b" in shown(ledger), "and then it goes"


def test_a_comm_called_other(ledger: Ledger) -> None:
    """It merges with the row of that name, which must not be there twice."""
    assert shown(ledger, seen(other=3)) == {"other": 0}
    ledger.absorb(seen(other=3))
    assert [(row.labels, row.counts.exits[0]) for row in ledger.view(Counts()).rows[COMM]] == [(("other",), 3)]
    assert ledger.tracked()[COMM] == ()


def test_what_the_source_could_not_name_is_other(ledger: Ledger) -> None:
    """From the moment that it happens, and still after its drain."""
    counts = Counts(by={COMM: Breakdown({}, ProcessCounts([4, 0, 0, 0])), PARENT: Breakdown({}, ProcessCounts(short_exits=2))})
    assert shown(ledger, counts)["other"] == 4
    ledger.absorb(counts)
    assert shown(ledger)["other"] == 4
    assert [row[:2] for row in ledger.view(Counts()).rows[PARENT]] == [(("other",), ProcessCounts(short_exits=2))]


def test_each_dimension_has_its_own_cap(clock: Clock) -> None:
    """However many names comms may have, 20 parents at most have series, the busiest; two places are kept for busier ones."""
    ledger = Ledger({COMM: 60, PARENT: 20}, 0, clock)
    ledger.absorb(Counts(by={PARENT: Breakdown({b"p%d" % n: ProcessCounts(short_exits=n + 1) for n in range(30)})}))
    parents = {row.labels[0]: row.counts.short_exits for row in ledger.view(Counts()).rows[PARENT]}
    assert len(parents) == 19
    assert parents["p29"] == 30
    assert parents["other"] == sum(range(1, 13))


def test_nameless_totals_survive_a_drain(ledger: Ledger) -> None:
    """Forks, signals and losses are shown the same before and after."""
    counts = Counts(forks=1, threads=2, core_dumps=3, signals={9: 4}, lost={Lost.UNSEEN: 5}, program_runs={"on_exit": 6})
    before = ledger.view(counts).counts
    ledger.absorb(counts)
    assert ledger.view(Counts()).counts == before


def test_what_programs_cost_survives_a_switch(ledger: Ledger) -> None:
    """It stays while a mode without programs runs, and goes on from there when they are loaded anew and the kernel begins at 0."""
    ledger.absorb(Counts(program_runs={"on_exit": 5}, program_ns={"on_exit": 900}))
    idle = ledger.view(Counts()).counts
    assert (idle.program_runs, idle.program_ns) == ({"on_exit": 5}, {"on_exit": 900})
    anew = ledger.view(Counts(program_runs={"on_exit": 2, "on_exec": 1}, program_ns={"on_exit": 100, "on_exec": 30})).counts
    assert (anew.program_runs, anew.program_ns) == ({"on_exit": 7, "on_exec": 1}, {"on_exit": 1000, "on_exec": 30})


def test_a_view_does_not_change_with_what_comes(ledger: Ledger, clock: Clock) -> None:
    """It is rendered without the lock, while the next drain goes on."""
    ledger.absorb(seen(a=1))
    clock.ns += HOLD_NS
    pending = seen(b=1, other=1)
    view = ledger.view(pending)
    before = [row._replace(counts=row.counts.copy()) for row in view.rows[COMM]], view.counts.total.copy()
    pending.of(COMM).row(b"b").add(ProcessCounts(exits=[9, 0, 0, 0]))
    ledger.absorb(seen(a=5, b=5))
    assert (view.rows[COMM], view.counts.total) == before


def test_standings_have_the_true_counts(ledger: Ledger) -> None:
    """The page shows what a held series really counted."""
    ledger.absorb(seen(a=1, b=2))
    assert totals(ledger) == {"a": 1, "b": 2}


def test_a_flood_of_names_costs_no_memory(clock: Clock) -> None:
    """24,000 different comms in 80 drains, and then 24,000 more: what is kept does not grow."""
    ledger = Ledger({COMM: 60}, HOLD_NS, clock)

    def flood(prefix: str) -> None:
        for drain in range(80):
            ledger.absorb(seen(**{f"{prefix}{number}": 1 for number in range(300 * drain, 300 * (drain + 1))}))
            clock.ns += 5 * NS

    flood("a")
    gc.collect()
    tracemalloc.start()
    try:
        flood("b")
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 640 * 1024
    finally:
        tracemalloc.stop()
    rows = shown(ledger)
    assert len(rows) == 55
    assert rows["other"] + 2 * 54 == 48_000, "54 had a series, and 54 others when these were idle"
    assert len(overflowed(ledger)) <= 400


def test_a_busy_newcomer_is_noticed_in_a_flood(ledger: Ledger) -> None:
    """Who looks for what hides in `other` finds the busiest, whatever else passes by."""
    ledger.absorb(seen(a=1, b=1))
    for drain in range(10):
        ledger.absorb(seen(busy=50, **{f"n{number}": 1 for number in range(1000 * drain, 1000 * (drain + 1))}))
    assert next(iter(overflowed(ledger).items())) == ("busy", 500)


@pytest.fixture
def wide(clock: Clock) -> Ledger:
    """With as many places as there are by default."""
    return Ledger({COMM: 60}, HOLD_NS, clock)


def burst(ledger: Ledger, clock: Clock, drains: int, **exits_each: int) -> None:
    for _ in range(drains):
        clock.ns += 5 * NS
        ledger.absorb(seen(**exits_each))


def test_a_burst_has_a_series_at_once(wide: Ledger, clock: Clock) -> None:
    """After 200 names of one exit each, all held at 0 yet, a name at 100 a second is seen at 0 and then in full."""
    for at in range(0, 200, 10):
        burst(wide, clock, 1, **{f"n{at + each}": 1 for each in range(10)})
    assert shown(wide, seen(culprit=100))["culprit"] == 0, "in the very first scrape"
    burst(wide, clock, 12, culprit=500)
    assert shown(wide)["culprit"] == 0
    burst(wide, clock, 1, culprit=500)
    assert shown(wide)["culprit"] == 13 * 500


def test_a_burst_takes_the_place_of_the_least_active(wide: Ledger, clock: Clock) -> None:
    """With every place in use by names that come and come: that one stops, stays for the hold, and goes."""
    steady = {f"s{each}": 10 + each for each in range(60)}
    burst(wide, clock, 30, **steady)
    assert {f"s{each}" for each in range(6)} & set(shown(wide)) == set(), "six places are spare"
    burst(wide, clock, 1, culprit=5000, **steady)
    last = shown(wide)["s6"]
    assert last == 31 * 16, "what it did in this drain too"
    other = shown(wide)["other"]
    burst(wide, clock, 11, culprit=5000, **steady)
    assert shown(wide)["s6"] == last
    assert shown(wide)["other"] == other + 11 * sum(10 + each for each in range(7))
    burst(wide, clock, 1, culprit=5000, **steady)
    rows = shown(wide)
    assert "s6" not in rows
    assert rows["culprit"] == 13 * 5000
    assert len(rows) == 55


def test_who_retired_grows_on_when_it_is_busy_again(wide: Ledger, clock: Clock) -> None:
    """From its last value, so that nothing falls; what it did in between is in `other`."""
    steady = {f"s{each}": 10 + each for each in range(54)}
    burst(wide, clock, 30, **steady)
    burst(wide, clock, 1, culprit=5000, **steady)
    burst(wide, clock, 1, **steady)
    retired = shown(wide)["s0"]
    assert retired == 31 * 10
    assert shown(wide, seen(s0=9000))["s0"] == retired, "held back until it is decided"
    burst(wide, clock, 1, s0=9000)
    assert shown(wide, seen(s0=1))["s0"] == retired + 9001


def test_pins_do_not_keep_a_service_out(wide: Ledger, clock: Clock) -> None:
    """60 names of one exit in five minutes each held every series for ever."""
    pins = {f"pin{each}": 1 for each in range(60)}
    for _ in range(5):
        burst(wide, clock, 1, **pins)
        burst(wide, clock, 59)
    burst(wide, clock, 2, service=5)
    assert "service" in shown(wide)


def test_names_of_equal_activity_do_not_take_turns(wide: Ledger, clock: Clock) -> None:
    """70 names, each once in 90 s: whoever has a series keeps it, for each change costs a gap in a graph."""
    names = [f"cron{each}" for each in range(70)]
    had: set[str] = set()
    for at in range(180):
        burst(wide, clock, 1, **{name: 1 for number, name in enumerate(names) if at % 18 == number % 18})
        had |= set(shown(wide))
    assert len(had) == 55


def test_a_user_does_not_hide_a_service_by_busy_names(wide: Ledger, clock: Clock) -> None:
    """A hundred names of one user, each far busier than it: half of the series are enough for them."""
    for _ in range(4):
        clock.ns += 5 * NS
        counts = seen(service=5, **{f"flood{each}": 50 for each in range(100)})
        counts.of(COMM).holders = {b"flood%d" % each: 1000 for each in range(100)} | {b"service": None}
        wide.absorb(counts)
    assert "service" in shown(wide)
    late = seen(late=1, **{f"more{each}": 500 for each in range(100)})
    late.of(COMM).holders = {b"more%d" % each: 1000 for each in range(100)} | {b"late": None}
    wide.absorb(late)
    assert "late" in shown(wide)
    assert len(shown(wide)) <= 61
