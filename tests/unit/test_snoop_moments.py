"""Moments that snoop is asked about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from exporter.config.problems import InvalidValue
from exporter.snoop.moments import moment


@pytest.fixture(autouse=True)
def in_kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone that is not UTC, and not whole hours from it."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def told(text: str, after: str | None = None) -> str:
    """The moment of a text, asked at 12:30 of 2030-01-31, local time."""
    now = datetime.fromisoformat("2030-01-31T12:30:00").astimezone()
    after_ns = None if after is None else moment(after, now)
    return datetime.fromtimestamp(moment(text, now, after_ns) / 1e9).astimezone().strftime("%Y-%m-%dT%H:%M:%S%z")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("03:10", "2030-01-31T03:10:00+0530"),
        ("3:10", "2030-01-31T03:10:00+0530"),
        ("12:30", "2030-01-31T12:30:00+0530"),
        ("12:30:01", "2030-01-30T12:30:01+0530"),
        ("10m", "2030-01-31T12:20:00+0530"),
        ("1d", "2030-01-30T12:30:00+0530"),
        ("2030-01-02", "2030-01-02T00:00:00+0530"),
        ("2030-01-02T03:04", "2030-01-02T03:04:00+0530"),
        ("2030-01-02 03:04:05", "2030-01-02T03:04:05+0530"),
        ("2030-01-02T03:04Z", "2030-01-02T08:34:00+0530"),
    ],
)
def test_moments(text: str, wanted: str) -> None:
    """As people say them at night: in local time, and in the past."""
    assert told(text) == wanted


@pytest.mark.parametrize(
    ("since", "until", "wanted"),
    [
        ("03:10", "03:15", "31T03:15"),
        ("23:50", "00:10", "31T00:10"),
        ("2030-01-02T23:50", "00:10", "03T00:10"),
        ("1h", "12:15", "31T12:15"),
    ],
)
def test_a_time_of_day_after_another(since: str, until: str, wanted: str) -> None:
    """The end of a span is after its beginning, over midnight too."""
    assert told(until, since) == f"2030-01-{wanted}:00+0530"


@pytest.mark.parametrize("text", ["", "now", "25:00", "3", "5 ms", "03:10Z", "2030-13-01", "0001-01-01", "٣:10", "1e3"])
def test_what_is_no_moment(text: str) -> None:
    """It is refused with an example, whatever it is."""
    with pytest.raises(InvalidValue, match="is not a time such as"):
        told(text)
