"""What snoop prints: its lines, its columns and its summary."""

from __future__ import annotations

import json
import os
import re
import struct
import termios
import time
from fcntl import ioctl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.options import Filter
from exporter.model import Outcome
from exporter.records import shown
from exporter.records.cells import cells, cut
from exporter.records.encoding import as_json
from exporter.records.record import Record
from exporter.records.tree import By
from exporter.snoop import lines, summary
from exporter.snoop.flags import Options
from exporter.snoop.printer import Output, Printer
from exporter.snoop.summary import Summary
from tests.unit.given_records import Given
from tests.unit.snoop_records import ERROR, OK, SIGNAL, TYPICAL, UNKNOWN, records

ROW = re.compile(
    r"(?P<time>\d\d:\d\d:\d\d\.\d{3}) +(?P<pid>\d+) +(?P<ppid>\d+|-) (?P<comm>\S+) +(?P<runtime>\d+\.\d{3}ms) +(?P<cpu>\d+\.\d{3}ms|-) "
    r"(?P<outcome>exit \d+|\S+) +(?P<parent>\S+) +(?P<spawner>\S+) +(?P<user>\S+) +(?P<owner>\S+) +(?P<exe>\S+)"
)
LAST = (("SPAWNER", "spawner"), ("USER", "user"), ("OWNER", "owner"), ("EXE", "exe"))


def everything(reading: int) -> bytes:
    """What was written to the other end, which is closed."""
    with os.fdopen(reading, "rb") as file:
        return file.read()


def printed(options: Options, *batches: list[Record]) -> list[str]:
    """What a printer makes of some batches."""
    reading, writing = os.pipe()
    with Given(*batches, wanted=options.filter) as given:
        each = Printer(options, given, Output(writing), lambda: None)
        each.run()
    os.close(writing)
    assert each.failure is None
    return everything(reading).decode().splitlines()


@given(records)
def test_no_name_breaks_a_line(record: Record) -> None:
    """A name is chosen by whoever runs the process: it may hold no command for the terminal, begin no line and imitate no column."""
    text = lines.line(record)
    assert text.isprintable()
    row = ROW.fullmatch(text)
    assert row is not None
    raw = {"comm": record.comm, "parent": record.parent_comm, "spawner": record.spawner, "exe": record.exe}
    assert {key: row[key] for key in raw} == {key: shown.word(value) for key, value in raw.items()}
    assert row["user"] == (record.user.replace(" ", r"\x20") or "-")


@given(st.binary(max_size=15), st.binary(max_size=15))
def test_different_names_are_shown_as_different(one: bytes, other: bytes) -> None:
    """Else a hostile process could pass for another."""
    assert (shown.word(one) == shown.word(other)) == (one == other or {one, other} <= {b"", b"-", b"unknown"})


@given(records)
def test_json_is_one_line_of_ascii(record: Record) -> None:
    """Whatever reads lines must be able to read these, hostile names and all."""
    (text,) = printed(Options(json=True), [record])
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == as_json(record)


def test_columns_stand_under_their_titles() -> None:
    """Columns are read with the eye."""
    slow = TYPICAL._replace(runtime_ns=999_999_000, comm=b"a" * 15, parent_comm="日本語".encode(), outcome=SIGNAL, code=26, pid=4194304)
    for record in (TYPICAL, slow, TYPICAL._replace(cpu_ns=None, ppid=0, parent_comm=b"", exe=b"")):
        text = lines.line(record)
        row = ROW.fullmatch(text)
        assert row is not None
        for title, key in (("COMM", "comm"), ("OUTCOME", "outcome"), ("PARENT", "parent"), *LAST):
            assert cells(text[: row.start(key)]) == lines.HEADER.index(title)
        for title, key in (("PID", "pid"), ("PPID", "ppid"), ("RUNTIME", "runtime"), ("CPU", "cpu")):
            assert row.end(key) == lines.HEADER.index(f" {title}") + len(title) + 1


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [(OK, 0, "0"), (ERROR, 3, "exit 3"), (SIGNAL, 11, "SIGSEGV"), (SIGNAL, 35, "SIG35"), (UNKNOWN, None, "-"), (SIGNAL, None, "signal")],
)
def test_outcomes(outcome: Outcome, code: int | None, text: str) -> None:
    """They are told as a shell tells them."""
    assert shown.status(outcome, code, None) == text


def test_a_kill_for_memory_is_told_from_others() -> None:
    """SIGKILL alone does not say who sent it."""
    assert [shown.status(SIGNAL, 9, oom) for oom in (True, False, None)] == ["OOMKilled", "SIGKILL", "SIGKILL"]


def test_time_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """People compare it with their own clock."""
    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    shown._local_second.cache_clear()
    try:
        assert shown.local_time(TYPICAL.ended_ns) == "00:13:20.123"
    finally:
        monkeypatch.undo()
        time.tzset()
        shown._local_second.cache_clear()


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 50))
def test_cut_to_a_width(text: str, width: int) -> None:
    """A line that wraps makes a table unreadable; a cut that does not show would lie."""
    found = cut(text, width)
    assert cells(found) <= width
    assert found == text if cells(text) <= width else (found[-1] == ">" and text.startswith(found[:-1]))


@pytest.mark.parametrize(("columns", "whole"), [(80, False), (200, True), (0, True)])
def test_only_a_terminal_cuts(columns: int, whole: bool) -> None:
    """A file or a pipe gets all there is; a terminal that does not know its width too."""
    reading, terminal = os.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    text = lines.line(TYPICAL._replace(exe=b"/usr/lib/long/path"))
    Output(terminal).print([text])
    shown = os.read(reading, 4096).decode().rstrip("\r\n")
    os.close(terminal)
    os.close(reading)
    assert shown == (text if whole else f"{text[: columns - 1]}>")
    assert printed(Options(), [TYPICAL]) == [lines.HEADER, lines.line(TYPICAL)]


def test_a_terminal_without_utf8() -> None:
    """Where the locale can't spell a name, it is escaped; that must not end the program."""
    reading, writing = os.pipe()
    Output(writing, "ascii").print(["日"])
    os.close(writing)
    assert everything(reading) == b"\\u65e5\n"


def test_filters_and_count() -> None:
    """Only what was asked for is printed, and no more than that."""
    wanted = Filter(comm=("t*", "x"), parent=("make",), outcome=("error",), min_runtime_seconds=0.001, max_runtime_seconds=0.002)
    good = TYPICAL._replace(outcome=ERROR, code=1)
    bad = [
        good._replace(comm=b"false"),
        good._replace(parent_comm=b"sh"),
        good._replace(outcome=SIGNAL),
        good._replace(runtime_ns=999_999),
        good._replace(runtime_ns=2_000_001),
    ]
    assert printed(Options(filter=wanted), [*bad, good], [good]) == [lines.HEADER, *[lines.line(good)] * 2]
    assert printed(Options(filter=wanted, count=3), [good, *bad, good], [good, good]) == [lines.HEADER, *[lines.line(good)] * 3]


def test_sorted_lines() -> None:
    """They come at the end, at most --count of them, with the number of the others."""
    batch = [TYPICAL._replace(runtime_ns=ns) for ns in (2, 9, 5)]
    assert printed(Options(sort="runtime"), batch) == [lines.HEADER, *(lines.line(batch[at]) for at in (1, 2, 0))]
    assert printed(Options(sort="runtime", count=1), batch[:1], batch[1:]) == [lines.HEADER, lines.line(batch[1]), "... and 2 more"]
    assert [json.loads(text)["runtime_seconds"] for text in printed(Options(sort="runtime", json=True, count=1), batch)] == [9e-9]


def test_a_reader_that_goes_while_nothing_happens() -> None:
    """`snoop | head -1` must end, even where no process does."""
    reading, writing = os.pipe()
    os.close(reading)
    with Given(ends=False) as given:
        each = Printer(Options(json=True), given, Output(writing), lambda: None)
        each.run()
    os.close(writing)
    assert isinstance(each.failure, BrokenPipeError)


def test_summary() -> None:
    """The most frequent first, and all of them at the end; CPU only where that of all is known."""
    each = Summary()
    for number in range(25):
        each.add([TYPICAL._replace(comm=b"c%d" % number)] * (number + 1))
    failed = TYPICAL._replace(comm=b"c24", outcome=ERROR, code=1, cpu_ns=None)
    each.add([failed, failed._replace(outcome=SIGNAL, code=9, cpu_ns=TYPICAL.cpu_ns)])
    _, header, *rows, more, total, dropped = (line.split() for line in each.lines(5))
    assert header == ["COMM", "COUNT", "ERRORS", "SIGNALS", "RUNTIME", "CPU"]
    assert rows[:2] == [["c24", "27", "1", "1", "33.333ms", "-"], ["c23", "24", "0", "0", "29.630ms", "23.688ms"]]
    assert len(rows) == 20
    assert more == ["...", "and", "5", "more"]
    assert total == ["total", "327", "1", "1", "403.703ms", "-"]
    assert dropped == ["dropped:", "5"]


def test_summary_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are chosen by whoever runs the processes; none may cost memory without end, or its count."""
    monkeypatch.setattr(summary, "_MOST_COMMS", 21)
    each = Summary()
    each.add([TYPICAL._replace(comm=b"\x1b%d" % number) for number in range(30)])
    assert all(line.isprintable() for line in each.lines(0))
    assert each.lines(0)[-3] == "... and 1 more, and other: 9 processes"
    assert each.lines(0)[-2].split()[:2] == ["total", "30"]
    assert each.count == 30


def test_an_empty_summary() -> None:
    """Nothing is a result as well."""
    assert [line.split() for line in Summary().lines(0)[2:]] == [["total", "0", "0", "0", "0.000ms", "-"], ["dropped:", "0"]]


def test_a_tree() -> None:
    """Who started what, the most frequent first; nothing else is printed."""
    script = TYPICAL._replace(lineage=(b"systemd", b"cron", b"sh"), comm=b"true", cpu_ns=1_000_000, runtime_ns=2_000_000)
    shell = script._replace(lineage=(b"systemd", b"cron"), comm=b"sh", cpu_ns=None)
    other = script._replace(lineage=(b"unknown", b"a b"), comm=b"c", cpu_ns=None)
    assert printed(Options(tree=True), [script] * 3, [shell, other]) == [
        "PROCESSES       OWN       RUNTIME           CPU  NAME",
        "        4         0       8.000ms       3.000ms  |-systemd",
        "        4         0       8.000ms       3.000ms  | `-cron",
        "        4         1       8.000ms       3.000ms  |   `-sh",
        "        3         3       6.000ms       3.000ms  |     `-true",
        "        1         0       2.000ms             -  `-unknown",
        "        1         0       2.000ms             -    `-a b",
        "        1         1       2.000ms             -      `-c",
        "        5         5      10.000ms       3.000ms  total",
    ]


def test_folded_stacks() -> None:
    """With the number that was asked for, and within --count and filters."""
    script = TYPICAL._replace(lineage=(b"cron", b"a;b"), comm=b"true", cpu_ns=1_500, runtime_ns=2_000_000)
    batch = [script] * 3 + [script._replace(comm=b"x")]
    assert printed(Options(folded=By.PROCESSES, count=2), batch) == [r"cron;a\x3bb;true 2"]
    assert printed(Options(folded=By.RUNTIME, filter=Filter(comm=("true",))), batch) == [r"cron;a\x3bb;true 6000"]
