"""Metrics of handlers, on their way from their registries in the child to `/metrics`.

The child writes them to a memory file about once a second, as JSON. The exporter believes nothing that it reads there: what `checked` does
not let through in the child it does not let through in the exporter either. What is dropped is counted.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

MOST_BYTES = 256 * 1024
MOST_SERIES = 1_000
"""Of all handlers together. Each bucket of a histogram is one."""
_MOST_VALUE = 1_024
_MOST_ABOUT = 1_024
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,127}")
_RESERVED = ("shortproc_", "process_", "python_", "scrape_")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,63}")
_KINDS: dict[str, tuple[Literal["counter", "gauge", "histogram"], str]] = {
    "counter": ("counter", "_total"),
    "gauge": ("gauge", ""),
    "histogram": ("histogram", ""),
    "info": ("gauge", "_info"),
    "stateset": ("gauge", ""),
}
"""Types of the client library: as what they are shown, and the ending of their samples."""
_SUFFIXES = {"counter": ("", "_created"), "gauge": (), "histogram": ("_bucket", "_count", "_sum", "_created")}
"""Other names that a family takes, after its own without `_total`."""
_LARGEST = 2**63
_HEAD = struct.Struct("<II")

Series = tuple[tuple[str, ...], tuple[float, ...], float]
"""Values of the labels; the value, or the buckets (not cumulative) and the sum; the Unix time at which it was 0, or 0."""


class UserFamily(NamedTuple):
    """A family as `/metrics` shows it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]
    """Of a histogram, without +Inf."""
    series: tuple[Series, ...]


class Registries(NamedTuple):
    """All that handlers show."""

    families: tuple[UserFamily, ...] = ()
    dropped: int = 0
    """Series that are not shown: invalid, or too many."""


class Unusable(ValueError):
    """A family cannot be shown. The message says why."""


def converted(metric: Any) -> UserFamily:
    """Convert a family of prometheus_client. Raises `Unusable`."""
    if metric.type not in _KINDS:
        raise Unusable(f"{metric.name}: metrics of type {metric.type} are not supported")
    kind, ending = _KINDS[metric.type]
    is_histogram = kind == "histogram"
    names = sorted({label for sample in metric.samples for label in sample.labels} - ({"le"} if is_histogram else set()))
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for sample in metric.samples:
        part = sample.name.removeprefix(metric.name) + (sample.labels.get("le", "") if is_histogram else "")
        found.setdefault(tuple(str(sample.labels.get(label, "")) for label in names), {})[part] = float(sample.value)
    bounds: list[float] = []
    series: list[Series] = []
    for labels, values in found.items():
        created = values.pop("_created", 0.0)
        if is_histogram:
            buckets = sorted((float(part.removeprefix("_bucket")), n) for part, n in values.items() if part.startswith("_bucket"))
            if series and bounds != [bound for bound, _ in buckets]:
                raise Unusable(f"{metric.name}: its series have different buckets")
            bounds, counts = [bound for bound, _ in buckets], [n for _, n in buckets]
            differences = (n - before for n, before in zip(counts, [0.0, *counts], strict=False))
            series.append((labels, (*differences, values.get("_sum", 0.0)), created))
        elif (value := values.get(ending)) is not None:
            series.append((labels, (value,), created))
        else:
            raise Unusable(f"{metric.name}: a sample has another name")
    return UserFamily(metric.name + ending, kind, metric.documentation, (*names,), (*bounds[:-1],), (*series,))


def checked(families: Iterable[UserFamily]) -> tuple[Registries, list[str]]:
    """Keep what may be shown; also return what is wrong with the rest."""
    kept, problems, dropped = [], [], 0
    taken: set[str] = set()
    room = MOST_SERIES
    for family in families:
        lines = len(family.bounds) + 3 if family.kind == "histogram" else 1
        problem = _problem(family, taken)
        fit = 0 if problem else min(len(family.series), room // lines)
        if fit < len(family.series):
            dropped += len(family.series) - fit
            problems.append(problem or f"{family.name}: handlers together have more than {MOST_SERIES} series")
        if fit:
            taken |= _names(family)
            room -= fit * lines
            kept.append(family._replace(series=family.series[:fit]))
    return Registries((*kept,), dropped), problems


def _names(family: UserFamily) -> set[str]:
    base = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    return {family.name, *(base + suffix for suffix in _SUFFIXES[family.kind])}


def _problem(family: UserFamily, taken: set[str]) -> str | None:
    name, kind, about, labels, bounds, series = family
    if not _NAME.fullmatch(name) or name.startswith(_RESERVED) or name == "up" or (kind == "counter" and not name.endswith("_total")):
        return f"{name[:128]!r} is not a name for a {kind} of a handler"
    tests = {
        "another metric has this name": not _names(family) & taken,
        "its help text cannot be shown": len(about) <= _MOST_ABOUT and not _NO_TEXT.search(about),
        "a name of a label cannot be shown": len(set(labels)) == len(labels) and all(map(_LABEL.fullmatch, labels)) and "le" not in labels,
        "its buckets do not rise": list(bounds) == sorted(set(bounds)) and all(map(math.isfinite, bounds)),
        "a series is there twice": len({each[0] for each in series}) == len(series),
        "a series is invalid": all(_is_valid(family, *each) for each in series),
    }
    return next((f"{name}: {problem}" for problem, passed in tests.items() if not passed), None)


def _is_valid(family: UserFamily, labels: tuple[str, ...], values: tuple[float, ...], created: float) -> bool:
    if len(labels) != len(family.labels) or any(len(value) > _MOST_VALUE for value in labels) or not 0 <= created < _LARGEST / 1e9:
        return False
    if family.kind != "histogram":
        return len(values) == 1
    *buckets, _ = values
    return len(buckets) == len(family.bounds) + 1 and all(0 <= n < _LARGEST / len(buckets) and n == int(n) for n in buckets)


class RegistriesWriter:
    """Writes them, in the child."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, registries: Registries) -> None:
        """Replace what is there. Families that do not fit are dropped, the last ones first."""
        size, dropped, pieces = 64, registries.dropped, []
        for family in registries.families:
            piece = json.dumps(family)
            if (size := size + len(piece) + 1) > MOST_BYTES:
                dropped += len(family.series)
            else:
                pieces.append(piece)
        body = f"[{','.join((str(dropped), *pieces))}]".encode()
        os.pwrite(self._fd, _HEAD.pack(len(body), zlib.crc32(body)) + body, 0)


def file_size() -> int:
    """Return how large the memory file is."""
    return _HEAD.size + MOST_BYTES


def read_body(fd: int) -> bytes | None:
    """Return what the child wrote, empty before it wrote anything; None while it writes, or if it has damaged the file."""
    size, checksum = _HEAD.unpack(os.pread(fd, _HEAD.size, 0))
    body = os.pread(fd, min(size, MOST_BYTES), _HEAD.size)
    return body if zlib.crc32(body) == checksum else None


def parsed(body: bytes) -> Registries:
    """Return what may be shown of it."""
    try:
        dropped, *families = json.loads(body or b"[0]")
        registries, _ = checked(_shaped(families))
        return registries._replace(dropped=registries.dropped + min(max(int(dropped), 0), _LARGEST))
    except (ValueError, TypeError, OverflowError, RecursionError):  # the child is not what we started any more
        return Registries()


def _shaped(families: list[Any]) -> Iterator[UserFamily]:
    """Give it its types. Raises `ValueError` or `TypeError` where it has others."""
    for name, kind, about, labels, bounds, series in families:
        if kind not in _SUFFIXES:
            raise ValueError(kind)
        rows = ((_texts(values), tuple(map(float, numbers)), float(created)) for values, numbers, created in series)
        _texts([name, about])
        yield UserFamily(name, kind, about, _texts(labels), tuple(map(float, bounds)), (*rows,))


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise TypeError
    return tuple(values)
