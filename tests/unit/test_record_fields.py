"""A field of records is one declaration: a toy field that is declared here, and nowhere else, goes wherever records go."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest

from docs import records_tables
from exporter.handlers.sqlite import Sqlite
from exporter.handlers.sqlite_table import SqliteTable
from exporter.kernel.layout import RECORD_FIELDS, RECORD_WITH_EXE_FORMAT, RecordWithExe
from exporter.model import NS, Mode, Outcome
from exporter.model.facts import Fact
from exporter.records import kinds
from exporter.records.encoding import as_json, encoders, reader
from exporter.records.fields import Column, Field, fields_of, keys_of, page_columns, snoop_columns
from exporter.records.record import FIELDS, Record
from exporter.snoop import lines
from exporter.sources.ebpf import record_reader
from exporter.sources.ebpf.lineages import Lineages
from exporter.web import recent
from tests.unit.handler_child import record
from tests.unit.sink_files import private

SEAT = Field("seat in the room", kinds.NAME_IF_KNOWN, Fact.RECORD_EXE, snoop=Column(0, "SEAT", "<8"), page=Column(99, "@Seat"))
make: Any = namedtuple  # noqa: PYI024 - a class could not take the fields of another
Wider = make("Wider", [*Record._fields, "seat"], defaults=[*Record._field_defaults.values(), b""])
"""A record as it is, with one field more, which a source need not know."""
Wider.__annotations__ = get_type_hints(Record, include_extras=True) | {"seat": Annotated[bytes, SEAT]}
WIDER = fields_of(Wider)
FIRST = record(1)
KNOWN, UNKNOWN = Wider(*FIRST, seat=b"a b\n"), Wider(*record(2))

VERSION_1 = """
CREATE TABLE records (
    ended_ns INTEGER NOT NULL,
    runtime_ns INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    ppid INTEGER NOT NULL,
    uid INTEGER,
    comm TEXT NOT NULL,
    parent_comm TEXT NOT NULL,
    exe TEXT NOT NULL,
    outcome TEXT NOT NULL,
    code INTEGER,
    cpu_ns INTEGER,
    cgroup TEXT NOT NULL,
    mode TEXT NOT NULL
);
CREATE INDEX records_by_time ON records (ended_ns);
CREATE INDEX records_by_comm ON records (comm, ended_ns);
"""
"""As the first version made it. It may never change: there are files."""


class WiderSqlite(Sqlite):
    table = SqliteTable(WIDER)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with private(tmp_path) as folder:
        yield folder / "records.db"


def store(sink: type[Sqlite], path: Path, *records: Any) -> Sqlite:
    """Write records as the sink does in its process."""
    rows = sink(str(path), 1 << 30, 1e9)
    rows.handle(list(records))
    rows.tick()
    rows.release()
    return rows


def asked(path: Path, query: str) -> list[tuple[object, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def rows(path: Path, columns: str) -> list[tuple[object, ...]]:
    return asked(path, f"SELECT {columns} FROM records ORDER BY pid")


def version_1(path: Path) -> None:
    database = sqlite3.connect(path)
    database.executescript(f"PRAGMA journal_mode = WAL; BEGIN; {VERSION_1} PRAGMA user_version = 1; COMMIT;")
    database.execute(
        "INSERT INTO records VALUES (1900000000000000000, 6, 0, 1, NULL, 'old', 'sh', '/bin/old', 'ok', 0, NULL, '/', 'netlink')"
    )
    database.commit()
    database.close()


def test_what_users_read() -> None:
    """Programs are written against these: every field in every form, spelled out here and in no other test."""
    more: dict[str, Any] = {"arguments": b"cc1\0-O2\0two words", "arguments_cut": False, "lineage": (b"systemd", b"a;b", b"make")}
    killed = record(7, ended_ns=1_700_000_000_000_000_001, outcome=Outcome.SIGNAL, code=9, **more)
    assert as_json(killed) == {
        "ended_at": "2023-11-14T22:13:20.000000001Z",
        "started_at": "2023-11-14T22:13:19.998000001Z",
        "runtime_seconds": 0.002,
        "pid": 7,
        "ppid": 1,
        "uid": 1000,
        "comm": "cc1",
        "parent_comm": "make",
        "exe": "/usr/bin/cc1",
        "outcome": "signal",
        "exit_code": None,
        "signal": "SIGKILL",
        "cpu_seconds": 0.0015,
        "cgroup": "/user.slice",
        "mode": "ebpf_core",
        "spawner": "runner",
        "user": "ci",
        "owner_kind": "pod",
        "unit": None,
        "namespace": "shop",
        "pod": "cart-0",
        "container": "web",
        "oom_killed": None,
        "arguments": ["cc1", "-O2", "two words"],
        "arguments_cut": False,
        "lineage": ["systemd", "a;b", "make"],
    }
    assert dict(zip(Record._fields, Sqlite.table.row(*killed), strict=True)) == {
        "ended_ns": 1_700_000_000_000_000_001,
        "runtime_ns": 2_000_000,
        "pid": 7,
        "ppid": 1,
        "uid": 1000,
        "comm": "cc1",
        "parent_comm": "make",
        "exe": "/usr/bin/cc1",
        "outcome": "signal",
        "code": 9,
        "cpu_ns": 1_500_000,
        "cgroup": "/user.slice",
        "mode": "ebpf_core",
        "spawner": "runner",
        "user": "ci",
        "owner_kind": "pod",
        "unit": "",
        "namespace": "shop",
        "pod": "cart-0",
        "container": "web",
        "oom_killed": None,
        "arguments": "cc1 -O2 'two words'",
        "arguments_cut": 0,
        "lineage": r"systemd;a\x3bb;make",
    }
    named, others = (
        "TIME             PID    PPID COMM              RUNTIME       CPU OUTCOME  ",
        "PARENT          SPAWNER         USER     OWNER",
    )
    assert f"{named} {others}                EXE" == lines.HEADER
    named, others = (
        "       7       1 cc1               2.000ms   1.500ms SIGKILL  ",
        "make            runner          ci       shop/cart-0/web",
    )
    assert lines.line(killed)[12:] == f"{named} {others}      /usr/bin/cc1"
    titles, cells = recent.columns(FIELDS)
    assert dict(zip(titles, cells(*killed), strict=True)) == {
        "#Exited": "22:13:20.000",
        "@Name": "cc1",
        "Outcome": "SIGKILL",
        "#Runtime ms": "2.000",
        "#CPU ms": "1.500",
        "@Owner": "shop/cart-0/web",
        "@Spawner": "runner",
        "@Parent": "make",
        "#PID": "7",
        "@Executable": "/usr/bin/cc1",
    }


def test_json() -> None:
    """Text, object and the way back, with the names and nulls of the other fields."""
    text, value = encoders(WIDER)
    read = reader(Wider, WIDER)
    for each, seat in ((KNOWN, r"a b\x0a"), (UNKNOWN, None)):
        assert json.loads(text(*each)) == value(*each)
        assert value(*each)["seat"] == seat
        assert read(value(*each)) == each
    assert read(as_json(FIRST)) == Wider(*FIRST), "an exporter of the version before does not send it"


@pytest.mark.parametrize(("sent", "seat"), [({}, b""), ({"seat": b"cron"}, b"cron")])
def test_sources(sent: dict[str, bytes], seat: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not know it needs no change; what the kernel sends comes through by its name."""
    monkeypatch.setattr(record_reader, "Record", Wider)
    monkeypatch.setattr(record_reader, "RECORD_FIELDS", (*RECORD_FIELDS, *sent))
    kernel = RecordWithExe(pid=7, comm=b"cc1", exe=b"/bin/cc1")
    taken = (*struct.unpack(f"={RECORD_WITH_EXE_FORMAT}", kernel), *sent.values())
    made: Any = record_reader.records([taken], [None], lambda _: b"/", Lineages(), Mode.EBPF_CORE)[0]
    assert (made.pid, made.comm, made.exe, made.seat) == (7, b"cc1", b"/bin/cc1", seat)


def test_snoop() -> None:
    """Its column stands where it was declared to."""
    header, line = lines.table(WIDER)
    assert header == f"SEAT     {lines.HEADER}"
    assert line(*KNOWN) == rf"a\x20b\x0a {lines.line(FIRST)}"
    assert line(*UNKNOWN).startswith("-        ")


def test_page() -> None:
    """Title and cell."""
    titles, cells = recent.columns(WIDER)
    assert titles == (*recent.columns(FIELDS)[0], "@Seat")
    assert [cells(*each)[-1] for each in (KNOWN, UNKNOWN)] == [r"a b\x0a", "?"]


def test_documents() -> None:
    """Nobody has to write it into a table."""
    tables = records_tables.handlers(WIDER)
    assert "| `seat` | text | `ebpf` | seat in the room |" in tables["keys"]
    assert "| `seat` | `bytes`, empty: not known | `seat TEXT NOT NULL` | seat in the room |" in tables["fields"]
    assert "| SEAT | seat in the room |" in records_tables.snoop(WIDER)["columns"]


def test_a_new_database(path: Path) -> None:
    """It has the column from the start."""
    store(WiderSqlite, path, KNOWN, UNKNOWN)
    assert rows(path, "comm, seat") == [("cc1", r"a b\x0a"), ("cc1", "")]


def test_a_database_of_the_version_before(path: Path) -> None:
    """It gets the column, keeps its rows, and is migrated once."""
    version_1(path)
    for _ in range(2):
        assert store(WiderSqlite, path, KNOWN).tally.errors == 0
    assert rows(path, "pid, comm, seat") == [(0, "old", ""), (1, "cc1", r"a b\x0a"), (1, "cc1", r"a b\x0a")]
    assert rows(path, "*")[0][:13] == (1_900_000_000 * NS, 6, 0, 1, None, "old", "sh", "/bin/old", "ok", 0, None, "/", "netlink")


def test_owners_are_added_to_a_database_of_the_first_version(path: Path) -> None:
    """Files that were written before records had owners are filled on, and can be asked for both."""
    version_1(path)
    assert store(Sqlite, path, record(1)).tally.errors == 0
    assert rows(path, "pid, spawner, user, owner_kind, pod") == [(0, "", "", "", ""), (1, "runner", "ci", "pod", "cart-0")]


def test_a_database_of_a_newer_version(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is left alone, and the log says why."""
    store(WiderSqlite, path, KNOWN)
    before = path.read_bytes()
    older = store(Sqlite, path, record(3))
    assert (older.tally.errors, older.tally.pending) == (1, 1)
    assert path.read_bytes() == before
    newer, known = WiderSqlite.table.version, Sqlite.table.version
    message = f"version {newer} of the database is not known here ({known} is): move it away"
    assert str(vars(caplog.records[0])["fields"]["error"]) == message


def test_the_first_version_is_still_written_and_read(path: Path) -> None:
    """A file that the first version made holds what today's writes, in the same columns."""
    version_1(path)
    assert store(Sqlite, path, record(1)).tally.errors == 0
    made = path.with_name("made.db")
    store(Sqlite, made, record(1))
    assert [row[1:5] for row in rows(path, "*")[1:]] == [row[1:5] for row in rows(made, "*")]
    old, new = ([row[:3] for row in asked(each, "PRAGMA table_info(records)")] for each in (path, made))
    assert new[: len(old)] == old


def test_every_field_is_described() -> None:
    """Documents, `--help` and the JSON are made of it; columns must not fight for a place."""
    keys = [key for field in FIELDS for key in keys_of(field)]
    assert [field.name for field in FIELDS] == list(Record._fields)
    assert all(field.about for field in FIELDS)
    assert all(key.about for key in keys)
    assert len({key.name for key in keys}) == len(keys)
    snoop = [field.snoop.place for field in FIELDS if field.snoop is not None]
    page = [field.page.place for field in FIELDS if field.page is not None]
    assert len(set(snoop)) == len(snoop) == len(snoop_columns(FIELDS))
    assert len(set(page)) == len(page) == len(page_columns(FIELDS))
