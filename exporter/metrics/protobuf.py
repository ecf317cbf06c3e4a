"""The protobuf format: `io.prometheus.client.MetricFamily`, each with its length before it.

Written by hand: a runtime for protobuf would take 5 MiB and two to four times as long (ADR 16). The numbers of fields are those of
https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto; the tests read what is written here with that
definition. A key is the number of the field times 8, plus 0 for a varint, 1 for a double, 2 for bytes with their length before them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
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


class ProtobufEncoder:
    """Keeps the bytes around the value of each series that the last scrape showed."""

    def __init__(self) -> None:
        self._frames: dict[Family, dict[Labels, _Frame]] = {}

    def encode(self, families: Iterable[Exposed]) -> bytes:
        """Return the body of a scrape."""
        body: list[bytes] = []
        frames, self._frames = self._frames, {}
        for each in families:
            match each:
                case Numbers(family):
                    shown = self._frames[family] = {}
                    metrics = b"".join(_numbers(each, frames.get(family, {}), shown))
                case Histograms():
                    metrics = b"".join(_histograms(each))
                case NativeHistograms():
                    metrics = b"".join(_native_histograms(each))
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


def _native_histograms(each: NativeHistograms) -> Iterator[bytes]:
    for labels, histogram, created_ns in each.series:
        yield _histogram(_labels(each.family, labels), histogram.observations(), histogram, _native(histogram), created_ns)


def _histogram(labels: bytes, count: int, histogram: Histogram | NativeHistogram, buckets: bytes, created_ns: int) -> bytes:
    """Return a series. Prometheus takes a change of its creation for a reset of its counts."""
    created = _bytes(b"\x7a", _timestamp(created_ns)) if created_ns else b""
    body = b"\x08" + _varint(count) + b"\x11" + _double(histogram.sum) + buckets + created
    return _bytes(b"\x22", labels + _bytes(b"\x3a", body))


def _native(histogram: NativeHistogram) -> bytes:
    spans, deltas = _spans({index: n for index, n in histogram.buckets.items() if n})
    if not (spans or histogram.zero_count or histogram.zero_threshold):
        spans = [(0, 0)]  # or it could not be told from a classic one
    return b"".join(
        (
            b"\x28" + _zigzag(histogram.schema),
            b"\x31" + _double(histogram.zero_threshold),
            b"\x38" + _varint(histogram.zero_count) if histogram.zero_count else b"",
            *(_bytes(b"\x62", b"\x08" + _zigzag(offset) + b"\x10" + _varint(length)) for offset, length in spans),
            _bytes(b"\x6a", b"".join(map(_zigzag, deltas))) if deltas else b"",
        )
    )


def _spans(buckets: dict[int, int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Return spans of neighbouring buckets (offset from the end of the one before, length), and each bucket's difference to the last."""
    spans: list[tuple[int, int]] = []
    counts: list[int] = []
    end = 0
    for index in sorted(buckets):
        gap = index - end
        if spans and gap <= _FILLED_GAP:
            offset, length = spans[-1]
            spans[-1] = offset, length + gap + 1
            counts += [0] * gap
        else:
            spans.append((gap, 1))
        counts.append(buckets[index])
        end = index + 1
    return spans, [n - before for n, before in zip(counts, [0, *counts], strict=False)]


def _labels(family: Family, values: Labels) -> bytes:
    pairs = label_pairs(family.labels, values)
    return b"".join(_bytes(b"\x0a", _bytes(b"\x0a", name.encode()) + _bytes(b"\x12", value.encode())) for name, value in pairs)


def _timestamp(unix_ns: int) -> bytes:
    seconds, ns = divmod(unix_ns, NS)
    return b"\x08" + _varint(seconds) + b"\x10" + _varint(ns)


def _bytes(key: bytes, content: bytes) -> bytes:
    return key + _varint(len(content)) + content


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
