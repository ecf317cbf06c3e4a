"""The overview of all hosts."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models import dashboard as model

from grafana import first, looks, pages
from grafana.looks import CORES, COUNT, NONE, PER_SECOND, SECONDS, SHARE, Column, Frame, Panel, lines, now, query, rows, tiles
from grafana.queries import BY_HOST, HOST, SHORT, SHORT_CPU, TOP, Scope

HOSTS = Scope('job=~"$job", instance=~"$instance"')
NAMED = 'comm=~"$comm"'
PEAK, LOST = "shortproc_ended_short_processes_peak_per_second", "shortproc_detection_lost_total"
RATIO, MODE, DEGRADED = "shortproc_detection_capture_ratio", "shortproc_detection_mode", "shortproc_detection_degraded"


def page() -> model.Dashboard:
    """The page."""
    about = "Short-lived processes on all hosts, and how complete this data is."
    sections = {
        "": (*first.row(HOSTS, ", on the host where it is highest"), *_verdicts()),
        "All hosts together": _totals(),
        "Hosts": [_hosts()],
        "Short processes": _short(),
        "Who is responsible": _who(),
        "Command names": _names(),
        "Detection": _detection(),
    }
    return pages.page(pages.FLEET, "Short processes: all hosts", about, HOSTS, sections)


def _verdicts() -> Iterable[Panel]:
    frame = Frame(
        "Hosts by completeness",
        "Number of hosts by completeness of their data; the figures of partial hosts are too low.",
        COUNT,
        (14, 4),
        "shortproccaptureratiolow",
    )
    counted = [now(f"count({verdict.expr}) or vector(0)", verdict.name) for verdict in HOSTS.verdicts()]
    down = now(f"count({HOSTS.of('up')} == 0) or vector(0)", "not scraped")
    panel = looks.banner(frame, *counted, down).color_scheme(looks.by_threshold())
    for name, colour in looks.VERDICTS.items():
        panel.override_by_name(name, [model.DynamicConfigValue("thresholds", looks.steps(looks.MUTED, (0.5, colour)).build())])
    yield panel

    frame = Frame("Hosts by mode", "Number of hosts by detection mode.", COUNT, (10, 4), "shortprocmodedegraded")
    modes = tiles(frame, now(f"sum by (mode) ({HOSTS.of(MODE)})", "{{mode}}"))
    for mode, colour in looks.COLOURS.items():
        modes.override_by_name(mode, [looks.fixed(colour)])
    yield modes


def _totals() -> Iterable[Panel]:
    size = (4, 4)
    frame = Frame("Short processes", "Short processes that exit per second.", PER_SECOND, size)
    yield tiles(frame, query(f"sum({HOSTS.rate(SHORT)})"), spark=True)
    frame = Frame("Busiest second", "Maximum number of short processes that exited on one host in one second.", PER_SECOND, size)
    yield tiles(frame, now(f"max(max_over_time({HOSTS.of(PEAK)}[$__range]))"))
    frame = Frame("CPU of short processes", "CPU cores used by short processes.", CORES, size)
    yield tiles(frame, query(f"sum({HOSTS.rate(SHORT_CPU)})"), spark=True)
    frame = Frame("Share of CPU", "CPU time of short processes as a fraction of that of all exited processes.", SHARE, size)
    yield tiles(frame, query(HOSTS.short_cpu_share()), spark=True)
    frame = Frame(
        "Lowest capture ratio",
        "Lowest fraction of the kernel's clones that a host observed within a minute.",
        SHARE,
        size,
        "shortproccaptureratiolow",
    )
    lowest = tiles(frame, now(f"min(min_over_time({HOSTS.of(RATIO)}[$__range]))"))
    yield lowest.thresholds(looks.SEEN_STEPS).color_scheme(looks.by_threshold())
    yield looks.lost_tile(HOSTS.grown(LOST, looks.COUNTED), size)


def _hosts() -> Panel:
    columns = [
        Column("Short per second", f"sum {BY_HOST} (rate({HOSTS.of(SHORT)}[$__range]))", PER_SECOND),
        Column("Busiest second", f"max {BY_HOST} (max_over_time({HOSTS.of(PEAK)}[$__range]))", PER_SECOND),
        Column("CPU of short", f"sum {BY_HOST} (rate({HOSTS.of(SHORT_CPU)}[$__range]))", CORES),
        Column("Scraped", f"max {BY_HOST} ({HOSTS.of('up')})", NONE, looks.coloured(mapping=looks.SCRAPED_STATES)),
        Column("Mode", HOSTS.mode(), NONE, looks.coloured(mapping=looks.MODE_STATES)),
        Column("Degraded", f"max {BY_HOST} ({HOSTS.of(DEGRADED)})", NONE, looks.coloured(mapping=looks.DEGRADED_STATES)),
        Column("Seen", HOSTS.seen(), SHARE, looks.coloured(thresholds=looks.SEEN_STEPS)),
        Column("Lost", f"sum {BY_HOST} ({HOSTS.grown(LOST, looks.COUNTED)})", COUNT, looks.coloured(thresholds=looks.LOST_STEPS)),
    ]
    frame = Frame("Hosts", "All hosts; click a name for the page of that host.", COUNT, (24, 10))
    return rows(frame, {"instance": "Host", "job": "Job"}, columns).override_by_name("Host", [pages.host_link("__value.raw")])


def _short() -> Iterable[Panel]:
    frame = Frame("Short processes", "Hosts with the highest rates of short processes.", PER_SECOND, runbook="shortprocburst")
    yield _by_host(frame, HOSTS.top(HOST, SHORT))
    frame = Frame(
        "Bursts",
        "Short processes in the busiest second of each minute, on the hosts with the highest peaks.",
        PER_SECOND,
        runbook="shortprocburst",
    )
    yield _by_host(frame, HOSTS.highest(PEAK))
    frame = Frame("CPU of short processes", "Hosts where short processes use the most CPU cores.", CORES, runbook="shortproccpuhigh")
    yield _by_host(frame, HOSTS.top(HOST, SHORT_CPU))
    frame = Frame("Share of CPU", "CPU time of short processes as a fraction of that of all exited processes, by host.", SHARE)
    yield _by_host(frame, f"topk({TOP}, {HOSTS.short_cpu_share(BY_HOST)})").max(1)


def _who() -> Iterable[Panel]:
    size = (8, 8)
    frame = Frame(
        "Short processes by owner",
        "Systemd units, containers and pods with the highest rates of short processes, on all hosts together.",
        PER_SECOND,
        size,
        "shortprocownerburst",
    )
    yield lines(frame, query(HOSTS.top_owners("shortproc_owner_short_exits_total"), "{{owner}}"))
    frame = Frame(
        "Failures by owner",
        "Systemd units, containers and pods whose processes exit most often with an error or a signal.",
        PER_SECOND,
        size,
        "shortprocownerfailing",
    )
    yield lines(frame, query(HOSTS.top_owners("shortproc_owner_failed_exits_total"), "{{owner}}"))
    frame = Frame("CPU by owner", "Systemd units, containers and pods whose short processes use the most CPU cores.", CORES, size)
    yield lines(frame, query(HOSTS.top_owners("shortproc_owner_short_cpu_seconds_total"), "{{owner}}"))


def _names() -> Iterable[Panel]:
    size = (6, 8)
    frame = Frame("Short processes by name", "Command names with the highest rates of short processes.", PER_SECOND, size)
    yield lines(frame, query(HOSTS.top("comm", "shortproc_comm_short_exits_total", NAMED), "{{comm}}"))
    frame = Frame("CPU by name", "Command names whose short processes use the most CPU cores.", CORES, size)
    yield lines(frame, query(HOSTS.top("comm", "shortproc_comm_short_cpu_seconds_total", NAMED), "{{comm}}"))
    frame = Frame(
        "Failures by name", "Command names that exit most often with an error or a signal.", PER_SECOND, size, "shortproccrashloop"
    )
    yield lines(frame, query(HOSTS.top("comm", "shortproc_comm_exits_total", NAMED, 'outcome=~"error|signal"'), "{{comm}}"))
    about = f"Quantile of 90 % of the runtime, for the names with the most short processes, {looks.NEEDS_HISTOGRAMS}."
    panel = lines(Frame("Runtimes by name", about, SECONDS, size), query(HOSTS.top_lifetimes(0.9, NAMED), "{{comm}}"))
    yield panel.scale_distribution(looks.logarithmic())


def _detection() -> Iterable[Panel]:
    size = (8, 8)
    frame = Frame(
        "Capture ratio",
        "Hosts that observe the smallest fraction of the clones counted by their kernel.",
        SHARE,
        size,
        "shortproccaptureratiolow",
    )
    yield _by_host(frame, HOSTS.lowest(RATIO)).max(1)
    frame = Frame("Lost events", "Hosts with the most lost events, by reason.", PER_SECOND, size, "shortproceventslost")
    yield lines(frame, query(HOSTS.top("instance, reason", LOST), "{{instance}}: {{reason}}"))
    frame = Frame("Hosts by mode over time", "Number of hosts by active mode.", COUNT, size, "shortprocmodedegraded")
    yield lines(frame, query(f"sum by (mode) ({HOSTS.of(MODE)})", "{{mode}}"), colours=looks.COLOURS, stacked=True)


def _by_host(frame: Frame, expr: str) -> timeseries.Panel:
    return lines(frame, query(expr, "{{instance}}")).override_by_regexp(".*", [pages.host_link("__field.labels.instance")])
