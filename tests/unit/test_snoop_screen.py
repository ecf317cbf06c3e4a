"""What snoop shows on a terminal: columns that fit, colours, the header again on each screenful, and lines in an order."""

from __future__ import annotations

import os
import struct
import termios
from fcntl import ioctl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model import Mode
from exporter.records.cells import cells
from exporter.records.record import Record
from exporter.snoop import lines, order
from exporter.snoop.flags import ARGS, SORTS, Options
from exporter.snoop.order import Sorted
from exporter.snoop.printer import Output, Printer
from exporter.snoop.screen import Screen, has_colours
from tests.unit.given_records import Given
from tests.unit.snoop_records import ERROR, SIGNAL, TYPICAL, records

LONG = TYPICAL._replace(comm=b"a" * 15, parent_comm=b"b" * 15, exe=b"/usr/lib/jvm/bin/java", unit="u" * 40, pid=4_194_304)


def shown(*batch: Record, columns: int = 80, rows: int = 25, colours: bool = False, wide: bool = False) -> list[str]:
    return list(Screen([], wide=wide, colours=colours).lines(batch, (columns, rows)))


def test_80_columns() -> None:
    """Name, parent and program are why it is asked: they must be there on any terminal. What is wide is cut, and shows that it is."""
    header, line = shown(LONG)
    assert header.split() == ["TIME", "PID", "COMM", "RUNTIME", "OUTCOME", "PARENT", "EXE"]
    assert line[8:] == " 4194304 aaaaaaaaaaaaaaa   1.235ms 0         bbbbbbbbbbb> </jvm/bin/java"
    assert len(line) == 80


def test_wider_terminals_have_more_columns() -> None:
    """CPU and owner first, then user and spawner."""
    titles = [shown(LONG, columns=width)[0].split() for width in (40, 90, 110, 130, 161)]
    assert titles[0] == ["COMM", "RUNTIME", "PARENT"]
    assert titles[1] == ["TIME", "PID", "COMM", "RUNTIME", "CPU", "OUTCOME", "PARENT", "EXE"]
    assert titles[2] == ["TIME", "PID", "COMM", "RUNTIME", "CPU", "OUTCOME", "PARENT", "USER", "OWNER", "EXE"]
    assert titles[4] == lines.HEADER.split()


@given(records, st.integers(1, 250))
def test_no_line_is_wider_than_the_terminal(record: Record, columns: int) -> None:
    """A line that wraps makes a table unreadable, and no name gives the terminal a command."""
    for line in Screen([ARGS], wide=False, colours=False).lines([record], (columns, 25)):
        assert cells(line) <= columns
        assert line.isprintable()


def test_wide() -> None:
    """All there is, as in a pipe."""
    assert shown(LONG, columns=20, wide=True) == [lines.HEADER, lines.line(LONG).rstrip()]


def test_what_a_mode_cannot_know_has_no_column() -> None:
    """Its space is for what is known."""
    titles = shown(TYPICAL._replace(mode=Mode.NETLINK, exe=b""), columns=80)[0].split()
    assert "EXE" not in titles
    assert {"CPU", "OUTCOME", "PARENT"} < set(titles)


def test_columns_that_stay_empty_go_with_the_next_header() -> None:
    """A screenful shows which; they come back once they are filled."""
    empty, full = TYPICAL._replace(owner_kind="", unit="", cpu_ns=None), TYPICAL
    screen = Screen([], wide=False, colours=False)
    text = list(screen.lines([empty] * 10 + [full] * 10 + [empty], (110, 11)))
    headers = [line.split() for line in text if line.startswith("TIME")]
    assert [{"CPU", "OWNER"} & set(each) for each in headers] == [{"CPU", "OWNER"}, set(), {"CPU", "OWNER"}]
    assert len(text) == 21 + 3


def test_a_terminal_that_changes_its_size() -> None:
    """The next line has a header of its own, with what fits now."""
    screen = Screen([], wide=False, colours=False)
    before, after = ([len(line) for line in screen.lines([LONG, LONG], (columns, 25))] for columns in (80, 60))
    assert (len(before), len(after)) == (3, 3)
    assert max(before) == 80
    assert max(after) <= 60


def test_failures_have_a_colour() -> None:
    """They are what people look for. Columns stay where they are."""
    header, good, error, killed = shown(LONG, LONG._replace(outcome=ERROR, code=3), LONG._replace(outcome=SIGNAL, code=9), colours=True)
    assert header.startswith("\x1b[1mTIME")
    assert "\x1b" not in good
    assert "\x1b[31mexit 3   \x1b[0m bbb" in error
    assert "\x1b[35mSIGKILL  \x1b[0m bbb" in killed


def test_when_there_are_colours() -> None:
    """Only on terminals that know them, and where nobody refused them."""
    terminal, other = os.openpty()
    pipe = os.pipe()
    try:
        found = [
            has_colours(terminal, each)
            for each in ({"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": ""})
        ]
        assert found == [True, False, False, True]
        assert not has_colours(pipe[0], {"TERM": "xterm"})
    finally:
        for fd in (terminal, other, *pipe):
            os.close(fd)


def test_a_terminal_gets_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The printer asks the terminal, each time."""
    monkeypatch.setenv("NO_COLOR", "1")
    reading, terminal = os.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    with Given([LONG]) as given:
        Printer(Options(), given, Output(terminal), lambda: None).run()
    text = os.read(reading, 4096).decode().splitlines()
    os.close(terminal)
    os.close(reading)
    assert text == shown(LONG)


@pytest.mark.parametrize(
    ("column", "pids"),
    [("runtime", [3, 1, 2]), ("cpu", [2, 3, 1]), ("comm", [3, 2, 1]), ("time", [1, 2, 3]), ("owner", [2, 1, 3]), ("user", [1, 3, 2])],
)
def test_orders(column: str, pids: list[int]) -> None:
    """The longest runtime and the most CPU first, other columns as a dictionary; what is not known comes last."""
    chosen = Sorted(column)
    chosen.add(
        [
            TYPICAL._replace(pid=1, ended_ns=1, runtime_ns=5, cpu_ns=None, comm=b"c", owner_kind="service", unit="b.service", user="a"),
            TYPICAL._replace(pid=2, ended_ns=2, runtime_ns=1, cpu_ns=9, comm=b"b", owner_kind="service", unit="a.service", user=""),
            TYPICAL._replace(pid=3, ended_ns=3, runtime_ns=9, cpu_ns=8, comm=b"a", owner_kind="", unit="", user="b"),
        ]
    )
    assert [each.pid for each in chosen.records()] == pids


def test_every_column_has_an_order() -> None:
    """Records that know nothing are no obstacle."""
    nothing = TYPICAL._replace(cpu_ns=None, ppid=0, parent_comm=b"", code=None, oom_killed=None, user="")
    for column in SORTS:
        chosen = Sorted(column)
        chosen.add([nothing, TYPICAL, nothing])
        assert len(chosen.records()) == 3


def test_what_is_sorted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of records is more than memory is for; the first ones are still the first of all."""
    monkeypatch.setattr(order, "MOST", 100)
    chosen = Sorted("runtime", 3)
    for number in range(1000):
        chosen.add([TYPICAL._replace(runtime_ns=number * 7 % 1000)])
    assert [each.runtime_ns for each in chosen.records()] == [999, 998, 997]
    assert chosen.more == 997
    assert len(chosen._kept) == 3
