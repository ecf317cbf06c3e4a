"""The page of one host."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.models import dashboard as model

from grafana import first, looks, pages
from grafana.looks import BYTES, CORES, COUNT, NONE, PER_SECOND, SECONDS, SHARE, Column, Frame, Panel, Query, lines, now, query, rows, tiles
from grafana.queries import ENDED, HOST, SHORT, SHORT_CPU, Scope, quantile

ONE = Scope('job=~"$job", instance="$instance"')
NAMED = 'comm=~"$comm"'
COMM_SHORT, COMM_ENDED, COMM_CPU = (
    "shortproc_comm_short_exits_total",
    "shortproc_comm_exits_total",
    "shortproc_comm_short_cpu_seconds_total",
)
OWNER_SHORT, OWNER_FAILED, OWNER_CPU = (
    "shortproc_owner_short_exits_total",
    "shortproc_owner_failed_exits_total",
    "shortproc_owner_short_cpu_seconds_total",
)
LOST = "shortproc_detection_lost_total"
ALL_AND_SHORT = {"all": looks.ALL, "short": looks.SHORT}
THIRD, QUARTER = (8, 8), (6, 8)


def page() -> model.Dashboard:
    """The page."""
    about = "Short-lived processes on one host, and how complete this data is."
    sections = {
        "": (*first.row(ONE), *_verdict()),
        "Processes": _processes(),
        "Runtimes and CPU": _lifetimes(),
        "Who is responsible": _who(),
        "Command names": _names(),
        "Detection": _detection(),
        "The exporter": _exporter(),
    }
    return pages.page(pages.HOST, "Short processes: one host", about, ONE, sections)


def _verdict() -> Iterable[Panel]:
    texts = {
        "complete": "Complete: mode {{mode}}, seen",
        "degraded": "Complete, but {{mode}} is not the preferred mode; seen",
        "partial": "Partial: mode {{mode}}, seen",
        "unknown": "Unknown: mode {{mode}} cannot report how much it misses",
    }
    verdicts = [verdict for verdict in ONE.verdicts() if verdict.name in texts]
    said = (now(f"{ONE.active()} * on ({HOST}) group_left () ({verdict.expr})", texts[verdict.name]) for verdict in verdicts)
    frame = Frame(
        "Is this page complete?",
        "Fraction of the processes and threads counted by the kernel that the exporter observed.",
        SHARE,
        (14, 4),
        "shortproccaptureratiolow",
    )
    panel = looks.banner(frame, *said).decimals(1).no_value("No data: no mode is active, or the host is not scraped")
    for letter, verdict in zip("ABCD", verdicts, strict=True):
        panel.override_by_query(letter, [looks.fixed(looks.VERDICTS[verdict.name])])
    yield panel.override_by_query("D", [model.DynamicConfigValue("mappings", [looks.states(("?", looks.MUTED), ("?", looks.MUTED))])])

    frame = Frame("Mode", "Active detection mode.", NONE, (4, 4), "shortprocmodedegraded")
    yield tiles(frame, now(ONE.mode())).mappings([looks.MODE_STATES])
    frame = Frame("Degraded", "Whether the active mode is not the preferred one.", NONE, (3, 4), "shortprocmodedegraded")
    yield tiles(frame, now(f"max({ONE.of('shortproc_detection_degraded')})")).mappings([looks.DEGRADED_STATES])
    yield looks.lost_tile(ONE.grown(LOST, looks.COUNTED), (3, 4))


def _processes() -> Iterable[Panel]:
    frame = Frame("Exits", "Processes that exit per second, all and short.", PER_SECOND, THIRD, "shortprocburst")
    yield lines(frame, _rate(ENDED, "all"), _rate(SHORT, "short"), colours=ALL_AND_SHORT)

    frame = Frame(
        "Bursts", "Short processes in the busiest second of each minute, and their mean rate.", PER_SECOND, THIRD, "shortprocburst"
    )
    peak = ONE.of("shortproc_ended_short_processes_peak_per_second")
    busiest = query(f"max(max_over_time({peak}[$__rate_interval]))", "busiest second")
    yield lines(frame, busiest, _rate(SHORT, "mean"), colours={"busiest second": looks.BAD, "mean": looks.SHORT})

    frame = Frame("Outcomes", "Exits per second by outcome: exit code 0, another exit code, or killed by a signal.", PER_SECOND, THIRD)
    yield lines(frame, query(f"sum by (outcome) ({ONE.rate(ENDED)})", "{{outcome}}"), colours=looks.OUTCOMES, stacked=True)

    frame = Frame("Starts", "Forks, new threads, execs and core dumps per second.", PER_SECOND)
    yield lines(
        frame,
        _rate("shortproc_forked_processes_total", "forks"),
        _rate("shortproc_cloned_threads_total", "threads"),
        _rate("shortproc_execs_total", "execs"),
        _rate("shortproc_core_dumps_total", "core dumps"),
    )
    frame = Frame("Signals", "Signals delivered most often; SIGKILL counts processes killed by it.", PER_SECOND)
    yield lines(frame, query(ONE.top("signal", "shortproc_signals_delivered_total"), "{{signal}}"))


def _lifetimes() -> Iterable[Panel]:
    frame = Frame("Runtimes", "Exited processes by runtime.", SECONDS)
    yield looks.heat(frame, *ONE.lifetimes("process"))
    frame = Frame("Runtime quantiles", "Median, 90 % and 99 % quantile of the runtime of exited processes.", SECONDS)
    quantiles = (query(ONE.lifetime("process", share, "$__rate_interval"), f"{share * 100:g} %") for share in (0.5, 0.9, 0.99))
    yield lines(frame, *quantiles).scale_distribution(looks.logarithmic())

    about = "CPU cores used by exited processes: a process counts with all its CPU time when it exits, so long ones make peaks."
    frame = Frame("CPU of exited processes", about, CORES, THIRD, "shortproccpuhigh")
    yield lines(frame, _rate("shortproc_ended_processes_cpu_seconds_total", "all"), _rate(SHORT_CPU, "short"), colours=ALL_AND_SHORT)
    about = "CPU time of short processes as a fraction of that of all exited processes, which count with all their CPU time when they exit."
    frame = Frame("Share of CPU", about, SHARE, THIRD)
    yield lines(frame, query(ONE.short_cpu_share(), "short"), colours=ALL_AND_SHORT).max(1)
    frame = Frame(
        "Share of the host's CPU", "CPU time of short processes as a fraction of all CPUs of the host.", SHARE, THIRD, "shortproccpuhigh"
    )
    yield lines(frame, query(f"max({ONE.short_cpu_of_host()})", "short"), colours=ALL_AND_SHORT)


def _who() -> Iterable[Panel]:
    frame = Frame(
        "Short processes by owner",
        "Systemd units, containers and pods with the highest rates of short processes.",
        PER_SECOND,
        THIRD,
        "shortprocownerburst",
    )
    yield lines(frame, query(ONE.top_owners(OWNER_SHORT), "{{owner}}"))
    frame = Frame(
        "Failures by owner",
        "Systemd units, containers and pods whose processes exit most often with an error or a signal.",
        PER_SECOND,
        THIRD,
        "shortprocownerfailing",
    )
    yield lines(frame, query(ONE.top_owners(OWNER_FAILED), "{{owner}}"))
    frame = Frame("CPU by owner", "Systemd units, containers and pods whose short processes use the most CPU cores.", CORES, THIRD)
    yield lines(frame, query(ONE.top_owners(OWNER_CPU), "{{owner}}"))

    frame = Frame("Owners", "All owners in the time range; owners beyond the exporter's cap count as other.", COUNT, (12, 10))
    columns = [
        Column("Short", ONE.by_owner(OWNER_SHORT), COUNT),
        Column("Failed", ONE.by_owner(OWNER_FAILED), COUNT),
        Column("CPU of short", ONE.by_owner(OWNER_CPU), SECONDS),
    ]
    yield rows(frame, {"owner": "Owner"}, columns)
    frame = Frame("Command names of owners", "What the owners run; pairs beyond the exporter's cap count as other.", COUNT, (12, 10))
    short = ONE.by_owner("shortproc_owner_comm_short_exits_total", "comm")
    yield rows(frame, {"owner": "Owner", "comm": "Name"}, [Column("Short", short, COUNT)])

    frame = Frame(
        "Short processes by spawner",
        "Command names of the nearest ancestors that are not short-lived, with the highest rates of short processes.",
        PER_SECOND,
        THIRD,
    )
    yield lines(frame, query(ONE.top("spawner", "shortproc_spawner_short_exits_total"), "{{spawner}}"))
    frame = Frame("Short processes by user", "Users with the highest rates of short processes.", PER_SECOND, THIRD)
    yield lines(frame, query(ONE.top("user", "shortproc_user_short_exits_total"), "{{user}}"))
    frame = Frame(
        "Share of a container's CPU",
        "CPU time of short processes as a fraction of all CPU time of a container in a pod, with the metrics of cAdvisor.",
        SHARE,
        THIRD,
    )
    yield lines(frame, query(ONE.cpu_of_containers(), "{{owner}}"))


def _names() -> Iterable[Panel]:
    frame = Frame("Short processes by name", "Command names with the highest rates of short processes.", PER_SECOND, THIRD)
    yield lines(frame, query(ONE.top("comm", COMM_SHORT, NAMED), "{{comm}}"))
    frame = Frame("CPU by name", "Command names whose short processes use the most CPU cores.", CORES, THIRD)
    yield lines(frame, query(ONE.top("comm", COMM_CPU, NAMED), "{{comm}}"))
    frame = Frame(
        "Failures by name", "Command names that exit most often with an error or a signal.", PER_SECOND, THIRD, "shortproccrashloop"
    )
    yield lines(frame, query(ONE.top("comm", COMM_ENDED, NAMED, 'outcome=~"error|signal"'), "{{comm}}"))

    frame = Frame("Runtimes of names", "Exited processes of the chosen command names by runtime.", SECONDS, THIRD)
    yield looks.heat(frame, *ONE.lifetimes("comm", NAMED))
    for title, share in {"Median": 0.5, "Quantile of 99 %": 0.99}.items():
        about = f"{title} of the runtime, for the names with the most short processes, {looks.NEEDS_HISTOGRAMS}."
        panel = lines(Frame(f"{title} by name", about, SECONDS, THIRD), query(ONE.top_lifetimes(share, NAMED), "{{comm}}"))
        yield panel.scale_distribution(looks.logarithmic())

    def total(metric: str, *more: str) -> str:
        return f"sum by (comm) ({ONE.grown(metric, NAMED, *more)})"

    frame = Frame(
        "Command names",
        "All command names in the time range with quantiles of their runtimes; names beyond the cap count as other.",
        COUNT,
        (16, 10),
    )
    columns = [
        Column("Short", total(COMM_SHORT), COUNT),
        Column("Exits", total(COMM_ENDED), COUNT),
        Column("Failed", total(COMM_ENDED, 'outcome="error"'), COUNT),
        Column("Killed", total(COMM_ENDED, 'outcome="signal"'), COUNT),
        Column("Execs", total("shortproc_comm_execs_total"), COUNT),
        Column("Median", ONE.lifetime("comm", 0.5, "$__range", NAMED), SECONDS),
        Column("99 %", ONE.lifetime("comm", 0.99, "$__range", NAMED), SECONDS),
        Column("CPU of short", total(COMM_CPU), SECONDS),
        Column("CPU of all", total("shortproc_comm_cpu_seconds_total"), SECONDS),
    ]
    yield rows(frame, {"comm": "Name"}, columns)
    frame = Frame("Short processes by parent", "Command names of the parents that start the most short processes.", PER_SECOND, (8, 10))
    yield lines(frame, query(ONE.top("parent_comm", "shortproc_parent_short_exits_total"), "{{parent_comm}}"))


def _detection() -> Iterable[Panel]:
    frame = Frame(
        "Mode over time",
        "Active mode; the graphs above show only what it can see.",
        NONE,
        THIRD,
        "shortprocmodedegraded",
    )
    yield looks.timeline(frame, query(ONE.mode(), "mode")).mappings([looks.MODE_STATES])
    frame = Frame("Available modes", "Modes that work on this host; the exporter's page shows why the others do not.", NONE, THIRD)
    available = query(f"max by (mode) ({ONE.of('shortproc_detection_mode_available')})", "{{mode}}")
    yield looks.timeline(frame, available).mappings([looks.states(("unavailable", looks.MUTED), ("available", looks.GOOD))])
    frame = Frame(
        "Capture ratio",
        "Fraction of the kernel's clones that were observed, over the last minute.",
        SHARE,
        THIRD,
        "shortproccaptureratiolow",
    )
    yield lines(frame, query(f"min({ONE.of('shortproc_detection_capture_ratio')})", "seen"), colours={"seen": looks.GOOD}).max(1)

    frame = Frame(
        "Lost events", "Events that could not be observed, timed, attributed or named, by reason.", PER_SECOND, THIRD, "shortproceventslost"
    )
    yield lines(frame, query(ONE.top("reason", LOST), "{{reason}}"))
    frame = Frame("Dropped records", "Records of single processes that were dropped; the processes are counted.", PER_SECOND, THIRD)
    yield lines(frame, query(ONE.top("consumer, reason", "shortproc_records_dropped_total"), "{{consumer}}: {{reason}}"))
    frame = Frame("Record latency", "Time from the exit of a short process to its record in the exporter.", SECONDS, THIRD)
    latency = ONE.rate("shortproc_detection_latency_seconds_bucket")
    quantiles = (query(quantile(share, latency), f"{share * 100:g} %") for share in (0.5, 0.99))
    yield lines(frame, *quantiles).scale_distribution(looks.logarithmic())


def _exporter() -> Iterable[Panel]:
    frame = Frame("CPU of the exporter", "CPU cores used by the exporter.", CORES, QUARTER)
    yield lines(frame, _rate("process_cpu_seconds_total", "CPU"))
    frame = Frame("Memory of the exporter", "Resident memory of the exporter.", BYTES, QUARTER)
    yield lines(frame, _gauge("process_resident_memory_bytes", "resident"))
    frame = Frame("Scrape duration", "Duration of a scrape seen by Prometheus, and the part spent in the exporter.", SECONDS, QUARTER)
    scan = _gauge("shortproc_scan_duration_seconds", "pass over /proc")
    yield lines(frame, _gauge("scrape_duration_seconds", "scrape"), _gauge("shortproc_collect_duration_seconds", "collecting"), scan)
    frame = Frame(
        "Series and open files", "Command names with their own series, and open file descriptors of the exporter.", COUNT, QUARTER
    )
    yield lines(frame, _gauge("shortproc_tracked_comms", "command names"), _gauge("process_open_fds", "open files"))

    frame = Frame("Handlers and sinks", "Records by result, for each handler and sink; empty if none is configured.", PER_SECOND)
    handled = {"stored or handled": "records", "errors": "errors", "timeouts": "timeouts", "lost": "lost_records"}
    yield lines(frame, *(_by_handler(f"shortproc_handler_{metric}_total", legend) for legend, metric in handled.items()))
    frame = Frame("Configuration", "Whether the last reload of the configuration was accepted or rejected.", NONE)
    loaded = _gauge("shortproc_exporter_config_last_reload_successful", "configuration")
    yield looks.timeline(frame, loaded).mappings([looks.states(("rejected", looks.BAD), ("accepted", looks.GOOD))])


def _rate(metric: str, legend: str) -> Query:
    return query(f"sum({ONE.rate(metric)})", legend)


def _gauge(metric: str, legend: str) -> Query:
    return query(f"max({ONE.of(metric)})", legend)


def _by_handler(metric: str, legend: str) -> Query:
    return query(f"sum by (handler) ({ONE.rate(metric)})", f"{{{{handler}}}}: {legend}")
