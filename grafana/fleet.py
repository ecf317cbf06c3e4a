"""The overview of all hosts."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models import dashboard as model

from grafana import looks, pages
from grafana.looks import CORES, COUNT, NONE, PER_SECOND, SHARE, Column, Frame, Panel, lines, now, query, rows, tiles
from grafana.queries import BY_HOST, HOST, TOP, Scope

HOSTS = Scope('job=~"$job", instance=~"$instance"')
NAMED = 'comm=~"$comm"'
SHORT, SHORT_CPU = "shortproc_ended_short_processes_total", "shortproc_ended_short_processes_cpu_seconds_total"
PEAK, LOST = "shortproc_ended_short_processes_peak_per_second", "shortproc_detection_lost_total"
RATIO, MODE, DEGRADED = "shortproc_detection_capture_ratio", "shortproc_detection_mode", "shortproc_detection_degraded"


def page() -> model.Dashboard:
    """The page."""
    about = "Short-lived processes on all hosts, and how complete what is known of them is."
    sections = {
        "": _verdicts(),
        "All hosts together": _totals(),
        "Hosts": [_hosts()],
        "Short processes": _short(),
        "Names": _names(),
        "Detection": _detection(),
    }
    return pages.page(pages.FLEET, "Short processes: all hosts", about, HOSTS, sections)


def _verdicts() -> Iterable[Panel]:
    frame = Frame(
        "Hosts by how complete their data is",
        "How many hosts see everything; the figures of the partial ones are too low.",
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

    frame = Frame("Hosts by mode", "How many hosts see processes in which way.", COUNT, (10, 4), "shortprocmodedegraded")
    modes = tiles(frame, now(f"sum by (mode) ({HOSTS.of(MODE)})", "{{mode}}"))
    for mode, colour in looks.COLOURS.items():
        modes.override_by_name(mode, [looks.fixed(colour)])
    yield modes


def _totals() -> Iterable[Panel]:
    size = (4, 4)
    frame = Frame("Short processes", "Short processes that end each second.", PER_SECOND, size)
    yield tiles(frame, query(f"sum({HOSTS.rate(SHORT)})"), spark=True)
    frame = Frame("Busiest second", "Most short processes that ended on one host in one second of the time shown.", COUNT, size)
    yield tiles(frame, now(f"max(max_over_time({HOSTS.of(PEAK)}[$__range]))"))
    frame = Frame("CPU of short processes", "CPU cores that short processes keep busy.", CORES, size)
    yield tiles(frame, query(f"sum({HOSTS.rate(SHORT_CPU)})"), spark=True)
    frame = Frame("Share of CPU", "Of the CPU that all ended processes burned, the share of the short ones.", SHARE, size)
    yield tiles(frame, query(HOSTS.short_cpu_share()), spark=True)
    frame = Frame(
        "Lowest capture ratio", "The least that any host saw within a minute of the time shown.", SHARE, size, "shortproccaptureratiolow"
    )
    lowest = tiles(frame, now(f"min(min_over_time({HOSTS.of(RATIO)}[$__range]))"))
    yield lowest.thresholds(looks.SEEN_STEPS).color_scheme(looks.by_threshold())
    yield looks.lost_tile(HOSTS.grown(LOST), size)


def _hosts() -> Panel:
    columns = [
        Column("Short", f"sum {BY_HOST} (rate({HOSTS.of(SHORT)}[$__range]))", PER_SECOND),
        Column("Busiest second", f"max {BY_HOST} (max_over_time({HOSTS.of(PEAK)}[$__range]))", COUNT),
        Column("CPU of short", f"sum {BY_HOST} (rate({HOSTS.of(SHORT_CPU)}[$__range]))", CORES),
        Column("Mode", HOSTS.mode(), NONE, looks.coloured(mapping=looks.MODE_STATES)),
        Column("Better one wanted", f"max {BY_HOST} ({HOSTS.of(DEGRADED)})", NONE, looks.coloured(mapping=looks.DEGRADED_STATES)),
        Column("Seen", HOSTS.seen(), SHARE, looks.coloured(thresholds=looks.SEEN_STEPS)),
        Column("Lost", f"sum {BY_HOST} ({HOSTS.grown(LOST)})", COUNT, looks.coloured(thresholds=looks.LOST_STEPS)),
    ]
    frame = Frame("Hosts", "Each host in the time shown; its name leads to its page.", COUNT, (24, 10))
    return rows(frame, {"instance": "Host", "job": "Job"}, columns).override_by_name("Host", [pages.host_link("__value.raw")])


def _short() -> Iterable[Panel]:
    frame = Frame("Short processes", "The hosts where most short processes end.", PER_SECOND, runbook="shortprocburst")
    yield _by_host(frame, HOSTS.top(HOST, SHORT))
    frame = Frame(
        "Bursts", "Short processes in the busiest second of each minute, on the hosts with most.", COUNT, runbook="shortprocburst"
    )
    yield _by_host(frame, HOSTS.highest(PEAK))
    frame = Frame("CPU of short processes", "The hosts where short processes keep most CPU cores busy.", CORES, runbook="shortproccpuhigh")
    yield _by_host(frame, HOSTS.top(HOST, SHORT_CPU))
    frame = Frame("Share of CPU", "Of the CPU that all ended processes of a host burned, the share of the short ones.", SHARE)
    yield _by_host(frame, f"topk({TOP}, {HOSTS.short_cpu_share(BY_HOST)})").max(1)


def _names() -> Iterable[Panel]:
    size = (8, 8)
    frame = Frame("Short processes by name", "The names of which most short processes end.", PER_SECOND, size)
    yield lines(frame, query(HOSTS.top("comm", "shortproc_comm_short_exits_total", NAMED), "{{comm}}"))
    frame = Frame("CPU by name", "The names whose short processes burn most CPU.", CORES, size)
    yield lines(frame, query(HOSTS.top("comm", "shortproc_comm_short_cpu_seconds_total", NAMED), "{{comm}}"))
    frame = Frame("Failures by name", "The names that end most with an error or by a signal.", PER_SECOND, size, "shortproccrashloop")
    yield lines(frame, query(HOSTS.top("comm", "shortproc_comm_exits_total", NAMED, 'outcome=~"error|signal"'), "{{comm}}"))


def _detection() -> Iterable[Panel]:
    size = (8, 8)
    frame = Frame("Capture ratio", "The hosts that see the least of what their kernel counts.", SHARE, size, "shortproccaptureratiolow")
    yield _by_host(frame, HOSTS.lowest(RATIO)).max(1)
    frame = Frame("Lost events", "The hosts that lose most, and why.", PER_SECOND, size, "shortproceventslost")
    yield lines(frame, query(HOSTS.top("instance, reason", LOST), "{{instance}}: {{reason}}"))
    frame = Frame("Hosts by mode over time", "How many hosts each mode is active on.", COUNT, size, "shortprocmodedegraded")
    yield lines(frame, query(f"sum by (mode) ({HOSTS.of(MODE)})", "{{mode}}"), colours=looks.COLOURS, stacked=True)


def _by_host(frame: Frame, expr: str) -> timeseries.Panel:
    return lines(frame, query(expr, "{{instance}}")).override_by_regexp(".*", [pages.host_link("__field.labels.instance")])
