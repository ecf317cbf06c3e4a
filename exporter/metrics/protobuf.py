"""The protobuf format: `io.prometheus.client.MetricFamily`, each with its length before it.

Written by hand: a runtime for protobuf would take 5 MiB and two to four times as long (ADR 16). The numbers of fields are those of
https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto; the tests read what is written here with that
definition. A key is the number of the field times 8, plus 0 for a varint, 1 for a double, 2 for bytes with their length before them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from exporter.metrics.catalogue import Family
from exporter.metrics.families import Exposed, Histogram, Histograms, Labels, NativeHistogram, NativeHistograms, Numbers, label_pairs
from exporter.model import NS

_TYPES = {"counter": 0, "gauge": 1, "histogram": 4}
_FILLED_GAP = 2
"""A gap of so many empty buckets is written as zeros, which takes no more than a new span."""
_double = struct.Struct("<d").pack


class _Frame(NamedTuple):
    """What is constant of a series."""

    created_ns: int
    start: bytes
    """Up to its value."""
    end: bytes


class _Written(NamedTuple):
    """A native histogram as the last scrape showed it. With the same count and sum since the same moment, it has not changed."""

    state: tuple[int, int, float]
    series: bytes


class ProtobufEncoder:
    """Keeps the bytes around the value of each series that the last scrape showed, and whole native histograms."""

    def __init__(self) -> None:
        self._frames: dict[Family, dict[Labels, _Frame]] = {}
        self._written: dict[Family, dict[Labels, _Written]] = {}

    def encode(self, families: Iterable[Exposed]) -> bytes:
        """Return the body of a scrape."""
        body: list[bytes] = []
        frames, self._frames = self._frames, {}
        written, self._written = self._written, {}
        for each in families:
            match each:
                case Numbers(family):
                    shown = self._frames[family] = {}
                    metrics = b"".join(_numbers(each, frames.get(family, {}), shown))
                case Histograms():
                    metrics = b"".join(_histograms(each))
                case NativeHistograms(family):
                    now = self._written[family] = {}
                    metrics = b"".join(_native_histograms(each, written.get(family, {}), now))
            head = _head(each.family)
            body += (_varint(len(head) + len(metrics)), head, metrics)
        return b"".join(body)


def _numbers(each: Numbers, known: dict[Labels, _Frame], shown: dict[Labels, _Frame]) -> Iterator[bytes]:
    """Yield the series, and note the frames that they have."""
    family, frame_of = each.family, _counter if each.family.kind == "counter" else _gauge
    for labels, value, created_ns in each.series:
        frame = known.get(labels)
        if frame is None or frame.created_ns != created_ns:
            frame = frame_of(_labels(family, labels), created_ns)
        shown[labels] = frame
        yield frame.start + _double(value) + frame.end


def _head(family: Family) -> bytes:
    return _bytes(b"\x0a", family.name.encode()) + _bytes(b"\x12", family.about.encode()) + b"\x18" + _varint(_TYPES[family.kind])


def _counter(labels: bytes, created_ns: int) -> _Frame:
    created = _bytes(b"\x1a", _timestamp(created_ns)) if created_ns else b""
    return _frame(labels + b"\x1a" + _varint(9 + len(created)) + b"\x09", created, created_ns)


def _gauge(labels: bytes, created_ns: int) -> _Frame:
    return _frame(labels + b"\x12\x09\x09", b"", created_ns)


def _frame(start: bytes, end: bytes, created_ns: int) -> _Frame:
    return _Frame(created_ns, b"\x22" + _varint(len(start) + 8 + len(end)) + start, end)


def _histograms(each: Histograms) -> Iterator[bytes]:
    bounds = [b"\x11" + _double(bound) for bound in each.bounds]
    for labels, histogram, created_ns in each.series:
        cumulative = list(accumulate(histogram.buckets))
        buckets = [_bytes(b"\x1a", b"\x08" + _varint(n) + bound) for n, bound in zip(cumulative, bounds, strict=False)]
        yield _histogram(_labels(each.family, labels), cumulative[-1], histogram, b"".join(buckets), created_ns)


def _native_histograms(each: NativeHistograms, known: dict[Labels, _Written], shown: dict[Labels, _Written]) -> Iterator[bytes]:
    """Yield the series, and note them."""
    for labels, histogram, created_ns in each.series:
        count = histogram.observations()
        written = known.get(labels)
        state = (created_ns, count, histogram.sum)
        if written is None or written.state != state:
            series = _histogram(_labels(each.family, labels), count, histogram, _native(histogram), created_ns)
            written = _Written(state, series)
        shown[labels] = written
        yield written.series


def _histogram(labels: bytes, count: int, histogram: Histogram | NativeHistogram, buckets: bytes, created_ns: int) -> bytes:
    """Return a series. Prometheus takes a change of its creation for a reset of its counts."""
    created = _bytes(b"\x7a", _timestamp(created_ns)) if created_ns else b""
    body = b"\x08" + _varint(count) + b"\x11" + _double(histogram.sum) + buckets + created
    return _bytes(b"\x22", labels + _bytes(b"\x3a", body))


def _native(histogram: NativeHistogram) -> bytes:
    spans, deltas = _buckets(histogram.buckets)
    if not (spans or histogram.zero_count or histogram.zero_threshold):
        spans = _span(0, 0)  # or it could not be told from a classic one
    return b"".join(
        (
            b"\x28" + _zigzag(histogram.schema),
            b"\x31" + _double(histogram.zero_threshold),
            b"\x38" + _varint(histogram.zero_count) if histogram.zero_count else b"",
            spans,
            _bytes(b"\x6a", deltas) if deltas else b"",
        )
    )


def _buckets(buckets: Mapping[int, int]) -> tuple[bytes, bytes]:
    """Return spans of neighbouring buckets, and the differences of counts. One loop: a scrape has thousands of them."""
    spans: list[bytes] = []
    deltas: list[bytes] = []
    end = start = last_end = before = 0
    for index in sorted(buckets):
        n = buckets[index]
        if not n:
            continue
        gap = index - end
        if gap and deltas and gap <= _FILLED_GAP:
            deltas += (_zigzag(-before), *[b"\0"] * (gap - 1))
            before = 0
        elif gap or not deltas:
            if deltas:
                spans.append(_span(start - last_end, end - start))
                last_end = end
            start = index
        delta = n - before << 1
        delta = delta if delta >= 0 else ~delta  # zigzag
        deltas.append(_SHORT_VARINTS[delta] if delta < _SHORT else _long_varint(delta))
        before, end = n, index + 1
    if deltas:
        spans.append(_span(start - last_end, end - start))
    return b"".join(spans), b"".join(deltas)


def _span(offset: int, length: int) -> bytes:
    """Return a span; its offset is from the end of the one before."""
    return _bytes(b"\x62", b"\x08" + _zigzag(offset) + b"\x10" + _varint(length))


def _labels(family: Family, values: Labels) -> bytes:
    pairs = label_pairs(family.labels, values)
    return b"".join(_bytes(b"\x0a", _bytes(b"\x0a", name.encode()) + _bytes(b"\x12", value.encode())) for name, value in pairs)


def _timestamp(unix_ns: int) -> bytes:
    seconds, ns = divmod(unix_ns, NS)
    return b"\x08" + _varint(seconds) + b"\x10" + _varint(ns)


def _bytes(key: bytes, content: bytes) -> bytes:
    return key + _varint(len(content)) + content


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else ~(value << 1))


def _varint(value: int) -> bytes:
    return _SHORT_VARINTS[value] if value < _SHORT else _long_varint(value)


def _long_varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


_SHORT = 1024
_SHORT_VARINTS = tuple(map(_long_varint, range(_SHORT)))
"""Most counts are small, and a look-up is several times as fast."""
