"""The table of the sink `sqlite`, made from the declaration of records. Missing columns are added to files of older versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from exporter.records.fields import Field, as_tuple, compiled

_COLUMNS_OF_VERSION_1 = 13
"""Each further column increases the version by one, so that an older exporter leaves the file alone."""
_UNKNOWN = {"INTEGER": "0", "TEXT": "''"}
"""Value of old rows in a new column that may not be null."""
_INDEXES = """
CREATE INDEX records_by_time ON records (ended_ns);
CREATE INDEX records_by_comm ON records (comm, ended_ns);
"""


class SqliteTable:
    """Makes the statements for the table, and creates, checks and migrates it."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.version = 1 + len(fields) - _COLUMNS_OF_VERSION_1
        names, marks = ", ".join(field.name for field in fields), ", ".join("?" * len(fields))
        self.insert = f"INSERT INTO records ({names}) VALUES ({marks})"  # noqa: S608 - our own names
        self.row: Callable[..., tuple[int | str | None, ...]] = compiled(
            fields, ((field.kind.stored, (field.name,)) for field in fields), as_tuple
        )
        """Returns a row from the values of a record."""
        self._fields = fields

    def create(self, database: sqlite3.Connection) -> None:
        columns = ",\n    ".join(map(column, self._fields))
        database.executescript(f"BEGIN; CREATE TABLE records (\n    {columns}\n);{_INDEXES} PRAGMA user_version = {self.version}; COMMIT;")

    def check(self, database: sqlite3.Connection, version: int) -> None:
        """Raise `DatabaseError` if the database belongs to another program or to a newer version."""
        if not 1 <= version <= self.version:
            raise sqlite3.DatabaseError(f"version {version} of the database is not known here ({self.version} is): move it away")
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchone():
            raise sqlite3.DatabaseError("the database has no table of records: move it away")

    def migrate(self, database: sqlite3.Connection) -> None:
        """Add the columns of later versions. Rows are kept."""
        database.execute("BEGIN IMMEDIATE")  # locks out other migrations
        there = {name for _, name, *_ in database.execute("PRAGMA table_info(records)")}
        for field in self._fields:
            if field.name not in there:
                default = "" if field.optional else f" DEFAULT {_UNKNOWN[field.kind.column]}"
                database.execute(f"ALTER TABLE records ADD COLUMN {column(field)}{default}")
        database.execute(f"PRAGMA user_version = {self.version}")
        database.execute("COMMIT")


def column(field: Field) -> str:
    """Return the definition of the field's column."""
    return f"{field.name} {field.kind.column}{'' if field.optional else ' NOT NULL'}"
