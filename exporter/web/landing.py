"""The page at `/`: what a person sees who opens the exporter in a browser. One file, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1b1f24; --soft: #57606a; --line: #d8dee4; --accent: #0a6c74;
  --good: #1a7f37; --bad: #b35900; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1317; --card: #181d23; --text: #e6edf3; --soft: #9aa4ae; --line: #30363d;
  --accent: #4cc2cb; --good: #56d364; --bad: #f0a04b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main, header, footer { max-width: 60rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2rem; }
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.1rem; }
p { margin: .3rem 0; }
a { color: var(--accent); }
.soft, footer, caption, th, dt { color: var(--soft); }
.state { margin: 1.2rem 0; padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  border-left: .4rem solid var(--good); }
.state.poor { border-left-color: var(--bad); }
.state.note { border-left-color: var(--accent); }
dl + p { margin-top: 1rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 0; }
dl > div, .wide { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
dl > div { padding: .7rem 1rem; }
dt { font-size: .85rem; }
dd { margin: 0; }
dd.big { font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
caption { padding: .6rem 1rem; text-align: left; font-size: .9rem; }
th, td { padding: .4rem 1rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { font-size: .85rem; font-weight: 600; white-space: nowrap; }
tbody th { color: inherit; font-weight: inherit; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.name { font-family: ui-monospace, monospace; white-space: pre; }
.bar { display: block; width: 100%; max-width: 16rem; height: .3rem; margin-top: .2rem; fill: var(--accent); }
.on { color: var(--good); font-weight: 600; }
footer { padding: 2rem 1rem; font-size: .9rem; }
@media (max-width: 36rem) { th, td { padding: .4rem .5rem; } }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_NAMES_HIDDEN = """<p class="state note">Names of processes are shown only to this host itself, because they may tell what runs
here. Open this page on the host (<code>http://localhost</code>, or through <code>ssh -L</code>), or set
<code>web.public_records: true</code> in the configuration to show them to everyone who can reach it.</p>"""


@dataclass(frozen=True, slots=True)
class Row:
    comm: str
    short_exits: int
    exits: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    version: str
    revision: str
    mode: str | None
    why: str
    """Why this mode, in one sentence."""
    rungs: tuple[tuple[str, str, str], ...]
    """Mode, state and reason, in ladder order."""
    capture_ratio: float | None
    threshold_seconds: float
    uptime_seconds: float
    ended_processes: int
    short_processes: int
    peak_per_second: int | None
    top_comms: tuple[Row, ...]
    folded: tuple[tuple[str, int], ...]
    """The busiest comms of those that count under `other`, with their exits."""
    lost: tuple[tuple[str, int], ...]
    degraded: bool = False
    """A better mode than this one was wanted."""


def render(status: Status, telemetry_path: str, names: bool) -> str:
    """Compose the page; without `names`, nothing in it comes from a process."""
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
<p class="soft">Processes that live too briefly for <code>top</code>, <code>ps</code> and a scan of <code>/proc</code> to see.</p>
</header>
<main>
{_state(status)}
{_numbers(status)}
<p><a href="{escape(telemetry_path)}">Metrics</a> for Prometheus are at <code>{escape(telemetry_path)}</code>.</p>
{_names(status) if names else f"<h2>By name</h2>{_NAMES_HIDDEN}"}
{_modes(status)}
{_lost(status)}
</main>
<footer>Version {escape(status.version)}, revision {escape(status.revision)}, up {_duration(status.uptime_seconds)}.
<a href="/-/healthy">Healthy?</a> <a href="/-/ready">Ready?</a></footer>
</body>
</html>
"""


def _state(status: Status) -> str:
    if status.mode is None:
        return f'<div class="state poor" role="status"><p><strong>No mode is active.</strong> {escape(status.why)}</p></div>'
    ratio = status.capture_ratio
    poor = status.degraded or (ratio is not None and ratio < 1)
    mode = f"<strong>Mode {escape(status.mode)}{', degraded' if status.degraded else ''}.</strong> {escape(status.why)}"
    return f'<div class="state{" poor" * poor}" role="status"><p>{mode}</p><p>{_completeness(ratio)}</p></div>'


def _completeness(ratio: float | None) -> str:
    if ratio is None:
        return (
            "How complete it is can't be told here: the kernel's own count of new processes and threads is missing or is of another host."
        )
    if ratio >= 1:
        return "Nothing was missed in the last 60 s: it saw each new process and thread that the kernel counted."
    seen = math.floor(ratio * 1000) / 10  # never rounded up to 100
    return (
        f"<strong>It missed some:</strong> of the new processes and threads of the last 60 s it saw {seen:.1f} %. All counts are too low."
    )


def _numbers(status: Status) -> str:
    share = (
        f"{100 * status.short_processes / status.ended_processes:.1f} % of all that ended" if status.ended_processes else "none ended yet"
    )
    peak = "unknown in this mode" if status.peak_per_second is None else "short ones in the busiest second of the last minute"
    cells = [
        ("Short processes", _count(status.short_processes), share),
        ("Ended processes", _count(status.ended_processes), "since the exporter started"),
        ("Peak", "?" if status.peak_per_second is None else f"{_count(status.peak_per_second)} /s", peak),
        ("Short means", f"&lt; {status.threshold_seconds:g} s", "from fork to end"),
    ]
    return f"<dl>{''.join(map(_cell, cells))}</dl>"


def _cell(cell: tuple[str, str, str]) -> str:
    name, value, note = cell
    return f'<div><dt>{name}</dt><dd class="big">{value}</dd><dd class="soft">{note}</dd></div>'


def _names(status: Status) -> str:
    most = max((row.short_exits for row in status.top_comms), default=0)
    rows = [
        (_name(row.comm) + _bar(row.short_exits, most), _count(row.short_exits), _count(row.exits), _seconds(row.cpu_seconds))
        for row in status.top_comms
    ]
    top = _table(
        "Who lives briefly", "Most short ones first, since the exporter started.", ("Name", "#Short", "#Ended", "#CPU seconds"), rows
    )
    if not status.folded:
        return top
    rows_of_folded = [(_name(comm), _count(exits)) for comm, exits in status.folded]
    about = "Names without series of their own (<code>metrics.max_comms</code>); they count as <code>other</code>."
    return top + _table("Folded into other", about, ("Name", "#Ended"), rows_of_folded)


def _modes(status: Status) -> str:
    rows = []
    for mode, state, reason in status.rungs:
        shown = f'<span class="on">{escape(state)}</span>' if mode == status.mode else escape(state)
        rows.append((_name(mode), shown, escape(reason)))
    return _table("Modes", "Best first.", ("Mode", "State", "Reason"), rows)


def _lost(status: Status) -> str:
    rows = [(_name(reason), _count(count)) for reason, count in status.lost if count]
    return _table("What could not be seen or named", "By cause, since the exporter started.", ("Cause", "#Count"), rows)


def _table(title: str, caption: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Build a table of HTML cells. A column whose title starts with # holds numbers; the first cell of a row is its header."""
    classes = [' class="number"' if column.startswith("#") else "" for column in columns]
    head = "".join(f'<th scope="col"{css}>{column.lstrip("#")}</th>' for column, css in zip(columns, classes, strict=True))
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td{css}>{cell}</td>" for cell, css in zip(rest, classes[1:], strict=True))}</tr>\n'
        for first, *rest in rows
    )
    if not body:
        return f'<h2>{title}</h2><p class="soft">Nothing yet.</p>'
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
    return f'<h2>{title}</h2><div class="wide" tabindex="0" role="region" aria-label="{title}">{table}</div>'


def _bar(value: int, most: int) -> str:
    width = 100 * value / most if most else 0
    return f'<svg class="bar" aria-hidden="true"><rect width="{width:.1f}%" height="100%" rx="2"/></svg>'


def _name(text: str) -> str:
    return f'<bdi class="name">{escape(text)}</bdi>'


def _seconds(value: float) -> str:
    return "&lt; 0.001" if 0 < value < 0.001 else f"{value:,.3f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s"
