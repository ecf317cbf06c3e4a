"""The page at `/`: one file, with its style and script inline.

It is complete without the script. For clients that may see names, the script updates it from the stream: a status event contains
`changes`, made from the same parts as the page.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from exporter.records.fields import Json
from exporter.records.record import Record
from exporter.web import recent as recent_records
from exporter.web.parts import Histogram, Table, escape, percent

_STATIC = Path(__file__).parent / "static"
_STYLE = (_STATIC / "page.css").read_text(encoding="utf-8")
_SCRIPT = "".join((_STATIC / name).read_text(encoding="utf-8") for name in ("page.js", "flame.js"))


@cache
def content_security_policy() -> str:
    """Return the value of the header: only the style and the script of this page."""
    import hashlib  # noqa: PLC0415 - brings libcrypto, and most exporters are only scraped

    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (_STYLE, _SCRIPT))
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


_NAMES_HIDDEN = """<h2>By command name</h2>
<p class="state note">Command names are shown only to local and authenticated clients, because they reveal what runs on this host.
Open this page on the host (<code>http://localhost</code>, or through <code>ssh -L</code>), log in if passwords are configured, or set
<code>web.public_records: true</code> in the configuration to show them to all clients.</p>"""


@dataclass(frozen=True, slots=True)
class PageStatus:
    version: str
    revision: str
    mode: str | None
    why: str
    """Why this mode is active, in one sentence."""
    modes: tuple[tuple[str, str, str], ...]
    """Mode, state and reason, best first."""
    capture_ratio: float | None
    threshold_seconds: float
    started: float
    """Unix time."""
    ended_processes: int
    short_processes: int
    rates: tuple[float | None, float | None, float | None]
    """Short processes per second: in the last 5 seconds, 1 minute and 5 minutes."""
    peak_per_second: int | None
    bounds_seconds: tuple[float, ...]
    buckets: tuple[int, ...]
    """Exited processes by runtime."""
    rankings: tuple[Table, ...]
    lost: tuple[tuple[str, int], ...]
    degraded: bool = False
    """Whether the active mode is not the preferred one."""


def render(status: PageStatus, telemetry_path: str, recent: Sequence[Record] | None) -> str:
    """Return the page. `recent` are the newest records, newest first; if None, the page contains no names of processes."""
    middle = _NAMES_HIDDEN if recent is None else "".join(table.section() for table in (recent_records.table(recent), *status.rankings))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>shortproc-exporter</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>shortproc-exporter</h1>
<p class="soft">Processes that live too briefly for <code>top</code>, <code>ps</code> and scans of <code>/proc</code>.</p>
</header>
<main>
{_state(status)}
{_numbers(status)}
<p><a href="{escape(telemetry_path)}">Metrics</a> for Prometheus are at <code>{escape(telemetry_path)}</code>.</p>
{_histogram(status).section()}
{middle}
{"".join(table.section() for table in _about_itself(status))}
</main>
<footer>Version {escape(status.version)}, revision {escape(status.revision)}, started {_moment(status.started)}.
<a href="/-/healthy">Health</a> <a href="/-/ready">Readiness</a></footer>
{"" if recent is None else f"<script>{_SCRIPT}</script>"}
</body>
</html>
"""


def changes(status: PageStatus) -> Json:
    """Return everything on the page that can change, by the ID of its element."""
    return {
        "texts": _texts(status),
        "poor": _is_poor(status),
        "tables": {table.key: table.live() for table in (*status.rankings, *_about_itself(status))},
        "histogram": _histogram(status).live(),
    }


def _state(status: PageStatus) -> str:
    texts = {key: escape(text) for key, text in _texts(status).items()}
    return f"""<div id="state" class="state{" poor" * _is_poor(status)}" role="status">
<p><strong id="mode">{texts["mode"]}</strong> <span id="why">{texts["why"]}</span></p>
<p id="completeness">{texts["completeness"]}</p></div>"""


def _is_poor(status: PageStatus) -> bool:
    return status.mode is None or status.degraded or (status.capture_ratio is not None and status.capture_ratio < 1)


def _completeness(status: PageStatus) -> str:
    ratio = status.capture_ratio
    if status.mode is None:
        return ""
    if ratio is None:
        return "Completeness is unknown: the kernel's count of new processes and threads is not available, or is that of another host."
    if ratio >= 1:
        return "Complete: every new process and thread that the kernel counted in the last 60 s was observed."
    seen = math.floor(ratio * 1000) / 10  # rounded down: never 100 % if incomplete
    return f"Incomplete: {seen:.1f} % of the new processes and threads of the last 60 s were observed. All counts are too low."


def _texts(status: PageStatus) -> dict[str, str]:
    ended, short, peak = status.ended_processes, status.short_processes, status.peak_per_second
    now, minute, minutes = map(_rate, status.rates)
    return {
        "mode": f"Mode {status.mode}{', degraded' * status.degraded}." if status.mode else "No mode is active.",
        "why": status.why,
        "completeness": _completeness(status),
        "rate-now": now,
        "rate-minute": minute,
        "rate-minutes": minutes,
        "peak": "?" if peak is None else f"{peak:,} /s",
        "peak-note": "unknown in this mode" if peak is None else "in the busiest second of the last minute",
        "short": f"{short:,}",
        "share": f"{percent(short, ended)} of all exits" if ended else "no exits yet",
        "ended": f"{ended:,}",
    }


def _numbers(status: PageStatus) -> str:
    texts = {key: f'<span id="{key}">{escape(text)}</span>' for key, text in _texts(status).items()}
    cells = [
        ("Short processes now", texts["rate-now"], "in the last 5 s"),
        ("In the last minute", texts["rate-minute"], f"in the last 5 min: {texts['rate-minutes']}"),
        ("Peak", texts["peak"], texts["peak-note"]),
        ("Short processes", texts["short"], texts["share"]),
        ("Exited processes", texts["ended"], "since the exporter started"),
        ("Threshold", f"&lt; {status.threshold_seconds:g} s", "runtime of short processes"),
    ]
    spelt = (
        f'<div class="card"><dt>{name}</dt><dd class="big">{value}</dd><dd class="soft">{note}</dd></div>' for name, value, note in cells
    )
    return f"<dl>{''.join(spelt)}</dl>"


def _histogram(status: PageStatus) -> Histogram:
    return Histogram(status.bounds_seconds, status.buckets, status.threshold_seconds)


def _about_itself(status: PageStatus) -> tuple[Table, ...]:
    active = next((number for number, (mode, _, _) in enumerate(status.modes) if mode == status.mode), None)
    lost = [(reason, f"{count:,}") for reason, count in status.lost if count]
    return (
        Table("modes", "Modes", "Best first.", ("@Mode", "State", "Reason"), status.modes, marked=active),
        Table("lost", "Lost events", "By reason, since the exporter started.", ("@Reason", "#Count"), lost),
    )


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return "?"
    return f"{per_second:,.0f} /s" if per_second >= 100 else f"{per_second:.1f} /s"


def _moment(unix_seconds: float) -> str:
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
