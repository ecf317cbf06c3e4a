"""Families with their series at one moment: every format is made from these.

A series is a tuple, since there may be ten thousand: its label values, its value, and the Unix time in nanoseconds at which it was 0, or 0
if that is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from exporter.metrics.catalogue import Family

Labels = tuple[str, ...]


class Histogram(NamedTuple):
    """Counts of one classic histogram."""

    buckets: Iterable[int]
    """Not cumulative; the last is +Inf."""
    sum: float


class NativeHistogram(NamedTuple):
    """Counts of one native histogram of values that are not negative."""

    schema: int
    """Each power of two is divided into 2^schema buckets; bucket i ends at 2^(i / 2^schema)."""
    buckets: Mapping[int, int]
    """By index; those that are 0 may be left out."""
    sum: float
    zero_count: int = 0
    zero_threshold: float = 2.0**-128
    """Values up to it are in `zero_count`."""

    def observations(self) -> int:
        """Return how many values there were."""
        return self.zero_count + sum(self.buckets.values())


@dataclass(frozen=True, slots=True)
class Numbers:
    """A family of counters or gauges."""

    family: Family
    series: Iterable[tuple[Labels, float, int]]


@dataclass(frozen=True, slots=True)
class Histograms:
    """A family of classic histograms."""

    family: Family
    bounds: tuple[float, ...]
    """Without +Inf."""
    series: Iterable[tuple[Labels, Histogram, int]]


@dataclass(frozen=True, slots=True)
class NativeHistograms:
    """A family of native histograms. Only protobuf can carry them."""

    family: Family
    series: Iterable[tuple[Labels, NativeHistogram, int]]


Exposed = Numbers | Histograms | NativeHistograms


def label_pairs(names: Iterable[str], values: Iterable[str]) -> list[tuple[str, str]]:
    r"""Sort labels by name.

    One bad value must not fail the scrape: what UTF-8 cannot carry becomes `\udcNN`, and NUL, which ends the text for Prometheus, `\x00`.
    """
    return sorted((name, _harmless(value)) for name, value in zip(names, values, strict=True))


def _harmless(value: str) -> str:
    return value.encode(errors="backslashreplace").decode().replace("\0", r"\x00")
