"""The sink `sqlite`: writes records to a database that others can read meanwhile. Deletes the oldest ones by age and size."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from itertools import starmap

from exporter.handlers.sink import FileSink, open_file, open_folder
from exporter.handlers.sqlite_table import SqliteTable
from exporter.model import NS
from exporter.records.record import FIELDS

_DELETE = "DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE ended_ns < ? ORDER BY ended_ns LIMIT ?)"
_FOREVER_NS = 2**63 - 1
_BUSY_SECONDS = 2.0
_CHUNK = 1000
_TEND_SECONDS = 0.1
"""Longest time for deletions at once: handlers wait meanwhile."""
_VACUUM_PAGES = 500
_LOG_BYTES = 8 << 20


class Sqlite(FileSink):
    """Writes each batch in one transaction.

    WAL with `synchronous = NORMAL`: commits survive the exit of any process. A power failure may lose the last commits, but never damages
    the database.
    """

    failures = (OSError, sqlite3.Error)
    table = SqliteTable(FIELDS)

    def __init__(self, path: str, max_bytes: int, max_age_seconds: float) -> None:
        super().__init__(path)
        self._max_bytes = max_bytes
        self._max_age_ns = round(max_age_seconds * NS)
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)

    def store(self) -> None:
        database = self._open()
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany(self.table.insert, starmap(self.table.row, self.pending))
            database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise
        self.stored(len(self.pending))

    def maintain(self) -> None:
        database = self._open()
        until = time.monotonic() + _TEND_SECONDS
        too_old = time.time_ns() - self._max_age_ns
        page_size = _number(database, "page_size")
        while True:
            pages, free = _number(database, "page_count"), _number(database, "freelist_count")
            too_big = (pages - free) * page_size > self._max_bytes
            deleted = database.execute(_DELETE, (_FOREVER_NS if too_big else too_old, _CHUNK)).rowcount
            if (deleted < _CHUNK and not too_big) or time.monotonic() >= until:
                break
        if free and (free > pages // 4 or pages * page_size > self._max_bytes):
            database.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")  # `execute` would free one page

    def release(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection:
        if self._database is not None:
            with contextlib.suppress(FileNotFoundError):
                found = self.path.lstat()
                if (found.st_dev, found.st_ino) == self._file:
                    return self._database
            self.release()  # it was renamed or deleted
        folder = open_folder(self.path)
        try:
            fd = open_file(self.path.name, folder)  # checks for links, which sqlite would follow; no other user can make one here
            found = os.fstat(fd)
            os.close(fd)
        finally:
            os.close(folder)
        self._file = found.st_dev, found.st_ino
        self._database = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        _set_up(self._database, self.table)
        return self._database


def _set_up(database: sqlite3.Connection, table: SqliteTable) -> None:
    """Create the table, or migrate it from an older version. Raises `DatabaseError` if it is not ours."""
    version = _number(database, "user_version")
    is_new = version == 0 and _number(database, "schema_version") == 0
    if is_new:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    else:
        table.check(database, version)
    if database.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise sqlite3.DatabaseError("its file system can't do WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    if is_new:
        table.create(database)
    elif version < table.version:
        table.migrate(database)


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])
