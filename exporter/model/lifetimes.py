"""Native histograms of lifetimes: buckets whose bounds are whole powers of 2^(1/8) s, eight for each power of two (schema 3 of Prometheus).

bpf/native.h counts in the same buckets. All bounds are exact: bucket `i` holds the whole nanoseconds above 2^((i-1)/8) s, up to 2^(i/8) s.
The first bucket has everything shorter too, and the last one everything longer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from math import isqrt

from exporter.model import NS

SCHEMA = 3
INDEXES = range(-136, 120)
"""Bounds from 2^-17 s (7.6 us) to 2^(118/8) s (7.6 h)."""
SHORTEST_EXPONENT = -17
"""The first bucket ends at 2^-17 s, which is a bound in coarser schemas too."""


def _bound_ns(index: int) -> int:
    """Return 2^(index/8) s, rounded down to whole nanoseconds: the integer eighth root of its eighth power."""
    power = NS**8 << index if index >= 0 else NS**8 >> -index
    return isqrt(isqrt(isqrt(power)))


_BOUNDS_NS = tuple(map(_bound_ns, INDEXES[:-1]))


def index_of(runtime_ns: int) -> int:
    """Return the index of the bucket that a runtime falls into."""
    return INDEXES[bisect_left(_BOUNDS_NS, runtime_ns)]


def upper_bound_ns(index: int) -> int:
    """Return the upper bound of a bucket in whole nanoseconds; of the last one, its lower bound."""
    return _BOUNDS_NS[min(index - INDEXES.start, len(_BOUNDS_NS) - 1)]


def added(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Return the sum of histograms by index."""
    whole: dict[int, int] = {}
    for each in histograms:
        for index, n in each.items():
            whole[index] = whole.get(index, 0) + n
    return whole


def coarser(buckets: Mapping[int, int], schema: int) -> dict[int, int]:
    """Return the same counts in the buckets of a schema of at most `SCHEMA`: 2^schema for each power of two."""
    step = SCHEMA - schema
    merged: dict[int, int] = {}
    for index, n in buckets.items():
        wider = (index - 1 >> step) + 1
        merged[wider] = merged.get(wider, 0) + n
    return merged
