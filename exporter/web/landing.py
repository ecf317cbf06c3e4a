"""The page at `/`: one file, with its style and script inline.

It is complete without the script, which updates it: for clients that may see single records from the stream, whose status events contain
`changes`; for others by asking for these at `/api/v1/page`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from exporter.records.fields import Json
from exporter.records.record import Record
from exporter.supervision.completeness import Sample
from exporter.web import queries
from exporter.web import recent as recent_records
from exporter.web.charts import Histogram, TimelineCharts
from exporter.web.parts import Table, escape, panel, percent
from exporter.web.rankings import PERIODS, First, Panel

_STATIC = Path(__file__).parent / "static"
_STYLE = (_STATIC / "page.css").read_text(encoding="utf-8")
_SCRIPT = "".join((_STATIC / name).read_text(encoding="utf-8") for name in ("tables.js", "page.js", "flame.js"))

ICON_PATH = "/favicon.svg"
ICON = (_STATIC / "favicon.svg").read_bytes()


@cache
def content_security_policy() -> str:
    """Return the value of the header: only the style and the script of this page, and its own icon."""
    import hashlib  # noqa: PLC0415 - brings libcrypto, and most exporters are only scraped

    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (_STYLE, _SCRIPT))
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


_RECORDS_HIDDEN = panel(
    "Single processes",
    """<p>Single processes, and which process starts which, are shown only to local and authenticated clients.
Open this page on the host (<code>http://localhost</code>, or through <code>ssh -L</code>), log in if passwords are configured, or set
<code>web.public_records: true</code> in the configuration to show them to all clients.</p>""",
    css="all",
)


@dataclass(frozen=True, slots=True)
class PageStatus:
    version: str
    revision: str
    host: str
    mode: str | None
    why: str
    """Why this mode is active, in one sentence."""
    modes: tuple[tuple[str, str, str], ...]
    """Mode, state and reason, best first."""
    last_minute: Sample | None
    """Clones of the last 60 s; None if unknown."""
    capture_limit: float
    """Capture ratio below which an alert fires."""
    threshold_seconds: float
    started: float
    """Unix time."""
    ended_processes: int
    short_processes: int
    rates: tuple[float | None, float | None, float | None]
    """Short processes per second: in the last 5 seconds, 1 minute and 5 minutes."""
    peak_per_second: int | None
    timeline: TimelineCharts
    bounds_seconds: tuple[float, ...]
    buckets: tuple[int, ...]
    """Exited processes by runtime."""
    rankings: tuple[Panel, ...]
    lost: tuple[tuple[str, int], ...]
    """Events that were not counted, by reason."""
    incomplete: tuple[tuple[str, int, str], ...] = ()
    """Reason, number and missing detail of events that were counted."""
    lineage: Table | None = None
    """None: the client may not see it."""
    degraded: bool = False
    """Whether the active mode is not the preferred one."""


def render(status: PageStatus, telemetry_path: str, recent: Sequence[Record] | None) -> str:
    """Return the page. `recent` are the newest records, newest first; if None, the client may not see records."""
    records = _RECORDS_HIDDEN if recent is None else _records(status, recent)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(status.host)} - shortproc-exporter</title>
<link rel="icon" href="{ICON_PATH[1:]}" type="image/svg+xml">
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escape(status.host)}</h1>
<p class="soft">Processes that live less than {status.threshold_seconds:g} s.</p>
<nav aria-label="Documents"><a href="{escape(telemetry_path)}">Metrics</a> <a href="{queries.METRICS_DOCUMENT}">About the metrics</a>
<a href="{queries.RUNBOOK}">Runbook</a> <a href="-/healthy">Health</a> <a href="-/ready">Readiness</a></nav>
</header>
<main>
{_state(status)}
<h2 class="plain">In the last minute</h2>
<dl>{"".join(_first_cards(status))}</dl>
<div class="panels">
{status.timeline.section(f"<dl>{''.join(_number_cards(status))}</dl>")}
<fieldset class="all controls" id="controls"><legend>Rankings</legend>{_periods()}</fieldset>
{"".join(each.section() for each in status.rankings)}
{records}
{_histogram(status).section()}
{"".join(_about_itself_panels(status))}
</div>
</main>
<footer>shortproc-exporter {escape(status.version)}, revision {escape(status.revision)}, started {_moment(status.started)}.</footer>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def changes(status: PageStatus) -> Json:
    """Return everything on the page that can change, by the ID of its element."""
    histogram = _histogram(status)
    lineage = () if status.lineage is None else (status.lineage,)
    rankings = (table for each in status.rankings for table in each.tables)
    tables = (*rankings, *lineage, *_about_itself(status), *status.timeline.tables(), histogram.numbers())
    return {
        "texts": _texts(status) | status.timeline.texts(),
        "poor": _is_poor(status),
        "tables": {table.key: table.live() for table in tables},
        "charts": {bars.key: bars.live() for bars in (*status.timeline.bars(), histogram.bars())},
    }


def _records(status: PageStatus, recent: Sequence[Record]) -> str:
    lineage = "" if status.lineage is None else status.lineage.section(css="all")
    return f"{recent_records.table(recent).section(css='all')}{lineage}"


def _periods() -> str:
    return "".join(
        f'<label><input type="radio" name="period" id="period-{period.key}"{"" if number else " checked"}> '
        f"{period.name[0].upper()}{period.name[1:]}</label>"
        for number, period in enumerate(PERIODS)
    )


def _state(status: PageStatus) -> str:
    texts = {key: escape(text) for key, text in _texts(status).items()}
    return f"""<div id="state" class="state{" poor" * _is_poor(status)}" role="status">
<p><strong id="mode">{texts["mode"]}</strong> <span id="why">{texts["why"]}</span></p>
<p id="completeness">{texts["completeness"]}</p></div>"""


def _is_poor(status: PageStatus) -> bool:
    return status.mode is None or status.degraded or (status.last_minute is not None and status.last_minute.ratio < status.capture_limit)


def _completeness(status: PageStatus) -> str:
    clones = status.last_minute
    if status.mode is None:
        return ""
    if clones is None:
        return "Completeness is unknown: the kernel's count of new processes and threads is not available, or is that of another host."
    missed = clones.kernel - clones.observed
    if not missed:
        return f"Complete: all {clones.kernel:,} new processes and threads that the kernel counted in the last 60 s were observed."
    share = percent(clones.observed, clones.kernel)
    low = " All counts are too low." if clones.ratio < status.capture_limit else ""
    return f"{missed:,} of {clones.kernel:,} new processes and threads of the last 60 s were missed ({share} observed).{low}"


def _texts(status: PageStatus) -> dict[str, str]:
    ended, short, peak = status.ended_processes, status.short_processes, status.peak_per_second
    now, minute, minutes = map(_rate, status.rates)
    firsts = {f"{first.key}{part}": text for first in _firsts(status) for part, text in (("", first.name), ("-note", first.note))}
    return firsts | {
        "mode": f"Mode {status.mode}{', degraded' * status.degraded}." if status.mode else "No mode is active.",
        "why": status.why,
        "completeness": _completeness(status),
        "rate-now": now,
        "rate-minute": minute,
        "rate-minutes": minutes,
        "peak": "?" if peak is None else f"{peak:,} /s",
        "peak-note": "unknown in this mode" if peak is None else "in a second of the last minute",
        "short": f"{short:,}",
        "share": f"{percent(short, ended)} of {ended:,} exits" if ended else "no exits yet",
    }


def _firsts(status: PageStatus) -> Iterator[First]:
    return filter(None, (each.first() for each in status.rankings))


def _first_cards(status: PageStatus) -> Iterator[str]:
    texts = _spans(status)
    return (_card(first.heading, texts[first.key], texts[f"{first.key}-note"], "name") for first in _firsts(status))


def _number_cards(status: PageStatus) -> Iterator[str]:
    texts = _spans(status)
    yield _card("Now", texts["rate-now"], "in the last 5 s")
    yield _card("Last minute", texts["rate-minute"], f"last 5 min: {texts['rate-minutes']}")
    yield _card("Peak", texts["peak"], texts["peak-note"])
    yield _card("Since the start", texts["short"], texts["share"])


def _spans(status: PageStatus) -> dict[str, str]:
    return {key: f'<span id="{key}">{escape(text)}</span>' for key, text in _texts(status).items()}


def _card(heading: str, value: str, note: str, css: str = "") -> str:
    return f'<div class="card"><dt>{heading}</dt><dd class="big {css}">{value}</dd><dd class="soft">{note}</dd></div>'


def _histogram(status: PageStatus) -> Histogram:
    return Histogram(status.bounds_seconds, status.buckets, status.threshold_seconds)


def _about_itself(status: PageStatus) -> tuple[Table, Table, Table]:
    active = next((number for number, (mode, _, _) in enumerate(status.modes) if mode == status.mode), None)
    lost = [(reason, f"{count:,}") for reason, count in status.lost]
    incomplete = [(reason, f"{count:,}", detail) for reason, count, detail in status.incomplete]
    since = "By reason, since the exporter started."
    return (
        Table("modes", "Modes", "Best first.", ("@Mode", "State", "Reason"), status.modes, marked=active),
        Table("lost", "Lost events", since, ("@Reason", "#Count"), lost),
        Table("incomplete", "Counted without a detail", since, ("@Reason", "#Count", "Missing"), incomplete),
    )


def _about_itself_panels(status: PageStatus) -> Iterator[str]:
    asked = (queries.MODES, queries.COMPLETENESS), (queries.LOSSES,), (queries.INCOMPLETE,)
    for table, each in zip(_about_itself(status), asked, strict=True):
        yield table.section(*(query.details() for query in each))


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return "?"
    return f"{per_second:,.0f} /s" if per_second >= 100 else f"{per_second:.1f} /s"


def _moment(unix_seconds: float) -> str:
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
