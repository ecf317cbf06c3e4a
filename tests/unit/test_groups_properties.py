"""Thread groups with any order of kernel events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.kernel.taskstats import Stats
from exporter.model import NS, Lost
from exporter.model.dimensions import COMM
from exporter.sources.netlink.thread_groups import Groups
from exporter.sources.tally import Tally
from tests.unit.fake_proc import SCALE, TICK

MS = 1_000_000

ids = st.integers(1, 6)
steps = st.one_of(
    st.tuples(st.just("forked"), ids, ids, ids, ids),
    st.tuples(st.just("execed"), ids),
    st.tuples(st.just("renamed"), ids, ids, st.binary(max_size=15)),
    st.tuples(st.just("exited"), ids, ids, st.integers(0, 2**32 - 1), st.integers(0, 6)),
    st.tuples(st.just("stats"), ids, ids, st.booleans()),
    st.tuples(st.just("scan_proc"), st.booleans()),
    st.tuples(st.just("reconcile"), st.booleans()),
)


class NoProc:
    """A `/proc` in which no process can be read."""

    root = "/nonexistent"
    tick_ns = TICK

    def pids(self) -> list[int]:
        return []

    def stat(self, pid: int) -> Lost:
        return Lost.VANISHED

    def comm(self, pid: int) -> None:
        return None

    def cgroup(self, pid: int, hierarchy_id: int) -> None:
        return None


@given(st.lists(steps, max_size=60), st.booleans())
def test_any_order_of_events(steps: list[tuple[object, ...]], taskstats: bool) -> None:
    """Lost and duplicate events must not crash it, nor count an exit that nothing reported; rows add up to the total."""
    tally = Tally(SCALE)
    groups = Groups(tally, NoProc(), taskstats=taskstats)  # type: ignore[arg-type]
    exits = 0
    for at, (name, *args) in enumerate(steps):
        exits += name in {"exited", "stats"}
        groups.cgroups.read()
        if name == "stats":
            pid, tgid, dead = args
            groups.waiting.put(Stats(pid, tgid, 1, b"x", 0, dead, 0, 1, 1))  # type: ignore[arg-type]
        elif name == "renamed":
            groups.renamed(*args)  # type: ignore[arg-type]
        elif name == "scan_proc":
            groups.scan_proc(lost=bool(args[0]))
        elif name == "reconcile":
            groups.reconcile(at * NS, lost=bool(args[0]))
        else:
            getattr(groups, str(name))(at * MS, *args)
    groups.finish(len(steps) * NS)
    counts = tally.drain()
    assert sum(counts.total.exits) <= exits
    assert sum(sum(each.exits) for each in counts.of(COMM).rows.values()) == sum(counts.total.exits)
    assert sum(each.execs for each in counts.of(COMM).rows.values()) == counts.total.execs
    assert len(groups.alive) <= 6
    origins = tally.origins()
    assert sum(row.short_exits for row in origins.rows.values()) == counts.total.short_exits
    assert sum(row.failed_exits for row in origins.rows.values()) == sum(counts.total.exits[1:3])
