"""The protobuf format, read with its official definition."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.metrics.catalogue import Family
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import Exposed, Histogram, Histograms, NativeHistogram, NativeHistograms, Numbers
from exporter.metrics.protobuf import ProtobufEncoder
from exporter.model import NS
from exporter.supervision.reload import LastReload
from exporter.supervision.snapshot import Snapshot
from tests.unit.protobuf_families import parse_protobuf
from tests.unit.snapshots import CONFIG, ordinary, worst

BORN_NS = 1_700_000_000 * NS + 123_456_789
COUNTER = Family("c_total", "counter", "", 'A "counter".\n', ("z", "a"))
LIFETIME = Family("lifetime_seconds", "histogram", "seconds", "Lifetimes.", ("comm",))
HOSTILE = ('a"b\\c\n', "", "\U0001f600", "# HELP x", "x" * 300)


def read(*families: Exposed) -> list[Any]:
    """What the definition reads of them."""
    return parse_protobuf(ProtobufEncoder().encode(families))


def labels(metric: Any) -> dict[str, str]:
    return {pair.name: pair.value for pair in metric.label}


def created_ns(metric: Any) -> int:
    stamp: int = metric.created_timestamp.ToNanoseconds()
    return stamp


def of_snapshot(shown: Snapshot) -> list[Exposed]:
    """Its families, so that they can be read twice."""
    found: list[Exposed] = []
    for each in Exposition(CONFIG, lambda: shown, LastReload()).families():
        match each:
            case Numbers():
                found.append(Numbers(each.family, list(each.series)))
            case Histograms():
                found.append(Histograms(each.family, each.bounds, list(each.series)))
            case NativeHistograms():
                found.append(NativeHistograms(each.family, list(each.series)))
    return found


@pytest.mark.parametrize("shown", [ordinary(), worst()], ids=["ordinary", "worst"])
def test_all_families_are_read_back(shown: Snapshot) -> None:
    """Names, texts, types, labels and values, as the text formats have them; and when each series was 0."""
    families = of_snapshot(shown)
    for message, each in zip(read(*families), families, strict=True):
        assert (message.name, message.help) == (each.family.name, each.family.about)
        kind = message.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[message.type].name.lower()
        assert kind == each.family.kind
        for metric, (values, value, born_ns) in zip(message.metric, each.series, strict=True):
            assert labels(metric) == dict(zip(each.family.labels, values, strict=True))
            shown_as = getattr(metric, kind)
            if isinstance(value, Histogram):
                cumulative = list(accumulate(value.buckets))
                assert isinstance(each, Histograms)
                assert [(b.upper_bound, b.cumulative_count) for b in shown_as.bucket] == list(
                    zip(each.bounds, cumulative[:-1], strict=True)
                )
                assert (shown_as.sample_count, shown_as.sample_sum) == (cumulative[-1], value.sum)
            elif isinstance(value, NativeHistogram):
                assert native(shown_as) == value.buckets
                assert (shown_as.schema, shown_as.zero_count, shown_as.zero_threshold) == (3, value.zero_count, 2.0**-17)
                assert (shown_as.sample_count, shown_as.sample_sum) == (value.observations(), value.sum)
            else:
                assert shown_as.value == value
            if kind != "gauge":
                assert created_ns(shown_as) == born_ns


def test_every_counter_of_ours_says_when_it_was_zero() -> None:
    """Prometheus can then tell a new series from one that it did not see for a while."""
    messages = [each for each in read(*of_snapshot(ordinary())) if each.name.startswith("shortproc_")]
    counters = [metric.counter for each in messages for metric in each.metric if metric.HasField("counter")]
    histograms = [metric.histogram for each in messages for metric in each.metric if metric.HasField("histogram")]
    assert counters
    assert all(each.HasField("created_timestamp") for each in counters + histograms)


def test_a_series_that_was_born_again_says_so() -> None:
    """What is kept of a series from scrape to scrape has its birth in it."""
    encoder = ProtobufEncoder()
    for born_ns, value in ((BORN_NS, 5), (BORN_NS, 6), (BORN_NS + 7 * NS, 1), (0, 1)):
        (family,) = parse_protobuf(encoder.encode([Numbers(COUNTER, [(("1", "2"), value, born_ns)])]))
        (metric,) = family.metric
        assert (metric.counter.value, created_ns(metric.counter)) == (value, born_ns)
        assert metric.counter.HasField("created_timestamp") == bool(born_ns)


def test_labels_that_others_chose() -> None:
    """Whatever they are, they arrive as they are, sorted by name as Prometheus' own clients do."""
    series = [((one, other), 1.0, BORN_NS) for one in HOSTILE for other in HOSTILE]
    (family,) = read(Numbers(COUNTER, series))
    assert [[(pair.name, pair.value) for pair in metric.label] for metric in family.metric] == [
        [("a", other), ("z", one)] for (one, other), _, _ in series
    ]


def test_what_utf8_cannot_carry_stays_apart() -> None:
    """A text that has a lone surrogate fails neither the scrape nor becomes another one's."""
    (family,) = read(Numbers(COUNTER, [((value, ""), 1.0, 0) for value in ("\udc80", "\udc81")]))
    assert [labels(metric)["z"] for metric in family.metric] == [r"\udc80", r"\udc81"]


def test_only_what_was_shown_last_is_kept() -> None:
    """Names come and go for months; memory must not grow with them."""
    encoder = ProtobufEncoder()
    for number in range(100):
        encoder.encode([Numbers(COUNTER, [((str(number), "x"), 1.0, BORN_NS)])])
    assert sum(map(len, encoder._frames.values())) == 1


def native(histogram: Any) -> dict[int, int]:
    """The buckets that its spans and deltas say, by index."""
    assert sum(span.length for span in histogram.positive_span) == len(histogram.positive_delta)
    counts = accumulate(histogram.positive_delta)
    found: dict[int, int] = {}
    index = 0
    for span in histogram.positive_span:
        index += span.offset
        for _ in range(span.length):
            found[index] = next(counts)
            index += 1
    return found


@given(
    st.dictionaries(st.integers(-120, 88) | st.integers(-10_000, 10_000), st.integers(0, 2**63 - 1), max_size=40),
    st.integers(0, 2**63 - 1),
    st.sampled_from([0.0, 2.0**-128, 0.001]),
    st.integers(0, 4),
)
def test_native_histograms_are_read_back(buckets: dict[int, int], zeros: int, threshold: float, schema: int) -> None:
    """Integer counts in spans and deltas: one wrong offset moves every bucket after it."""
    histogram = NativeHistogram(schema, buckets, 12.5, zeros, threshold)
    (family,) = read(NativeHistograms(LIFETIME, [(("sh",), histogram, BORN_NS)]))
    (metric,) = family.metric
    found = metric.histogram
    assert {index: n for index, n in native(found).items() if n} == {index: n for index, n in buckets.items() if n}
    assert (found.schema, found.sample_sum, found.zero_count, found.zero_threshold) == (schema, 12.5, zeros, threshold)
    assert found.sample_count == (zeros + sum(buckets.values())) % 2**64
    assert (labels(metric), created_ns(found)) == ({"comm": "sh"}, BORN_NS)
    assert not found.bucket, "a family with both kinds would lose its classic series on servers that take native ones"


def test_spans_are_few() -> None:
    """A short gap is filled with zeros, as client_golang does: a span costs more."""
    (family,) = read(NativeHistograms(LIFETIME, [(("sh",), NativeHistogram(3, {-2: 1, -1: 4, 2: 4, 6: 1}, 1.0), 0)]))
    found = family.metric[0].histogram
    assert [(span.offset, span.length) for span in found.positive_span] == [(-2, 5), (3, 1)]
    assert list(found.positive_delta) == [1, 3, -4, 0, 4, -3]


@pytest.mark.parametrize("threshold", [0.0, 2.0**-128])
def test_an_empty_native_histogram_is_known_as_one(threshold: float) -> None:
    """Prometheus takes one without spans, zeros and threshold for a classic one, and would change its mind at the first value."""
    (family,) = read(NativeHistograms(LIFETIME, [(("sh",), NativeHistogram(3, {}, 0.0, zero_threshold=threshold), 0)]))
    found = family.metric[0].histogram
    assert found.zero_threshold > 0 or [(span.offset, span.length) for span in found.positive_span] == [(0, 0)]


def test_unchanged_native_histograms_are_written_once_and_changed_ones_anew() -> None:
    """An idle name costs a look-up; a name that was born again, or whose sum alone changed, is not shown as it was."""
    encoder = ProtobufEncoder()

    def shown(count: int, total: float, created_ns: int) -> Any:
        histogram = NativeHistogram(3, {-8: count}, total, 0, 2.0**-17)
        (family,) = parse_protobuf(encoder.encode([NativeHistograms(LIFETIME, [(("a",), histogram, created_ns)])]))
        metric = family.metric[0]
        return metric.histogram.sample_count, metric.histogram.sample_sum, metric.histogram.created_timestamp.ToNanoseconds()

    states = [(1, 0.5, BORN_NS), (1, 0.5, BORN_NS), (2, 0.5, BORN_NS), (2, 0.75, BORN_NS), (2, 0.75, BORN_NS + NS)]
    assert [shown(*state) for state in states] == states
