"""Declares every metric, once: `/metrics` and docs/metrics.md are made from it.

Names are those in a scrape, with `_total` and the like. `make docs` writes the tables of the document.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

from exporter.model import SIGNALS, Lost
from exporter.model.dimensions import NATIVE_ONLY, Dimension, Measure
from exporter.model.facts import Fact

REAL_TIME_SIGNALS = "SIGRT"
"""Label value of all 33 real-time signals together, which have no names of their own."""
SIGNAL_NAMES = (*SIGNALS.values(), REAL_TIME_SIGNALS)

DROPS = {
    ("reader", "full"): "Records arrived faster than they were read, or during a switch of modes.",
    ("stream", "slow"): "The live stream is limited to 400 records per second, or a browser was too slow. Not a reason for an alert.",
    ("handlers", "full"): "Handlers and sinks were too slow.",
    ("handlers", "down"): "The handler process was being restarted.",
    ("handlers", "timeout"): "A handler timed out, and the handler process was killed.",
    ("handlers", "crash"): "The handler process exited unexpectedly.",
    ("handlers", "malformed"): "The record was larger than allowed.",
}
"""Consumers that may drop records, and the reasons. Their series exist from the start."""

EVENT_DROPS = {
    ("reader", "full"): "Events arrived faster than they were read.",
    ("reader", "missed"): "The kernel skipped a run of the program; for `exit`, perhaps that of a thread. Not reported before Linux 5.12.",
    **{(consumer, reason): about for (consumer, reason), about in DROPS.items() if consumer == "handlers" and reason != "malformed"},
}
"""The same for events, of each kind."""

DETAILS = "|".join(reason for reason in Lost if reason.detail)
"""Reasons of `shortproc_detection_lost_total` for events that were counted all the same, as a regular expression."""

_OPTIONAL = "Absent if the kernel refuses this part: `doctor` reports why."


class Family(NamedTuple):
    """One metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    about: str
    """One noun phrase with the unit: the HELP text."""
    labels: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = (Fact.PROCESSES,)
    """Facts that a mode has to know to fill it."""
    more: str = ""
    """Text for docs/metrics.md only."""


class TotalMetrics:
    """Totals of all processes, without a label for the comm."""

    RUNTIME = Family(
        "shortproc_process_runtime_seconds",
        "histogram",
        "seconds",
        "Runtimes of exited processes in seconds, from fork to the exit of the last thread.",
    )
    LIFETIME = RUNTIME._replace(name="shortproc_process_lifetime_seconds", more=NATIVE_ONLY)
    ENDED = Family("shortproc_ended_processes_total", "counter", "processes", "Processes that exited, by outcome.", ("outcome",))
    ENDED_SHORT = Family(
        "shortproc_ended_short_processes_total",
        "counter",
        "processes",
        "Short processes that exited.",
    )
    CPU = Family(
        "shortproc_ended_processes_cpu_seconds_total", "counter", "seconds", "CPU time of exited processes in seconds, user and system."
    )
    CPU_SHORT = Family(
        "shortproc_ended_short_processes_cpu_seconds_total",
        "counter",
        "seconds",
        "CPU time of exited short processes in seconds, user and system.",
    )
    FORKED = Family("shortproc_forked_processes_total", "counter", "processes", "Forked processes.")
    CLONED = Family("shortproc_cloned_threads_total", "counter", "threads", "Cloned threads, including io_uring workers.")
    EXECS = Family("shortproc_execs_total", "counter", "execs", "Successful execs.", facts=(Fact.EXECS,))
    FORK_FAILURES = Family(
        "shortproc_fork_failures_total",
        "counter",
        "forks",
        "Failed forks and clones of threads, by errno.",
        ("errno",),
        (Fact.FORK_FAILURES,),
        "EAGAIN: a limit is reached (`pids.max` of a cgroup, `ulimit -u`, `kernel.threads-max`, `kernel.pid_max`). " + _OPTIONAL,
    )
    EXEC_FAILURES = Family(
        "shortproc_exec_failures_total",
        "counter",
        "execs",
        "Failed execs, by errno.",
        ("errno",),
        (Fact.EXEC_FAILURES,),
        "ENOENT is normal: a search along `PATH` tries each directory. Not those that the kernel itself starts. " + _OPTIONAL,
    )
    OOM_KILLS = Family(
        "shortproc_oom_kills_total",
        "counter",
        "processes",
        "Processes chosen as victims by the OOM killer.",
        facts=(Fact.OOM_KILLS,),
        more="Of the host or of a memory cgroup. " + _OPTIONAL,
    )
    CORE_DUMPS = Family("shortproc_core_dumps_total", "counter", "processes", "Processes that dumped core.", facts=(Fact.CORE_DUMPS,))
    SIGNALS = Family(
        "shortproc_signals_delivered_total",
        "counter",
        "signals",
        "Delivered signals, by signal; for SIGKILL, processes killed.",
        ("signal",),
        (Fact.KILLS,),
        "`netlink` counts only SIGKILL.",
    )
    PEAK = Family(
        "shortproc_ended_short_processes_peak_per_second",
        "gauge",
        "processes",
        "Short processes that exited in the busiest second of the last 60 seconds.",
        more="Whole seconds, without the current one.",
    )
    THRESHOLD = Family(
        "shortproc_short_process_threshold_seconds",
        "gauge",
        "seconds",
        "Runtime in seconds below which a process is short.",
        more="Set by `detection.short_threshold_seconds`.",
    )
    HOST_CPUS = Family(
        "shortproc_host_cpus",
        "gauge",
        "CPUs",
        "Online CPUs of the host.",
        more="As listed in `/proc/stat`: limits of a container and CPU affinity do not change it.",
    )


TRACKED = Family("shortproc_tracked_comms", "gauge", "names", "Command names with their own series.")


@cache
def by_dimension(dimension: Dimension[Any], measure: Measure) -> Family:
    """Return the metric that breaks `measure` down by `dimension`."""
    name = f"shortproc_{dimension.name}_{measure.name}"
    labels = (*dimension.labels, measure.label) if measure.label else dimension.labels
    about = f"{measure.about}, by {dimension.about}{f' and {measure.label}' * bool(measure.label)}."
    facts = (dimension.fact, measure.fact)
    more = f"Only with `{measure.option}`." if measure.option else measure.more
    if measure.is_histogram:
        return Family(name, "histogram", measure.unit, about, labels, facts, more)
    return Family(f"{name}_total", "counter", measure.unit, about, labels, facts, more)


class DetectionMetrics:
    """How completely processes are observed."""

    MODE = Family(
        "shortproc_detection_mode", "gauge", "", "Whether the mode is active (1 for the active mode, 0 for all others).", ("mode",)
    )
    AVAILABLE = Family(
        "shortproc_detection_mode_available",
        "gauge",
        "",
        "Whether the mode can run on this host.",
        ("mode",),
        more="For modes that were tried: whether they started the last time. For others: whether a cheap check found no obstacle.",
    )
    DEGRADED = Family("shortproc_detection_degraded", "gauge", "", "Whether the active mode is not the preferred one.")
    SWITCHES = Family(
        "shortproc_detection_mode_switches_total",
        "counter",
        "switches",
        "Switches of the active mode, by new mode and reason.",
        ("to_mode", "reason"),
        more="The reasons are listed below.",
    )
    RATIO = Family(
        "shortproc_detection_capture_ratio",
        "gauge",
        "ratio",
        "Fraction of the clones counted by the kernel that were observed, in the last 60 seconds.",
        more="1 if there were none; absent if unknown.",
    )
    KERNEL_CLONES = Family(
        "shortproc_kernel_clones_total",
        "counter",
        "clones",
        "Clones (processes and threads) counted by the kernel since the exporter started.",
        more="Absent as the ratio is.",
    )
    OBSERVED_CLONES = Family(
        "shortproc_observed_clones_total",
        "counter",
        "clones",
        "Clones (processes and threads) observed since the exporter started.",
        more="Absent as the ratio is.",
    )
    LOST = Family(
        "shortproc_detection_lost_total",
        "counter",
        "events",
        "Events that could not be observed, timed, attributed or named, by reason.",
        ("reason",),
        more="The reasons are listed below.",
    )
    LATENCY = Family(
        "shortproc_detection_latency_seconds",
        "histogram",
        "seconds",
        "Time from the exit of a short process to its record in the exporter, in seconds.",
        facts=(Fact.EXIT_TIMES,),
        more="While no client waits for records, they are read four times per second.",
    )
    DROPPED = Family(
        "shortproc_records_dropped_total",
        "counter",
        "records",
        "Dropped records of single short processes, by consumer and reason.",
        ("consumer", "reason"),
        more="The processes are counted. The consumers and reasons are listed below.",
    )
    SCAN_DURATION = Family(
        "shortproc_scan_duration_seconds", "gauge", "seconds", "Duration of the last scan of /proc in seconds.", facts=(Fact.SCAN_DURATION,)
    )
    PROGRAM_SECONDS = Family(
        "shortproc_bpf_program_run_seconds_total",
        "counter",
        "seconds",
        "Time spent in a BPF program in seconds, while kernel.bpf_stats_enabled was 1.",
        ("program",),
        (Fact.PROGRAM_STATISTICS,),
        "Measured by the kernel. Absent until that was 1.",
    )
    PROGRAM_RUNS = Family(
        "shortproc_bpf_program_runs_total",
        "counter",
        "runs",
        "Runs of a BPF program, while kernel.bpf_stats_enabled was 1.",
        ("program",),
        (Fact.PROGRAM_STATISTICS,),
        "Counted by the kernel. Absent until that was 1.",
    )


class EventMetrics:
    """Events that handlers subscribe to. They exist only for the kinds to which any does."""

    EVENTS = Family(
        "shortproc_events_total",
        "counter",
        "events",
        "Events of processes that handlers subscribe to, by kind.",
        ("kind",),
        (Fact.EVENTS,),
        "What no filter of a handler allows is left out in the kernel, where that can tell.",
    )
    DROPPED = Family(
        "shortproc_events_dropped_total",
        "counter",
        "events",
        "Dropped events, by kind, consumer and reason.",
        ("kind", "consumer", "reason"),
        (Fact.EVENTS,),
        "The consumers and reasons are listed below.",
    )


class HandlerMetrics:
    """Handlers and sinks. They exist only if any is configured."""

    RECORDS = Family(
        "shortproc_handler_records_total", "counter", "records", "Records processed by a handler or stored by a sink.", ("handler",)
    )
    ERRORS = Family(
        "shortproc_handler_errors_total",
        "counter",
        "errors",
        "Errors of a handler, or failed attempts of a sink to store records.",
        ("handler",),
    )
    TIMEOUTS = Family(
        "shortproc_handler_timeouts_total",
        "counter",
        "timeouts",
        "Timeouts of a handler.",
        ("handler",),
    )
    LOST = Family(
        "shortproc_handler_lost_records_total", "counter", "records", "Records lost by a handler that had accepted them.", ("handler",)
    )
    EVENTS = Family("shortproc_handler_events_total", "counter", "events", "Events processed by a handler.", ("handler",), (Fact.EVENTS,))
    LOST_EVENTS = Family(
        "shortproc_handler_lost_events_total",
        "counter",
        "events",
        "Events lost by a handler that had accepted them.",
        ("handler",),
        (Fact.EVENTS,),
    )
    DROPPED_SERIES = Family(
        "shortproc_handler_dropped_series",
        "gauge",
        "series",
        "Series of handlers' own metrics that are not exposed.",
        more="They are invalid, or handlers together have more than 1,000; the log says which.",
    )
    RESTARTS = Family("shortproc_handler_restarts_total", "counter", "restarts", "Restarts of the handler process.")


class ExporterMetrics:
    """The exporter itself."""

    COLLECT = Family("shortproc_collect_duration_seconds", "gauge", "seconds", "Duration of the collection for this scrape in seconds.")
    RELOADED = Family(
        "shortproc_exporter_config_last_reload_successful",
        "gauge",
        "",
        "Whether the last configuration reload was successful.",
        more="Loaded at start and at SIGHUP. 0: the changed file was rejected, and the previous configuration is active.",
    )
    RELOADED_AT = Family(
        "shortproc_exporter_config_last_reload_success_timestamp_seconds",
        "gauge",
        "Unix time",
        "Unix time of the last successful configuration reload.",
    )
    LOG_DROPPED = Family(
        "shortproc_exporter_log_lines_dropped_total",
        "counter",
        "lines",
        "Log lines of the serving process that were dropped.",
        more="Nobody read standard error.",
    )
    BUILD = Family(
        "shortproc_exporter_build_info",
        "gauge",
        "",
        "Constant 1, labelled with version, revision and Python version.",
        ("version", "revision", "python_version"),
    )


class ProcessMetrics:
    """The exporter's process, with the names and HELP texts of all Prometheus clients for Python."""

    VIRTUAL_MEMORY = Family("process_virtual_memory_bytes", "gauge", "bytes", "Virtual memory size in bytes.")
    MEMORY = Family("process_resident_memory_bytes", "gauge", "bytes", "Resident memory size in bytes.")
    STARTED = Family("process_start_time_seconds", "gauge", "Unix time", "Start time of the process since unix epoch in seconds.")
    CPU = Family("process_cpu_seconds_total", "counter", "seconds", "Total user and system CPU time spent in seconds.")
    OPEN_FILES = Family("process_open_fds", "gauge", "files", "Number of open file descriptors.")
    MOST_FILES = Family("process_max_fds", "gauge", "files", "Maximum number of open file descriptors.")
    PYTHON = Family(
        "python_info",
        "gauge",
        "",
        "Python platform information",
        ("implementation", "major", "minor", "patchlevel", "version"),
    )
