"""Sinks in a folder, and what is in their files."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.handlers.jsonl import Jsonl
from exporter.handlers.sqlite import Sqlite

MIB = 1 << 20
DECADE = 3660 * 86400.0


@contextmanager
def private(folder: Path) -> Iterator[Path]:
    """As it is for the child."""
    folder.chmod(0o750)
    before = os.umask(0o027)
    yield folder
    os.umask(before)


def lines_to(folder: Path, **options: Any) -> Jsonl:
    whole: dict[str, Any] = {"path": str(folder / "records.jsonl"), "max_bytes": MIB, "max_age_seconds": DECADE, "keep": 2} | options
    return Jsonl(**whole)


def rows_to(folder: Path, **options: Any) -> Sqlite:
    whole: dict[str, Any] = {"path": str(folder / "records.db"), "max_bytes": 1 << 30, "max_age_seconds": DECADE} | options
    return Sqlite(**whole)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def count(path: Path) -> int:
    """How many are stored."""
    if ".jsonl" in path.name:
        return len(read(path)) if path.exists() else 0
    database = sqlite3.connect(path)
    try:
        return int(database.execute("SELECT count(*) FROM records").fetchone()[0])
    finally:
        database.close()
