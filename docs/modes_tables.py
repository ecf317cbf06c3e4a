"""The tables of modes: what each is, from its declaration, and what it was measured to see and cost, from bench/results/modes.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench import results
from docs.marks import code, measured_on, table
from exporter.model.facts import Fact
from exporter.supervision.modes import MODES, ModeSpec

Column = dict[str, Any]
"""A `bench.modes.Measured`."""


def blocks() -> dict[str, str]:
    """Return the blocks of docs/modes.md."""
    result = results.read("modes")
    return {
        "modes": table(("mode", "needs", "sees"), ((code(spec.mode), spec.needs, spec.sees) for spec in MODES)),
        "facts": table(("", *(code(spec.mode) for spec in MODES)), facts(MODES)),
        "measured": table(("", *map(_title, result["modes"])), _measured(result)) + f"\n{measured_on(result, 'modes')}\n",
    }


def readme() -> dict[str, str]:
    """Return the blocks of README.md."""
    result = results.read("modes")
    columns: dict[str, Column] = {}
    for column in result["modes"]:
        columns.setdefault(column["mode"], column)  # the first of a mode is the one with privileges

    def measured(spec: ModeSpec) -> Sequence[str]:
        column = columns.get(spec.mode)
        if column is None:
            return ("not measured", "", "")
        seen, idle = _percent(column["storm_seen_percent"]), _percent(column["idle_cpu_percent"], 2)
        return seen, idle, _quantity(column["storm_cpu_us"], "us")

    best, unprivileged = MODES[0], next(spec for spec in MODES if not spec.loader)
    seen = (
        ("`ps` once a second", "nothing", f"at most {result['ps']['seen_at_most']}"),
        *((f"this exporter, mode {code(spec.mode)}", spec.needs, measured(spec)[0]) for spec in (unprivileged, best)),
    )
    storm = f"{result['storm']:,}"
    rows = ((code(spec.mode), spec.needs, spec.sees, *measured(spec)) for spec in MODES)
    return {
        "seen": table(("", "needs", f"seen of {storm} processes"), seen) + f"\n{measured_on(result, 'modes')}\n",
        "modes": table(("mode", "needs", "sees", f"of {storm} at full speed", "CPU, idle", "CPU per process"), rows),
    }


def settings() -> dict[str, str]:
    """Return the block of deploy/prometheus/rules/settings.yml."""
    return {"capture_ratio": "".join(_LIMIT.format(spec=spec) for spec in MODES)}


_LIMIT = """\
      - record: shortproc:setting:capture_ratio
        labels: {{mode: {spec.mode}}}
        expr: vector({spec.capture_ratio:g})
"""


def facts(specs: Sequence[ModeSpec]) -> Iterator[Sequence[str]]:
    """Yield for each fact how well each mode tells it."""
    for fact in Fact:
        yield fact.value, *(spec.fills.get(fact, "no") for spec in specs)


def _title(column: Column) -> str:
    return code(column["mode"]) + ("" if column["privileged"] or not _takes_privileges(column) else ", not root")


def _takes_privileges(column: Column) -> bool:
    return any(spec.loader for spec in MODES if spec.mode == column["mode"])


def _measured(result: dict[str, Any]) -> Iterator[Sequence[str]]:
    columns: list[Column] = result["modes"]
    rate, storm = f"{result['rate']} per second", f"{result['storm']:,} fork+exec at full speed"

    def percent(title: str, name: str, digits: int = 1) -> Sequence[str]:
        return title, *(_percent(column[name], digits) for column in columns)

    def quantity(title: str, name: str, unit: str) -> Sequence[str]:
        return title, *(_quantity(column[name], unit) for column in columns)

    for what, name in (("fork+exec", "seen_percent"), ("fork", "forked_seen_percent")):
        for life in columns[0][name]:
            yield f"seen, runtime {life} ms, {rate}, {what}", *(_percent(column[name][life]) for column in columns)
    yield percent(f"seen, {storm}", "storm_seen_percent")
    yield percent("capture ratio published of them", "storm_ratio_percent")
    for quantile in ("p50", "p99"):
        yield f"time from exit to count, {quantile}", *(_quantity(column["latency_ms"].get(quantile), "ms") for column in columns)
    yield percent("CPU, idle", "idle_cpu_percent", 2)
    yield percent(f"CPU at {rate}", "busy_cpu_percent", 2)
    yield percent(f"CPU at {result['paced_rate']:,} per second", "paced_cpu_percent", 2)
    yield quantity("CPU per process at full speed", "storm_cpu_us", "us")
    yield quantity("resident memory after that", "memory_mib", "MiB")
    yield quantity("resident memory of the process that keeps the privileges", "broker_memory_mib", "MiB")
    yield quantity("kernel memory of BPF maps", "maps_mib", "MiB")
    yield quantity("time until ready", "ready_seconds", "s")


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f} %"


def _quantity(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.{2 if unit == 's' else 1}f} {unit}"
