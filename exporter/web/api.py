"""`/api/v1/short-processes`: recent short processes as JSON, the newest first.

Query, each at most once:
    comm, parent   the name, as the answer shows it; `*` and `?` stand for any characters
    outcome        ok, error, signal or unknown
    min_runtime    seconds
    since          when it ended, at the earliest: Unix seconds, or a time as in RFC 3339
    limit          how many at most
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from urllib.parse import unquote_plus

from exporter.model import NS, Outcome, comm_text
from exporter.records.encoding import encode, line
from exporter.records.record import Record

MAX_LIMIT = 100_000
"""As many as can be stored."""
_LIMIT = 100
_LONGEST_PATTERN = 64
_SECONDS = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,9}))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Filter = Callable[[Record], bool]


class BadQuery(ValueError):
    """The query can't be answered. The message is one line."""


def short_processes(newest_first: Iterable[Record], query: str) -> str:
    """Answer a query with a line of JSON, or raise `BadQuery`."""
    given = _parsed(query)
    limit = _limit(given.pop("limit", str(_LIMIT)))
    filters = [_FILTERS[name](value, name) for name, value in given.items()]
    matching = (record for record in newest_first if all(matches(record) for matches in filters))
    # One by one, since encoding all at once would keep every other thread waiting
    found = ",".join([line(record) for record in islice(matching, limit)])
    rest = encode({"limit": limit, "truncated": next(matching, None) is not None})
    return f'{{"short_processes":[{found}],{rest[1:]}\n'


def _parsed(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for parameter in query.split("&") if query else []:
        name, equals, value = parameter.partition("=")
        if name != "limit" and name not in _FILTERS:
            raise BadQuery(f"unknown parameter; there are {', '.join(_FILTERS)} and limit")
        if name in given:
            raise BadQuery(f"{name} is given more than once")
        try:
            given[name] = unquote_plus(value, errors="strict")
        except UnicodeDecodeError:
            raise BadQuery(f"{name} is not UTF-8") from None
        if not equals or not value:
            raise BadQuery(f"{name} is empty")
    return given


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise BadQuery(f"limit is not a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _comm(pattern: str, name: str) -> _Filter:
    matches = _pattern(pattern, name)
    return lambda record: matches(record.comm)


def _parent(pattern: str, name: str) -> _Filter:
    matches = _pattern(pattern, name)
    return lambda record: matches(record.parent_comm)


def _pattern(pattern: str, name: str) -> Callable[[bytes], bool]:
    """A pattern of `*` and `?` alone, so that `[kernel]` is a name. Matching takes at most (its length) x (the name's) steps."""
    if len(pattern) > _LONGEST_PATTERN:
        raise BadQuery(f"{name} is longer than {_LONGEST_PATTERN} characters")
    matches = re.compile(fnmatch.translate(pattern.replace("[", "[[]"))).match
    return lambda comm: matches(comm_text(comm)) is not None


def _outcome(text: str, name: str) -> _Filter:
    if text not in list(Outcome):
        raise BadQuery(f"{name} is none of {', '.join(Outcome)}")
    return lambda record: record.outcome == text


def _min_runtime(text: str, name: str) -> _Filter:
    least = _nanoseconds(text)
    if least is None:
        raise BadQuery(f"{name} is not a number of seconds, such as 0.001")
    return lambda record: record.runtime_ns >= least


def _since(text: str, name: str) -> _Filter:
    earliest = _nanoseconds(text)
    if earliest is None:
        earliest = _moment(text, name)
    return lambda record: record.ended_ns >= earliest


def _moment(text: str, name: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise BadQuery(f"{name} lacks a time zone; write Z for UTC")
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadQuery):
            raise
        raise BadQuery(f"{name} is neither Unix seconds nor a time such as 2030-01-31T12:00:00Z") from None


def _nanoseconds(seconds: str) -> int | None:
    match = _SECONDS.fullmatch(seconds)
    return int(match[1]) * NS + int((match[2] or "0").ljust(9, "0")) if match else None


_FILTERS: dict[str, Callable[[str, str], _Filter]] = {
    "comm": _comm,
    "parent": _parent,
    "outcome": _outcome,
    "min_runtime": _min_runtime,
    "since": _since,
}
