"""Records that a sink has written: from its SQLite database, or its files of JSON lines."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from exporter.model import NS
from exporter.records import encoding
from exporter.records.fields import Field
from exporter.records.kinds import rfc3339
from exporter.records.record import FIELDS, Record

FOREVER_NS = 2**63 - 1
_SQLITE = b"SQLite format 3\0"
_BUSY_SECONDS = 5.0
_MOST_BYTES = 1 << 20
"""Longest line that is read; records have a few KiB at most."""
_TIME = b'{"ended_at":"'
_TIME_ENDS = len(_TIME) + len("2026-01-02T03:04:05.000000000Z")
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading a value raises that no sink wrote."""


class Unreadable(Exception):
    """The file cannot be read. The message is one sentence."""


class History:
    """The records of a file whose processes exited in [`since_ns`, `until_ns`), Unix times in nanoseconds. Iterate once.

    A file of JSON lines is read with the rotated files beside it (`.1`, `.2`, and so on), the oldest first. Nothing in a file is trusted.
    """

    def __init__(self, path: str | os.PathLike[str], since_ns: int = 0, until_ns: int = FOREVER_NS) -> None:
        self.damaged = 0
        """Lines or rows so far that are no records, such as the end of a line that a crash cut off."""
        self._path = Path(path)
        self._since_ns, self._until_ns = max(0, since_ns), min(until_ns, FOREVER_NS)
        self._since_text, self._until_text = (rfc3339(each).encode() for each in (self._since_ns, self._until_ns))

    def __iter__(self) -> Generator[Record, None, None]:
        """Yield records, those of a database in the order of their exits. Raises `Unreadable`."""
        try:
            with self._path.open("rb") as file:
                is_database = file.read(len(_SQLITE)) == _SQLITE
            yield from self._rows() if is_database else self._lines()
        except OSError as error:
            raise Unreadable(f"cannot read {self._path}: {error.strerror}") from error
        except sqlite3.Error as error:
            raise Unreadable(f"cannot read {self._path}: {error}") from error

    def _rows(self) -> Iterator[Record]:
        uri = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as database:
            database.execute("PRAGMA trusted_schema = OFF")  # whoever wrote the file may not be trusted
            there = {name for _, name, *_ in database.execute("PRAGMA table_info(records)")}
            if missing := [field.name for field in FIELDS if field.name not in there and field.name not in Record._field_defaults]:
                raise Unreadable(f"cannot read {self._path}: it has no table of records (no column {missing[0]})")
            fields = [field for field in FIELDS if field.name in there]  # an older version has not written all
            query = f"SELECT {', '.join(field.name for field in fields)} FROM records"  # noqa: S608 - our own names
            rows = database.execute(f"{query} WHERE ended_ns >= ? AND ended_ns < ? ORDER BY ended_ns", (self._since_ns, self._until_ns))
            for row in rows:
                try:
                    yield _restored(fields, row)
                except _DAMAGE:
                    self.damaged += 1

    def _lines(self) -> Iterator[Record]:
        with ExitStack() as stack:
            for file in reversed(list(self._opened(stack))):
                for line in iter(lambda file=file: file.readline(_MOST_BYTES), b""):  # type: ignore[misc]
                    if not self._may_be_wanted(line):
                        continue
                    try:
                        record = encoding.read(json.loads(line))
                    except _DAMAGE:
                        self.damaged += 1
                        continue
                    if self._since_ns <= record.ended_ns < self._until_ns:
                        yield record

    def _opened(self, stack: ExitStack) -> Iterator[BinaryIO]:
        """Open the file and the rotated ones that may have records of the time, the newest first. None is opened twice by a rotation."""
        known = set()
        for number in count():
            path = self._path if not number else self._path.with_name(f"{self._path.name}.{number}")
            try:
                file = stack.enter_context(path.open("rb"))
            except FileNotFoundError:
                if not number:
                    raise
                return
            found = os.fstat(file.fileno())
            if found.st_ino not in known and found.st_mtime_ns >= self._since_ns - NS:
                known.add(found.st_ino)
                yield file

    def _may_be_wanted(self, line: bytes) -> bool:
        """Return whether the line's record may be of the time: much quicker than to read it."""
        return not line.startswith(_TIME) or self._since_text <= line[len(_TIME) : _TIME_ENDS] < self._until_text


def _restored(fields: Sequence[Field], row: Sequence[Any]) -> Record:
    values = {}
    for field, stored in zip(fields, row, strict=True):
        value = values[field.name] = (field.kind.restored or field.kind.read)(stored)
        if value is None and not field.optional:
            raise ValueError(field.name)
    return Record(**values)
