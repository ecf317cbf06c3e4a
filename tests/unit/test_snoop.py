"""snoop without a kernel: what it takes, what it prints, and what it makes of what an exporter sends."""

from __future__ import annotations

import http.server
import json
import os
import re
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import cli
from exporter.config import Filter, load
from exporter.model import NS, Mode, Outcome, Record, comm_text
from exporter.record_json import as_json, encode
from exporter.snoop import following, lines, printer, run, summary
from exporter.snoop.flags import Options, beyond
from exporter.snoop.following import Following, Lost
from exporter.snoop.printer import Inbox, Output, Printer
from exporter.snoop.summary import Summary

OK, ERROR, SIGNAL, UNKNOWN = range(len(Outcome))
TYPICAL = Record(
    1_700_000_000_123_456_789, 1_234_567, 4242, 1, 0, b"true", b"make", b"/bin/true", OK, 0, 987_000, b"/user.slice", Mode.EBPF_CORE
)

ROW = re.compile(
    r"(?P<time>\d\d:\d\d:\d\d\.\d{3}) +(?P<pid>\d+) +(?P<ppid>\d+|-) (?P<comm>\S+) +(?P<runtime>\d+\.\d{3}ms) +(?P<cpu>\d+\.\d{3}ms|-) "
    r"(?P<outcome>exit \d+|\S+) +(?P<parent>\S+) +(?P<exe>\S+)"
)

wholes = st.integers(0, 2**32 - 1)
spans = st.integers(0, 3600 * NS)
ends = st.one_of(
    st.just((OK, 0)),
    st.tuples(st.just(ERROR), st.integers(1, 255)),
    st.tuples(st.just(SIGNAL), st.integers(1, 64)),
    st.just((UNKNOWN, None)),
)
records = st.builds(
    lambda end, **fields: Record(outcome=end[0], code=end[1], **fields),
    ends,
    ended_ns=st.integers(0, 2**62),
    runtime_ns=spans,
    pid=wholes,
    ppid=wholes,
    uid=st.none() | wholes,
    comm=st.binary(max_size=15),
    parent_comm=st.binary(max_size=15),
    exe=st.binary(max_size=256),
    cpu_ns=st.none() | spans,
    cgroup=st.binary(max_size=100),
    mode=st.sampled_from(Mode),
)


def everything(reading: int) -> bytes:
    """What was written to the other end, which is closed."""
    with os.fdopen(reading, "rb") as file:
        return file.read()


def printed(options: Options, *batches: list[Record]) -> list[str]:
    """What a printer makes of some batches."""
    reading, writing = os.pipe()
    inbox = Inbox()
    for batch in batches:
        inbox.offer(batch)
    inbox.close()
    each = Printer(options, inbox, Output(writing), lambda: None)
    each.run()
    os.close(writing)
    assert each.failure is None
    os.close(inbox.fd)
    return everything(reading).decode().splitlines()


def started(monkeypatch: pytest.MonkeyPatch, arguments: str) -> Options:
    """The options that a command line gives."""
    seen: list[Options] = []
    monkeypatch.setattr(run, "main", lambda options, _config: seen.append(options) or 0)
    assert cli.main(["snoop", *arguments.split()]) == 0
    return seen[0]


@given(records)
def test_no_name_breaks_a_line(record: Record) -> None:
    """A name is chosen by whoever runs the process: it may hold no command for the terminal, begin no line and imitate no column."""
    text = lines.line(record)
    assert text.isprintable()
    row = ROW.fullmatch(text)
    assert row is not None
    assert [row[key] for key in ("comm", "parent", "exe")] == [lines.name(raw) for raw in (record.comm, record.parent_comm, record.exe)]


@given(st.binary(max_size=15), st.binary(max_size=15))
def test_different_names_are_shown_as_different(one: bytes, other: bytes) -> None:
    """Else a hostile process could pass for another."""
    assert (lines.name(one) == lines.name(other)) == (one == other or {one, other} <= {b"", b"-", b"unknown"})


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
        for title, key in (("COMM", "comm"), ("OUTCOME", "outcome"), ("PARENT", "parent"), ("EXE", "exe")):
            assert lines.cells(text[: row.start(key)]) == lines.HEADER.index(title)
        for title, key in (("PID", "pid"), ("PPID", "ppid"), ("RUNTIME", "runtime"), ("CPU", "cpu")):
            assert row.end(key) == lines.HEADER.index(f" {title}") + len(title) + 1


@pytest.mark.parametrize(
    ("outcome", "code", "shown"),
    [(OK, 0, "0"), (ERROR, 3, "exit 3"), (SIGNAL, 11, "SIGSEGV"), (SIGNAL, 35, "SIG35"), (UNKNOWN, None, "-"), (SIGNAL, None, "signal")],
)
def test_outcomes(outcome: int, code: int | None, shown: str) -> None:
    """They are told as a shell tells them."""
    assert lines.outcome(TYPICAL._replace(outcome=outcome, code=code)) == shown


def test_time_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """People compare it with their own clock."""
    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    lines._second.cache_clear()
    try:
        assert lines.moment(TYPICAL.ended_ns) == "00:13:20.123"
    finally:
        monkeypatch.undo()
        time.tzset()
        lines._second.cache_clear()


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 50))
def test_cut_to_a_width(text: str, width: int) -> None:
    """A line that wraps makes a table unreadable; a cut that does not show would lie."""
    cut = lines.cut(text, width)
    assert lines.cells(cut) <= width
    assert cut == text if lines.cells(text) <= width else (cut[-1] == ">" and text.startswith(cut[:-1]))


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


def test_every_flag_reaches_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that changes nothing would mislead."""
    assert started(monkeypatch, "") == Options()
    flags = "--comm=a* --comm b --parent=make --outcome=error --outcome=signal --min-runtime=100us --max-runtime 0.5s --json --count=7"
    assert started(monkeypatch, f"{flags} --duration=2m") == Options(
        Filter(("a*", "b"), ("make",), (), (), ("error", "signal"), 0.0001, 0.5), json=True, count=7, duration_seconds=120
    )
    assert started(monkeypatch, "--url=https://[::1]:10199/sub/").url == "https://[::1]:10199/sub"


@pytest.mark.parametrize(
    ("text", "seconds"), [("5ms", 0.005), ("0.5s", 0.5), ("100us", 0.0001), ("0", 0), ("2", 2), ("1.5", 1.5), ("1.5m", 90), ("1h", 3600)]
)
def test_times(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    """Seconds, or a unit."""
    assert started(monkeypatch, f"--duration={text}").duration_seconds == seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            (["--max-runtime", text], f"--max-runtime: '{text}' is not a time such as 5ms, 0.5s or 2, of at most 1000h")
            for text in ("", "5 ms", "ms", "-1", "1e3", "inf", "nan", "5sec", "٣", ".5", "1001h")
        ),
        (["--count=0"], "--count: '0' is not a whole number above 0"),
        (["--count=-1"], "--count: '-1' is not a whole number above 0"),
        (["--count=1.5"], "--count: '1.5' is not a whole number above 0"),
        (["--duration=x\ny"], r"--duration: 'x\ny' is not a time such as 5ms, 0.5s or 2, of at most 1000h"),
        (["--min-runtime=2ms", "--max-runtime=1ms"], "--min-runtime is longer than --max-runtime"),
        (["--outcome=fine"], "--outcome: 'fine' is not one of ok, error, signal, unknown"),
        (["--comm="], "--comm: '' matches nothing; a glob is wanted, such as make or python*"),
        (["--url=localhost:10199"], "--url: 'localhost:10199' is not an address such as http://localhost:10199"),
        (["--url=http://h:99999"], "--url: 'http://h:99999' is not an address such as http://localhost:10199"),
        (["--url=http://a b"], "--url: 'http://a b' is not an address such as http://localhost:10199"),
        (["--url=http://[::1"], "--url: 'http://[::1' is not an address such as http://localhost:10199"),
        (["--url=http://h", "--no-ebpf"], "--url and --no-ebpf contradict each other"),
        (["--url=http://h", "--mode=scan"], "--url and --mode contradict each other"),
        (
            ["--min-runtime=1s"],
            "--min-runtime: nothing would be shown: only processes below 1 s are short (detection.short_threshold_seconds)",
        ),
        (["--mode=top"], "--mode: 'top' is not one of auto, ebpf_core, ebpf_bcc, netlink, fast_scan, scan"),
        (["--web.listen-address=:1"], "unrecognized arguments: --web.listen-address=:1"),
        (["now"], "too many words after snoop: now"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad usage is one line and status 2, and nothing is started."""
    assert cli.main(["snoop", *arguments]) == 2
    assert capsys.readouterr() == ("", f"shortproc-exporter: error: {message}\n")


def test_its_flags_are_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """The exporter would ignore them in silence."""
    assert cli.main(["--count=3"]) == 2
    assert capsys.readouterr().err == "shortproc-exporter: error: unrecognized arguments: --count=3\n"


def test_a_runtime_that_no_short_process_has(tmp_path: Path) -> None:
    """Who asks for it has to learn why it is not shown; the threshold is the configuration's."""
    file = tmp_path / "exporter.yml"
    file.write_text("detection: {short_threshold_seconds: 0.5}")
    assert beyond(Filter(), load(str(file))) is None
    assert beyond(Filter(max_runtime_seconds=0.5), load(str(file))) is None
    assert "below 0.5 s are short" in (beyond(Filter(max_runtime_seconds=0.6), load(str(file))) or "")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Help is the first thing that anybody reads."""
    assert cli.main(["snoop", "--help"]) == 0
    text = capsys.readouterr().out
    flags = "--comm --parent --max-runtime --min-runtime --outcome --json --duration --count --url --mode --config.file"
    assert all(part in text for part in (*flags.split(), *lines.HEADER.split(), "examples:", "exit status:"))
    assert "--web." not in text
    assert max(map(len, text.splitlines())) <= 120


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


def test_what_nobody_prints_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that stops must not cost memory without end, and what is missing is said."""
    monkeypatch.setattr(printer, "_MOST_WAITING", 3)
    inbox = Inbox()
    inbox.offer([TYPICAL] * 2)
    inbox.offer([TYPICAL] * 2)
    inbox.offer([TYPICAL])
    assert inbox.dropped() == {"slow": 2}
    assert inbox.take() == ([TYPICAL] * 3, True)
    assert inbox.take() == ([], True)
    inbox.close()
    assert inbox.take() == ([], False)


def test_a_reader_that_goes_while_nothing_happens() -> None:
    """`snoop | head -1` must end, even where no process does."""
    reading, writing = os.pipe()
    os.close(reading)
    each = Printer(Options(json=True), Inbox(), Output(writing), lambda: None)
    each.run()
    os.close(writing)
    assert isinstance(each.failure, BrokenPipeError)


def test_summary() -> None:
    """The most frequent first, and all of them at the end; CPU only where that of all is known."""
    each = Summary()
    for number in range(25):
        for _ in range(number + 1):
            each.add(TYPICAL._replace(comm=b"c%d" % number))
    each.add(TYPICAL._replace(comm=b"c24", outcome=ERROR, code=1, cpu_ns=None))
    each.add(TYPICAL._replace(comm=b"c24", outcome=SIGNAL, code=9))
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
    for number in range(30):
        each.add(TYPICAL._replace(comm=b"\x1b%d" % number))
    assert all(line.isprintable() for line in each.lines(0))
    assert each.lines(0)[-3] == "... and 1 more, and other: 9 processes"
    assert each.total.count == 30


def test_an_empty_summary() -> None:
    """Nothing is a result as well."""
    assert [line.split() for line in Summary().lines(0)[2:]] == [["total", "0", "0", "0", "0.000ms", "-"], ["dropped:", "0"]]


@given(st.binary(max_size=300))
def test_names_are_read_back(name: bytes) -> None:
    """What an exporter sends has to be shown as what snoop sees itself."""
    assert following.raw(comm_text(name)) == name


@given(records)
def test_records_are_read_back(record: Record) -> None:
    """Both ends of the stream have to mean the same."""
    data = encode({"short_processes": [as_json(record)], "left_out": 3})
    assert following.parsed(data) == ([record], 3)


def test_events_are_told_apart() -> None:
    """Heartbeats and what is not finished are no events."""
    text = b'retry: 3000\n\n:\n\nevent: a\ndata: {"x": 1}\n\nevent: b\r\ndata:y\r\n\r\nevent: c\ndata: unfin'
    assert [event for event in following.events(text.splitlines(keepends=True)) if event[0]] == [("a", '{"x": 1}'), ("b", "y")]


@contextmanager
def exporter(status: int, content_type: str, body: bytes) -> Iterator[str]:
    """A server that gives one answer; its address."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    asked: list[tuple[str, str | None]] = []
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://me:p%40ss@127.0.0.1:{server.server_port}/sub"
        finally:
            server.shutdown()
            thread.join()
    assert asked == [("/sub/api/v1/stream", "Basic bWU6cEBzcw==")]


def followed(url: str) -> tuple[Following, Inbox]:
    """Follow until the stream ends."""
    inbox, ended = Inbox(), threading.Event()
    each = Following(url, inbox, lambda _: None, ended.set)
    each.start()
    assert ended.wait(10)
    each.stop()
    return each, inbox


def test_an_exporter_is_followed() -> None:
    """Its new records are taken, what it left out is counted, its stored ones are not new."""
    record = {"short_processes": [as_json(TYPICAL)]}
    body = b"".join(
        f"event: {name}\ndata: {encode(content)}\n\n".encode()
        for name, content in (("recent", record), ("status", {"rows": []}), ("records", record | {"left_out": 4}))
    )
    with exporter(200, "text/event-stream", body) as url:
        each, inbox = followed(url)
    assert inbox.take()[0] == [TYPICAL]
    assert each.dropped == 4
    assert re.fullmatch(r"lost http://127.0.0.1:\d+/sub: it closed the connection", each.failure or "")


BROKEN: list[Callable[[dict[str, object]], object]] = [
    lambda fields: fields | {"comm": 5},
    lambda fields: fields | {"comm": "\ud800"},
    lambda fields: fields | {"comm": "\\Uffffffff"},
    lambda fields: fields | {"pid": -1},
    lambda fields: fields | {"pid": 10**30},
    lambda fields: fields | {"pid": "1\x1b[2J"},
    lambda fields: fields | {"runtime_seconds": 1e300},
    lambda fields: fields | {"runtime_seconds": float("nan")},
    lambda fields: fields | {"runtime_seconds": []},
    lambda fields: fields | {"ended_at": "now"},
    lambda fields: fields | {"ended_at": "2030-99-01T00:00:00.000000000Z"},
    lambda fields: fields | {"outcome": "fine"},
    lambda fields: fields | {"signal": "SIG\x1b"},
    lambda fields: fields | {"signal": 9},
    lambda fields: fields | {"mode": "top"},
    lambda fields: {key: value for key, value in fields.items() if key != "exe"},
    lambda _: 7,
    lambda _: None,
]


@pytest.mark.parametrize("broken", BROKEN)
def test_an_exporter_that_is_not_understood(broken: Callable[[dict[str, object]], object]) -> None:
    """Whoever answers there may be anybody: nothing that it sends may be shown unchecked, or end in a traceback."""
    data = json.dumps({"short_processes": [broken(as_json(TYPICAL))], "left_out": 0})
    with exporter(200, "text/event-stream", f"event: records\ndata: {data}\n\n".encode()) as url:
        each, inbox = followed(url)
    assert inbox.take()[0] == []
    assert (each.failure or "").endswith("it sends what this version does not understand")


@pytest.mark.parametrize(
    "body", [b"event: records\ndata: {\n\n", b"event: records\ndata: " + b"[" * 100_000 + b"\n\n", b"\xff\n\n", b"x" * (5 << 20)]
)
def test_a_stream_that_is_none(body: bytes) -> None:
    """Neither memory nor a traceback may come of it."""
    with exporter(200, "text/event-stream", body) as url:
        assert (followed(url)[0].failure or "").endswith("it sends what this version does not understand")


@pytest.mark.parametrize(
    ("status", "content_type", "body", "message"),
    [
        (403, "text/plain", b"records name processes\nmore\n", " answers 403 Forbidden: records name processes"),
        (404, "text/plain", b"nothing here\n", " answers 404 Not Found: nothing here"),
        (503, "text/plain", b"all places are taken\n", " answers 503 Service Unavailable: all places are taken"),
        (200, "text/html", b"<html>", " is not an exporter of this kind"),
    ],
)
def test_an_exporter_that_refuses(status: int, content_type: str, body: bytes, message: str) -> None:
    """It says itself what to do about it. The password in the address is not shown."""
    with exporter(status, content_type, body) as url:
        each = Following(url, Inbox(), lambda _: None, lambda: None)
        with pytest.raises(Lost) as lost:
            each.start()
        each.stop()
    assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/sub{re.escape(message)}", str(lost.value))
