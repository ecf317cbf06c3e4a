"""Every metric, declared once: `/metrics` and docs/metrics.md both rest on this.

A name is the one that a scrape shows. `make docs` writes the tables of the page.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

from exporter.model import SIGNALS
from exporter.model.dimensions import Dimension, Measure
from exporter.model.facts import Fact

REAL_TIME_SIGNALS = "SIGRT"
"""All real-time signals together: they have no names of their own, and there are 33."""
SIGNAL_NAMES = (*SIGNALS.values(), REAL_TIME_SIGNALS)

DROPS = {
    ("reader", "full"): "They came faster than they were fetched, or during a switch of modes.",
    ("stream", "slow"): (
        "The live stream shows at most 400 records a second, by design; or a browser did not keep up. Not a reason for an alert."
    ),
    ("handlers", "full"): "Handlers and sinks did not keep up.",
    ("handlers", "down"): "The process of the handlers was being started again.",
    ("handlers", "timeout"): "A handler took too long, and its process was ended.",
    ("handlers", "crash"): "Their process died.",
    ("handlers", "malformed"): "They were larger than records can be.",
}
"""Who may drop records, and why: there from the start."""


class Family(NamedTuple):
    """One metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    about: str
    """One sentence, which a scrape shows as well."""
    labels: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = (Fact.PROCESSES,)
    """What a mode must be able to tell to fill it."""
    more: str = ""
    """What only the page says."""


class Whole:
    """Of all processes, without names."""

    RUNTIME = Family("shortproc_process_runtime_seconds", "histogram", "seconds", "Runtimes of ended processes, from fork to last exit.")
    ENDED = Family("shortproc_ended_processes_total", "counter", "processes", "Ended processes.", ("outcome",))
    ENDED_SHORT = Family(
        "shortproc_ended_short_processes_total",
        "counter",
        "processes",
        "Ended processes that were short, that is, lived less long than the threshold.",
    )
    CPU = Family("shortproc_ended_processes_cpu_seconds_total", "counter", "seconds", "CPU time of ended processes, user and system.")
    CPU_SHORT = Family(
        "shortproc_ended_short_processes_cpu_seconds_total", "counter", "seconds", "CPU time of ended short processes, user and system."
    )
    FORKED = Family("shortproc_forked_processes_total", "counter", "processes", "Processes started.")
    CLONED = Family("shortproc_cloned_threads_total", "counter", "threads", "Threads started, io_uring workers included.")
    EXECS = Family("shortproc_execs_total", "counter", "execs", "Successful execs.", facts=(Fact.EXECS,))
    CORE_DUMPS = Family("shortproc_core_dumps_total", "counter", "processes", "Processes that dumped core.", facts=(Fact.CORE_DUMPS,))
    SIGNALS = Family(
        "shortproc_signals_delivered_total",
        "counter",
        "signals",
        "Signals delivered; of SIGKILL, the processes that it ended.",
        ("signal",),
        (Fact.KILLS,),
        "`netlink` knows of SIGKILL alone.",
    )
    PEAK = Family(
        "shortproc_ended_short_processes_peak_per_second",
        "gauge",
        "processes",
        "Short processes that ended in the busiest whole second of the last 60.",
        more="The current second is left out.",
    )
    THRESHOLD = Family(
        "shortproc_short_process_threshold_seconds",
        "gauge",
        "seconds",
        "A process that lived less long than this is short.",
        more="It is `detection.short_threshold_seconds`.",
    )
    HOST_CPUS = Family(
        "shortproc_host_cpus",
        "gauge",
        "CPUs",
        "CPUs of the host that are online.",
        more="As `/proc/stat` lists them: limits of a container and affinity don't change it.",
    )


TRACKED = Family("shortproc_tracked_comms", "gauge", "names", "Command names that have their own series.")


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


class OfDetection:
    """How well processes are seen."""

    MODE = Family("shortproc_detection_mode", "gauge", "", "1 for the active mode, 0 for the others.", ("mode",))
    AVAILABLE = Family(
        "shortproc_detection_mode_available",
        "gauge",
        "",
        "1 if the mode can run here.",
        ("mode",),
        more="For those tried, whether they started the last time; for the others, whether nothing plain speaks against it.",
    )
    DEGRADED = Family("shortproc_detection_degraded", "gauge", "", "1 if a better mode than the active one was wanted.")
    SWITCHES = Family(
        "shortproc_detection_mode_switches_total",
        "counter",
        "switches",
        "How often a mode became the active one, and why.",
        ("to_mode", "reason"),
        more="Reasons are below.",
    )
    RATIO = Family(
        "shortproc_detection_capture_ratio",
        "gauge",
        "ratio",
        "Clones seen, of those that the kernel counted, in the last 60 s.",
        more="1 when there were none; absent when unknown.",
    )
    KERNEL_CLONES = Family(
        "shortproc_kernel_clones_total",
        "counter",
        "clones",
        "Clones (processes and threads) that the kernel counted since the exporter's start.",
        more="Absent as the ratio is.",
    )
    OBSERVED_CLONES = Family(
        "shortproc_observed_clones_total",
        "counter",
        "clones",
        "Clones (processes and threads) that were seen since the exporter's start.",
        more="Absent as the ratio is.",
    )
    LOST = Family(
        "shortproc_detection_lost_total",
        "counter",
        "events",
        "What could not be seen, timed, charged or named, by cause.",
        ("reason",),
        more="Causes are below.",
    )
    LATENCY = Family(
        "shortproc_detection_latency_seconds",
        "histogram",
        "seconds",
        "From the end of a short process in the kernel to its record in the exporter.",
        facts=(Fact.EXIT_TIMES,),
        more="While nobody waits for records, they are fetched four times a second.",
    )
    DROPPED = Family(
        "shortproc_records_dropped_total",
        "counter",
        "records",
        "Records of single short processes (never counts) that were dropped, by who could not take them.",
        ("consumer", "reason"),
        more="Who drops them, and why, is below.",
    )
    SCAN_DURATION = Family(
        "shortproc_scan_duration_seconds", "gauge", "seconds", "How long the last pass over /proc took.", facts=(Fact.SCAN_DURATION,)
    )
    PROGRAM_SECONDS = Family(
        "shortproc_bpf_program_run_seconds_total",
        "counter",
        "seconds",
        "Time spent in a BPF program, while kernel.bpf_stats_enabled was 1.",
        ("program",),
        (Fact.PROGRAM_STATISTICS,),
        "As the kernel measured it. Absent until that has been 1.",
    )
    PROGRAM_RUNS = Family(
        "shortproc_bpf_program_runs_total",
        "counter",
        "runs",
        "Runs of a BPF program, while kernel.bpf_stats_enabled was 1.",
        ("program",),
        (Fact.PROGRAM_STATISTICS,),
        "As the kernel counted them. Absent until that has been 1.",
    )


class OfHandlers:
    """Only where there are handlers or sinks."""

    RECORDS = Family(
        "shortproc_handler_records_total", "counter", "records", "Records that a handler has handled; for a sink, has stored.", ("handler",)
    )
    ERRORS = Family(
        "shortproc_handler_errors_total",
        "counter",
        "errors",
        "Errors of a handler; for a sink, each failed attempt to store.",
        ("handler",),
    )
    TIMEOUTS = Family(
        "shortproc_handler_timeouts_total",
        "counter",
        "times",
        "Times that a handler took too long, and the process was ended.",
        ("handler",),
    )
    LOST = Family(
        "shortproc_handler_lost_records_total", "counter", "records", "Records that a handler had accepted and lost.", ("handler",)
    )
    RESTARTS = Family("shortproc_handler_restarts_total", "counter", "times", "Restarts of the process of all handlers.")


class OfExporter:
    """The exporter itself."""

    COLLECT = Family("shortproc_collect_duration_seconds", "gauge", "seconds", "Time this scrape took to collect.")
    RELOADED = Family(
        "shortproc_exporter_config_last_reload_successful",
        "gauge",
        "",
        "1 if the last reading of the configuration succeeded.",
        more="It is read at start, and at SIGHUP. 0 means that a changed file was refused, and the configuration before it holds.",
    )
    RELOADED_AT = Family(
        "shortproc_exporter_config_last_reload_success_timestamp_seconds",
        "gauge",
        "Unix time",
        "When the configuration was last read successfully.",
    )
    BUILD = Family(
        "shortproc_exporter_build_info", "gauge", "", "Always 1; the labels say what runs.", ("version", "revision", "python_version")
    )


class OfClient:
    """What the client library tells of the process that it is in; its own texts are in a scrape."""

    VIRTUAL_MEMORY = Family("process_virtual_memory_bytes", "gauge", "bytes", "Virtual memory of the exporter.")
    MEMORY = Family("process_resident_memory_bytes", "gauge", "bytes", "Resident memory of the exporter.")
    STARTED = Family("process_start_time_seconds", "gauge", "Unix time", "When the exporter started.")
    CPU = Family("process_cpu_seconds_total", "counter", "seconds", "CPU of the exporter.")
    OPEN_FILES = Family("process_open_fds", "gauge", "files", "Its open file descriptors.")
    MOST_FILES = Family("process_max_fds", "gauge", "files", "Most that it may open.")
    PYTHON = Family("python_info", "gauge", "", "Always 1.", ("implementation", "major", "minor", "patchlevel", "version"))
