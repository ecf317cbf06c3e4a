"""The catalogue: what each metric is called and means, and how a snapshot becomes it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from exporter import __version__, version
from exporter.config import Config
from exporter.model import NS, SIGNALS, Lost, Mode, Outcome, ProcessCounts
from exporter.records import Latencies
from exporter.reload import LastReload
from exporter.supervisor import Snapshot

if TYPE_CHECKING:
    from exporter.handlers.parent import Handlers, HandlerStatus

REAL_TIME_SIGNALS = "SIGRT"
"""All real-time signals together: they have no names of their own, and there are 33."""

DROPS = (
    ("reader", "full"),
    ("stream", "slow"),
    *(("handlers", reason) for reason in ("full", "down", "timeout", "crash", "malformed")),
)
"""Who may drop records, and why: there from the start."""

_Labelled = Iterable[tuple[Sequence[str], float]]


def _bounds(seconds: Iterable[float]) -> list[str]:
    return [*(floatToGoString(bound) for bound in seconds), "+Inf"]  # type: ignore[no-untyped-call]


LATENCY_BOUNDS = _bounds(bound / NS for bound in Latencies.BOUNDS_NS)


class Exposition:
    """`/metrics`: a registry of our own, with the client's process and Python metrics in it."""

    def __init__(self, config: Config, snapshot: Callable[[], Snapshot], last_reload: LastReload, handlers: Handlers | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_SnapshotCollector(config, snapshot, last_reload))
        if handlers is not None:
            self._registry.register(_HandlersCollector(handlers))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Body and content type, text or OpenMetrics as the Accept header asks."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


class _HandlersCollector(Collector):
    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._handlers.status()

        def each(name: str, about: str, pick: Callable[[HandlerStatus], int]) -> Metric:
            return _counter(name, about, ("handler",), (([handler.handler], pick(handler)) for handler in status.handlers))

        yield each("shortproc_handler_records", "Records that a handler has handled; a sink, has stored.", lambda one: one.handled)
        yield each("shortproc_handler_errors", "Errors of a handler; of a sink, each failed attempt to store.", lambda one: one.errors)
        yield each("shortproc_handler_timeouts", "Times that a handler took too long, and was ended.", lambda one: one.timeouts)
        yield each("shortproc_handler_lost_records", "Records that a handler accepted and lost.", lambda one: one.lost)
        yield _count("shortproc_handler_restarts", "Restarts of the process of all handlers.", status.restarts)


class _SnapshotCollector(Collector):
    def __init__(self, config: Config, snapshot: Callable[[], Snapshot], last_reload: LastReload) -> None:
        self._snapshot = snapshot
        self._last_reload = last_reload
        self._bounds = _bounds(config.metrics.runtime_buckets_seconds)
        self._per_comm_histogram = config.metrics.per_comm_histogram
        self._threshold = config.detection.short_threshold_seconds
        self._build = (__version__, version.revision(), platform.python_version())

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        begun = time.perf_counter()
        snapshot = self._snapshot()
        yield from self._whole(snapshot)
        yield from self._by_name(snapshot)
        yield from _detection(snapshot)
        yield from self._about()
        elapsed = time.perf_counter() - begun
        yield _gauge("shortproc_collect_duration_seconds", "Time this scrape took to collect.", elapsed)

    def _whole(self, snapshot: Snapshot) -> Iterator[Metric]:
        counts = snapshot.view.counts
        total = counts.total
        runtime = HistogramMetricFamily("shortproc_process_runtime_seconds", "Lifetimes of ended processes, from fork to last exit.")
        self._add_histogram(runtime, (), total)
        yield runtime
        ended = (([outcome], n) for outcome, n in zip(Outcome, total.exits, strict=True))
        yield _counter("shortproc_ended_processes", "Ended processes.", ("outcome",), ended)
        yield _count("shortproc_ended_short_processes", "Ended processes that lived less long than the threshold.", total.short_exits)
        yield _count("shortproc_ended_processes_cpu_seconds", "CPU time of ended processes, user and system.", total.cpu_ns / NS)
        yield _count("shortproc_ended_short_processes_cpu_seconds", "CPU time of ended short processes.", total.short_cpu_ns / NS)
        yield _count("shortproc_forked_processes", "Processes started.", counts.forks)
        yield _count("shortproc_cloned_threads", "Threads started, io_uring workers included.", counts.threads)
        yield _count("shortproc_execs", "Successful execs.", total.execs)
        yield _count("shortproc_core_dumps", "Processes that dumped core.", counts.core_dumps)
        yield _signals(counts.signals)
        if snapshot.gauges.peak_per_second is not None:
            yield _gauge(
                "shortproc_ended_short_processes_peak_per_second",
                "Short processes that ended in the busiest whole second of the last 60.",
                snapshot.gauges.peak_per_second,
            )
        yield _gauge("shortproc_short_process_threshold_seconds", "A process that lived less long than this is short.", self._threshold)

    def _by_name(self, snapshot: Snapshot) -> Iterator[Metric]:
        comms = snapshot.view.comms

        def by_comm(name: str, about: str, pick: Callable[[ProcessCounts], float]) -> Metric:
            return _counter(name, about, ("comm",), (([comm], pick(counts)) for comm, counts in comms))

        yield _counter(
            "shortproc_comm_exits",
            "Ended processes by name.",
            ("comm", "outcome"),
            (([comm, outcome], n) for comm, counts in comms for outcome, n in zip(Outcome, counts.exits, strict=True)),
        )
        yield by_comm("shortproc_comm_short_exits", "Ended short processes by name.", lambda counts: counts.short_exits)
        yield by_comm("shortproc_comm_cpu_seconds", "CPU time of ended processes by name.", lambda counts: counts.cpu_ns / NS)
        yield by_comm(
            "shortproc_comm_short_cpu_seconds", "CPU time of ended short processes by name.", lambda counts: counts.short_cpu_ns / NS
        )
        yield by_comm("shortproc_comm_execs", "Successful execs by the name they gave.", lambda counts: counts.execs)
        if self._per_comm_histogram:
            runtime = HistogramMetricFamily("shortproc_comm_runtime_seconds", "Lifetimes of ended processes by name.", labels=("comm",))
            for comm, counts in comms:
                self._add_histogram(runtime, (comm,), counts)
            yield runtime
        yield _counter(
            "shortproc_parent_short_exits",
            "Ended short processes by the name of their parent.",
            ("parent_comm",),
            (([parent], counts.short_exits) for parent, counts in snapshot.view.parents),
        )
        yield _gauge("shortproc_tracked_comms", "Names that have series of their own.", snapshot.tracked_comms)

    def _about(self) -> Iterator[Metric]:
        yield _gauge(
            "shortproc_exporter_config_last_reload_successful",
            "Whether the last reading of the configuration succeeded.",
            self._last_reload.successful,
        )
        yield _gauge(
            "shortproc_exporter_config_last_reload_success_timestamp_seconds",
            "When the configuration was last read successfully.",
            self._last_reload.succeeded_at,
        )
        build = GaugeMetricFamily(
            "shortproc_exporter_build_info", "1, with what was built as labels.", labels=("version", "revision", "python_version")
        )
        build.add_metric(self._build, 1)
        yield build

    def _add_histogram(self, family: HistogramMetricFamily, labels: Sequence[str], counts: ProcessCounts) -> None:
        _add_buckets(family, labels, self._bounds, counts.buckets or [0] * len(self._bounds), counts.runtime_ns)


def _add_buckets(family: HistogramMetricFamily, labels: Sequence[str], bounds: Sequence[str], counts: Sequence[int], sum_ns: int) -> None:
    family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), sum_ns / NS)


def _detection(snapshot: Snapshot) -> Iterator[Metric]:
    modes = list(Mode)
    yield _labelled_gauge(
        "shortproc_detection_mode", "1 for the active mode, 0 for the others.", "mode", ((mode, mode == snapshot.mode) for mode in modes)
    )
    yield _labelled_gauge(
        "shortproc_detection_mode_available",
        "1 if the mode could run here.",
        "mode",
        ((mode, mode in snapshot.rungs and snapshot.rungs[mode].usable) for mode in modes),
    )
    yield _gauge("shortproc_detection_degraded", "1 if a better mode than the active one was wanted.", snapshot.degraded)
    yield _counter(
        "shortproc_detection_mode_switches",
        "How often a mode became the active one, and why.",
        ("to_mode", "reason"),
        (([mode, reason], n) for (mode, reason), n in snapshot.switches.items()),
    )
    if snapshot.capture_ratio is not None:
        yield _gauge(
            "shortproc_detection_capture_ratio", "Clones seen, of those that the kernel counted, in the last 60 s.", snapshot.capture_ratio
        )
    sample = snapshot.sample
    if sample is not None:
        yield _count("shortproc_kernel_clones", "Processes and threads that the kernel counted since the start.", sample.kernel)
        yield _count("shortproc_observed_clones", "Processes and threads that were seen since the start.", sample.observed)
    latency = HistogramMetricFamily("shortproc_detection_latency_seconds", "From the end of a short process to its record here.")
    _add_buckets(latency, (), LATENCY_BOUNDS, snapshot.latency_buckets, snapshot.latency_sum_ns)
    yield latency
    dropped = dict.fromkeys(DROPS, 0) | snapshot.records_dropped
    yield _counter(
        "shortproc_records_dropped",
        "Records of single short processes (never counts) that were dropped, by who could not take them.",
        ("consumer", "reason"),
        (([consumer, reason], n) for (consumer, reason), n in dropped.items()),
    )
    lost = (([reason], snapshot.view.counts.lost.get(reason, 0)) for reason in Lost)
    yield _counter("shortproc_detection_lost", "What could not be seen, timed, charged or named, by cause.", ("reason",), lost)
    if snapshot.gauges.scan_duration_seconds is not None:
        yield _gauge("shortproc_scan_duration_seconds", "How long the last pass over /proc took.", snapshot.gauges.scan_duration_seconds)
    programs = snapshot.gauges.programs
    if programs:
        label = ("program",)
        yield _counter(
            "shortproc_bpf_program_run_seconds",
            "Time spent in a BPF program, while kernel.bpf_stats_enabled is 1.",
            label,
            (([each.name], each.run_ns / NS) for each in programs),
        )
        yield _counter(
            "shortproc_bpf_program_runs",
            "Runs of a BPF program, while kernel.bpf_stats_enabled is 1.",
            label,
            (([each.name], each.runs) for each in programs),
        )


def _signals(delivered: Mapping[int, int]) -> Metric:
    named = [([name], delivered.get(number, 0)) for number, name in SIGNALS.items()]
    real_time = sum(n for number, n in delivered.items() if number not in SIGNALS)
    about = "Signals delivered, SIGKILL once a process; real-time signals together."
    return _counter("shortproc_signals_delivered", about, ("signal",), [*named, ([REAL_TIME_SIGNALS], real_time)])


def _counter(name: str, about: str, labels: Sequence[str], values: _Labelled) -> Metric:
    family = CounterMetricFamily(name, about, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def _count(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(name, about, value=value)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=float(value))


def _labelled_gauge(name: str, about: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=(label,))
    for label_value, value in values:
        family.add_metric((label_value,), float(value))
    return family
