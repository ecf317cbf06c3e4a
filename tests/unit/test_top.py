"""What `top` shows, and what its keys do: everything but the terminal."""

from __future__ import annotations

import dataclasses
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import cli
from exporter.config.options import Config, Filter
from exporter.model import NS, lifetimes
from exporter.records.cells import cells
from exporter.records.record import Record
from exporter.top import activity, run
from exporter.top.flags import Options
from exporter.top.rows import rows
from exporter.top.state import KEYS, By, Sort, State, pressed
from exporter.top.view import Scene, Style, picture, table
from tests.unit.snoop_records import ERROR, TYPICAL, records
from tests.unit.top_scenes import scene, totals

MAKE = TYPICAL._replace(comm=b"cc1", parent_comm=b"make", spawner=b"runner", user="ci", lineage=(b"systemd", b"make"), cpu_ns=10_000_000)
CRON = TYPICAL._replace(
    comm=b"stat", parent_comm=b"sh", spawner=b"cron", user="root", unit="cron.service", lineage=(b"systemd", b"cron", b"sh")
)
BURST = scene([MAKE] * 30 + [CRON._replace(outcome=ERROR, code=1)] * 10, [MAKE] * 10)


def shown(found: Scene, state: State | None = None, width: int = 80, height: int = 24) -> list[str]:
    return [line.text.rstrip() for line in picture(found, state or State(), width, height).lines]


def table_of(found: Scene, state: State) -> dict[str, list[str]]:
    """The cells of each row of the table for scripts, by its name."""
    header, *lines = table(found, state, 100)
    at = header.split().index(state.by.upper())
    return {line.split()[at]: line.split() for line in lines}


def test_a_burst_at_80_by_24() -> None:
    """Name, rate, failures, CPU, percentiles and parent, on the smallest screen."""
    lines = shown(scene([MAKE] * 30 + [CRON._replace(outcome=ERROR, code=1)] * 10, [], points=[totals(), totals(40, 10)]))
    assert lines[0] == "shortproc top  host  12:34:56  mode ebpf_core"
    assert lines[1] == "short 40.0/s  CPU 4.0%  p50 1.3ms  p99 1.3ms  all 50.0/s  failed 10.0/s"
    assert lines[2] == "█ short/s, last 1 s, peak 40.0"
    assert lines[3] == "40 short processes in the last 10 s (2 s so far), by name, sorted by rate"
    assert lines[4] == " SHORT/s  FAILED   CPU%     P50     P99 NAME            PARENT"
    assert lines[5] == "    15.0       0   15.0   1.3ms   1.3ms cc1             make"
    assert lines[6] == "     5.0      10    0.5   1.3ms   1.3ms stat            sh"
    assert lines[23].startswith("n:name o:owner s:spawner u:user p:parent t:tree w:window /:filter q:quit")
    assert len(lines) == 24


def test_a_wide_screen_has_everything() -> None:
    """For whom it runs, too."""
    titles = shown(BURST, width=160)[4].split()
    assert titles[:7] == ["SHORT/s", "COUNT", "%", "FAILED", "CPU%", "P50", "P99"]
    assert titles[7:] == ["NAME", "PARENT", "SPAWNER", "USER", "OWNER"]


@settings(deadline=None)
@given(st.lists(records, max_size=6), st.tuples(st.integers(1, 200), st.integers(1, 60)), st.sampled_from(By), st.text(max_size=5))
def test_any_size_and_any_name(batch: list[Record], size: tuple[int, int], by: By, typed: str) -> None:
    """Nothing wraps, nothing is a command for the terminal: names are chosen by attackers."""
    state = reduce(pressed, [*"/", *typed, "KEY_DOWN"], State(by=by, window=None, paused=size[0] % 2 == 0))
    lines = picture(scene(batch, []), state, *size).lines
    assert len(lines) == size[1]
    assert all(cells(line.text) <= size[0] and line.text.isprintable() for line in lines)
    assert all(line.isprintable() for line in table(scene(batch, []), state, 10))


@pytest.mark.parametrize(
    ("by", "names"),
    [
        (By.NAME, {"cc1", "stat"}),
        (By.OWNER, {"runner.service", "cron.service"}),
        (By.SPAWNER, {"runner", "cron"}),
        (By.USER, {"ci", "root"}),
        (By.PARENT, {"make", "sh"}),
    ],
)
def test_kinds_of_rows(by: By, names: set[str]) -> None:
    """Each adds up to all processes."""
    found = table_of(BURST, State(by=by, window=None))
    assert found.keys() == names
    assert sum(int(cells[1]) for cells in found.values()) == 50


def test_most_frequent_others() -> None:
    """A row tells its parent; where it has several, the most frequent one and how many more."""
    two = scene([MAKE] * 3 + [MAKE._replace(parent_comm=b"ninja")] * 5, [])
    (row,) = list(table(two, State(window=None), 10))[1:]
    assert row.split()[7:10] == ["cc1", "ninja", "+1"]


def test_the_tree() -> None:
    """Who starts what; numbers include what is below."""
    lines = shown(BURST, State(by=By.TREE, window=None))[5:12]
    assert [(line.split()[1], line[55:]) for line in lines[:6]] == [
        ("50", "`-systemd"),
        ("40", "  |-make"),
        ("40", "  | `-cc1"),
        ("10", "  `-cron"),
        ("10", "    `-sh"),
        ("10", "      `-stat"),
    ]


@pytest.mark.parametrize(("sort", "first"), [(Sort.RATE, "cc1"), (Sort.FAILED, "stat"), (Sort.CPU, "cc1"), (Sort.P99, "slow")])
def test_orders(sort: Sort, first: str) -> None:
    """The most first."""
    found = scene([MAKE] * 30 + [CRON._replace(outcome=ERROR, code=1)] * 10 + [CRON._replace(comm=b"slow", runtime_ns=NS // 2)], [])
    groups, _ = found.activity.within(None, found.now_ns)
    assert rows(groups, State(sort=sort))[0].name == first


def test_percentiles() -> None:
    """Up to 9 % too much, which is the width of a bucket; never too little."""
    each = activity.Sum()
    for ms in range(1, 101):
        index = lifetimes.buckets(lifetimes.COARSE).index_of(ms * 1_000_000)
        each.add(activity.Sum(count=1, runtimes={index: 1}))
    for share in (0.01, 0.5, 0.99, 1.0):
        found = each.quantile_ns(share)
        assert found is not None
        assert 1 <= found / (share * 100_000_000) < 1.095
    assert activity.Sum().quantile_ns(0.5) is None


def test_windows() -> None:
    """Whole seconds, so that a rate does not sag while a second begins; `w` goes round."""
    found = scene(*([MAKE] * 10 for _ in range(70)))
    states = [State(), pressed(State(), "w"), pressed(pressed(State(), "w"), "w")]
    assert [int(table_of(found, each)["cc1"][1]) for each in states] == [100, 600, 700]
    assert pressed(states[2], "w") == State()
    assert {table_of(found, each)["cc1"][0] for each in states} == {"10.0"}


@given(st.lists(st.lists(st.sampled_from([MAKE, CRON, MAKE._replace(cpu_ns=None, runtime_ns=NS // 3)])), max_size=30))
def test_a_window_moves_as_if_it_were_summed_anew(seconds: list[list[Record]]) -> None:
    """Each second enters and leaves its sums once: what is left behind would stay for ever."""
    moving = activity.Activity(0)
    for second, batch in enumerate(seconds):
        if batch:
            moving.add(batch, second * NS)
        groups, _ = moving.within(10, second * NS)
        anew, _ = moving.copy().within(10, second * NS)
        assert groups.keys() == anew.keys()
        for group, each in groups.items():
            known = {index: n for index, n in each.runtimes.items() if n}
            assert dataclasses.replace(each, runtimes=known) == anew[group]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user can choose names; processes without a row of their own are counted in `other`."""
    monkeypatch.setattr(activity, "_MOST_IN_SECOND", 10)
    monkeypatch.setattr(activity, "_MOST_SINCE_START", 20)
    found = scene(*([MAKE._replace(comm=b"%d" % number) for number in range(second * 100, second * 100 + 100)] for second in range(80)))
    assert len(found.activity._seconds) <= activity.WINDOW_SECONDS + 1
    assert len(found.activity._whole) == 21
    assert int(table_of(found, State(window=None))["other"][1]) == 8000 - 20


def test_a_filter() -> None:
    """Text in any of the names, or a glob for one; it works while it is typed, and Esc takes it back."""
    typing = reduce(pressed, "/cron", State(window=None))
    assert (typing.typing, typing.filter) == ("cron", "")
    assert table_of(BURST, typing).keys() == {"stat"}
    kept = pressed(typing, "\n")
    assert (kept.typing, kept.filter) == (None, "cron")
    assert "of those with cron" in shown(BURST, kept)[3]
    assert pressed(kept, "\x1b").filter == ""
    assert pressed(typing, "\x1b") == State(window=None)
    assert reduce(pressed, ["/", "a", "KEY_BACKSPACE", "q", "KEY_F1", "\x00"], State()).typing == "q"
    assert table_of(BURST, State(window=None, filter="c?1")).keys() == {"cc1"}
    assert shown(BURST, reduce(pressed, "/make", State()))[-1] == "filter: make_"


def test_every_key_does_something() -> None:
    """And each only one thing."""
    results = [each.apply(State(by=By.TREE, sort=Sort.RATE, window=None)) for each in KEYS]
    assert len({each.key for each in KEYS}) == len(KEYS)
    assert len({repr(each) for each in results}) >= len(KEYS) - 1, "t and r were set already"
    assert pressed(State(), "KEY_F5") == State()
    assert pressed(State(), "q").quits


def test_scrolling() -> None:
    """Up to the last rows, and no further."""
    many = scene([MAKE._replace(comm=b"c%02d" % number) for number in range(50)], [])
    down = reduce(pressed, ["KEY_NPAGE", "KEY_DOWN"], State())
    assert shown(many, down)[5].split()[5] == "c11"
    last = picture(many, State(first=10_000), 80, 24)
    assert (last.first, last.lines[22].text.split()[5]) == (50 - 18, "c49")
    assert pressed(State(first=5), "KEY_HOME").first == 0


def test_what_is_not_whole_is_told() -> None:
    """A number that is not complete must not look as if it were."""
    lost = scene([MAKE], [], points=[totals(), totals(100)], dropped=99)
    assert shown(lost)[3] == "rows show 1 short processes; 99 more came faster than they were read"
    missed = picture(scene([MAKE], [], points=[totals(), totals(1, ratio=0.5)]), State(), 80, 24).lines[3]
    assert (missed.text, missed.style) == ("50.0% of all clones were observed in the last minute", Style.WARNING)
    assert shown(scene([MAKE], [], points=[totals(mode=None)]))[3] == "no mode works: nothing is observed"
    assert shown(scene([MAKE], [], points=[None, None]))[1].startswith("short -/s  CPU -")


def test_failing_rows_have_a_style() -> None:
    """They are what people look for."""
    lines = picture(BURST, State(), 80, 24).lines
    assert [line.style for line in lines[5:7]] == [Style.PLAIN, Style.FAILING]


def test_paused() -> None:
    """It is told, and what is copied changes no more."""
    assert shown(BURST, State(paused=True))[0].endswith(" PAUSED")
    copy = BURST.activity.copy()
    BURST.activity.add([MAKE._replace(comm=b"new")], 2 * NS)
    assert len(rows(copy.within(None, 3 * NS)[0], State())) == 2


def test_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that changes nothing would mislead."""
    seen: list[Options] = []

    def main(options: Options, _config: Config) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(run, "main", main)
    flags = "--comm=a* --by=owner --sort=cpu --once --duration=10s --count=5 --url=http://h:1"
    for arguments in ("", flags):
        assert cli.main(["top", *arguments.split()]) == 0
    assert seen == [Options(), Options(Filter(comm=("a*",)), "http://h:1", By.OWNER, Sort.CPU, True, 10.0, 5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "top needs a terminal; --once prints a table without"),
        (["--duration=5"], "--duration needs --once"),
        (["--by=colour"], "--by: 'colour' is not one of name, owner, spawner, user, parent, tree"),
        (["--url=http://h", "--mode=scan"], "set either --url or --mode, not both: the exporter at --url has its own configuration"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and status 2, and nothing is started."""
    assert cli.main(["top", *arguments]) == 2
    assert capsys.readouterr() == ("", f"shortproc-exporter: error: {message}\n")
