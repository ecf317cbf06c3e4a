"""`/api/v1/short-processes`: recent short processes as JSON, the newest first.

Parameters of the query, each at most once:
    comm, parent, spawner, user, unit, namespace, pod, container
                   a glob for the name as the answer shows it (exporter/config/globs.py)
    outcome        ok, error, signal or unknown
    min_runtime    minimum runtime in seconds
    since          earliest time of the exit: Unix seconds, or a time as in RFC 3339
    limit          maximum number of records
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import unquote_plus

from exporter.config.globs import GLOB
from exporter.config.options import Filter
from exporter.config.problems import InvalidValue
from exporter.model import NS, Outcome
from exporter.records.encoding import piece
from exporter.records.fields import Json
from exporter.records.filters import GLOB_KEYS, compiled
from exporter.records.record import Record

MAX_LIMIT = 100_000
"""The highest `records.capacity`."""
PIECE = 100
"""Records in one piece of an answer: as many as take about 2 ms."""
_LIMIT = 100
_KEPT = 8
_GLOBS = tuple(key for key in GLOB_KEYS if key not in {"exe", "cgroup"})
_PARAMETERS = (*_GLOBS, "outcome", "min_runtime", "since", "limit")
_SECONDS = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,9}))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadQuery(ValueError):
    """The query is invalid. The message is one line."""


class Found:
    """The answer to a query: one line of JSON, in pieces that are made as they are needed. A large one never exists as a whole."""

    def __init__(self, records: list[Record], more: Json) -> None:
        self._records = records
        self._more = more
        self._made: dict[int, bytes] = {}

    def __len__(self) -> int:
        """Return the number of pieces."""
        return max(1, -(-len(self._records) // PIECE))

    def piece(self, number: int) -> bytes:
        """Return a piece. The last ones are kept, for other clients of the same answer. Call it from one thread at a time."""
        made = self._made.get(number)
        if made is None:
            made = self._made[number] = self._make(number)
            if len(self._made) > _KEPT:
                del self._made[next(iter(self._made))]
        return made

    def _make(self, number: int) -> bytes:
        text = piece(self._records, self._more, number * PIECE, (number + 1) * PIECE)
        return f"{text}\n".encode() if number == len(self) - 1 else text.encode()


def short_processes(newest_first: Iterable[Record], query: str) -> Found:
    """Answer a query, or raise `BadQuery`."""
    given = parsed(query, _PARAMETERS)
    limit, since = number(given, "limit", MAX_LIMIT) or _LIMIT, _since(given)
    globs: dict[str, Any] = {key: _globs(given, key) for key in _GLOBS}
    matches = compiled(Filter(outcome=_outcomes(given), min_runtime_seconds=_least(given), **globs))
    matching = (record for record in newest_first if record.ended_ns >= since and (matches is None or matches(record)))
    found = list(islice(matching, limit))
    return Found(found, {"limit": limit, "truncated": next(matching, None) is not None})


def parsed(query: str, parameters: Sequence[str]) -> dict[str, str]:
    """Read a query of only these parameters, or raise `BadQuery`."""
    given: dict[str, str] = {}
    for parameter in query.split("&") if query else []:
        name, equals, value = parameter.partition("=")
        if name not in parameters:
            raise BadQuery(f"unknown parameter; there are {', '.join(parameters[:-1])} and {parameters[-1]}")
        if name in given:
            raise BadQuery(f"{name} is given more than once")
        try:
            given[name] = unquote_plus(value, errors="strict")
        except UnicodeDecodeError:
            raise BadQuery(f"{name} is not UTF-8") from None
        if not equals or not value:
            raise BadQuery(f"{name} is empty")
    return given


def number(given: Mapping[str, str], name: str, most: int) -> int | None:
    """Return a parameter that is a whole number from 1 to `most`; None if it is not given. Raises `BadQuery`."""
    text = given.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise BadQuery(f"{name} is not a whole number from 1 to {most}")
    return int(text)


def _globs(given: dict[str, str], name: str) -> tuple[str, ...]:
    if name not in given:
        return ()
    try:
        return (GLOB.read(given[name]),)
    except InvalidValue:
        raise BadQuery(f"{name} is not {GLOB.wanted}") from None


def _outcomes(given: dict[str, str]) -> tuple[str, ...]:
    if "outcome" in given and given["outcome"] not in list(Outcome):
        raise BadQuery(f"outcome is none of {', '.join(Outcome)}")
    return (given["outcome"],) if "outcome" in given else ()


def _least(given: dict[str, str]) -> float:
    ns = _nanoseconds(given.get("min_runtime", "0"))
    if ns is None:
        raise BadQuery("min_runtime is not a number of seconds, such as 0.001")
    return ns / NS


def _since(given: dict[str, str]) -> int:
    text = given.get("since", "0")
    ns = _nanoseconds(text)
    return _moment(text) if ns is None else ns


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise BadQuery("since lacks a time zone; write Z for UTC")
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadQuery):
            raise
        raise BadQuery("since is neither Unix seconds nor a time such as 2030-01-31T12:00:00Z") from None


def _nanoseconds(seconds: str) -> int | None:
    match = _SECONDS.fullmatch(seconds)
    return int(match[1]) * NS + int((match[2] or "0").ljust(9, "0")) if match else None
