"""`/api/v1/lineage`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.records.stacks import RecentStacks
from exporter.web.api import BadQuery
from exporter.web.lineage import answer, table
from tests.unit.pages import record

CRON = (b"systemd", b"cron")


@pytest.fixture
def recent() -> RecentStacks:
    made = RecentStacks()
    made.add([record(number, b"true", lineage=(*CRON, b"sh"), cpu_ns=1_000_000, runtime_ns=2_000_000) for number in range(3)])
    made.add([record(4, b"sh", lineage=CRON, cpu_ns=9_000_000, runtime_ns=10_000_000), record(5, b"a;b", lineage=CRON, cpu_ns=None)])
    return made


def got(recent: RecentStacks, query: str = "") -> dict[str, Any]:
    text, content_type = answer(recent, query)
    assert content_type == "application/json"
    assert text.count("\n") == 1
    return dict(json.loads(text))


def test_a_tree(recent: RecentStacks) -> None:
    """Each node has what is below it, too."""
    found = got(recent)
    root = found.pop("lineage")
    assert found == {"by": "processes", "seconds": 300, "limit": 1000, "truncated": False, "dropped": 0}
    assert (root["name"], root["processes"]) == ("", 5)
    cron = root["children"][0]["children"][0]
    assert [(each["name"], each["processes"]) for each in cron["children"]] == [("sh", 4), ("a;b", 1)]
    assert cron["children"][0] == {
        "name": "sh",
        "processes": 4,
        "cpu_seconds": 0.012,
        "cpu_unknown": 0,
        "runtime_seconds": 0.016,
        "children": [{"name": "true", "processes": 3, "cpu_seconds": 0.003, "cpu_unknown": 0, "runtime_seconds": 0.006, "children": []}],
    }


def test_folded_stacks(recent: RecentStacks) -> None:
    """Processes, or microseconds."""
    text, content_type = answer(recent, "format=folded")
    assert content_type == "text/plain; charset=utf-8"
    assert text.splitlines() == [r"systemd;cron;a\x3bb 1", "systemd;cron;sh 1", "systemd;cron;sh;true 3"]
    assert answer(recent, "format=folded&by=cpu")[0].splitlines() == ["systemd;cron;sh 9000", "systemd;cron;sh;true 3000"]


def test_it_says_what_is_missing(recent: RecentStacks) -> None:
    """It is a sample where records were dropped, and a part where it is limited."""
    recent.note_dropped(7)
    found = got(recent, "limit=3&by=runtime&seconds=60")
    assert (found["dropped"], found["truncated"], found["seconds"]) == (7, True, 60)
    cron = found["lineage"]["children"][0]["children"][0]
    assert [each["name"] for each in cron["children"]] == ["sh", "other"]
    assert "A sample: the records of 7 processes were dropped." in table(recent).caption


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("format=svg", "format is none of json, folded"),
        ("by=memory", "by is none of processes, cpu, runtime"),
        ("seconds=301", "seconds is not a whole number from 1 to 300"),
        ("limit=0", "limit is not a whole number from 1 to 5000"),
        ("comm=x", "unknown parameter; there are format, by, seconds and limit"),
    ],
)
def test_bad_queries(recent: RecentStacks, query: str, why: str) -> None:
    """In a sentence."""
    with pytest.raises(BadQuery, match=why):
        answer(recent, query)
