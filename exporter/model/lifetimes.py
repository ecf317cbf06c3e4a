"""Native histograms of lifetimes. In schema k of Prometheus, bounds are whole powers of 2^(1/2^k) s: 2^k buckets for each power of two.

They are counted in schema 3 or 4, which is a value that each user of them is given; coarser ones are merged when they are shown.
bpf/native.h counts in the same buckets. All bounds are exact: bucket `i` holds the whole nanoseconds above 2^((i-1)/2^k) s, up to
2^(i/2^k) s. The first bucket has everything shorter too, and the last one everything longer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cache
from math import isqrt
from typing import Final

from exporter.model import NS

COARSE: Final = 3
"""The schema that is counted for all that are not finer: 256 buckets, bounds 9 % apart."""
FINE: Final = 4
"""The finest one: 512 buckets, bounds 4.4 % apart."""
SHORTEST_EXPONENT = -17
"""The first bucket ends at 2^-17 s (7.6 us), a bound in all schemas."""
_END_EXPONENT = 15
"""No bucket ends at 2^15 s: the last one has what is longer than 7.6 hours, or 8.3 in schema 4."""


class Buckets:
    """The buckets of one schema."""

    def __init__(self, schema: int) -> None:
        self.schema = schema
        self.indexes = range(SHORTEST_EXPONENT << schema, _END_EXPONENT << schema)
        self._bounds_ns = tuple(_bound_ns(index, schema) for index in self.indexes[:-1])

    def index_of(self, runtime_ns: int) -> int:
        """Return the index of the bucket that a runtime falls into."""
        return self.indexes[bisect_left(self._bounds_ns, runtime_ns)]

    def upper_bound_ns(self, index: int) -> int:
        """Return the upper bound of a bucket in whole nanoseconds; of the last one, its lower bound."""
        return self._bounds_ns[min(index - self.indexes.start, len(self._bounds_ns) - 1)]

    def coarser(self, histogram: Mapping[int, int], schema: int) -> dict[int, int]:
        """Return the same counts in the buckets of a schema that is not finer."""
        step = self.schema - schema
        if not step:
            return dict(histogram)
        merged: dict[int, int] = {}
        for index, n in histogram.items():
            wider = (index - 1 >> step) + 1
            merged[wider] = merged.get(wider, 0) + n
        return merged


@cache
def buckets(schema: int) -> Buckets:
    """Return the buckets in which lifetimes are counted to be shown in a schema."""
    return Buckets(schema) if schema in (COARSE, FINE) else buckets(COARSE)


def added(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Return the sum of histograms by index."""
    whole: dict[int, int] = {}
    for each in histograms:
        for index, n in each.items():
            whole[index] = whole.get(index, 0) + n
    return whole


def _bound_ns(index: int, schema: int) -> int:
    """Return 2^(index/2^schema) s, rounded down to whole nanoseconds: an integer root of its power, by as many square roots as `schema`."""
    power: int = NS ** (1 << schema)
    root = power << index if index >= 0 else power >> -index
    for _ in range(schema):
        root = isqrt(root)
    return root
