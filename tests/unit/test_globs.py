"""Globs, and that they mean the same wherever a user may write one."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import cli
from exporter.config.globs import GLOB, LONGEST, MOST, matcher
from exporter.config.loading import load
from exporter.config.options import Filter
from exporter.records.filters import compiled
from exporter.snoop import run
from exporter.snoop.flags import Options
from exporter.web.api import short_processes
from tests.unit.pages import record

MEANINGS = [
    ("make", b"make", True),
    ("make", b"cmake", False),
    ("make", b"Make", False),
    ("*", b"", True),
    ("py*3", b"python3", True),
    ("m?ke", b"make", True),
    ("m?ke", b"remake", False),
    ("cc[12]", b"cc1", True),
    ("cc[0-9]", b"cc7", True),
    ("cc[!0-9]", b"cc7", False),
    ("cc[!0-9]", b"ccx", True),
    ("[]a]", b"]", True),
    ("[kernel]", b"[kernel]", False),
    ("[kernel]", b"k", True),
    ("[[]kernel]", b"[kernel]", True),
    ("[", b"[", True),
    ("a[b", b"a[b", True),
    (r"a\\*", b"a\\b", True),
    (r"\x0a", b"\n", True),
    ("{a,b}", b"a", False),
]


TABLE = pytest.mark.parametrize(("glob", "comm", "matches"), MEANINGS)


def passes(wanted: Filter, comm: bytes) -> bool:
    wants = compiled(wanted)
    assert wants is not None
    return wants(record(comm=comm))


@TABLE
def test_in_the_configuration(glob: str, comm: bytes, matches: bool, tmp_path: Path) -> None:
    """One meaning everywhere: whoever tries a glob in snoop writes it into a filter next."""
    file = tmp_path / "exporter.yml"
    file.write_text(json.dumps({"sinks": {"jsonl": {"filter": {"comm": [glob]}}}}))
    assert passes(load(str(file)).sinks.jsonl.filter, comm) is matches


@TABLE
def test_in_snoop(glob: str, comm: bytes, matches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same there."""
    seen: list[Filter] = []

    def main(options: Options, *_: object) -> int:
        seen.append(options.filter)
        return 0

    monkeypatch.setattr(run, "main", main)
    assert cli.main(["snoop", f"--comm={glob}"]) == 0
    assert passes(seen[0], comm) is matches


@TABLE
def test_in_a_query(glob: str, comm: bytes, matches: bool) -> None:
    """And there."""
    found = json.loads(short_processes([record(comm=comm)], f"comm={quote(glob)}").piece(0))
    assert bool(found["short_processes"]) is matches


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=LONGEST), st.text(max_size=60))
def test_any_glob_can_be_used(glob: str, name: str) -> None:
    """What the check lets through, the matcher must be able to compile."""
    if "\n" not in glob:
        GLOB.read(glob)
    matcher([glob])(name)


@pytest.mark.parametrize("glob", ["*a" * 128, "*[!b]" * 51, "*?" * 128, "*" + "a" * 254 + "b", ("*" + "a" * 127) * 2])
def test_no_glob_runs_away(glob: str) -> None:
    """The most and longest globs that are allowed, on the longest path that there is, escaped: with backtracking it would take years."""
    matcher([f"{glob[:-2]}{number:02}" for number in range(MOST)])("a" * 1024)
