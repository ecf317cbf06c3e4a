"""Moments in the past, as `--since` and `--until` take them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from exporter.config import durations
from exporter.config.checks import Check
from exporter.config.problems import InvalidValue, shown

_TIME_OF_DAY = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLES = "a time such as 03:10, 2030-01-31T03:10:00 or 10m (ago)"


def moment(text: str, now: datetime, after_ns: int | None = None) -> int:
    """Return a moment as Unix time in nanoseconds. `now` has a time zone, which a time without one is in. Raises `InvalidValue`.

    A time of day is the last one that has been or, with `after_ns`, the first one after that.
    """
    if durations.has_unit(text) and (ago := durations.parse(text)) is not None:
        return _ns(now) - ago
    try:
        if _TIME_OF_DAY.fullmatch(text):
            return _ns(_of_day(time.fromisoformat(text if text[2] == ":" else f"0{text}"), now, after_ns))
        found = datetime.fromisoformat(text)
        return _ns(found if found.tzinfo else found.astimezone())
    except (ValueError, OverflowError):
        raise InvalidValue(f"{shown(text)} is not {_EXAMPLES}") from None


def check(now: datetime, after_ns: int | None = None) -> Check:
    """Return a check that reads a moment."""
    return Check(lambda value: moment(str(value), now, after_ns), {}, _EXAMPLES)


def _of_day(wanted: time, now: datetime, after_ns: int | None) -> datetime:
    begin = now if after_ns is None else _EPOCH.astimezone(now.tzinfo) + timedelta(microseconds=after_ns // 1000)
    days = (begin.date() + timedelta(days=each) for each in ((0, -1) if after_ns is None else (0, 1)))
    first, second = (datetime.combine(day, wanted).astimezone() for day in days)
    return first if (first <= begin if after_ns is None else first > begin) else second


def _ns(when: datetime) -> int:
    return (when - _EPOCH) // timedelta(microseconds=1) * 1000
