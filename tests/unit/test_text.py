"""The text formats, beside what Prometheus' client library for Python writes of the same families."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from exporter.metrics.catalogue import Family
from exporter.metrics.families import Exposed, Histogram, Histograms, NativeHistogram, NativeHistograms, Numbers
from exporter.metrics.text import TextEncoder, number
from tests.unit.snapshots import ordinary, worst
from tests.unit.test_protobuf import of_snapshot

COUNTER = Family("c_total", "counter", "", 'A "counter" \\ with\nall that is escaped.', ("z", "a"))
GAUGE = Family("g", "gauge", "", "A gauge.", ("a",))
HISTOGRAM = Family("h", "histogram", "", "A histogram.", ("a", "z"))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(["\\", '"', "\n", '\\"\n'])
numbers = st.floats() | st.integers(0, 2**64) | st.booleans()


class Shown(Collector):
    """Families for the library."""

    def __init__(self, families: Sequence[Exposed]) -> None:
        self.families = families

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for each in self.families:
            family = each.family
            match each:
                case Histograms():
                    metric = HistogramMetricFamily(family.name, family.about, labels=family.labels)
                    bounds = [*map(floatToGoString, each.bounds), "+Inf"]
                    for labels, value, _ in each.series:
                        metric.add_metric(labels, list(zip(bounds, accumulate(value.buckets), strict=True)), value.sum)
                    yield metric
                case Numbers():
                    made = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                    numbers = made(family.name, family.about, labels=family.labels)
                    for labels, one, _ in each.series:
                        numbers.add_metric(labels, one)
                    yield numbers


def check(families: Sequence[Exposed]) -> None:
    """Each format has the same bytes, also in the second scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Shown(families))
    encoder = TextEncoder()
    for _ in range(2):
        assert encoder.encode(families) == generate_latest(registry)
        assert encoder.encode(families, openmetrics=True) == openmetrics.generate_latest(registry)


@pytest.mark.parametrize("families", [of_snapshot(ordinary()), of_snapshot(worst())], ids=["ordinary", "worst"])
def test_a_scrape_is_what_the_library_writes(families: list[Exposed]) -> None:
    """Byte for byte, so that nobody's queries and parsers see a difference."""
    check(families)


@given(st.dictionaries(st.tuples(texts, texts), numbers, max_size=5), st.dictionaries(st.tuples(texts), numbers, max_size=5))
def test_any_labels_and_numbers(counters: dict[tuple[str, ...], float], gauges: dict[tuple[str, ...], float]) -> None:
    """Whoever runs a process chooses its name."""
    check([Numbers(family, [(*each, 0) for each in some.items()]) for family, some in ((COUNTER, counters), (GAUGE, gauges))])


@given(
    st.lists(st.floats(0, 1e9, exclude_min=True), unique=True, max_size=4).map(sorted),
    st.dictionaries(st.tuples(texts, texts), st.lists(st.integers(0, 2**60), min_size=5, max_size=5), max_size=3),
    st.floats(0, 1e18),
)
def test_any_histograms(bounds: list[float], series: dict[tuple[str, ...], list[int]], total: float) -> None:
    """`le` stands where the order of labels puts it, and has today's text: Prometheus 2 stores what it gets."""
    rows = [(labels, Histogram(buckets[: len(bounds) + 1], total), 0) for labels, buckets in series.items()]
    check([Histograms(HISTOGRAM, tuple(bounds), rows)])


@given(numbers)
@example(1e6)
@example(999_999.5)
@example(-1e7)
@example(1e16)
@example(1e-7)
@example(math.nan)
@example(-math.inf)
def test_numbers(value: float) -> None:
    """Written by hand for speed, so the same as the library's for any."""
    assert number(value) == floatToGoString(value)


def test_what_utf8_cannot_carry_stays_apart() -> None:
    """A text that has a lone surrogate fails neither the scrape nor becomes another one's; nor does one with NUL, Prometheus' end."""
    body = TextEncoder().encode([Numbers(GAUGE, [((value,), 1.0, 0) for value in ("\udc80", "\udc81", "a\0b")])]).decode()
    (family,) = text_string_to_metric_families(body)
    assert [sample.labels["a"] for sample in family.samples] == [r"\udc80", r"\udc81", r"a\x00b"]


def test_native_histograms_are_left_out() -> None:
    """Text cannot carry them, and a family without series would only puzzle."""
    encoder = TextEncoder()
    assert encoder.encode([NativeHistograms(HISTOGRAM, [(("", ""), NativeHistogram(3, {1: 1}, 1.0), 0)])]) == b""


def test_a_family_may_change_its_labels_and_bounds() -> None:
    """Those of handlers can, when their process starts again with other code."""
    encoder = TextEncoder()
    for labels, bounds in ((("a", "z"), (1.0,)), (("b", "z"), (1.0,)), (("b", "z"), (2.0, 3.0))):
        families: list[Exposed] = [
            Numbers(COUNTER._replace(labels=labels), [(("1", "2"), 1, 0)]),
            Histograms(HISTOGRAM._replace(labels=labels), bounds, [(("1", "2"), Histogram([1] * (len(bounds) + 1), 1.0), 0)]),
        ]
        assert encoder.encode(families) == TextEncoder().encode(families)


def test_only_what_was_shown_last_is_kept() -> None:
    """Names come and go for months; memory must not grow with them."""
    encoder = TextEncoder()
    for at in range(100):
        encoder.encode([Numbers(GAUGE, [((str(at),), 1.0, 0)]), Histograms(HISTOGRAM, (), [((str(at), ""), Histogram([1], 1.0), 0)])])
    assert [*map(len, encoder._starts.values()), *map(len, encoder._histogram_starts.values())] == [1, 1]
