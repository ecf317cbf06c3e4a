"""Turns a snapshot into the metrics of the catalogue."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from exporter import __version__
from exporter.config.options import Config
from exporter.metrics.catalogue import (
    DROPS,
    REAL_TIME_SIGNALS,
    TRACKED,
    DetectionMetrics,
    ExporterMetrics,
    Family,
    HandlerMetrics,
    TotalMetrics,
    by_dimension,
)
from exporter.model import NS, SIGNALS, Lost, Outcome
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM, Dimension, Labels
from exporter.model.failures import Failure, Kind
from exporter.model.series import Row
from exporter.process import version
from exporter.records.hub import Latencies
from exporter.supervision.reload import LastReload
from exporter.supervision.snapshot import Snapshot

if TYPE_CHECKING:
    from exporter.handlers.parent import Handlers, HandlerStatus

_Labelled = Iterable[tuple[Sequence[str], float]]


def _bounds(seconds: Iterable[float]) -> list[str]:
    return [*(floatToGoString(bound) for bound in seconds), "+Inf"]


LATENCY_BOUNDS = _bounds(bound / NS for bound in Latencies.BOUNDS_NS)


class Exposition:
    """Renders `/metrics`. Its registry also has the client library's process and Python metrics."""

    def __init__(self, config: Config, snapshot: Callable[[], Snapshot], last_reload: LastReload, handlers: Handlers | None = None) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_SnapshotCollector(config, snapshot, last_reload))
        if handlers is not None:
            self._registry.register(_HandlersCollector(handlers))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return body and content type: text format or OpenMetrics, depending on the Accept header."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


class _HandlersCollector(Collector):
    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._handlers.status()

        def each(family: Family, pick: Callable[[HandlerStatus], int]) -> Metric:
            return _counter(family, (([handler.handler], pick(handler)) for handler in status.handlers))

        yield each(HandlerMetrics.RECORDS, lambda one: one.handled)
        yield each(HandlerMetrics.ERRORS, lambda one: one.errors)
        yield each(HandlerMetrics.TIMEOUTS, lambda one: one.timeouts)
        yield each(HandlerMetrics.LOST, lambda one: one.lost)
        yield _count(HandlerMetrics.RESTARTS, status.restarts)


class _SnapshotCollector(Collector):
    def __init__(self, config: Config, snapshot: Callable[[], Snapshot], last_reload: LastReload) -> None:
        self._config = config
        self._snapshot = snapshot
        self._last_reload = last_reload
        self._bounds = _bounds(config.metrics.runtime_buckets_seconds)
        self._threshold = config.detection.short_threshold_seconds
        self._build = (__version__, version.revision(), platform.python_version())

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        begun = time.perf_counter()
        snapshot = self._snapshot()
        yield from self._whole(snapshot)
        for dimension, rows in snapshot.view.rows.items():
            yield from self._by_dimension(dimension, rows)
        yield _gauge(TRACKED, len(snapshot.view.rows[COMM]) - 1)
        yield from _detection(snapshot)
        yield from self._about()
        yield _gauge(ExporterMetrics.COLLECT, time.perf_counter() - begun)

    def _whole(self, snapshot: Snapshot) -> Iterator[Metric]:
        counts = snapshot.view.counts
        total = counts.total
        yield self._runtimes(TotalMetrics.RUNTIME, [((), total)])
        yield _counter(TotalMetrics.ENDED, (([outcome], n) for outcome, n in zip(Outcome, total.exits, strict=True)))
        yield _count(TotalMetrics.ENDED_SHORT, total.short_exits)
        yield _count(TotalMetrics.CPU, total.cpu_ns / NS)
        yield _count(TotalMetrics.CPU_SHORT, total.short_cpu_ns / NS)
        yield _count(TotalMetrics.FORKED, counts.forks)
        yield _count(TotalMetrics.CLONED, counts.threads)
        yield _count(TotalMetrics.EXECS, total.execs)
        yield from _failures(counts.failures)
        yield _count(TotalMetrics.CORE_DUMPS, counts.core_dumps)
        yield _counter(TotalMetrics.SIGNALS, _signals(counts.signals))
        if snapshot.gauges.peak_per_second is not None:
            yield _gauge(TotalMetrics.PEAK, snapshot.gauges.peak_per_second)
        yield _gauge(TotalMetrics.THRESHOLD, self._threshold)
        if snapshot.host_cpus is not None:
            yield _gauge(TotalMetrics.HOST_CPUS, snapshot.host_cpus)

    def _by_dimension(self, dimension: Dimension[Any], rows: list[Row]) -> Iterator[Metric]:
        for measure in dimension.measures:
            if measure.option and not self._config.value(measure.option):
                continue
            family = by_dimension(dimension, measure)
            parts: list[Labels] = [(part,) for part in measure.parts] or [()]
            if measure.is_histogram:
                yield self._runtimes(family, rows)
            else:
                yield _counter(
                    family, ((labels + part, n) for labels, counts in rows for part, n in zip(parts, measure.values(counts), strict=True))
                )

    def _about(self) -> Iterator[Metric]:
        yield _gauge(ExporterMetrics.RELOADED, self._last_reload.successful)
        yield _gauge(ExporterMetrics.RELOADED_AT, self._last_reload.succeeded_at)
        yield _gauges(ExporterMetrics.BUILD, [(self._build, 1)])

    def _runtimes(self, family: Family, each: Iterable[tuple[Sequence[str], ProcessCounts]]) -> Metric:
        empty = [0] * len(self._bounds)
        return _histogram(family, self._bounds, ((labels, counts.buckets or empty, counts.runtime_ns) for labels, counts in each))


def _detection(snapshot: Snapshot) -> Iterator[Metric]:
    modes, sample = snapshot.modes, snapshot.sample
    yield _gauges(DetectionMetrics.MODE, (([mode], mode == snapshot.mode) for mode in modes))
    yield _gauges(DetectionMetrics.AVAILABLE, (([mode], status.usable) for mode, status in modes.items()))
    yield _gauge(DetectionMetrics.DEGRADED, snapshot.degraded)
    yield _counter(DetectionMetrics.SWITCHES, snapshot.switches.items())
    if snapshot.capture_ratio is not None:
        yield _gauge(DetectionMetrics.RATIO, snapshot.capture_ratio)
    if sample is not None:
        yield _count(DetectionMetrics.KERNEL_CLONES, sample.kernel)
        yield _count(DetectionMetrics.OBSERVED_CLONES, sample.observed)
    yield _counter(DetectionMetrics.LOST, (([reason], snapshot.view.counts.lost.get(reason, 0)) for reason in Lost))
    yield _histogram(DetectionMetrics.LATENCY, LATENCY_BOUNDS, [((), snapshot.latency_buckets, snapshot.latency_sum_ns)])
    yield _counter(DetectionMetrics.DROPPED, (dict.fromkeys(DROPS, 0) | snapshot.records_dropped).items())
    if snapshot.gauges.scan_duration_seconds is not None:
        yield _gauge(DetectionMetrics.SCAN_DURATION, snapshot.gauges.scan_duration_seconds)
    counts = snapshot.view.counts
    if counts.program_runs:
        yield _counter(DetectionMetrics.PROGRAM_SECONDS, (([program], ns / NS) for program, ns in counts.program_ns.items()))
        yield _counter(DetectionMetrics.PROGRAM_RUNS, (([program], runs) for program, runs in counts.program_runs.items()))


_FAILURES = {Kind.FORK: TotalMetrics.FORK_FAILURES, Kind.EXEC: TotalMetrics.EXEC_FAILURES, Kind.OOM_KILL: TotalMetrics.OOM_KILLS}


def _failures(counts: Mapping[Failure, int]) -> Iterator[Metric]:
    for kind, family in _FAILURES.items():
        known = [([failure.errno] if failure.errno else [], n) for failure, n in counts.items() if failure.kind is kind]
        if known:
            yield _counter(family, known)


def _signals(delivered: Mapping[int, int]) -> _Labelled:
    yield from (([name], delivered.get(number, 0)) for number, name in SIGNALS.items())
    yield [REAL_TIME_SIGNALS], sum(n for number, n in delivered.items() if number not in SIGNALS)


def _counter(family: Family, values: _Labelled) -> Metric:
    metric = CounterMetricFamily(family.name, family.about, labels=family.labels)
    for labels, value in values:
        metric.add_metric(labels, value)
    return metric


def _count(family: Family, value: float) -> Metric:
    return CounterMetricFamily(family.name, family.about, value=value)


def _gauges(family: Family, values: _Labelled) -> Metric:
    metric = GaugeMetricFamily(family.name, family.about, labels=family.labels)
    for labels, value in values:
        metric.add_metric(labels, float(value))
    return metric


def _gauge(family: Family, value: float) -> Metric:
    return GaugeMetricFamily(family.name, family.about, value=float(value))


def _histogram(family: Family, bounds: Sequence[str], values: Iterable[tuple[Sequence[str], Sequence[int], int]]) -> Metric:
    """Make a histogram from labels, buckets (not cumulative) and sums in nanoseconds."""
    metric = HistogramMetricFamily(family.name, family.about, labels=family.labels)
    for labels, buckets, sum_ns in values:
        metric.add_metric(labels, list(zip(bounds, accumulate(buckets), strict=True)), sum_ns / NS)
    return metric
