"""The API's ranking of names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.model import NS
from exporter.model.counts import Breakdown, Counts, ProcessCounts
from exporter.model.dimensions import COMM, PARENT
from exporter.model.ledger import Ledger
from exporter.web.api import BadQuery
from exporter.web.busiest import busiest
from tests.unit.pages import HOSTILE


def at(second: int, ledger: Ledger, now: list[int], **short: int) -> None:
    now.append(second * NS)
    rows = {name.encode(): ProcessCounts([n, n // 10, 0, 0], short_exits=n, cpu_ns=n * NS) for name, n in short.items()}
    ledger.absorb(Counts(by={COMM: Breakdown(rows), PARENT: Breakdown({b"cron": ProcessCounts(short_exits=sum(short.values()))})}))


@pytest.fixture
def ledger() -> Ledger:
    """Two names can have series. One was busy ten minutes ago, one is now, and one always was a little."""
    now = [0]
    ledger = Ledger({COMM: 2, PARENT: 2}, 0, lambda: now[-1])
    at(1, ledger, now, early=900, always=1)
    for second in range(5, 700, 5):
        at(second, ledger, now, always=1)
    at(700, ledger, now, always=1, late=100)
    at(710, ledger, now, late=30, folded=50)
    return ledger


def answer(ledger: Ledger, query: str) -> dict[str, Any]:
    text = busiest(ledger.standings(), query)
    assert text.count("\n") == 1
    return dict(json.loads(text))


def names(ledger: Ledger, query: str) -> list[str]:
    return [each["comm"] for each in answer(ledger, query)["busiest"]]


def test_those_without_series_are_ranked_with_the_rest(ledger: Ledger) -> None:
    """What hides in `other` is what somebody looks for in an incident."""
    first, second, *_ = answer(ledger, "seconds=60")["busiest"]
    assert (first["comm"], first["short_exits"], first["has_series"]) == ("late", 130, True)
    assert (second["comm"], second["short_exits"], second["has_series"]) == ("folded", 50, False)


def test_by_the_last_minutes_and_since_the_start(ledger: Ledger) -> None:
    """A burst of long ago must not hide the one of now; and still be found."""
    assert names(ledger, "") == ["early", "always", "late", "folded"]
    assert names(ledger, "seconds=300") == ["late", "always", "folded"]
    assert names(ledger, "sort=failed_exits") == ["early", "late", "folded"]
    assert names(ledger, "limit=1&sort=cpu_seconds") == ["early"]


def test_asked_again(ledger: Ledger) -> None:
    """The same while nothing happens; what happens since then is added once."""
    first = answer(ledger, "seconds=300")
    assert answer(ledger, "seconds=300") == first
    rows = {b"late": ProcessCounts([5, 0, 0, 0], short_exits=5)}
    ledger.absorb(Counts(by={COMM: Breakdown(rows)}))
    assert answer(ledger, "seconds=300") == answer(ledger, "seconds=300")
    assert answer(ledger, "seconds=300")["busiest"][0]["short_exits"] == first["busiest"][0]["short_exits"] + 5


def test_other_dimensions(ledger: Ledger) -> None:
    """Each with its own labels and measures."""
    found = answer(ledger, "by=parent&limit=1")
    assert found == {
        "by": "parent",
        "sort": "short_exits",
        "seconds": None,
        "limit": 1,
        "busiest": [{"parent_comm": "cron", "short_exits": 901 + 139 + 101 + 80, "has_series": True}],
    }


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("by=unit", "by is none of comm, parent"),
        ("sort=colour", "sort is none of short_exits, exits, cpu_seconds"),
        ("by=parent&sort=execs", "sort is none of short_exits"),
        ("seconds=0", "seconds is not a whole number from 1 to 300"),
        ("seconds=1e3", "seconds is not"),
        ("limit=101", "limit is not a whole number from 1 to 100"),
        ("comm=sh", "unknown parameter; there are by, sort, seconds and limit"),
    ],
)
def test_bad_queries(ledger: Ledger, query: str, problem: str) -> None:
    """A line that says what would be right."""
    with pytest.raises(BadQuery) as bad:
        busiest(ledger.standings(), query)
    assert str(bad.value).startswith(problem)


def test_hostile_names() -> None:
    """Whatever a process is called, the answer is one line of JSON in ASCII."""
    ledger = Ledger({COMM: 60}, 0, lambda: 0)
    ledger.absorb(Counts(by={COMM: Breakdown({name[:15]: ProcessCounts(short_exits=1) for name in HOSTILE})}))
    assert busiest(ledger.standings(), "").isascii()
    assert len(answer(ledger, "")["busiest"]) == len(HOSTILE)
