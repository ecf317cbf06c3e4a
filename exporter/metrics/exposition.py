"""Turns a snapshot into the metrics of the catalogue, in any format."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exporter import __version__
from exporter.config.options import Config
from exporter.metrics.catalogue import (
    DROPS,
    EVENT_DROPS,
    REAL_TIME_SIGNALS,
    TRACKED,
    DetectionMetrics,
    EventMetrics,
    ExporterMetrics,
    Family,
    HandlerMetrics,
    TotalMetrics,
    by_dimension,
)
from exporter.metrics.families import Exposed, Histogram, Histograms, Labels, NativeHistogram, NativeHistograms, Numbers
from exporter.metrics.formats import OPENMETRICS, PROTOBUF, TEXT, Format
from exporter.metrics.own_process import OwnProcess
from exporter.metrics.protobuf import ProtobufEncoder
from exporter.metrics.text import TextEncoder
from exporter.model import NS, SIGNALS, Lost, Outcome, lifetimes
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM, Dimension
from exporter.model.events import EventKind
from exporter.model.failures import Failure, Kind
from exporter.model.series import Row
from exporter.process import log, version
from exporter.records.hub import Latencies
from exporter.records.subscriptions import of_handlers
from exporter.supervision.reload import LastReload
from exporter.supervision.snapshot import Snapshot

if TYPE_CHECKING:
    from exporter.handlers.parent import Handlers, HandlerStatus
    from exporter.handlers.registries import UserFamily

_Labelled = Iterable[tuple[Labels, float]]

LATENCY_BOUNDS = tuple(bound / NS for bound in Latencies.BOUNDS_NS)


class Exposition:
    """Renders `/metrics`, for one thread at a time."""

    def __init__(self, config: Config, snapshot: Callable[[], Snapshot], last_reload: LastReload, handlers: Handlers | None = None) -> None:
        self._config = config
        self._snapshot = snapshot
        self._last_reload = last_reload
        self._handlers = handlers
        self._bounds = config.metrics.runtime_buckets_seconds
        self._schema = config.metrics.native_schema
        self._subscribed = sorted({kind for each in of_handlers(config) for kind in each.kinds}, key=lambda kind: kind.position)
        self._build = (__version__, version.revision(), platform.python_version())
        self._own_process = OwnProcess()
        self._text, self._protobuf = TextEncoder(), ProtobufEncoder()

    def render(self, form: Format = TEXT) -> bytes:
        """Return the body of a scrape."""
        families = self.families()
        if form is PROTOBUF:
            return self._protobuf.encode(families)
        return self._text.encode(families, openmetrics=form is OPENMETRICS)

    def families(self) -> Iterator[Exposed]:
        """Yield all, as of one moment."""
        begun = time.perf_counter()
        snapshot = self._snapshot()
        yield from self._whole(snapshot)
        for dimension, rows in snapshot.view.rows.items():
            yield from self._by_dimension(dimension, rows)
        yield _gauge(TRACKED, len(snapshot.view.rows[COMM]) - 1)
        yield from _detection(snapshot)
        yield from self._about(snapshot.view.created_ns)
        yield _gauge(ExporterMetrics.COLLECT, time.perf_counter() - begun)
        yield from _events(snapshot, self._subscribed)
        if self._handlers is not None:
            yield from _of_handlers(self._handlers, self._subscribed, snapshot.view.created_ns)
        yield from self._own_process.families()

    def _whole(self, snapshot: Snapshot) -> Iterator[Exposed]:
        counts, created_ns = snapshot.view.counts, snapshot.view.created_ns
        total = counts.total
        whole = [Row((), total, created_ns)]
        yield self._runtimes(TotalMetrics.RUNTIME, whole)
        yield from self._lifetimes(TotalMetrics.LIFETIME, whole)
        yield _counters(TotalMetrics.ENDED, (((str(outcome),), n) for outcome, n in zip(Outcome, total.exits, strict=True)), created_ns)
        yield _counter(TotalMetrics.ENDED_SHORT, total.short_exits, created_ns)
        yield _counter(TotalMetrics.CPU, total.cpu_ns / NS, created_ns)
        yield _counter(TotalMetrics.CPU_SHORT, total.short_cpu_ns / NS, created_ns)
        yield _counter(TotalMetrics.FORKED, counts.forks, created_ns)
        yield _counter(TotalMetrics.CLONED, counts.threads, created_ns)
        yield _counter(TotalMetrics.EXECS, total.execs, created_ns)
        yield from _failures(counts.failures, created_ns)
        yield _counter(TotalMetrics.CORE_DUMPS, counts.core_dumps, created_ns)
        yield _counters(TotalMetrics.SIGNALS, _signals(counts.signals), created_ns)
        if snapshot.gauges.peak_per_second is not None:
            yield _gauge(TotalMetrics.PEAK, snapshot.gauges.peak_per_second)
        yield _gauge(TotalMetrics.THRESHOLD, self._config.detection.short_threshold_seconds)
        if snapshot.host_cpus is not None:
            yield _gauge(TotalMetrics.HOST_CPUS, snapshot.host_cpus)

    def _by_dimension(self, dimension: Dimension[Any], rows: list[Row]) -> Iterator[Exposed]:
        for measure in dimension.measures:
            if measure.option and not self._config.value(measure.option):
                continue
            family = by_dimension(dimension, measure)
            if measure.is_native:
                yield from self._lifetimes(family, rows)
                continue
            if measure.is_histogram:
                yield self._runtimes(family, rows)
                continue
            parts: list[Labels] = [(str(part),) for part in measure.parts] or [()]
            values = measure.values
            yield Numbers(
                family, ((row.labels + part, n, row.created_ns) for row in rows for part, n in zip(parts, values(row.counts), strict=True))
            )

    def _about(self, created_ns: int) -> Iterator[Exposed]:
        yield _gauge(ExporterMetrics.RELOADED, self._last_reload.successful)
        yield _gauge(ExporterMetrics.RELOADED_AT, self._last_reload.succeeded_at)
        yield _counter(ExporterMetrics.LOG_DROPPED, log.dropped_lines(), created_ns)
        yield _gauges(ExporterMetrics.BUILD, [(self._build, 1)])

    def _runtimes(self, family: Family, rows: Iterable[Row]) -> Exposed:
        empty = [0] * (len(self._bounds) + 1)
        series = ((row.labels, Histogram(row.counts.buckets or empty, row.counts.runtime_ns / NS), row.created_ns) for row in rows)
        return Histograms(family, self._bounds, series)

    def _lifetimes(self, family: Family, rows: Iterable[Row]) -> Iterator[Exposed]:
        if self._schema is not None:
            yield NativeHistograms(family, ((row.labels, _native(self._schema, row.counts), row.created_ns) for row in rows))


def _native(schema: int, counts: ProcessCounts) -> NativeHistogram:
    buckets = lifetimes.buckets(schema).coarser(counts.lifetimes, schema)
    shortest = buckets.pop(lifetimes.SHORTEST_EXPONENT << schema, 0)
    return NativeHistogram(schema, buckets, counts.runtime_ns / NS, shortest, 2.0**lifetimes.SHORTEST_EXPONENT)


def _detection(snapshot: Snapshot) -> Iterator[Exposed]:
    modes, sample, created_ns = snapshot.modes, snapshot.sample, snapshot.view.created_ns
    yield _gauges(DetectionMetrics.MODE, (((mode.value,), mode == snapshot.mode) for mode in modes))
    yield _gauges(DetectionMetrics.AVAILABLE, (((mode.value,), status.usable) for mode, status in modes.items()))
    yield _gauge(DetectionMetrics.DEGRADED, snapshot.degraded)
    switches = (((mode.value, reason.value), n) for (mode, reason), n in snapshot.switches.items())
    yield _counters(DetectionMetrics.SWITCHES, switches, created_ns)
    if snapshot.capture_ratio is not None:
        yield _gauge(DetectionMetrics.RATIO, snapshot.capture_ratio)
    if sample is not None:
        yield _counter(DetectionMetrics.KERNEL_CLONES, sample.kernel, created_ns)
        yield _counter(DetectionMetrics.OBSERVED_CLONES, sample.observed, created_ns)
    yield _counters(DetectionMetrics.LOST, (((reason.value,), snapshot.view.counts.lost.get(reason, 0)) for reason in Lost), created_ns)
    latencies = Histogram(snapshot.latency_buckets, snapshot.latency_sum_ns / NS)
    yield Histograms(DetectionMetrics.LATENCY, LATENCY_BOUNDS, [((), latencies, created_ns)])
    yield _counters(DetectionMetrics.DROPPED, (dict.fromkeys(DROPS, 0) | snapshot.records_dropped).items(), created_ns)
    if snapshot.gauges.scan_duration_seconds is not None:
        yield _gauge(DetectionMetrics.SCAN_DURATION, snapshot.gauges.scan_duration_seconds)
    counts = snapshot.view.counts
    if counts.program_runs:
        seconds = (((program,), ns / NS) for program, ns in counts.program_ns.items())
        yield _counters(DetectionMetrics.PROGRAM_SECONDS, seconds, created_ns)
        yield _counters(DetectionMetrics.PROGRAM_RUNS, (((program,), runs) for program, runs in counts.program_runs.items()), created_ns)


def _events(snapshot: Snapshot, kinds: Sequence[EventKind]) -> Iterator[Exposed]:
    """Yield nothing if no handler subscribes."""
    if not kinds:
        return
    counts, created_ns = snapshot.view.counts, snapshot.view.created_ns
    yield _counters(EventMetrics.EVENTS, (((kind.value,), counts.events.get(kind, 0)) for kind in kinds), created_ns)
    dropped = snapshot.events_dropped
    all_drops = (((kind.value, *drop), dropped.get((kind, *drop), 0)) for kind in kinds for drop in EVENT_DROPS)
    yield _counters(EventMetrics.DROPPED, all_drops, created_ns)


def _of_handlers(handlers: Handlers, subscribed: Sequence[EventKind], created_ns: int) -> Iterator[Exposed]:
    status = handlers.status()

    def each(family: Family, pick: Callable[[HandlerStatus], int]) -> Exposed:
        return _counters(family, (((handler.handler,), pick(handler)) for handler in status.handlers), created_ns)

    yield each(HandlerMetrics.RECORDS, lambda one: one.handled)
    yield each(HandlerMetrics.ERRORS, lambda one: one.errors)
    yield each(HandlerMetrics.TIMEOUTS, lambda one: one.timeouts)
    yield each(HandlerMetrics.LOST, lambda one: one.lost)
    if subscribed:
        yield each(HandlerMetrics.EVENTS, lambda one: one.events)
        yield each(HandlerMetrics.LOST_EVENTS, lambda one: one.lost_events)
    yield _counter(HandlerMetrics.RESTARTS, status.restarts, created_ns)
    registries = handlers.registries()
    yield _gauge(HandlerMetrics.DROPPED_SERIES, registries.dropped)
    yield from map(_of_user, registries.families)


def _of_user(shown: UserFamily) -> Exposed:
    family = Family(shown.name, shown.kind, "", shown.about, shown.labels)
    if family.kind == "histogram":
        rows = ((labels, Histogram(list(map(int, n)), total), round(created * NS)) for labels, (*n, total), created in shown.series)
        return Histograms(family, shown.bounds, rows)
    return Numbers(family, ((labels, value, round(created * NS)) for labels, (value,), created in shown.series))


_FAILURES = {Kind.FORK: TotalMetrics.FORK_FAILURES, Kind.EXEC: TotalMetrics.EXEC_FAILURES, Kind.OOM_KILL: TotalMetrics.OOM_KILLS}


def _failures(counts: Mapping[Failure, int], created_ns: int) -> Iterator[Exposed]:
    for kind, family in _FAILURES.items():
        known = [((failure.errno,) if failure.errno else (), n) for failure, n in counts.items() if failure.kind is kind]
        if known:
            yield _counters(family, known, created_ns)


def _signals(delivered: Mapping[int, int]) -> _Labelled:
    yield from (((name,), delivered.get(number, 0)) for number, name in SIGNALS.items())
    yield (REAL_TIME_SIGNALS,), sum(n for number, n in delivered.items() if number not in SIGNALS)


def _counters(family: Family, values: _Labelled, created_ns: int) -> Exposed:
    return Numbers(family, ((labels, value, created_ns) for labels, value in values))


def _counter(family: Family, value: float, created_ns: int) -> Exposed:
    return Numbers(family, [((), value, created_ns)])


def _gauges(family: Family, values: _Labelled) -> Exposed:
    return _counters(family, values, 0)


def _gauge(family: Family, value: float) -> Exposed:
    return _counter(family, value, 0)
